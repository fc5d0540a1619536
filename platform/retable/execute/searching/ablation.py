"""``retable ablate``: finds the configuration that is to be taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retable.execute.searching.asked import Asked, hunt_of, problem
from retable.execute.searching.driver import read_trials
from retable.report.searching.trials import best
from retable.study.ablate import Ablation, ablate
from retable.study.load import LoadedStudy
from retable.study.problems import StudyError
from retable.study.searches import Hunt
from retable.study.tuned import ON_TEST
from retable.track.tunings import stored
from retable.workspace import Workspace


def ablation(
    loaded: LoadedStudy,
    workspace: Workspace,
    origin: str,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    knobs: Sequence[str] | None = None,
    url: str | None = None,
) -> Ablation:
    """A study around the search's ``best`` trial, or around a run named by its id or the beginning of one.

    Raises:
        StudyError: there is no such run, no whole trial yet, or nothing to ablate.
    """
    name, metrics = profile or loaded.study.default_profile, ["params", "top1"]
    if name not in loaded.study.profiles:
        raise StudyError([loaded.source.problem(("profiles",), f"there is no profile {name!r}")])
    words = f"run {origin}"
    if origin == "best":
        hunt = hunt_of(loaded, profile, settings or {}, Asked())
        _, trials = read_trials(hunt, workspace, url)
        whole = best(hunt.search, trials)
        if not whole:
            raise StudyError([problem("--from", "the search has no whole trial yet", hint="retable search runs it")])
        if len(whole) > 1:
            runs = ", ".join(t.run_id for t in whole)
            raise StudyError(
                [problem("--from", f"the search has {len(whole)} best trials", hint=f"name a run: {runs}")]
            )
        origin, words = whole[0].run_id, f"trial {whole[0].number} (run {whole[0].run_id})"
        metrics = list(dict.fromkeys(["params", *(goal.metric for goal in hunt.search.goals)]))
    found = [run_id for run_id in workspace.storage.run_ids() if run_id.startswith(origin)]
    record = workspace.storage.record(found[0]) if len(found) == 1 else None
    if record is None:
        raise StudyError([problem("--from", f"{len(found)} runs in {workspace.storage.url} begin with {origin!r}")])
    note = ON_TEST if _chosen_on_test(loaded, workspace, record.run_id, name, settings or {}, url) else None
    return ablate(loaded, name, record.spec["config"], origin=words, knobs=knobs or (), metrics=metrics, note=note)


def _chosen_on_test(
    loaded: LoadedStudy, workspace: Workspace, run_id: str, profile: str, settings: Mapping[str, Any], url: str | None
) -> bool:
    """Whether test videos were seen when this run was chosen: it is a search's answer, or a trial of this study's."""
    if any(tuned.on == "test" and tuned.run_id == run_id for tuned in stored(workspace.storage)):
        return True
    search = loaded.study.search
    if search is None or search.on == "val":
        return False
    _, trials = read_trials(Hunt(loaded.study, profile, settings), workspace, url)
    return any(trial.run_id == run_id for trial in trials)
