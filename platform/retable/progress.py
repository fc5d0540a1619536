"""Progress of one long step: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


@contextmanager
def progress(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, in all). Says nothing about steps that turn out to have nothing to do."""
    if not console.is_terminal:
        yield _lines(title, console)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _lines(title: str, console: Console) -> Callable[[int, int], None]:
    told = time.monotonic() - LINE_SECONDS

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= LINE_SECONDS:
            told = time.monotonic()
            console.print(f"{title}: {done} of {total}", highlight=False)

    return tell
