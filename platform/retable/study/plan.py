"""Study -> plan: cells, evaluations, trainings, with duplicates merged. Pure: no Ray, no torch, no I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from retable import registry
from retable.data import FLOW_SEMANTICS, layouts
from retable.study import cells as cells_of
from retable.study import claims, identity, searches
from retable.study.cells import Combine, Demand, Score, Tree
from retable.study.config import Config, Data, Protocol, Resources
from retable.study.load import LoadedStudy
from retable.study.problems import Problem, StudyError, nearest
from retable.study.resolve import Resolved, leaves, profile_leaves
from retable.study.schema import Study
from retable.weights import sources

Subset = Literal["test", "val"]
Use = Literal["weights", "features"]


@dataclass(frozen=True)
class World:
    """What a plan needs to know of the outside: dataset fingerprints and the semantics integers of the code."""

    fingerprint: Callable[[Data], str | None]
    pipeline: int
    loop: int
    evaluation: int
    features: int = 1


@dataclass(frozen=True)
class View:
    """One protocol on one evaluation set; ``key`` names the scores in a run's folder."""

    key: str
    protocol: Protocol
    subset: Subset
    semantics: int

    def under(self, fingerprint: str) -> str:
        """Its key for the dataset with this fingerprint: what a provisional plan looks recorded scores up with."""
        return identity.view_key(
            self.protocol, fingerprint=fingerprint, name="", subset=self.subset, semantics=self.semantics
        )


@dataclass(frozen=True)
class Training:
    """One config to train, with every seed. ``config_id`` is provisional (``~``) while the dataset is not at hand."""

    config_id: str
    provisional_id: str
    config: Config
    resources: Resources
    layout: str
    fingerprint: str | None
    semantics: Mapping[str, int]
    views: tuple[View, ...]
    unsupported: str | None = None
    parents: tuple[str, ...] = ()
    """Config ids of the trainings that it starts from, seed by seed."""
    use: Use | None = None
    """What it takes from them."""

    def run(self, seed: int) -> RunSpec:
        """This training with one seed."""
        return RunSpec(identity.run_id(self.config_id, seed), seed, self)


@dataclass(frozen=True)
class RunSpec:
    """One training with one seed: what a trial executes."""

    run_id: str
    seed: int
    training: Training

    @property
    def parents(self) -> tuple[str, ...]:
        """Run ids that must be done before: earlier stages with the same seed."""
        return tuple(identity.run_id(parent, self.seed) for parent in self.training.parents)

    def to_json(self) -> dict[str, Any]:
        """``spec.json``: everything that determines the run, and the views asked for when it was planned."""
        training = self.training
        return {
            "schema": 1,
            "run_id": self.run_id,
            "config_id": training.config_id,
            "provisional_id": training.provisional_id,
            "seed": self.seed,
            "parents": list(self.parents),
            **({"use": training.use} if training.use else {}),
            "config": training.config.model_dump(mode="json"),
            "dataset": {
                "name": training.config.data.dataset,
                "layout": training.layout,
                "fingerprint": training.fingerprint,
            },
            "semantics": dict(training.semantics),
        }


@dataclass(frozen=True)
class Evaluation:
    """What yields a cell's value for each seed: a training under a view, or a combination of other evaluations."""

    key: str
    kind: Literal["scores", "fuse", "mean"]
    config_id: str | None = None
    view: str | None = None
    parts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One cell of a table and what fills it: an evaluation's metric, a static count, or a hole with its reason.

    ``unsupported`` says why its metric cannot be computed yet; :attr:`Plan.unsupported` has all such reasons.
    """

    table: str
    row: str
    column: str
    kind: str
    metric: str | None
    evaluation: str | None = None
    static: Config | None = None
    hole: str | None = None
    unsupported: str | None = None


@dataclass(frozen=True)
class Plan:
    """Cells -> evaluations -> trainings x seeds of one study under one profile."""

    study: Study
    profile: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    evaluations: Mapping[str, Evaluation]
    trainings: Mapping[str, Training]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def runs(self) -> tuple[RunSpec, ...]:
        """All runs, seed by seed within a training, in the order in which the tables ask for them; parents first."""
        return tuple(t.run(seed) for t in self.trainings.values() for seed in self.seeds if t.unsupported is None)

    def trainings_of(self, evaluation: str) -> tuple[str, ...]:
        """The config ids behind an evaluation."""
        node = self.evaluations[evaluation]
        if node.config_id is not None:
            return (node.config_id,)
        return tuple(dict.fromkeys(c for part in node.parts for c in self.trainings_of(part)))

    @cached_property
    def unsupported(self) -> dict[str, tuple[Cell, ...]]:
        """What cannot be done yet: each reason with the cells that it leaves empty."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            reasons = [cell.unsupported] if cell.unsupported else []
            for reason in dict.fromkeys((*reasons, *self._reasons(cell.evaluation))):
                found.setdefault(reason, []).append(cell)
        return {reason: tuple(cells) for reason, cells in found.items()}

    def _reasons(self, evaluation: str | None) -> list[str]:
        if evaluation is None:
            return []
        node = self.evaluations[evaluation]
        if node.config_id is not None:
            reason = self.trainings[node.config_id].unsupported
            return reason.split("; ") if reason else []
        return [reason for part in node.parts for reason in self._reasons(part)]

    @cached_property
    def users(self) -> dict[str, tuple[Cell, ...]]:
        """The cells whose values each training yields; none for a training that only starts others."""
        found: dict[str, list[Cell]] = {key: [] for key in self.trainings}
        for cell in self.cells:
            for key in self.trainings_of(cell.evaluation) if cell.evaluation else ():
                found[key].append(cell)
        return {key: tuple(cells) for key, cells in found.items()}

    @cached_property
    def served(self) -> dict[str, tuple[Cell, ...]]:
        """The cells that need each training: its own, and those of the trainings that start from it, in study order."""
        places = {id(cell): i for i, cell in enumerate(self.cells)}
        found = {key: {places[id(cell)] for cell in cells} for key, cells in self.users.items()}
        for key in reversed(list(self.trainings)):  # children come after their parents
            for parent in self.trainings[key].parents:
                found[parent] |= found[key]
        return {key: tuple(self.cells[i] for i in sorted(at)) for key, at in found.items()}


def make_plan(
    loaded: LoadedStudy,
    world: World,
    *,
    profile: str | None = None,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    tables: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Plan:
    """Plan a study.

    Raises:
        StudyError: an unknown profile or table, or settings that cannot be, each with its place.
    """
    study = loaded.study
    name = profile or study.default_profile
    _known(loaded, name, tables, rows)
    user = leaves(settings or {}, ("--set",))
    asked = cells_of.demands(study, name, settings=user, tables=tables, rows=rows)
    if asked.faults:
        raise StudyError(_located(loaded, fault.origin, fault) for fault in asked.faults)
    builder = _Builder(world)
    cells = tuple(builder.cell(demand) for demand in asked.cells)
    once = tuple(dict.fromkeys(seeds))
    return Plan(study, name, once, cells, builder.evaluations, builder.merged(), dict(settings or {}))


def check(loaded: LoadedStudy) -> list[Problem]:
    """Every fault of a study's claims, and of its settings in every profile: unknown knobs, impossible values, overlaid
    ablations."""
    study = loaded.study
    problems: dict[str, Problem] = {}
    for name in study.profiles:
        found = [*_overlaid(loaded, name)]
        asked = cells_of.demands(study, name)
        found += [_located(loaded, fault.origin, fault) for fault in asked.faults] or _unused_knobs(
            loaded, name, asked.cells
        )
        problems |= {str(problem): problem for problem in found}
    return [*problems.values(), *claims.problems(loaded), *searches.problems(loaded)]


def training_of(resolved: Resolved, world: World, subset: Subset = "test") -> Training:
    """One config's training, scored under its own protocol on ``subset``: what a search's trial is."""
    builder = _Builder(world)
    return replace(builder._made(Score(resolved)), views=(builder._view(resolved, subset),))


def _overlaid(loaded: LoadedStudy, name: str) -> Iterator[Problem]:
    """Settings of a profile on paths that the tables vary: the cells would lose their difference."""
    study = loaded.study
    places = [(profile_leaves(study, name), cells_of.varied_paths(study))]
    for i, where in enumerate(study.profiles[name].where):
        found = leaves(where.set, ("profiles", name, "where", i, "set"))
        places.append((found, cells_of.varied_paths(study, where.tables)))
    for overlay, varied in places:
        for path, leaf in overlay.items():
            if path in varied and path.split(".")[0] in ("model", "data", "recipe", "protocol"):
                line = loaded.source.marks.get(varied[path], (0, 0))[0]
                yield loaded.source.problem(
                    leaf.origin,
                    f"profile {name!r} overlays {path}, which line {line} varies: its cells would all be equal",
                    leaf.value,
                    "take it out of the profile",
                )


def _unused_knobs(loaded: LoadedStudy, profile: str, cells: Sequence[Demand]) -> list[Problem]:
    """Model knobs of a profile that no model of the study has: typing errors, since others are passed over."""
    configs = [r.config.model for cell in cells for r in _resolved(cell)]
    known = {knob for model in configs for knob in model}
    return [
        loaded.source.problem(
            ("profiles", profile, "model", knob),
            f"no model of this study has the knob {knob!r}",
            value,
            nearest(knob, known - {"name", *registry.LINKED}),
        )
        for knob, value in loaded.study.profiles[profile].model.items()
        if configs and knob not in known
    ]


def _resolved(demand: Demand) -> list[Resolved]:
    def leaves_of(tree: Tree) -> list[Resolved]:
        if isinstance(tree, Combine):
            return [r for part in tree.parts for r in leaves_of(part)]
        return [tree.resolved, *([tree.parent] if tree.parent is not None else [])]

    return ([demand.static] if demand.static else []) + (leaves_of(demand.tree) if demand.tree else [])


def _located(loaded: LoadedStudy, origin: Any, fault: Any) -> Problem:
    if origin and origin[0] == "--set":
        return Problem("--set", 1, 1, fault.path, fault.message, _shown(fault.value), fault.hint)
    problem = loaded.source.problem(origin, fault.message, fault.value, fault.hint)
    return Problem(problem.file, problem.line, problem.column, fault.path, fault.message, problem.value, fault.hint)


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)


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

    def cell(self, demand: Demand) -> Cell:
        base = Cell(
            demand.table, demand.row, demand.column, demand.kind, demand.metric,
            hole=demand.hole, unsupported=demand.unsupported,
        )  # fmt: skip
        if demand.static is not None:
            return replace(base, static=demand.static.config)
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
        semantics = {
            "model": registry.load(config.model["name"]).semantics,
            "pipeline": self.world.pipeline,
            "loop": self.world.loop,
        }
        if config.data.flow is not None:
            semantics["flow"] = FLOW_SEMANTICS
        if score.use == "features":
            semantics["features"] = self.world.features
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
