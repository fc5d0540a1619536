"""A search's trials in MLflow: one run per trial in the study's experiment, and back. mlflow is not imported here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from retable.study.searches import Hunt
from retable.track import reader
from retable.track.entries import KIND, NOTE, REASON, VALUE_LENGTH, Entry, Status
from retable.track.record import experiment, session
from retable.track.runs import curve_points
from retable.track.storage import Storage, dump
from retable.track.trials import TrialRecord
from retable.track.writer import Published, Writer

TRIAL = "retable.trial"
"""The whole trial as JSON, every float exact: what the trial table is rebuilt from."""
SEARCH = "retable.search"
NO_TABLE = "-"
_STATUS: dict[str, Status] = {"complete": "FINISHED", "recorded": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


def trial_entries(hunt: Hunt, name: str, trials: Sequence[TrialRecord], storage: Storage) -> list[Entry]:
    """One entry per trial, with its run's curves."""
    return [_entry(hunt, name, trial, storage) for trial in trials]


def publish_trials(uri: str, hunt: Hunt, name: str, trials: Sequence[TrialRecord], storage: Storage) -> Published:
    """Make MLflow hold these trials of the search ``name``; repeating it changes nothing.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with session(uri) as mlflow:
        found = experiment(mlflow.client, uri, hunt.study)
        done = Published(found.experiment_id, hunt.profile)
        writer = Writer(mlflow.client, mlflow.entities, done, whole=False)
        for entry in trial_entries(hunt, name, trials, storage):
            writer.write(entry)
    return done


def read_trials(uri: str, study: str, name: str) -> list[TrialRecord]:
    """The trials that were published for a search, by number; equal to the originals.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    found = reader.tags(uri, study, f"tags.`{KIND}` = 'trial' and tags.`{SEARCH}` = '{name}'")
    told = [json.loads(tags[TRIAL]) for tags in found]
    trials = [TrialRecord(**{**entry, "values": tuple(entry["values"])}) for entry in told]
    return sorted(trials, key=lambda trial: trial.number)


def search_names(uri: str, study: str) -> list[str]:
    """The searches of a study that have published trials.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    return sorted({tags[SEARCH] for tags in reader.tags(uri, study, f"tags.`{KIND}` = 'trial'")})


def _entry(hunt: Hunt, name: str, trial: TrialRecord, storage: Storage) -> Entry:
    goals = hunt.search.goals
    short = f"trial {trial.number}"
    reason = {REASON: trial.reason[:VALUE_LENGTH], NOTE: trial.reason[:VALUE_LENGTH]} if trial.reason else {}
    note = {} if hunt.search.on == "val" else {"retable.on": "test"}
    values = {f"final/{goal.metric}": value for goal, value in zip(goals, trial.values, strict=False)}
    return Entry(
        key=f"trial:{name}:{trial.number}",
        name=short,
        status=_STATUS.get(trial.state, "RUNNING"),
        tags={
            KIND: "trial",
            SEARCH: name,
            TRIAL: json.dumps(asdict(trial), sort_keys=True),
            "retable.run_id": trial.run_id,
            "retable.number": str(trial.number),
            "retable.state": trial.state,
            "retable.sampler": trial.sampler,
            "retable.spent": str(trial.spent),
            "retable.profile": hunt.profile,
            "retable.table": NO_TABLE,  # writers of tables pass it over
            **note,
            **reason,
        },
        first={"mlflow.runName": short, "retable.order": f"search-{trial.number:06d}"},
        params={path: value if isinstance(value, str) else json.dumps(value) for path, value in trial.point.items()},
        finals={**values, "cost/epochs": float(trial.spent)},
        curves=curve_points(tuple(storage.epochs(trial.run_id))),
        files={"trial.json": dump(asdict(trial))},
    )
