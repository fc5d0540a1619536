"""What records hold for a plan's evaluations: a value for each seed, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retable.study.plan import Evaluation, Plan, Training
from retable.track.records import RunRecord
from retable.track.scores import Mismatch, Scores, fuse, metrics

WORST_FIRST = ("unsupported", "failed", "running", "missing")


@dataclass(frozen=True)
class Value:
    """One seed's value. ``run_id`` is None where several runs make it."""

    seed: int
    value: float
    run_id: str | None


@dataclass(frozen=True)
class Hole:
    """Why there is no value. ``status`` is one of ``WORST_FIRST``."""

    status: str
    reason: str


class Reader:
    """Looks up a plan's evaluations in records."""

    def __init__(self, plan: Plan, records: Mapping[str, RunRecord]):
        self.plan, self.records = plan, records
        self.notes: dict[str, str] = {}
        self._fusions: dict[tuple[str, int], dict[str, float] | Hole] = {}
        by_config: dict[str, dict[int, RunRecord]] = {}
        configs: dict[str, set[str]] = {}
        for record in records.values():
            by_config.setdefault(record.config_id, {})[record.seed] = record
            configs.setdefault(str(record.spec.get("provisional_id")), set()).add(record.config_id)
        self.found = {key: self._found(t, by_config, configs) for key, t in plan.trainings.items()}

    def seeds(self, evaluations: Iterable[str]) -> tuple[int, ...]:
        """Every seed that some training behind these evaluations has a record of; the plan's own if there is none."""
        keys = {key for e in evaluations for key in self.plan.trainings_of(e)}
        return tuple(sorted({seed for key in keys for seed in self.found[key]})) or self.plan.seeds

    def used(self, evaluation: str, seeds: Iterable[int]) -> list[RunRecord]:
        """The finished records behind an evaluation."""
        seeds = set(seeds)
        found = [self.found[key] for key in self.plan.trainings_of(evaluation)]
        return [r for runs in found for seed, r in sorted(runs.items()) if seed in seeds and r.status == "done"]

    def config_id(self, evaluation: str) -> str | None:
        """The config id of an evaluation of one training, as recorded where there are records; None for several."""
        key = self.plan.evaluations[evaluation].config_id
        recorded = self.found.get(key or "", {}).values()
        return next((record.config_id for record in recorded), key)

    def read(self, evaluation: str, metric: str, seed: int) -> Value | Hole:
        """The evaluation's metric for one seed."""
        node = self.plan.evaluations[evaluation]
        if node.kind == "fuse":
            return self._fused(evaluation, metric, seed)
        if node.kind == "mean":
            return self._mean(node, metric, seed)
        return self._scored(self.plan.trainings[str(node.config_id)], str(node.view), metric, seed)

    def _mean(self, node: Evaluation, metric: str, seed: int) -> Value | Hole:
        parts = [self.read(part, metric, seed) for part in node.parts]
        holes = [part for part in parts if isinstance(part, Hole)]
        if holes:
            return _worst(holes)
        values = [part.value for part in parts if isinstance(part, Value)]
        return Value(seed, sum(w * v for w, v in zip(node.weights, values, strict=True)), None)

    def _fused(self, evaluation: str, metric: str, seed: int) -> Value | Hole:
        """Fused once for all its metrics."""
        if (evaluation, seed) not in self._fusions:
            scores = self.scores(evaluation, seed)
            self._fusions[evaluation, seed] = scores if isinstance(scores, Hole) else metrics(scores)
        found = self._fusions[evaluation, seed]
        if isinstance(found, Hole):
            return found
        if metric not in found:
            return Hole("missing", f"the fused scores have no {metric}")
        return Value(seed, found[metric], None)

    def scores(self, evaluation: str, seed: int) -> Scores | Hole:
        """Per-video scores: a run's own as recorded, or the weighted mean of several."""
        node = self.plan.evaluations[evaluation]
        if node.kind == "scores":
            return self._own_scores(self.plan.trainings[str(node.config_id)], str(node.view), seed)
        parts = [self.scores(part, seed) for part in node.parts]
        holes = [part for part in parts if isinstance(part, Hole)]
        if holes:
            return _worst(holes)
        try:
            return fuse([part for part in parts if isinstance(part, Scores)], node.weights)
        except Mismatch as error:
            return Hole("failed", f"cannot be fused: {error}")

    def _own_scores(self, training: Training, view: str, seed: int) -> Scores | Hole:
        record = self._run(training, seed)
        if isinstance(record, Hole):
            return record
        scores = record.scores(_view_key(training, view, record))
        return scores or Hole("missing", "trained, but its per-video scores are not recorded under this protocol")

    def _run(self, training: Training, seed: int) -> RunRecord | Hole:
        """The finished run, or why there is none."""
        if training.unsupported is not None:
            return Hole("unsupported", training.unsupported)
        record = self.found[training.config_id].get(seed)
        if record is None:
            lost = self._failed_parent(training, seed)
            return Hole("missing", f"not run: parent failed ({lost})" if lost else "not run yet")
        if record.status == "failed":
            return Hole("failed", f"failed: {record.reason or 'no reason was recorded'}")
        if record.status == "partial":
            epochs = training.config.recipe.epochs
            return Hole("running", f"not finished: {len(record.epochs)} of {epochs} epochs")
        return record

    def _scored(self, training: Training, view: str, metric: str, seed: int) -> Value | Hole:
        record = self._run(training, seed)
        if isinstance(record, Hole):
            return record
        key = _view_key(training, view, record)
        scores = record.evaluations.get(key, {})
        if metric not in scores and (recorded := record.scores(key)) is not None:
            scores = metrics(recorded)  # recorded before there was this metric
        if metric not in scores:
            return Hole("missing", f"trained, but {metric} is not recorded under this protocol")
        return Value(seed, scores[metric], record.run_id)

    def _failed_parent(self, training: Training, seed: int) -> str | None:
        """The run among those that this one starts from, however far back, that failed."""
        for key in training.parents:
            record = self.found[key].get(seed)
            if record is not None and record.status == "failed":
                return record.run_id
            if (lost := self._failed_parent(self.plan.trainings[key], seed)) is not None:
                return lost
        return None

    def _found(
        self, training: Training, by_config: Mapping[str, dict[int, RunRecord]], configs: Mapping[str, set[str]]
    ) -> dict[int, RunRecord]:
        """Records by seed. Without the dataset at hand, those of one version of it: the one with most runs."""
        if training.fingerprint is not None:
            return by_config.get(training.config_id, {})
        versions = sorted(configs.get(training.provisional_id, ()), key=lambda key: (-len(by_config[key]), key))
        if not versions:
            return {}
        if len(versions) > 1:
            name = training.config.data.dataset
            self.notes[name] = f"There are records of {len(versions)} versions of {name}; those of one are shown."
        return by_config[versions[0]]


def _worst(holes: Iterable[Hole]) -> Hole:
    return min(holes, key=lambda hole: WORST_FIRST.index(hole.status))


def _view_key(training: Training, view: str, record: RunRecord) -> str:
    """The key that the record's scores are stored under; a provisional plan takes the record's own fingerprint."""
    fingerprint = record.spec.get("dataset", {}).get("fingerprint")
    if training.fingerprint is not None or fingerprint is None:
        return view
    return next(v for v in training.views if v.key == view).under(str(fingerprint))
