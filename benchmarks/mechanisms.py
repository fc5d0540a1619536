"""Whether the papers' mechanisms do what they are for, on generated videos: results, not gates.

Run: python benchmarks/mechanisms.py [--seeds 5] [--check order|span-rgb|span-flow|direction] [--storage FOLDER]
[--data FOLDER]. Writes benchmarks/results/mechanisms.json; checks that are not asked for stay in it as they were.

- order: MAST with its temporal modules against the same network trained on single frames (a clip repeats one frame),
  choosing within the pairs of classes that are each other's reverse. Controls: reversed and single-frame clips.
- span-rgb, span-flow: STA-TSN's temporal attention against the frames in which the action happens. Control: other
  videos' actions.
- direction: a linear probe of MAST's motion branches tells a direction from its opposite. Controls: single frames,
  reversed clips, and the network before training.

Seeds are the unit; intervals are 95 % t-intervals of the mean over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retable.data.cache import open_frames
from retable.data.config import Protocol
from retable.data.generate import generate
from retable.data.layouts import Subset
from retable.data.loader import Batch, RunData
from retable.data.manifest import dataset_folder
from retable.data.sampling import test_clips
from retable.data.variants import PAIRS
from retable.execute.attempt import carry_out
from retable.execute.order import Order, Places
from retable.execute.work import features_of, open_data, train_and_score
from retable.report.verdict import summary
from retable.track.claims import Process
from retable.train.evaluate import evaluate, load_model
from retable.train.job import Job
from retable.train.loop import train
from retable.train.model import build_model, input_specs, to_inputs
from retable.train.process import isolated
from retable.workspace import Workspace, open_study

RESULTS = Path(__file__).parent / "results" / "mechanisms.json"
CPU = torch.device("cpu")
REVERSED = PAIRS[:5]
"""Pairs whose classes hold the same frames in opposite orders."""
MAST = ("mast", "table6", "temporal", "top1")
RIDGE = 0.1
DIRECTIONS = (("MoveLeft", "MoveRight"), ("MoveUp", "MoveDown"))


@dataclass(frozen=True)
class Finding:
    """One comparison. ``values`` and ``control`` are by seed, ``effect`` their difference or ``values`` less chance;
    ``holds``: the interval of its mean lies above zero."""

    check: str
    what: str
    unit: str
    values: list[float]
    control_is: str
    control: list[float]
    mean: float
    low: float | None
    high: float | None
    holds: bool | None


def finding(check: str, what: str, unit: str, values: list[float], control_is: str, control: list[float]) -> Finding:
    """Paired by seed."""
    effect = summary([v - c for v, c in zip(values, control, strict=True)])
    assert effect is not None
    half = effect.half_width
    low, high = (None, None) if half is None else (effect.mean - half, effect.mean + half)
    holds = None if low is None else low > 0
    return Finding(check, what, unit, values, control_is, control, effect.mean, low, high, holds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--check", action="append", choices=sorted(CHECKS))
    options.add_argument("--storage", default=None)
    options.add_argument("--data", default=None)
    asked = options.parse_args()
    workspace = Workspace.open(asked.storage, asked.data)
    generate("motions-ucf101", dataset_folder("motions-ucf101", workspace.data_root))
    for name in asked.check or sorted(CHECKS):
        found = CHECKS[name](workspace, range(asked.seeds))
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["findings"] if RESULTS.is_file() else []
        findings = [f for f in kept if f["check"] != name] + [asdict(f) for f in found]
        written = {"schema": 1, "torch": str(torch.__version__), "findings": findings}
        RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        for one in found:
            print(one)


# Runs of the studies, trained as `retable run` trains them, without Ray


def orders(
    workspace: Workspace, study: str, table: str, row: str, column: str, seeds: Sequence[int]
) -> Iterator[Order]:
    """The order of one cell's run for each seed, finished, with its earlier stages."""
    plan = workspace.plan(open_study(study), seeds=seeds, tables=(table,), rows=(row,), profile="laptop")
    (cell,) = [c for c in plan.cells if c.column == column]
    (wanted,) = plan.trainings_of(str(cell.evaluation))
    by_id = {run.run_id: run for run in plan.runs}
    places = Places(workspace.storage_url, workspace.data_root, str(workspace.cache), Process.this())
    for seed in seeds:
        (run,) = [r for r in plan.runs if r.training.config_id == wanted and r.seed == seed]
        for needed in (*(by_id[parent] for parent in run.parents), run):
            finish(workspace, Order.of(needed, places))
        yield Order.of(run, places)


def finish(workspace: Workspace, order: Order) -> None:
    """Train and score a run unless its result is there."""
    if not workspace.storage.exists(f"{order.folder}/result.json"):
        print(f"training {order.run_id}, seed {order.spec['seed']}", file=sys.stderr)
        outcome = carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
        if outcome.status != "done":
            raise RuntimeError(f"run {order.run_id} {outcome.status}: {outcome.reason}")


def trained(workspace: Workspace, order: Order) -> torch.nn.Module:
    """The model of a finished run."""
    state = workspace.storage.get(workspace.storage.checkpoints(order.run_id)[0])
    assert state is not None
    return load_model(order.config, state)


# Order


class Changed:
    """A run's videos, every clip turned into another one."""

    def __init__(self, data: RunData, change: Callable[[Batch, int], Tensor]) -> None:
        self._data, self._change = data, change
        self.classes, self.flip_permutation = data.classes, data.flip_permutation
        self.videos, self.label_sets, self.steps = data.videos, data.label_sets, data.steps

    def train_batches(self, epoch: int, batch_size: int, **place: Any) -> Iterator[Batch]:
        return self._changed(self._data.train_batches(epoch, batch_size, **place), epoch)

    def eval_batches(self, subset: Subset, protocol: Protocol, batch_size: int, **place: Any) -> Iterator[Batch]:
        return self._changed(self._data.eval_batches(subset, protocol, batch_size, **place), -1)

    def _changed(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        for batch in batches:
            yield replace(batch, clips={"rgb": self._change(batch, epoch)})


def backwards(batch: Batch, epoch: int) -> Tensor:
    return batch.clips["rgb"].flip(1)


def still(frame: int | None, seed: int = 0) -> Callable[[Batch, int], Tensor]:
    """Clips that repeat one of their frames: ``frame``, or one drawn for each video and epoch."""

    def change(batch: Batch, epoch: int) -> Tensor:
        clips = batch.clips["rgb"]
        frames = clips.shape[1]
        chosen = [
            int(np.random.default_rng([seed, epoch + 1, video]).integers(frames)) if frame is None else frame
            for video in batch.videos.tolist()
        ]
        return clips[torch.arange(len(clips)), chosen].unsqueeze(1).expand_as(clips).contiguous()

    return change


def within_pairs(probs: NDArray[Any], labels: NDArray[np.int64], classes: Sequence[str]) -> float:
    """Of the videos of reversed pairs, percent to which their class is more probable than its reverse; 50 is chance."""
    other = {a: b for pair in REVERSED for a, b in (pair, pair[::-1])}
    rows = [i for i, label in enumerate(labels) if classes[label] in other]
    hits = [probs[i, labels[i]] > probs[i, classes.index(other[classes[labels[i]]])] for i in rows]
    return float(100 * np.mean(hits))


def choice(model: torch.nn.Module, data: Any, changes: Sequence[Callable[[Batch, int], Tensor]]) -> float:
    """``within_pairs`` on the test videos, probabilities averaged over the changed clips; of the clips without any."""
    views = [Changed(data, change) for change in changes] or [data]
    scores = [evaluate(model, view, Protocol(), "test") for view in views]
    probs = np.mean([s.probs for s in scores], axis=0)
    return within_pairs(probs, scores[0].labels, scores[0].classes)


class NoSink:
    """Keeps nothing."""

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None: ...

    def checkpoint(self, state: bytes) -> None: ...

    def wants_stop(self) -> bool:
        return False


def order_check(workspace: Workspace, seeds: Sequence[int]) -> list[Finding]:
    clips, stills, reverse, one_frame = [], [], [], []
    for seed, order in zip(seeds, orders(workspace, *MAST, seeds), strict=True):
        data, model = open_data(order), trained(workspace, order)
        frames = [still(i) for i in range(order.config.data.clip.frames)]
        clips.append(choice(model, data, []))
        reverse.append(choice(model, data, [backwards]))
        one_frame.append(choice(model, data, frames))
        baseline = train(Job(order.config, seed), Changed(data, still(None, seed)), NoSink())
        stills.append(choice(baseline, data, frames))
    controls = {
        "the same network trained on single frames": stills,
        "shown single frames of the clips": one_frame,
        "shown the clips backwards": reverse,
    }
    what, unit = "MAST with temporal modules", "% right within reversed pairs"
    return [finding("order", what, unit, clips, control, values) for control, values in controls.items()]


# Span


def attention_check(workspace: Workspace, seeds: Sequence[int], stream: str) -> list[Finding]:
    """Over all test videos, and over those of each pair of classes."""
    own: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for order in orders(workspace, "statsn", "table2", "sta", f"ucf101-{stream}", seeds):
        beta, inside, classes = attention(workspace, order)
        for name, kept in {"all classes": (), **{" and ".join(pair): pair for pair in PAIRS}}.items():
            chosen = np.isin(classes, kept or classes)
            b, i = beta[chosen], inside[chosen]
            own.setdefault(name, []).append(mean_correlation(b, i))
            shifts = [mean_correlation(b, np.roll(i, by, axis=0)) for by in range(1, len(i))]
            others.setdefault(name, []).append(float(np.mean(shifts)))
    unit, control = "correlation over frames", "actions of other videos"
    return [
        finding(
            f"span-{stream}", f"STA-TSN, {stream}: attention and action, {name}", unit, own[name], control, others[name]
        )
        for name in own
    ]


def attention(workspace: Workspace, order: Order) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Of the test videos ``(V, N, k)``: attention on each frame, and 1 where the action is, else 0; their classes."""
    data, head = features_of(order, "cpu"), trained(workspace, order)
    with torch.no_grad():
        batches = list(data.eval_batches("test", Protocol(), 16))
        beta = torch.cat([head(**batch.clips)["maps"]["beta"] for batch in batches]).double().numpy()
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    clip, manifest, paths = order.config.data.clip, workspace.dataset(order.config.data.dataset), data.videos("test")
    counts = open_frames(manifest, paths, clip.short_side, workspace.cache).counts
    with (manifest.root / "ground_truth.csv").open(encoding="utf-8", newline="") as file:
        spans = {Path(line["video"]).name: (int(line["start"]), int(line["end"])) for line in csv.DictReader(file)}
    inside = []
    for path in paths:
        (start, end), (frames,) = spans[Path(path).name], test_clips(counts[path], clip, 1)
        inside.append((frames >= start) & (frames < end))
    return beta, np.array(inside, np.float64).reshape(beta.shape), [data.classes[i] for i in labels]


def mean_correlation(beta: NDArray[np.float64], inside: NDArray[np.float64]) -> float:
    """Mean over videos of the correlation within segments: attention sums to 1 in each, wherever the action is.

    Videos whose every segment lies wholly inside the action or wholly outside cannot tell and are left out.
    """
    a = (beta - beta.mean(2, keepdims=True)).reshape(len(beta), -1)
    b = (inside - inside.mean(2, keepdims=True)).reshape(len(inside), -1)
    norms = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    telling = norms > 1e-12
    return float(((a * b).sum(1)[telling] / norms[telling]).mean())


# Direction


def direction_check(workspace: Workspace, seeds: Sequence[int]) -> list[Finding]:
    found = []
    orders_ = list(orders(workspace, *MAST, seeds))
    for pair in DIRECTIONS:
        arms: dict[str, list[float]] = {"trained": [], "untrained": [], "single frames": [], "backwards": []}
        for order in orders_:
            data, model = open_data(order), trained(workspace, order)
            with isolated(Job(order.config, int(order.spec["seed"])), CPU):
                fresh = build_model(order.config).eval()
            arms["trained"].append(probed(model, data, pair, data))
            arms["untrained"].append(probed(fresh, data, pair, data))
            middle = Changed(data, still(order.config.data.clip.frames // 2))
            arms["single frames"].append(probed(model, middle, pair, middle))
            arms["backwards"].append(probed(model, data, pair, Changed(data, backwards)))
        what, unit = f"probe of MAST's motion branches, {pair[0]} or {pair[1]}", "% right"
        half = [50.0] * len(arms["trained"])
        found.append(finding("direction", what, unit, arms["trained"], "chance", half))
        for control in ("untrained", "single frames", "backwards"):
            found.append(finding("direction", what, unit, arms["trained"], control, arms[control]))
    return found


def probed(model: torch.nn.Module, data: Any, pair: tuple[str, str], tested: Any) -> float:
    """Percent of the pair's test videos, as ``tested`` shows them, that a ridge regression fitted on the training
    videos, as ``data`` shows them, puts on the right side."""
    x, y = responses(model, data, pair, "train")
    there, truth = responses(model, tested, pair, "test")
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    x, there = (x - mean) / deviation, (there - mean) / deviation
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
    return float(100 * np.mean(np.sign(there @ weights) == truth))


def responses(
    model: torch.nn.Module, data: Any, pair: tuple[str, str], subset: Subset
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(V, F)``: of each channel of each motion branch the positive and the negative part, averaged over frames and
    places (a plain mean of differences would lose what moved where); and ``(V,)`` -1 or 1 for the pair's classes."""
    caught: list[Tensor] = []
    sides = {data.classes.index(pair[0]): -1.0, data.classes.index(pair[1]): 1.0}
    branches = [site.motion for site in model.st.values()]  # type: ignore[union-attr,operator]
    hooks = [branch.register_forward_hook(lambda _, __, out: caught.append(out[1])) for branch in branches]
    rows, truth = [], []
    with torch.no_grad():
        for batch in data.eval_batches(subset, Protocol(), 16):
            kept = [i for i, label in enumerate(batch.labels.tolist()) if label in sides]
            if not kept:
                continue
            caught.clear()
            model(**to_inputs({"rgb": batch.clips["rgb"][kept]}, input_specs(model), CPU))
            parts = [part.mean((1, 3, 4)) for motion in caught for part in (motion.relu(), (-motion).relu())]
            rows.append(torch.cat(parts, 1).double().numpy())
            truth += [sides[batch.labels[i].item()] for i in kept]  # type: ignore[index]
    for hook in hooks:
        hook.remove()
    return np.concatenate(rows), np.array(truth)


CHECKS: dict[str, Callable[[Workspace, Sequence[int]], list[Finding]]] = {
    "direction": direction_check,
    "order": order_check,
    "span-flow": partial(attention_check, stream="flow"),
    "span-rgb": partial(attention_check, stream="rgb"),
}

if __name__ == "__main__":
    main()
