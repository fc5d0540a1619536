"""How soon searches find a good configuration: replayed on 64 recorded trainings, by the very code that searches.

Run: python benchmarks/search.py [--repeats 30]. Reads benchmarks/results/search_grid.json, writes search.json and
search.png beside it. ``--train`` makes the grid first: every point of benchmarks/search.yaml once, by `retable search`.

Five searches share the grid and the objective (best top-1 on held-out videos of a whole trial), one trial at a time:

- retable: SearchSource and Decisions, on run folders that the recorded epochs are written into as a trial would;
- retable with the random sampler and no early stopping; the exact expectation of it is the check of the replay;
- retable with the random sampler and asha, and with TPE alone, which say what each of the two does;
- Ray: OptunaSearch (TPE) and ASHAScheduler, called in the order in which Ray's controller calls them.

Ray trains a point again when its sampler proposes it again, and tells Optuna a stopped trial as complete with its last
value; retable passes a known point over, and tells it as pruned.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from scipy import stats

from retable.execute.order import Places
from retable.execute.searching.asha import Decisions
from retable.execute.searching.source import Options, SearchSource
from retable.report import style
from retable.report.searching.searched import expected_best
from retable.study.identity import canonical
from retable.study.plan import RunSpec
from retable.study.planner import World, training_of
from retable.study.search_schema import Budget, Scheduler
from retable.study.searches import Hunt
from retable.track.claims import Process
from retable.track.storage import Storage
from retable.track.trials import TrialRecord
from retable.workspace import Workspace, open_study

HERE = Path(__file__).parent
STUDY, GRID, RESULTS, PICTURE = (
    HERE / "search.yaml", HERE / "results" / "search_grid.json", HERE / "results" / "search.json",
    HERE / "results" / "search.png",
)  # fmt: skip
ASHA = Scheduler(kind="asha", eta=3, min_epochs=1)
WHOLE_BUDGET = 81
"""Epochs: what nine whole trials take, a seventh of the whole grid."""
MARKS = (9, 18, 27, 36, 54, 81)
Timeline = list[tuple[int, float]]
"""(epochs spent so far, value) of every whole trial, in the order in which they ended."""


@dataclass(frozen=True)
class Grid:
    """The recorded curves: top-1 in percent after each epoch, by point (canonical JSON)."""

    hunt: Hunt
    curves: dict[str, list[float]]

    @property
    def epochs(self) -> int:
        return len(next(iter(self.curves.values())))

    @property
    def best(self) -> float:
        return max(curve[-1] for curve in self.curves.values())

    def curve(self, point: dict[str, Any]) -> list[float]:
        return self.curves[canonical(point)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=30)
    options.add_argument("--train", action="store_true")
    options.add_argument("--storage", default=None)
    options.add_argument("--data", default=None)
    asked = options.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if asked.train:
        train(Workspace.open(asked.storage, asked.data))
    grid = read_grid()
    found = {name: [replay(grid, seed) for seed in range(asked.repeats)] for name, replay in SEARCHES.items()}
    document = summarise(grid, found)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    PICTURE.write_bytes(style.encoded(picture(document), "png"))
    for line in lines(document):
        print(line)


def train(workspace: Workspace) -> None:
    """Train what of the grid is not recorded yet, and write its curves."""
    from rich.console import Console

    from retable.data.generate import generate
    from retable.data.manifest import dataset_folder
    from retable.execute.searching.asked import Asked, hunt_of
    from retable.execute.searching.driver import run_search

    loaded = open_study(str(STUDY))
    name = loaded.study.base["data"]["dataset"]
    generate(name, dataset_folder(name, workspace.data_root))
    hunt = hunt_of(loaded, None, {}, Asked())
    summary = run_search(hunt, workspace, Console(stderr=True), Asked(), record=False, cpus=1)
    write_grid(summary.trials, workspace.storage)


def write_grid(trials: Sequence[TrialRecord], storage: Storage) -> None:
    """The curves of whole trials as compact data."""
    runs = []
    for trial in sorted(trials, key=lambda t: canonical(t.point)):
        values = [line["val/top1"] for line in storage.epochs(trial.run_id)]
        assert values[-1] == trial.values[0], "the last epoch's value is the trial's: one centre view, last weights"
        runs.append({"point": trial.point, "top1": [round(value, 4) for value in values]})
    record = storage.record(trials[0].run_id)
    made = {k: v for k, v in record.environment.items() if k != "host"} if record is not None else {}
    seconds = sum(r.cost["cpu_seconds"] for t in trials if (r := storage.record(t.run_id)) is not None)
    head = json.dumps({"schema": 1, "study": "search-grid", "made_with": made, "cpu_seconds": round(seconds)})
    lines_ = ",\n".join(json.dumps(run) for run in runs)
    GRID.write_text(f'{head[:-1]}, "runs": [\n{lines_}\n]}}\n', encoding="utf-8")


def read_grid() -> Grid:
    runs = json.loads(GRID.read_text(encoding="utf-8"))["runs"]
    return Grid(Hunt(open_study(str(STUDY)).study, "laptop", {}), {canonical(r["point"]): r["top1"] for r in runs})


def replay_retable(grid: Grid, seed: int, sampler: str, rule: Scheduler) -> Timeline:
    """One search by our source: what Ray and the trial would do is done here from the recorded epochs."""
    world = World(lambda data: "0" * 32, 1, 1, 1, 1)
    known: dict[str, RunSpec] = {}

    def make(point: dict[str, Any]) -> RunSpec:
        key = canonical(point)
        if key not in known:
            known[key] = training_of(grid.hunt.resolve(point), world, grid.hunt.search.on).run(0)
        return known[key]

    found: Timeline = []
    with tempfile.TemporaryDirectory(prefix="retable-replay-") as folder:
        storage = Storage(folder)
        source = SearchSource(
            grid.hunt, make, optuna.create_study(direction="maximize"), storage,
            Places(folder, None, "", Process("replay", 1, 0.0)),
            Options(sampler, Budget(epochs=WHOLE_BUDGET), seed), Decisions(rule, grid.epochs),
        )  # fmt: skip
        spent = 0
        for run_id in _handed_out(source):
            order = source.order(run_id)
            curve = grid.curve(grid.hunt.space.project(order.spec["config"]))
            epochs = _trained(storage, source, run_id, curve)
            spent += epochs
            if epochs == grid.epochs:
                storage.put_json(f"{order.folder}/scores/{order.views[0].key}.json", {"top1": curve[-1]})
                storage.put_json(f"{order.folder}/result.json", {"status": "done"})
                found.append((spent, curve[-1]))
            source.ended(run_id, ok=True)
    return found


def _handed_out(source: SearchSource) -> Iterator[str]:
    while True:
        try:
            run_id = source.next()
        except StopIteration:
            return
        assert run_id is not None, "one trial at a time: the one before has ended"
        yield run_id


def _trained(storage: Storage, source: SearchSource, run_id: str, curve: list[float]) -> int:
    """Write epochs as the trial does until the source says stop; how many."""
    order = source.order(run_id)
    storage.put_json(f"{order.folder}/spec.json", order.spec)
    for epoch, value in enumerate(curve):
        line = {"epoch": epoch, "val/top1": value}
        storage.put_json(f"{order.folder}/epochs/{epoch}.0.json", line)
        source.heard(run_id, line)
        stop = storage.get_json(f"{order.folder}/stop.json")
        if order.stoppable and stop is not None and stop["epoch"] == epoch:
            return epoch + 1
    return len(curve)


def replay_ray(grid: Grid, seed: int) -> Timeline:
    """One search by Ray's classes, as its TuneController calls them with one trial at a time."""
    space = {
        path: optuna.distributions.CategoricalDistribution(parameter.choices)
        for path in grid.hunt.space.paths
        for parameter in grid.hunt.space.parameters(path)
    }
    searcher = OptunaSearch(space=space, metric="top1", mode="max", seed=seed)
    asha = ASHAScheduler(
        time_attr="training_iteration", metric="top1", mode="max", max_t=grid.epochs,
        grace_period=ASHA.min_epochs, reduction_factor=ASHA.eta,
    )  # fmt: skip
    found: Timeline = []
    spent = number = 0
    while spent < WHOLE_BUDGET:
        trial: Any = SimpleNamespace(trial_id=f"trial{number}")
        number += 1
        curve = grid.curve(searcher.suggest(trial.trial_id) or {})
        asha.on_trial_add(None, trial)  # type: ignore[arg-type]
        for epoch, value in enumerate(curve, start=1):
            result = {"top1": value, "training_iteration": epoch}
            spent += 1
            if asha.on_trial_result(None, trial, result) == TrialScheduler.STOP:  # type: ignore[arg-type]
                break
            searcher.on_trial_result(trial.trial_id, result)
        asha.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
        searcher.on_trial_complete(trial.trial_id, result)
        if epoch == grid.epochs:
            found.append((spent, curve[-1]))
    return found


NONE = Scheduler()
SEARCHES: dict[str, Callable[[Grid, int], Timeline]] = {
    "retable: TPE + ASHA": lambda grid, seed: replay_retable(grid, seed, "tpe", ASHA),
    "Ray: OptunaSearch + ASHAScheduler": replay_ray,
    "retable: random + ASHA": lambda grid, seed: replay_retable(grid, seed, "random", ASHA),
    "retable: TPE": lambda grid, seed: replay_retable(grid, seed, "tpe", NONE),
    "retable: random": lambda grid, seed: replay_retable(grid, seed, "random", NONE),
}
OURS, RAYS, RANDOM = "retable: TPE + ASHA", "Ray: OptunaSearch + ASHAScheduler", "retable: random"


def best_so_far(timeline: Timeline, epochs: int) -> np.ndarray[Any, Any]:
    """The best value within a budget of 1 .. ``WHOLE_BUDGET`` epochs; NaN before a trial of ``epochs`` can be whole."""
    found = np.full(WHOLE_BUDGET + 1, np.nan)
    for spent, value in timeline:
        if spent <= WHOLE_BUDGET:
            found[spent] = np.nanmax([found[spent], value])
    found = np.fmax.accumulate(found)
    assert np.isfinite(found[epochs]), "the first trial is never stopped"
    return found[1:]


def summarise(grid: Grid, found: dict[str, list[Timeline]]) -> dict[str, Any]:
    """Means over repeats with 95 % t-intervals at every budget, and the comparison of ours with Ray's."""
    tables = {name: np.array([best_so_far(t, grid.epochs) for t in runs]) for name, runs in found.items()}
    values = [curve[-1] for curve in grid.curves.values()]
    exact = [mean for mean, _, _ in expected_best(values, maximize=True)]
    return {
        "schema": 1,
        "points": len(grid.curves),
        "epochs_per_trial": grid.epochs,
        "repeats": len(next(iter(found.values()))),
        "best": grid.best,
        "median": statistics.median(values),
        "unit": "top-1 on held-out videos, %",
        "random_expected": [{"spent": (k + 1) * grid.epochs, "mean": m} for k, m in enumerate(exact)],
        "searches": {
            name: {"curve": _curve(table), "to_best": _to_best(grid, table)} for name, table in tables.items()
        },
        "ours_minus_ray": [_difference(tables[OURS][:, mark - 1], tables[RAYS][:, mark - 1], mark) for mark in MARKS],
        "ours_minus_random": [
            _difference(tables[OURS][:, mark - 1], tables[RANDOM][:, mark - 1], mark) for mark in MARKS
        ],
    }


def _curve(table: np.ndarray[Any, Any]) -> list[dict[str, float]]:
    """Mean, 95 % t-interval of the mean and middle 80 % of the repeats, from the first whole trial on."""
    n = len(table)
    points = []
    for i in range(table.shape[1]):
        column = table[:, i]
        if np.isfinite(column).all():
            around = float(stats.t.ppf(0.975, n - 1)) * float(column.std(ddof=1)) / n**0.5
            low, high = np.quantile(column, [0.1, 0.9])
            numbers = {"mean": column.mean(), "half_width": around, "p10": low, "p90": high}
            points.append({"spent": i + 1} | {k: round(float(v), 3) for k, v in numbers.items()})
    return points


def _to_best(grid: Grid, table: np.ndarray[Any, Any]) -> dict[str, float]:
    """Epochs until the grid's best is found: median, and the share of repeats that found it within the budget."""
    hit = table >= grid.best - 1e-9
    when = [int(row.argmax()) + 1 if row.any() else WHOLE_BUDGET + 1 for row in hit]
    return {"median_epochs": float(statistics.median(when)), "found": float(hit.any(axis=1).mean())}


def _difference(ours: np.ndarray[Any, Any], other: np.ndarray[Any, Any], mark: int) -> dict[str, float]:
    """Difference of means with Welch's 95 % interval."""
    found = {"spent": mark, "difference": round(float(ours.mean() - other.mean()), 3)}
    if ours.std() == 0 and other.std() == 0:
        return found
    told = stats.ttest_ind(ours, other, equal_var=False)
    low, high = told.confidence_interval(0.95)
    return found | {"low": round(float(low), 3), "high": round(float(high), 3), "p": round(float(told.pvalue), 4)}


def picture(document: dict[str, Any]) -> Any:
    """Best so far against the budget, mean and interval of each search."""
    with style.styled():
        figure = style.new(6.4, 3.8)
        ax = figure.subplots()
        for (name, told), color in zip(document["searches"].items(), style.CYCLE, strict=False):
            x = [p["spent"] for p in told["curve"]]
            mean = np.array([p["mean"] for p in told["curve"]])
            half = np.array([p["half_width"] for p in told["curve"]])
            ax.fill_between(x, mean - half, mean + half, step="post", color=color, alpha=0.2, linewidth=0)
            ax.step(x, mean, where="post", color=color, label=name)
        ax.axhline(document["best"], color=style.GREY, linewidth=0.8, linestyle=":")
        ax.annotate("best of the grid", (2, document["best"]), va="bottom", fontsize=7, color=style.GREY)
        ax.set_xlabel("Budget spent (epochs)")
        ax.set_ylabel("Best whole trial so far\n(top-1 on held-out videos, %)")
        ax.set_xlim(0, WHOLE_BUDGET)
        ax.legend(loc="lower right")
    return figure


def lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"grid: {document['points']} points, best {document['best']:.1f}, median {document['median']:.1f}"
    for name, told in document["searches"].items():
        at = {p["spent"]: p for p in told["curve"]}
        words = "  ".join(f"{at[m]['mean']:.1f} ± {at[m]['half_width']:.1f}" for m in MARKS)
        yield f"{name:34} {words}  found the best: {told['to_best']['found']:.0%}"
    for key in ("ours_minus_ray", "ours_minus_random"):
        for entry in document[key]:
            yield f"{key} at {entry['spent']}: {entry['difference']:+.2f} ({entry.get('low')} to {entry.get('high')})"


if __name__ == "__main__":
    main()
