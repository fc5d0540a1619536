"""``retable run`` of a study whose rows are tuned: first their searches, then the trainings of what they chose."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from rich.console import Console

from retable.execute.driver import Summary, need_datasets, run_study
from retable.execute.refusals import refuse
from retable.execute.searching.asked import Asked
from retable.execute.searching.driver import SearchSummary, run_search
from retable.execute.session import ray_session
from retable.study.load import LoadedStudy
from retable.study.plan import Plan
from retable.study.searches import Hunt, row_hunts
from retable.track.writer import Published
from retable.workspace import Workspace


@dataclass(frozen=True)
class TunedSummary:
    """A ``retable run``: the searches of its rows, and its trainings. ``plan``: with what the searches chose."""

    plan: Plan
    searches: list[SearchSummary]
    trainings: Summary

    @property
    def exit_code(self) -> int:
        """The worst of both parts'."""
        return max(self.trainings.exit_code, *(search.exit_code for search in self.searches), 0)

    @property
    def published(self) -> Published | None:
        """What MLflow was given of the trainings."""
        return self.trainings.published

    def lines(self) -> list[str]:
        """What to tell the user at the end."""
        found = [f"{len(self.searches)} rows tuned in this session"] if self.searches else []
        found += [f"{s.hunt.words}: {line}" for s in self.searches for line in s.lines()]
        return [*found, *self.trainings.lines()]


def run_tuned(
    loaded: LoadedStudy,
    plan: Callable[[], Plan],
    workspace: Workspace,
    console: Console,
    *,
    retry_failed: bool = False,
    record: bool = True,
    address: str | None = None,
    cpus: int | None = None,
) -> TunedSummary:
    """Search for the values of rows that are not tuned yet, then execute what the plan still needs.

    ``plan`` makes it from what is known; it is made again after the searches. Killed in either part, the same call
    goes on from there. Raises what :func:`~retable.execute.searching.driver.run_search` and
    :func:`~retable.execute.driver.run_study` raise.
    """
    planned = plan()
    hunts, searches = to_tune(planned), list[SearchSummary]()
    if hunts:  # what would stop the trainings is found before the searches, not after their hours
        need_datasets(planned, workspace)
        refuse(planned, workspace, ())
    with ray_session(address, cpus) if hunts else nullcontext():
        for hunt in hunts:
            if not any(search.halted for search in searches):
                searches.append(run_search(hunt, workspace, console, Asked(), record=record))
        planned = plan() if hunts else planned
        trainings = run_study(
            loaded, planned, workspace, console, retry_failed=retry_failed, record=record, address=address, cpus=cpus
        )
    return TunedSummary(planned, searches, trainings)


def to_tune(plan: Plan) -> list[Hunt]:
    """The searches of the plan's rows that have not come to an end."""
    rows = {(cell.table, cell.row) for cell in plan.cells if cell.untuned} - set(plan.tuned)
    return [hunt for hunt in row_hunts(plan.study, plan.profile, plan.settings) if hunt.row in rows]
