"""The end of ``retable search``: its best trial is trained on all of train, with seeds, and scored on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from retable.execute.driver import Summary, run_study
from retable.execute.searching.asked import Asked
from retable.execute.searching.driver import SearchSummary, run_search
from retable.execute.session import ray_session
from retable.study.load import LoadedStudy
from retable.study.plan import Plan
from retable.study.searches import Hunt
from retable.study.tuned import Tuned
from retable.workspace import Workspace


@dataclass(frozen=True)
class Best:
    """The best trial as a plan of its own, and how its training ended; None before it was begun."""

    loaded: LoadedStudy
    plan: Plan
    summary: Summary | None = None

    @property
    def exit_code(self) -> int:
        """That of its training."""
        return self.summary.exit_code if self.summary is not None else 0


def best_of(
    loaded: LoadedStudy, hunt: Hunt, workspace: Workspace, tuned: Tuned | None, seeds: Sequence[int]
) -> Best | None:
    """The plan of what a search has come to; None of a row's search, which its table trains, of a Pareto front, and
    where no trial is whole."""
    if hunt.row is not None or tuned is None or tuned.point is None:
        return None
    made = workspace.best_plan(
        loaded, hunt.search, tuned, profile=hunt.profile, seeds=tuple(seeds), settings=hunt.settings
    )
    return Best(*made)


def search_and_train(
    loaded: LoadedStudy,
    hunt: Hunt,
    workspace: Workspace,
    console: Console,
    asked: Asked,
    *,
    seeds: Sequence[int],
    url: str | None = None,
    record: bool = True,
    address: str | None = None,
    cpus: int | None = None,
) -> tuple[SearchSummary, Best | None]:
    """Carry a search on and, when it is over, train its best trial on all of train where storage has it not yet.

    Raises what :func:`~retable.execute.searching.driver.run_search` and :func:`~retable.execute.driver.run_study`
    raise.
    """
    with ray_session(address, cpus):
        summary = run_search(hunt, workspace, console, asked, url=url, record=record)
        best = best_of(loaded, hunt, workspace, summary.tuned, seeds)
        if best is not None:
            best = Best(best.loaded, best.plan, run_study(best.loaded, best.plan, workspace, console, record=record))
    return summary, best
