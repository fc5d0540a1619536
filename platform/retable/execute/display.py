"""One live display of what trains: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from retable.study.plan import Measurement, Plan, RunSpec

QUIET_SECONDS = 30.0
"""Without a terminal, running epochs are told at most this often; every run's start and end always."""


def labels(plan: Plan) -> dict[str, str]:
    """``table2 · S = 4 · seed 0`` for every run: its first cell in study order, or that of what starts from it; and for
    every measurement ``table3c · AGM · speed``."""
    found = {}
    for run in plan.runs:
        cell = plan.served[run.training.config_id][0]
        table = plan.study.table(cell.table)
        label = table.row(cell.row).label + (", tuned" if table.columns[cell.column].tuned else "")
        stage = "" if plan.users[run.training.config_id] else " · first stage"
        found[run.run_id] = f"{cell.table} · {label}{stage} · seed {run.seed}"
    for key, measurement in plan.measurements.items():
        cell = plan.timed[key][0]
        found[measurement.run_id] = f"{cell.table} · {plan.study.table(cell.table).row(cell.row).label} · speed"
    return found


ENDED = ("done", "failed", "claimed", "environment", "pruned", "blocked", "stopped")


@dataclass
class _Line:
    label: str
    epochs: int
    state: str = "waiting"
    facts: dict[str, Any] = field(default_factory=dict)
    first: tuple[float, int] | None = None  # when this driver first heard of an epoch, and which

    def left(self, now: float) -> float | None:
        """Seconds until the end at the pace heard so far."""
        done = int(self.facts.get("epoch", -1)) + 1
        if self.state != "training" or self.first is None or done <= self.first[1]:
            return None
        return (now - self.first[0]) / (done - self.first[1]) * (self.epochs - done)


class Display:
    """Shows runs while they train; a context manager. ``watch`` is what :func:`retable.execute.tune.execute` tells."""

    def __init__(
        self,
        runs: list[RunSpec],
        names: Mapping[str, str],
        console: Console,
        *,
        poll: Callable[[str], dict[str, Any] | None] | None = None,
        measurements: Sequence[Measurement] = (),
    ):
        self.console = console
        self.poll = poll
        self.lines = {r.run_id: _Line(names[r.run_id], r.training.config.recipe.epochs) for r in runs}
        self.lines |= {m.run_id: _Line(names[m.run_id], 0) for m in measurements}  # no epochs, a moment each
        self.expected = 0
        """How many runs there will be, where they come to be on the way (a search)."""
        self.several = {r.run_id for r in runs if r.training.config.recipe.workers > 1}
        self.began = time.monotonic()
        self._told = 0.0
        self._lock = threading.RLock()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def add(self, run: RunSpec, name: str) -> None:
        """A further run, before it starts."""
        with self._lock:
            self.lines.setdefault(run.run_id, _Line(name, run.training.config.recipe.epochs))
            if run.training.config.recipe.workers > 1:
                self.several.add(run.run_id)

    def watch(self, event: str, run_id: str, facts: dict[str, Any]) -> None:
        """Take in one event."""
        with self._lock:
            line = self.lines[run_id]
            now = time.monotonic()
            if event == "started":
                line.state = "training" if line.epochs else "measuring"
                self._say(f"{line.label}: started")
            elif event == "epoch":
                self._epoch(line, facts, now)
            elif event == "ended":
                line.state = facts["status"]
                self._say(f"{line.label}: {_ending(line, facts)} ({self._count()})")
            elif event == "died":
                line.state = "died"
                self._say(f"{line.label}: its process died; it goes on from its last checkpoint")

    def _epoch(self, line: _Line, facts: dict[str, Any], now: float) -> None:
        line.state, line.facts = "training", facts
        if line.first is None:
            line.first = now, int(facts["epoch"]) + 1
        if now - self._told > QUIET_SECONDS:
            self._told = now
            self._say(
                f"{line.label}: epoch {int(facts['epoch']) + 1}/{line.epochs}, {_numbers(facts)}; {self._left(now)}"
            )

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        ended = sum(line.state in ENDED for line in self.lines.values())
        return f"{ended} of {max(self.expected, len(self.lines))}"

    def _left(self, now: float) -> str:
        """Time left over all: what ended in this session sets the pace, else what is training."""
        total = sum(line.epochs for line in self.lines.values())
        total += max(0, self.expected - len(self.lines)) * (total // max(1, len(self.lines)))
        heard = sum(self._done(line) - (line.first[1] - 1 if line.first else 0) for line in self.lines.values())
        open_epochs = total - sum(self._done(line) for line in self.lines.values())
        if heard < 2:
            return f"{self._count()} runs, time left not known yet"
        return f"{self._count()} runs, about {clock((now - self.began) / heard * open_epochs)} left"

    def _done(self, line: _Line) -> int:
        return line.epochs if line.state in ("done", "failed", "pruned") else int(line.facts.get("epoch", -1)) + 1

    def _render(self) -> Group:
        with self._lock:
            for run_id in self.several:
                facts = self.poll(run_id) if self.poll else None
                if facts and self.lines[run_id].state == "training":
                    self._epoch(self.lines[run_id], facts, time.monotonic())
            return self._table()

    def _table(self) -> Group:
        now = time.monotonic()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for head in ("run", "state", "epoch", "loss", "top-1 %", "left"):
            table.add_column(head, justify="left" if head in ("run", "state") else "right", no_wrap=True)
        shown = [line for line in self.lines.values() if line.state != "waiting"][-24:]
        for line in shown:
            done, left = self._done(line), line.left(now)
            loss, top1 = line.facts.get("train/loss"), _top1(line.facts)
            table.add_row(
                line.label,
                line.state,
                f"{done}/{line.epochs}" if line.epochs else "",
                "" if loss is None else f"{loss:.3f}",
                "" if top1 is None else f"{top1:.1f}",
                "" if left is None else clock(left),
            )
        return Group(table, Text(self._left(now), style="dim"))


def clock(seconds: float) -> str:
    """``4 min 05 s`` or ``2 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _top1(facts: Mapping[str, Any]) -> float | None:
    value = facts.get("val/top1", facts.get("test/top1"))
    return None if value is None else float(value)


def _numbers(facts: Mapping[str, Any]) -> str:
    top1 = _top1(facts)
    loss = f"loss {facts['train/loss']:.3f}" if "train/loss" in facts else ""
    return ", ".join(part for part in (loss, "" if top1 is None else f"top-1 {top1:.1f} %") if part)


def _ending(line: _Line, facts: Mapping[str, Any]) -> str:
    if facts["status"] == "done":
        numbers = _numbers(line.facts)
        return f"done{', ' if numbers else ''}{numbers}"
    return f"{facts['status']}: {facts.get('reason', '')}"
