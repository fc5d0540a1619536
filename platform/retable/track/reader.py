"""Records rebuilt from MLflow alone, for when storage is elsewhere or gone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from retable.track import runs
from retable.track.connection import sqlite_path
from retable.track.entries import CONTENT, KIND
from retable.track.record import session
from retable.track.records import RunRecord
from retable.track.scores import Scores
from retable.track.writer import found_runs

FILES = ("spec.json", "result.json")
DOWNLOADS = 8  # files fetched at once


def read(uri: str, study: str) -> dict[str, RunRecord]:
    """The records that were published for the study of this name, equal to the originals; empty if there are none.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with _experiment(uri, study) as (client, experiment):
        if experiment is None:
            return {}
        found = found_runs(client, experiment.experiment_id, f"tags.`{KIND}` = 'run'")
        complete = [run for run in found if CONTENT in run.data.tags]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            records = list(pool.map(lambda run: _record(uri, client, run), complete))
    return {record.run_id: record for record in records}


def tags(uri: str, study: str, search: str) -> list[dict[str, str]]:
    """The tags of every MLflow run of the study that fits ``search``, MLflow's words; none before there is anything.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with _experiment(uri, study) as (client, experiment):
        found = [] if experiment is None else found_runs(client, experiment.experiment_id, search)
        return [run.data.tags for run in found]


def experiment_id(uri: str, study: str) -> str | None:
    """The id of the study's experiment; None before anything has been published.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with _experiment(uri, study) as (_, experiment):
        return None if experiment is None else str(experiment.experiment_id)


@contextmanager
def _experiment(uri: str, study: str) -> Iterator[tuple[Any, Any]]:
    """A client and the study's experiment; None before anything has been published, and no database is made then."""
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        yield None, None
        return
    with session(uri) as mlflow:
        yield mlflow.client, mlflow.client.get_experiment_by_name(study)


def _record(uri: str, client: Any, run: Any) -> RunRecord:
    folder = _local_folder(run.info.artifact_uri)
    found = runs.read_record(_files(client, run, folder))
    return replace(found, scores=partial(_scores, uri, run.info.run_id, folder))


def _scores(uri: str, mlflow_run: str, folder: Path | None, view: str) -> Scores | None:
    """The per-video scores among a run's artifacts, fetched when somebody asks for them."""
    name = f"scores/{view}.parquet"
    if folder is not None:
        return Scores.from_parquet(folder / name) if (folder / name).is_file() else None
    with session(uri) as mlflow, tempfile.TemporaryDirectory(prefix="retable-mlflow-") as place:
        if name not in {file.path for file in mlflow.client.list_artifacts(mlflow_run, "scores")}:
            return None
        return Scores.from_parquet(mlflow.client.download_artifacts(mlflow_run, name, place))


def _files(client: Any, run: Any, folder: Path | None) -> dict[str, bytes]:
    if folder is not None:
        return {name: (folder / name).read_bytes() for name in FILES}
    with tempfile.TemporaryDirectory(prefix="retable-mlflow-") as place:
        paths = {name: client.download_artifacts(run.info.run_id, name, place) for name in FILES}
        return {name: Path(path).read_bytes() for name, path in paths.items()}


def _local_folder(uri: str) -> Path | None:
    """The folder that an artifact URI names on this machine, if it is there."""
    parts = urlsplit(uri)
    folder = Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None
    return folder if folder is not None and folder.is_dir() else None
