"""What searches have come to, in storage (``search/<name>.json``) and in MLflow, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from retable.study.planner import World
from retable.study.schema import Study
from retable.study.searches import Hunt, row_hunts
from retable.study.trialling import search_name, some_run
from retable.study.tuned import Tuned
from retable.track import reader
from retable.track.entries import KIND, NOTE, Entry
from retable.track.record import experiment, session
from retable.track.storage import Storage, dump
from retable.track.trial_record import NO_TABLE, SEARCH
from retable.track.writer import Published, Writer

TUNED = "retable.tuned"
"""The whole outcome as JSON, every float exact."""


def put_tuned(storage: Storage, tuned: Tuned) -> None:
    """Write down what a search has come to; a search that was extended is written anew."""
    storage.put_json(f"search/{tuned.search}.json", tuned.to_json())


def stored(storage: Storage) -> list[Tuned]:
    """Everything that searches have come to, by name."""
    names = sorted(name for name in storage.names("search") if name.endswith(".json"))
    found = (storage.get_json(f"search/{name}") for name in names)
    return [Tuned.from_json(told) for told in found if told is not None]


def publish_tuned(uri: str, study: Study, profile: str, tuned: Tuned) -> Published:
    """Make MLflow hold it; repeating it changes nothing.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    with session(uri) as mlflow:
        done = Published(experiment(mlflow.client, uri, study).experiment_id, profile)
        Writer(mlflow.client, mlflow.entities, done, whole=False).write(_entry(profile, tuned))
    return done


def published(uri: str, study: str) -> list[Tuned]:
    """Everything that was published for the study of this name, equal to the originals.

    Raises:
        TrackingUnavailable: the store is not there, or refuses.
    """
    told = [json.loads(tags[TUNED]) for tags in reader.tags(uri, study, f"tags.`{KIND}` = 'search'")]
    return sorted((Tuned.from_json(entry) for entry in told), key=lambda tuned: tuned.search)


def ends(
    study: Study, profile: str, settings: Mapping[str, Any], world: World, storage: Storage, *, uri: str | None = None
) -> dict[tuple[str, str], Tuned]:
    """What the searches of a study's tuned rows have come to: those that are over, with the budget of the study file.

    Raises:
        TrackingUnavailable: the store at ``uri`` had to be asked and is not there, or refuses.
    """
    found = {}
    for hunt in row_hunts(study, profile, settings) if profile in study.profiles else ():
        end = end_of(hunt, world, storage, uri=uri)
        if hunt.row is not None and end is not None and end.budget == hunt.search.budget.model_dump(mode="json"):
            found[hunt.row] = end
    return found


def end_of(hunt: Hunt, world: World, storage: Storage, *, uri: str | None = None) -> Tuned | None:
    """What a search had come to when it was last over; None if it never was. ``uri``: MLflow may know, too.

    Without its dataset at hand, a search of another version of it will do.
    """
    run = some_run(hunt, world)
    if run is None:
        return None
    provisional = run.training.fingerprint is None
    name = search_name(hunt, run, provisional=provisional)
    found = _named(name, stored(storage), provisional=provisional)
    if found is None and uri is not None:
        found = _named(name, published(uri, hunt.study.study), provisional=provisional)
    return found


def _named(name: str, known: Iterable[Tuned], *, provisional: bool) -> Tuned | None:
    return next((tuned for tuned in known if name == (tuned.provisional if provisional else tuned.search)), None)


def _entry(profile: str, tuned: Tuned) -> Entry:
    row = ".".join(tuned.row) if tuned.row else "search"
    value = {} if tuned.value is None else {f"final/{tuned.metric}": tuned.value}
    point = tuned.point or {}
    return Entry(
        key=f"search:{tuned.search}",
        name=row,
        status="FINISHED" if tuned.point is not None else "FAILED",
        tags={
            KIND: "search",
            SEARCH: tuned.search,
            TUNED: json.dumps(tuned.to_json(), sort_keys=True),
            "retable.profile": profile,
            "retable.on": tuned.on,
            "retable.table": NO_TABLE,  # writers of tables pass it over
            NOTE: tuned.footnote,
        },
        first={"mlflow.runName": row, "retable.order": "search"},
        params={path: value if isinstance(value, str) else json.dumps(value) for path, value in point.items()},
        finals={**value, "cost/epochs": float(tuned.epochs), "cost/hours": tuned.hours},
        files={"search.json": dump(tuned.to_json())},
    )
