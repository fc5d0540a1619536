"""Study -> plan, with duplicates merged. Pure: no Ray, no torch, no I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retable import registry
from retable.data import FLOW_SEMANTICS, layouts
from retable.study import cells as cells_of
from retable.study import identity
from retable.study.cells import Combine, Demand, Score, Tree
from retable.study.check import located
from retable.study.config import Config, Data
from retable.study.load import LoadedStudy
from retable.study.plan import Cell, Evaluation, Measurement, Plan, Subset, Training, View
from retable.study.problems import StudyError, nearest
from retable.study.resolve import Resolved, leaves
from retable.study.tuned import Tuned
from retable.weights import sources


@dataclass(frozen=True)
class World:
    """What a plan needs to know of the outside: dataset fingerprints, the semantics integers of the code, and this
    machine (for a network on a GPU or not; None where it is not known or has none)."""

    fingerprint: Callable[[Data], str | None]
    pipeline: int
    loop: int
    evaluation: int
    features: int = 1
    speed: int = 1
    machine: Callable[[bool], Mapping[str, str] | None] = lambda gpu: None


def make_plan(
    loaded: LoadedStudy,
    world: World,
    *,
    profile: str | None = None,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    tables: Sequence[str] = (),
    rows: Sequence[str] = (),
    tuned: Mapping[tuple[str, str], Tuned] | None = None,
) -> Plan:
    """Plan a study. ``tuned``: what the searches of rows (table, row) have come to.

    Raises:
        StudyError: an unknown profile or table, or settings that cannot be, each with its place.
    """
    study = loaded.study
    name = profile or study.default_profile
    _known(loaded, name, tables, rows)
    user = leaves(settings or {}, ("--set",))
    chosen = {row: found.point for row, found in (tuned or {}).items() if found.point is not None}
    asked = cells_of.demands(study, name, settings=user, tables=tables, rows=rows, tuned=chosen)
    if asked.faults:
        raise StudyError(located(loaded, fault.origin, fault) for fault in asked.faults)
    builder = _Builder(world)
    cells = tuple(builder.cell(demand) for demand in asked.cells)
    once = tuple(dict.fromkeys(seeds))
    merged, ends = builder.merged(), dict(tuned or {})
    return Plan(study, name, once, cells, builder.evaluations, merged, dict(settings or {}), builder.measurements, ends)


def training_of(resolved: Resolved, world: World, subset: Subset = "test") -> Training:
    """One config's training, scored under its own protocol on ``subset``: what a search's trial is."""
    builder = _Builder(world)
    return replace(builder._made(Score(resolved)), views=(builder._view(resolved, subset),))


def _known(loaded: LoadedStudy, profile: str, tables: Sequence[str], rows: Sequence[str]) -> None:
    study = loaded.study
    problems = []
    if profile not in study.profiles:
        problems.append(
            loaded.source.problem(
                ("profiles",), f"there is no profile {profile!r}", hint=nearest(profile, study.profiles)
            )
        )
    chosen = [t for t in study.tables if cells_of.matches(t.id, tables)]
    for glob in tables:
        if not any(cells_of.matches(t.id, [glob]) for t in study.tables):
            hint = nearest(glob, [t.id for t in study.tables])
            problems.append(loaded.source.problem(("tables",), f"there is no table {glob!r}", hint=hint))
    ids = [r.id for t in chosen for r in t.rows]
    for glob in rows if chosen else ():
        if not any(cells_of.matches(i, [glob]) for i in ids):
            problems.append(loaded.source.problem(("tables",), f"there is no row {glob!r}", hint=nearest(glob, ids)))
    if problems:
        raise StudyError(problems)


class _Builder:
    """Merges equal trainings and evaluations while cells are added in printed order."""

    def __init__(self, world: World):
        self.world = world
        self.evaluations: dict[str, Evaluation] = {}
        self.trainings: dict[str, Training] = {}
        self.views: dict[str, dict[str, View]] = {}
        self.measurements: dict[str, Measurement] = {}

    def cell(self, demand: Demand) -> Cell:
        base = Cell(
            demand.table, demand.row, demand.column, demand.kind, demand.metric,
            hole=demand.hole, untuned=demand.untuned,
        )  # fmt: skip
        if demand.static is not None:
            return replace(base, static=demand.static.config)
        if demand.speed is not None:
            return replace(base, measurement=self._measurement(demand.speed, str(demand.metric)))
        if demand.tree is None:
            return base
        return replace(base, evaluation=self._evaluation(demand.tree))

    def merged(self) -> dict[str, Training]:
        """The trainings, each with all views that cells asked for."""
        return {key: replace(t, views=tuple(self.views.get(key, {}).values())) for key, t in self.trainings.items()}

    def _evaluation(self, tree: Tree) -> str:
        if isinstance(tree, Score):
            training, view = self._training(tree), self._view(tree.resolved)
            self.views.setdefault(training, {})[view.key] = view
            node = Evaluation(f"{training}/{view.key}", "scores", training, view.key)
        else:
            node = self._combination(tree)
        self.evaluations.setdefault(node.key, node)
        return node.key

    def _combination(self, tree: Combine) -> Evaluation:
        parts = tuple(self._evaluation(part) for part in tree.parts)
        key = identity.digest({"kind": tree.kind, "parts": parts, "weights": tree.weights})
        return Evaluation(f"{tree.kind}/{key}", tree.kind, parts=parts, weights=tree.weights)

    def _measurement(self, timed: Resolved, metric: str) -> str:
        config, view = timed.config, self._view(timed)
        if metric == "ms_per_video":  # of one video at a time
            config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"workers": 1})})
        layout, fingerprint = layouts.layout_of(config.data.dataset).name, self.world.fingerprint(config.data)
        semantics = self._semantics(config, "pipeline", "evaluation", "speed")
        key = functools.partial(
            identity.speed_id,
            config,
            metric=metric,
            protocol=view.protocol,
            resources=timed.resources,
            semantics=semantics,
        )
        found = Measurement(
            key(fingerprint=fingerprint),
            key(fingerprint=None),
            metric,
            config,
            timed.resources,
            layout,
            fingerprint,
            semantics,
            view,
            self.world.machine(timed.resources.gpus_per_worker > 0),
            _unsupported(config),
        )
        self.measurements.setdefault(found.config_id, found)
        return found.config_id

    def _semantics(self, config: Config, *parts: str) -> dict[str, int]:
        """The integers of what computes a config's results: its model's, those named, and flow's if it reads any."""
        found = {"model": registry.load(config.model["name"]).semantics}
        found |= {part: getattr(self.world, part) for part in parts}
        return found | ({"flow": FLOW_SEMANTICS} if config.data.flow is not None else {})

    def _training(self, score: Score) -> str:
        training = self._made(score)
        self.trainings.setdefault(training.config_id, training)
        return training.config_id

    def _made(self, score: Score) -> Training:
        config = score.resolved.config
        layout, reason = layouts.layout_of(config.data.dataset).name, _unsupported(config)
        parents: tuple[Training, ...] = ()
        if score.parent is not None:
            parents = (self.trainings[self._training(Score(score.parent))],)
            reasons = [r for why in (reason, parents[0].unsupported) if why for r in why.split("; ")]
            reason = "; ".join(dict.fromkeys(reasons)) or None
        fingerprint = self.world.fingerprint(config.data)
        semantics = self._semantics(config, "pipeline", "loop", *(["features"] if score.use == "features" else []))
        key = functools.partial(
            identity.config_id,
            config,
            layout=layout,
            semantics=semantics,
            weights=sources.identity(config.model),
        )
        return Training(
            key(fingerprint=fingerprint, parents=tuple(f"{score.use} {p.config_id}" for p in parents)),
            key(fingerprint=None, parents=tuple(f"{score.use} {p.provisional_id}" for p in parents)),
            config,
            score.resolved.resources,
            layout,
            fingerprint,
            semantics,
            (),
            reason,
            tuple(p.config_id for p in parents),
            score.use,
        )

    def _view(self, resolved: Resolved, subset: Subset = "test") -> View:
        data = resolved.config.data
        key = identity.view_key(
            resolved.protocol,
            fingerprint=self.world.fingerprint(data),
            name=f"{data.dataset}/{data.split}",
            subset=subset,
            semantics=self.world.evaluation,
        )
        return View(key, resolved.protocol, subset, self.world.evaluation)


def _unsupported(config: Config) -> str | None:
    """Why this config cannot be trained yet."""
    settings = dict(config.model)
    file = registry.load(settings.pop("name"))
    inputs = file.inputs(file.config_class.model_validate(settings))
    if all(spec.modality != config.data.stream for spec in inputs.values()):
        return f"the model {file.name} does not read the stream {config.data.stream}"
    if any(name == "flow" and spec.shape[1] != 2 * spec.fields for name, spec in inputs.items()):
        return "flow can be read as x and y displacements only"
    return None
