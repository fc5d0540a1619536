"""``retable init``: parse, call, print. No logic. Registered by :mod:`retable.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retable.console import out
from retable.study.problems import Problem, StudyError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)


def init(
    name: Annotated[str, typer.Argument(help="The new study's name: letters, digits, - and _.", show_default=False)],
    target: Annotated[Path | None, typer.Option("--out", help="File. Default: NAME.yaml, here.")] = None,
) -> None:
    """Write a study to start from: small, complete, every part explained.

    Example: `retable init attention`
    """
    from retable.study.skeleton import skeleton

    text, place = skeleton(name), target or Path(f"{name}.yaml")
    if place.exists():
        raise StudyError([Problem(str(place), 1, 1, "--out", "is there already", hint="name another file with --out")])
    place.write_text(text, encoding="utf-8")
    out.print(f"{place} is a study. Next: retable plan {place}")
