"""Records rebuilt from MLflow alone, for when storage is elsewhere or gone."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from retable.track import runs
from retable.track.connection import sqlite_path
from retable.track.entries import CONTENT, KIND
from retable.track.record import session
from retable.track.records import RunRecord
from retable.track.writer import found_runs

FILES = ("spec.json", "result.json")
DOWNLOADS = 8  # files fetched at once


def read(uri: str, study: str) -> dict[str, RunRecord]:
    """The records that were published for the study of this name, equal to the originals; empty if there are none.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return {}
    with session(uri) as mlflow:
        experiment = mlflow.client.get_experiment_by_name(study)
        if experiment is None:
            return {}
        found = found_runs(mlflow.client, experiment.experiment_id, f"tags.`{KIND}` = 'run'")
        complete = [run for run in found if CONTENT in run.data.tags]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            records = list(pool.map(lambda run: _record(mlflow.client, run), complete))
    return {record.run_id: record for record in records}


def experiment_id(uri: str, study: str) -> str | None:
    """The id of the study's experiment; None before anything has been published.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return None
    with session(uri) as mlflow:
        found = mlflow.client.get_experiment_by_name(study)
        return None if found is None else str(found.experiment_id)


def _record(client: Any, run: Any) -> RunRecord:
    folder = _local_folder(run.info.artifact_uri)
    if folder is not None:
        return runs.read_record({name: (folder / name).read_bytes() for name in FILES})
    with tempfile.TemporaryDirectory(prefix="retable-mlflow-") as place:
        paths = {name: client.download_artifacts(run.info.run_id, name, place) for name in FILES}
        return runs.read_record({name: Path(path).read_bytes() for name, path in paths.items()})


def _local_folder(uri: str) -> Path | None:
    """The folder that an artifact URI names on this machine, if it is there."""
    parts = urlsplit(uri)
    folder = Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None
    return folder if folder is not None and folder.is_dir() else None
