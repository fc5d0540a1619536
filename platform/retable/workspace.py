"""Where a command works: storage, data, cache and tracking; and what a plan must know of them."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retable import registry
from retable.data import PIPELINE_SEMANTICS, features
from retable.data.cache import cache_size
from retable.data.flow_file import BYTES_PER_CODE
from retable.data.manifest import Manifest, dataset_folder, fingerprint, open_dataset
from retable.data.samples import mirrors
from retable.study import best
from retable.study.cells import matches
from retable.study.check import check
from retable.study.config import Data, Protocol
from retable.study.load import LoadedStudy, load
from retable.study.plan import Plan, Subset, Training
from retable.study.planner import World, make_plan
from retable.study.problems import StudyError
from retable.study.schema import Study
from retable.study.search_schema import Search
from retable.study.searches import Hunt
from retable.study.tuned import Tuned
from retable.track import reader, tunings, view
from retable.track.connection import artifacts_beside, default_uri
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.train import evaluate, loop, machine, speed


@dataclass(frozen=True)
class Workspace:
    """One set of places. Every default is an environment variable, then a folder of the current directory."""

    storage_url: str
    data_root: str | None = None
    tracking: str | None = None

    @classmethod
    def open(cls, storage: str | None = None, data: str | None = None, tracking: str | None = None) -> Workspace:
        """``--storage`` or ``$RETABLE_STORAGE`` or ``./.retable``; ``--data`` or ``$RETABLE_DATA`` or ``./data``."""
        return cls(
            storage or os.environ.get("RETABLE_STORAGE") or ".retable",
            data or os.environ.get("RETABLE_DATA"),
            tracking or os.environ.get("MLFLOW_TRACKING_URI"),
        )

    @cached_property
    def storage(self) -> Storage:
        """The run store."""
        return Storage(self.storage_url)

    @property
    def cache(self) -> Path:
        """Decoded frames on this machine: ``$RETABLE_CACHE``, else beside a local storage, else in the home folder."""
        if os.environ.get("RETABLE_CACHE"):
            return Path(os.environ["RETABLE_CACHE"])
        return Path(self.storage.root) / "cache" if self.storage.local else Path.home() / ".cache" / "retable"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow records: as given, else a sqlite file in a local storage."""
        if self.tracking:
            return self.tracking
        return default_uri(Path(self.storage.root) if self.storage.local else Path.cwd())

    def dataset(self, name: str) -> Manifest:
        """The dataset's manifest (DatasetError where it is missing, with how to get it)."""
        return open_dataset(name, dataset_folder(name, self.data_root))

    def has_dataset(self, name: str) -> bool:
        """Whether the dataset's folder exists."""
        return dataset_folder(name, self.data_root).is_dir()

    @cached_property
    def _fingerprints(self) -> dict[tuple[Any, ...], str | None]:
        return {}

    def fingerprint(self, data: Data) -> str | None:
        """The fingerprint of the split that ``data`` names; None where the dataset is not at hand."""
        key = (data.dataset, data.split, data.holdout, data.on_damage)
        if key not in self._fingerprints:
            self._fingerprints[key] = None
            if self.has_dataset(data.dataset):
                manifest = self.dataset(data.dataset)
                self._fingerprints[key] = fingerprint(
                    manifest, data.split, holdout=data.holdout, on_damage=data.on_damage
                )
        return self._fingerprints[key]

    @property
    def world(self) -> World:
        """What :func:`retable.study.planner.make_plan` needs to know of here."""
        return World(
            self.fingerprint,
            PIPELINE_SEMANTICS,
            loop.SEMANTICS,
            evaluate.SEMANTICS,
            features.SEMANTICS,
            speed.SEMANTICS,
            lambda gpu: machine.describe(gpu=gpu),
        )

    def records(self, plan: Plan, *, offline: bool = False) -> dict[str, RunRecord]:
        """What is recorded of a plan's trainings and measurements: from storage, and from MLflow what it lacks (not if
        ``offline``)."""
        found = _of_plan(plan, self.storage.records())
        missing = {run.run_id for run in plan.runs} - set(found)
        missing |= set(plan.measurements) - {record.config_id for record in found.values()}
        if not offline and missing:
            found = _of_plan(plan, reader.read(self.tracking_uri, plan.study.study)) | found
        return found

    def cache_bytes(self, plan: Plan) -> dict[str, int | None]:
        """Bytes of decoded frames, and of flow, by dataset and short side; None where the dataset is not at hand."""
        found: dict[str, int | None] = {}
        for training in plan.trainings.values():
            data = training.config.data
            key = f"{data.dataset}@{data.clip.short_side}"
            if key not in found:
                found[key] = None
                if self.has_dataset(data.dataset):
                    manifest = self.dataset(data.dataset)
                    found[key] = cache_size(
                        manifest, [i.path for i in manifest.items(data.split)], data.clip.short_side
                    )
            if data.flow is not None:  # two codes where a frame has three bytes
                size = found[key]
                flow = None if size is None else round(size * 2 / 3 * BYTES_PER_CODE)
                found[f"{key}, {data.flow.method} flow"] = flow
        return found

    def feature_bytes(self, plan: Plan) -> dict[str, int | None]:
        """Bytes of cached features by the run that gives them; None where the dataset is not at hand."""
        sets: dict[str, dict[tuple[Any, ...], int | None]] = {}
        for run in plan.runs:
            if run.training.use == "features":
                (parent,) = run.parents
                sets.setdefault(parent, {}).update(self._feature_sets(run.training))
        totals = {parent: list(sizes.values()) for parent, sizes in sets.items()}
        return {p: None if None in sizes else sum(size or 0 for size in sizes) for p, sizes in totals.items()}

    def _feature_sets(self, training: Training) -> dict[tuple[Any, ...], int | None]:
        """Size of each set of views that a training on features reads: while training, after an epoch, at the end."""
        config, data = training.config, training.config.data
        settings = {k: v for k, v in config.model.items() if k != "name"}
        file = registry.load(config.model["name"])
        frames, channels = file.inputs(file.config_class.model_validate(settings))["features"].shape[:2]
        each_epoch: Subset = "val" if data.holdout > 0 else "test"
        drawn = config.recipe.feature_views
        known = self.has_dataset(data.dataset) and not drawn
        mirror = known and mirrors(config.recipe, self.dataset(data.dataset).flip)
        views = [features.Views("train", mirror=mirror, drawn=drawn), features.Views.of(each_epoch, Protocol())]
        views += [features.Views.of(view.subset, view.protocol) for view in training.views]
        key = (data.model_dump_json(), training.fingerprint)
        if training.fingerprint is None:
            return {(*key, v): None for v in views}
        items = self.dataset(data.dataset).items(data.split, holdout=data.holdout)
        counts = Counter(item.subset for item in items)
        return {(*key, v): v.nbytes(counts[v.subset], frames, channels) for v in views}

    @property
    def artifacts(self) -> str:
        """Where the MLflow UI keeps artifacts that are uploaded to it: beside a sqlite store, else in the storage."""
        return artifacts_beside(self.tracking_uri) or f"{self.storage.root}/mlartifacts"

    def links(
        self, base: str, study: Study, profile: str | None = None, tables: Sequence[str] | None = None
    ) -> dict[str, str]:
        """Title -> URL of each table's saved views below the MLflow UI at ``base``; none before there is a record."""
        experiment = reader.experiment_id(self.tracking_uri, study.study)
        if experiment is None:
            return {}
        found = {}
        for table in study.tables:
            if matches(table.id, tables or ()):
                urls = view.links(base, experiment, table.id, profile or study.default_profile)
                found[f"{table.cite} as printed" if table.cite else table.id] = urls["table"]
                found[f"{table.cite or table.id}, runs compared"] = urls["runs"]
        return found

    def plan(
        self,
        loaded: LoadedStudy,
        *,
        profile: str | None = None,
        seeds: Sequence[int] = (0,),
        settings: Mapping[str, Any] | None = None,
        tables: Sequence[str] = (),
        rows: Sequence[str] = (),
        recorded: bool = False,
        tuned: Mapping[tuple[str, str], Tuned] | None = None,
    ) -> Plan:
        """The plan of a study in this workspace (StudyError for settings that cannot be).

        What the searches of tuned rows have come to is read from storage; ``recorded``: what it lacks from MLflow.
        ``tuned`` adds to that.
        """
        ends = tunings.ends(
            loaded.study, profile or loaded.study.default_profile, settings or {}, self.world, self.storage,
            uri=self.tracking_uri if recorded else None,
        ) | dict(tuned or {})  # fmt: skip
        return make_plan(
            loaded, self.world, profile=profile, seeds=seeds, settings=settings, tables=tables, rows=rows, tuned=ends
        )

    def best_plan(self, loaded: LoadedStudy, search: Search, tuned: Tuned, **asked: Any) -> tuple[LoadedStudy, Plan]:
        """The study with its search's best trial as a last table, and the plan of that table.

        ``asked``: profile, seeds and settings, as :meth:`plan` takes them.
        """
        found = best.with_best(loaded, search, tuned)
        return found, make_plan(found, self.world, tables=(best.TABLE,), tuned={best.PLACE: tuned}, **asked)

    def best_of(self, loaded: LoadedStudy, plan: Plan) -> Plan | None:
        """The plan of what the study's search has come to, as the study file has it; None if it is not over."""
        if loaded.study.search is None:
            return None
        hunt = Hunt(loaded.study, plan.profile, plan.settings)
        tuned = tunings.end_of(hunt, self.world, self.storage)
        if tuned is None or tuned.point is None:
            return None
        asked = {"profile": plan.profile, "seeds": plan.seeds, "settings": plan.settings}
        return self.best_plan(loaded, hunt.search, tuned, **asked)[1]


def _of_plan(plan: Plan, records: Mapping[str, RunRecord]) -> dict[str, RunRecord]:
    """The records of a plan's trainings, any seed, and of its measurements, any machine; by provisional id where the
    dataset is not at hand."""
    final = {*plan.trainings, *plan.measurements}
    provisional = {t.provisional_id for t in plan.asked if t.fingerprint is None}
    return {key: r for key, r in records.items() if r.config_id in final or r.spec["provisional_id"] in provisional}


def find_study(name: str) -> Path:
    """A study file by path, or a shipped one by name (``msfnet``)."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path if path.exists() else _shipped().get(path.stem, path)
    return _shipped().get(name, path.with_suffix(".yaml"))


def open_study(name: str) -> LoadedStudy:
    """Load a study and check its settings in every profile.

    Raises:
        StudyError: every fault, with its place.
    """
    try:
        loaded = load(find_study(name))
    except StudyError as error:
        settings = check(error.rest) if error.rest is not None else []
        raise StudyError([*error.problems, *settings]) from None
    problems = check(loaded)
    if problems:
        raise StudyError(problems)
    return loaded


def _shipped() -> dict[str, Path]:
    folders = importlib.import_module("retable.studies").__path__
    return {p.stem: p for folder in folders for p in sorted(Path(folder).glob("*.yaml"))}
