"""What Ray Tune runs next. One thin Searcher; behind it a source: a plan, or a search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from ray.tune.search import Searcher

from retable.execute.order import Order


class Source(Protocol):
    """Hands out runs and hears how they ended."""

    def next(self) -> str | None:
        """The next run id; None while nothing can start now. Raises StopIteration when nothing is left."""

    def ended(self, run_id: str, ok: bool) -> None:
        """A handed-out run has ended; ``ok`` is False when its process died."""


class Supply(Source, Protocol):
    """A source whose runs are not known before they are handed out, so that it has their orders too."""

    def order(self, run_id: str) -> Order:
        """How to carry out a run that was handed out."""


class PlanSource:
    """Hands out the runs of a plan in order, parents before children; a dead parent's children are not handed out.

    ``fits`` says whether so many runs fit at once. The first one that could start and does not fit holds up those
    behind it: a large run would otherwise wait until all small ones are done.
    """

    def __init__(
        self, parents: Mapping[str, tuple[str, ...]], fits: Callable[[Collection[str]], bool] = lambda runs: True
    ):
        self._fits = fits
        self._running: set[str] = set()
        self._waiting = dict(parents)
        self._open: set[str] = set(parents)
        self._dead: set[str] = set()

    def next(self) -> str | None:
        for run_id, parents in list(self._waiting.items()):
            if any(p in self._dead for p in parents):
                del self._waiting[run_id]
                self._dead.add(run_id)
                self._open.discard(run_id)
            elif not any(p in self._open for p in parents):
                if self._running and not self._fits({*self._running, run_id}):
                    return None
                del self._waiting[run_id]
                self._running.add(run_id)
                return run_id
        if not self._waiting:
            raise StopIteration
        return None

    def ended(self, run_id: str, ok: bool) -> None:
        self._open.discard(run_id)
        self._running.discard(run_id)
        if not ok:
            self._dead.add(run_id)


class SourceSearcher(Searcher):
    """Ray Tune's search algorithm over a :class:`Source`. A Tune config holds only the run id."""

    lost: tuple[str, ...] = ("failed",)
    """How runs end that have not given what they were to give."""

    def __init__(self, source: Source):
        super().__init__(metric="epoch", mode="max")
        self.source = source
        self.runs: dict[str, str] = {}
        self.stopping: Callable[[], bool] = lambda: False
        """Whether nothing more is to be handed out, because the driver stops."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self.stopping():
            return Searcher.FINISHED  # type: ignore[return-value]
        try:
            run_id = self.source.next()
        except StopIteration:
            return Searcher.FINISHED  # type: ignore[return-value]  # a word, as Ray's own searchers return it
        if run_id is None:
            return None
        self.runs[trial_id] = run_id
        return self._config(run_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id in self.runs:
            self.source.ended(self.runs[trial_id], ok=not error and (result or {}).get("status") not in self.lost)

    def _config(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles searchers for Tuner.restore, which is never used

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a driver restarts by planning again."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class PlanSearcher(SourceSearcher):
    """The same over a :class:`PlanSource`: what somebody else trains, or could not end, gives its children nothing."""

    lost = ("failed", "claimed", "environment", "stopped")


class SupplySearcher(SourceSearcher):
    """The same over a :class:`Supply`. A Tune config also holds the order."""

    def __init__(self, source: Supply):
        super().__init__(source)
        self.supply = source

    def _config(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id, "order": self.supply.order(run_id)}
