"""A search's trials for looking at: from Optuna's storage, else from MLflow alone. Nothing is trained or written."""

from __future__ import annotations

from dataclasses import dataclass

from retable.data.errors import DatasetError
from retable.execute.searching.driver import read_trials
from retable.execute.searching.ledger import recorded
from retable.execute.searching.optuna_storage import SearchStorageError, read_search
from retable.study.problems import Problem, StudyError
from retable.study.searches import Hunt
from retable.study.trialling import DIGITS, family
from retable.track import trial_record
from retable.track.trials import TrialRecord
from retable.workspace import Workspace


@dataclass(frozen=True)
class Seen:
    """The trials of a search and where they were read from: ``optuna`` or ``mlflow``."""

    name: str
    trials: list[TrialRecord]
    source: str


def see(hunt: Hunt, workspace: Workspace, url: str | None = None, name: str | None = None) -> Seen:
    """The trials of the study's search; of the search ``name``, if one is given.

    The name follows from the study and its dataset. Without the dataset, or where Optuna's storage has no trials,
    MLflow is asked, which names the searches that it holds.

    Raises:
        StudyError: there are no trials, or MLflow holds several such searches and none was named.
        TrackingUnavailable: MLflow had to be asked and is not there.
    """
    found = _in_optuna(hunt, workspace, url, name)
    if found is not None:
        return found
    begin = family(hunt)
    held = [n for n in trial_record.search_names(workspace.tracking_uri, hunt.study.study) if n[:-DIGITS] == begin]
    chosen = [n for n in held if n == name] if name else held
    if len(chosen) != 1:
        raise StudyError([_none_or_many(chosen or held, begin, name)])
    return Seen(chosen[0], trial_record.read_trials(workspace.tracking_uri, hunt.study.study, chosen[0]), "mlflow")


def _in_optuna(hunt: Hunt, workspace: Workspace, url: str | None, name: str | None) -> Seen | None:
    try:
        if name is None:
            name, trials = read_trials(hunt, workspace, url)
        else:
            study = read_search(workspace.storage, url, name)
            trials = [] if study is None else recorded(study, workspace.storage)
    except (DatasetError, SearchStorageError):
        if url is not None:
            raise
        return None  # no dataset here, or a bucket, which holds no database: MLflow may know
    return Seen(name, trials, "optuna") if trials else None


def _none_or_many(held: list[str], begin: str, name: str | None) -> Problem:
    if not held:
        return Problem("search", 1, 1, name or f"{begin}*", "has no trials yet", hint="retable search runs it")
    listed = ", ".join(held)
    if name is not None:
        return Problem("--name", 1, 1, name, "is no search that is recorded", hint=f"there are: {listed}")
    return Problem("search", 1, 1, begin, f"{len(held)} searches are recorded", hint=f"choose with --name: {listed}")
