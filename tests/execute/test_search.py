"""The search's source: without Ray, against recorded runs that stand in for training."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retable.execute.order import Places
from retable.execute.searching.asha import Decisions
from retable.execute.searching.source import Options, SearchSource
from retable.report.searching import trials as report
from retable.study.load import parse
from retable.study.plan import RunSpec
from retable.study.planner import training_of
from retable.study.search_schema import Budget, Scheduler
from retable.study.searches import Hunt
from retable.track.claims import Process
from retable.track.storage import Storage
from retable.track.trials import TrialRecord, front
from tests.study.sample import EQUIPPED, TEXT

optuna.logging.set_verbosity(optuna.logging.ERROR)

SEARCH = """\
search:
  space:
    model.groups: {choice: [3, 4]}
    model.attention: {choice: [none, se]}
    model.reduction: {choice: [2, 4], when: {model.attention: [se]}}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
  objective: {maximize: top1, on: test}
  first: [t1.s3]
  budget: {trials: 8}
"""
DISCRETE = SEARCH.replace("recipe.lr: {log_uniform: [1e-5, 1e-2]}", "recipe.lr: {choice: [1e-4, 1e-3]}")
EPOCHS = 6
NINE = TEXT.replace("recipe: {lr: 1e-4, epochs: 2}", f"recipe: {{lr: 1e-4, epochs: {EPOCHS}}}")


class Killed(BaseException):
    """The driver's process ends here."""


def accuracy(run: RunSpec, epoch: int) -> float:
    """What a run of this config would reach: best at lr 1e-3 and four groups."""
    lr = math.log10(run.training.config.recipe.lr)
    groups = int(run.training.config.model["groups"])
    return round(50 - 8 * abs(lr + 3) + 2 * groups + epoch, 6)


@dataclass
class Bench:
    """A storage and an Optuna study that outlive drivers."""

    root: Path
    text: str = SEARCH
    profile: str = "profiles:\n  paper: {}"
    study: optuna.Study | None = None
    value: Callable[[RunSpec, int], float] = accuracy
    trained: list[tuple[str, int]] = field(default_factory=list)
    steps: int = 10**9

    def __post_init__(self) -> None:
        self.storage = Storage(str(self.root))
        text = NINE.replace("profiles:\n  paper: {}", self.profile) + self.text
        self.hunt = Hunt(parse(text, "s.yaml").study, "paper", {})
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if goal.maximize else down for goal in self.hunt.search.goals]
        self.study = self.study or optuna.create_study(directions=directions)

    def make(self, point: dict[str, Any]) -> RunSpec:
        return training_of(self.hunt.resolve(point), EQUIPPED, self.hunt.search.on).run(0)

    def source(self, sampler: str = "tpe", seed: int = 0, concurrency: int = 1, **changes: Any) -> SearchSource:
        assert self.study is not None
        search = self.hunt.search
        options = Options(sampler, changes.get("budget", search.budget), seed, concurrency, changes.get("fair", False))
        places = Places(self.storage.url, None, "", Process("host", 1, 0.0))
        decisions = Decisions(changes.get("scheduler", search.scheduler), EPOCHS)
        return SearchSource(self.hunt, self.make, self.study, self.storage, places, options, decisions)

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Killed

    def train(self, source: SearchSource, run_id: str) -> None:
        """What the trial does: resumes after recorded epochs, ends early where asked, records."""
        order = source.order(run_id)
        run = self.make(self.hunt.space.project(order.spec["config"]))
        self.storage.put_json(f"{order.folder}/spec.json", order.spec)
        for epoch in range(len(list(self.storage.epochs(run_id))), EPOCHS):
            self.step()
            line = {"epoch": epoch, "test/top1": self.value(run, epoch), "seconds": 600.0}
            self.storage.put_json(f"{order.folder}/epochs/{epoch}.0.json", line)
            self.trained.append((run_id, epoch))
            self.step()
            source.heard(run_id, line)
            self.step()
            stop = self.storage.get_json(f"{order.folder}/stop.json")
            if order.stoppable and stop is not None and stop["epoch"] == epoch:
                return
        self.finish(run, order.views[0].key)
        self.step()

    def finish(self, run: RunSpec, view: str) -> None:
        scores = {"top1": self.value(run, EPOCHS - 1)}
        self.storage.put_json(f"runs/{run.run_id}/scores/{view}.json", scores)
        self.storage.put_json(f"runs/{run.run_id}/result.json", {"status": "done"})

    def search(self, **changes: Any) -> list[TrialRecord]:
        """One driver, one trial at a time, until it is done or killed."""
        source = self.source(**changes)
        while True:
            try:
                run_id = source.next()
            except StopIteration:
                return source.trials()
            assert run_id is not None
            self.step()
            self.train(source, run_id)
            source.ended(run_id, ok=True)
            self.step()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def told(trials: list[TrialRecord]) -> list[Any]:
    return [(t.point, t.state, t.values, t.epochs) for t in trials]


def test_rows_come_first_and_the_budget_is_kept_and_can_grow(bench: Bench) -> None:
    trials = bench.search()
    assert [t.state for t in trials] == ["complete"] * 8
    assert trials[0].label == "t1.s3"
    assert trials[0].point == {"model.groups": 3, "model.attention": "none", "recipe.lr": 1e-4}
    assert len({t.run_id for t in trials}) == 8
    assert bench.search() == trials
    more = bench.search(budget=Budget(trials=11))
    assert more[:8] == trials
    assert len(more) == 11
    assert len(bench.trained) == len(set(bench.trained)) == 11 * EPOCHS


def test_a_budget_of_epochs_is_spent_by_what_is_trained_for_the_search(bench: Bench) -> None:
    trials = bench.search(budget=Budget(epochs=15))
    assert sum(t.spent for t in trials) == 18  # the trial that crosses it is finished


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_the_same_seed_gives_the_same_trials_and_another_does_not(sampler: str, tmp_path: Path) -> None:
    one, again, other = (Bench(tmp_path / name).search(sampler=sampler, seed=seed) for name, seed in
                         (("a", 1), ("b", 1), ("c", 2)))  # fmt: skip
    assert told(one) == told(again)
    assert told(one) != told(other)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 40), max_size=3), sampler=st.sampled_from(["tpe", "random", "grid"]))
def test_kills_change_no_trial_and_no_decision_and_repeat_no_epoch(
    cuts: list[int], sampler: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asha = Scheduler(kind="asha", eta=2)
    text = DISCRETE if sampler == "grid" else SEARCH
    whole = Bench(tmp_path_factory.mktemp("whole"), text)
    killed = Bench(tmp_path_factory.mktemp("killed"), text)
    expected = whole.search(sampler=sampler, scheduler=asha)
    assert {t.state for t in expected} == {"complete", "pruned"}
    for cut in cuts:
        killed.steps = cut
        with suppress(Killed):  # unless it is over before
            killed.search(sampler=sampler, scheduler=asha)
    killed.steps = 10**9
    assert killed.search(sampler=sampler, scheduler=asha) == expected
    assert killed.source(scheduler=asha).decisions.log == whole.source(scheduler=asha).decisions.log
    assert len(killed.trained) == len(set(killed.trained))


def test_a_driver_killed_while_it_draws_a_point_draws_the_same_point(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told(Bench(tmp_path / "whole").search())
    real, count = optuna.Trial._suggest, 0

    def dying(trial: optuna.Trial, *args: Any) -> Any:
        nonlocal count
        count += 1
        value = real(trial, *args)
        if count == 9:
            raise Killed
        return value

    monkeypatch.setattr(optuna.Trial, "_suggest", dying)
    with pytest.raises(Killed):
        bench.search()
    assert told(bench.search()) == expected


def test_a_pruned_run_has_no_result_and_goes_on_when_a_table_asks_for_it(bench: Bench) -> None:
    trials = bench.search(scheduler=Scheduler(kind="asha", eta=2))
    pruned = next(t for t in trials if t.state == "pruned")
    assert bench.storage.get_json(f"runs/{pruned.run_id}/result.json") is None
    assert pruned.epochs < EPOCHS
    assert pruned.values == (bench.value(bench.make(pruned.point), pruned.epochs - 1),)
    run = bench.make(pruned.point)
    bench.finish(run, run.training.views[0].key)  # a table has trained it to its end
    again = bench.search(scheduler=Scheduler(kind="asha", eta=2))
    assert [t.state for t in again if t.run_id == pruned.run_id] == ["pruned", "recorded"]


def test_finished_runs_inside_the_space_are_learnt_from_and_cost_nothing(bench: Bench) -> None:
    inside = {"model.groups": 4, "model.attention": "se", "model.reduction": 4, "recipe.lr": 1e-3}
    for point in (inside, {"model.groups": 3, "model.attention": "none", "recipe.lr": 1e-4}):
        run = bench.make(point)
        bench.storage.put_json(f"runs/{run.run_id}/spec.json", run.to_json())
        bench.finish(run, run.training.views[0].key)
    outside = training_of(bench.hunt.resolve({**inside, "recipe.lr": 0.5}), EQUIPPED).run(0)
    bench.storage.put_json(f"runs/{outside.run_id}/spec.json", outside.to_json())
    bench.finish(outside, outside.training.views[0].key)
    trials = bench.search(budget=Budget(trials=2))
    recorded = [t for t in trials if t.state == "recorded"]
    assert len(recorded) == 2
    assert inside in [t.point for t in recorded]
    assert all(t.shared for t in recorded)
    assert len(trials) == 4, "the row that is recorded was tried again"


def test_a_failure_and_a_nan_are_told_as_failures_with_their_reason(bench: Bench) -> None:
    source = bench.source()
    failed, nan = str(source.next()), ""
    bench.storage.put_json(f"runs/{failed}/spec.json", source.order(failed).spec)
    bench.storage.put_json(f"runs/{failed}/result.json", {"status": "failed", "reason": "NonFiniteLoss: at update 3"})
    source.ended(failed, ok=False)
    bench.value = lambda run, epoch: math.nan
    nan = str(source.next())
    bench.train(source, nan)
    source.ended(nan, ok=True)
    assert [(t.state, t.reason) for t in source.trials()] == [
        ("failed", "NonFiniteLoss: at update 3"),
        ("failed", "its top1 is not a number"),
    ]
    assert source.study.get_trials()[0].state == optuna.trial.TrialState.FAIL


def test_a_run_whose_process_dies_is_handed_out_again_and_given_up_at_last(bench: Bench) -> None:
    source = bench.source(budget=Budget(trials=1))
    handed = []
    for _ in range(3):
        run_id = str(source.next())
        bench.storage.put_json(f"runs/{run_id}/spec.json", source.order(run_id).spec)
        handed.append(run_id)
        source.ended(run_id, ok=False)
    with pytest.raises(StopIteration):
        source.next()
    assert len(set(handed)) == 1
    assert "died 3 times" in str(source.trials()[0].reason)


def test_a_fault_of_the_machine_ends_the_search_and_the_trial_is_taken_up_again(bench: Bench) -> None:
    source = bench.source()
    run_id = source.next()
    source.ended(str(run_id), ok=True)  # no result: the disk is full
    with pytest.raises(StopIteration):
        source.next()
    assert source.halted
    assert bench.source().next() == run_id


def test_no_more_runs_are_handed_out_than_fit_at_once(bench: Bench) -> None:
    source = bench.source(concurrency=2)
    first, second = source.next(), source.next()
    assert first != second
    assert source.next() is None
    bench.train(source, str(first))
    source.ended(str(first), ok=True)
    assert source.next() is not None


def test_a_grid_is_every_valid_point_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DISCRETE)
    trials = bench.search(sampler="grid", budget=Budget(trials=99))
    assert len(trials) == len({repr(t.point) for t in trials}) == 2 * (1 + 2) * 2


def test_combinations_that_the_model_refuses_are_never_proposed_to_be_trained(tmp_path: Path) -> None:
    """S against width: not every width can be split into every number of groups."""
    text = """\
search:
  space:
    model.width: {choice: [12, 16]}
    model.groups: {choice: [3, 4, 5, 6, 8]}
  objective: {maximize: top1, on: test}
  budget: {trials: 20}
"""
    trials = Bench(tmp_path, text).search(sampler="tpe")
    found = {(t.point["model.width"], t.point["model.groups"]) for t in trials}
    valid = {(w, g) for w in (12, 16) for g in (3, 4, 5, 6, 8) if _fits(Bench(tmp_path / "b", text), w, g)}
    assert found == valid
    assert len(valid) < 10


def _fits(bench: Bench, width: int, groups: int) -> bool:
    try:
        bench.make({"model.width": width, "model.groups": groups})
    except ValueError:
        return False
    return True


def test_points_that_make_no_config_are_never_trained_and_do_not_count(tmp_path: Path) -> None:
    text = DISCRETE.replace("model.groups: {choice: [3, 4]}", "model.groups: {choice: [3, 4, 40]}")
    bench = Bench(tmp_path, text)
    trials = bench.search(sampler="random", budget=Budget(trials=12))
    assert len(trials) == 12
    assert {t.point["model.groups"] for t in trials} == {3, 4}
    source = bench.source(sampler="random", budget=Budget(trials=13))
    with pytest.raises(StopIteration):
        source.next()
    assert source.exhausted


def test_two_objectives_have_a_front(tmp_path: Path) -> None:
    text = SEARCH.replace("objective: {maximize: top1, on: test}",
                          "objectives: [{maximize: top1, on: test}, {minimize: params}]")  # fmt: skip
    bench = Bench(tmp_path, text)
    trials = bench.search()
    best = front(trials, (True, False))
    printed = [line for line in report.lines(report.document("s", bench.hunt, trials)) if line.startswith("best: ")]
    assert [
        f"trial {t.number}, top1 {t.values[0]:.4g}, params {t.values[1]:.4g}:" in line
        for t, line in zip(best, printed, strict=True)
    ] == [True] * len(best)
    assert 1 <= len(best) < len(trials)
    values = sorted(t.values for t in best)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(values))


@pytest.mark.parametrize("sampler", ["qmc", "cmaes"])
def test_samplers_of_numbers_go_on_where_they_were(sampler: str, tmp_path: Path) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    text = """\
search:
  space:
    recipe.weight_decay: {uniform: [0.0, 0.1]}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
  objective: {maximize: top1, on: test}
  budget: {trials: 6}
"""
    whole, killed = Bench(tmp_path / "whole", text), Bench(tmp_path / "killed", text)
    expected = whole.search(sampler=sampler)
    killed.steps = 44
    with pytest.raises(Killed):
        killed.search(sampler=sampler)
    killed.steps = 10**9
    assert told(killed.search(sampler=sampler)) == told(expected)
    assert len(killed.trained) == len(set(killed.trained)) == 6 * EPOCHS


def test_a_budget_of_gpu_hours_is_spent_by_the_recorded_seconds_of_what_is_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, text=SEARCH, profile="profiles:\n  paper: {resources: {gpus_per_worker: 2}}")
    trials = bench.search(budget=Budget(gpu_hours=5))
    assert [(t.seconds, t.gpus) for t in trials] == [(EPOCHS * 600.0, 2)] * 3  # 2 GPU-hours each
    assert len(bench.search(budget=Budget(gpu_hours=7))) == 4


def test_a_budget_of_hours_is_that_of_all_drivers_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 60.0  # looked at when a driver begins, after each epoch and after each run
        return now

    monkeypatch.setattr("retable.execute.searching.source.time.monotonic", clock)
    first = bench.search(budget=Budget(hours=0.25))
    assert len(first) == 3  # a minute for each of 6 epochs and for the end; the trial that crosses it is finished
    now = 10**6
    assert len(bench.search(budget=Budget(hours=0.25))) == 3
    assert len(bench.search(budget=Budget(hours=0.4))) == 4


def test_searches_that_are_compared_do_not_gain_by_what_others_have_trained(bench: Bench, tmp_path: Path) -> None:
    expected = Bench(tmp_path / "alone").search(fair=True, budget=Budget(epochs=15))
    for trial in expected:  # now somebody else has trained all of it, and another run in the space
        run = bench.make(trial.point)
        bench.storage.put_json(f"runs/{run.run_id}/spec.json", run.to_json())
        for epoch in range(EPOCHS):
            bench.storage.put_json(f"runs/{run.run_id}/epochs/{epoch}.0.json", {"epoch": epoch})
        bench.finish(run, run.training.views[0].key)
    assert [(t.point, t.values, t.state) for t in bench.search(fair=True, budget=Budget(epochs=15))] == [
        (t.point, t.values, "complete") for t in expected
    ]
    assert bench.trained == []
