"""A study's MLflow experiment, filled from records and the table document. mlflow is imported here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from retable.study.plan import Plan
from retable.study.schema import Study
from retable.track import rows, runs, view
from retable.track.connection import TrackingUnavailable, artifacts_beside, probe, quiet, sqlite_path
from retable.track.entries import CHECKED, NOTE, Files, variant
from retable.track.records import RunRecord
from retable.track.storage import StorageError, now
from retable.track.writer import Published, Writer


@dataclass(frozen=True)
class Mlflow:
    """An open tracking store: its ``MlflowClient``, and the module of the plain entities that the client takes."""

    client: Any
    entities: Any


def publish(
    uri: str,
    study: Study,
    plan: Plan,
    records: Mapping[str, RunRecord],
    document: Mapping[str, Any],
    *,
    artifacts: Callable[[str], Files] | None = None,
    table_files: Callable[[str], Files] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Published:
    """Make the experiment named after the study hold these records and this table document.

    ``artifacts`` gives a run's further files by path (``scores/<view>.parquet``, ``log.txt``), asked for only when the
    run is written; ``table_files`` a table's (``table.md``). ``plan`` should be the whole study's: under a part of it
    runs keep the name of the cell they were first named after, and nothing is taken out of views.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with session(uri) as mlflow:
        found = experiment(mlflow.client, uri, study)
        done = Published(found.experiment_id, variant(plan))
        writer = Writer(mlflow.client, mlflow.entities, done, whole=_whole(plan))
        entries = [
            *runs.run_entries(plan, records, document, artifacts),
            *rows.table_entries(plan, document, records, table_files),
        ]
        for entry in entries:
            writer.write(entry)
        writer.prune({entry.key for entry in entries}, [table["id"] for table in document["tables"]])
        _save_views(mlflow.client, found, study, plan, document)
    log(f"MLflow: {done.created} runs recorded, {done.updated} updated, {done.unchanged} as they were")
    return done


@contextmanager
def session(uri: str) -> Iterator[Mlflow]:
    """The store at ``uri``, quiet and with bounded retries; its errors become :class:`TrackingUnavailable`."""
    probe(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import entities
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    with quiet():
        try:
            yield Mlflow(MlflowClient(tracking_uri=uri), entities)
        except StorageError:
            raise  # of the files that we were given to record
        except (MlflowException, OSError) as error:
            raise TrackingUnavailable(uri, str(error).strip().splitlines()[0]) from error


def check(uri: str, study: Study) -> None:
    """Find out by writing whether a server or database will take what a study gives: not only that somebody listens.

    Raises:
        TrackingUnavailable: it is not there, asks who we are, refuses our address, or cannot write.
    """
    if sqlite_path(uri) is not None:
        probe(uri)  # a file: that it can be opened for writing says it all
        return
    with session(uri) as mlflow:
        found = experiment(mlflow.client, uri, study)
        mlflow.client.set_experiment_tag(found.experiment_id, CHECKED, now())


def experiment(client: Any, uri: str, study: Study) -> Any:
    """The study's experiment, made or brought back if need be."""
    found = client.get_experiment_by_name(study.study)
    if found is None:
        client.create_experiment(study.study, artifact_location=artifacts_beside(uri))
    elif found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    found = client.get_experiment_by_name(study.study)
    paper = study.paper.title if study.paper else None
    note = "\n\n".join(part for part in (study.question, paper) if part)
    if note and found.tags.get(NOTE) != note:
        client.set_experiment_tag(found.experiment_id, NOTE, note)
    return found


def _whole(plan: Plan) -> bool:
    """Whether the plan covers every row of the study."""
    covered = {(cell.table, cell.row) for cell in plan.cells}
    return all((table.id, row.id) in covered for table in plan.study.tables for row in table.rows)


def _save_views(client: Any, experiment: Any, study: Study, plan: Plan, document: Mapping[str, Any]) -> None:
    profile = variant(plan)
    for table in document["tables"]:
        params = runs.varied_in(study, plan, table["id"])
        default = profile == study.default_profile
        wanted = view.views(table, profile, params, comparable=document["comparable"], default=default)
        for tag, value in wanted.items():
            if experiment.tags.get(tag) != value:
                client.set_experiment_tag(experiment.experiment_id, tag, value)
