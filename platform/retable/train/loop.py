"""One run: from a config and a seed to trained weights. Knows neither Ray nor storage; a sink takes the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retable.study.config import Protocol
from retable.train.checkpoint import pack, unpack
from retable.train.evaluate import evaluate, metrics
from retable.train.job import Interrupted, Job, RunData, Sink
from retable.train.meter import NonFiniteLoss, means
from retable.train.model import load_weights, to_device, to_inputs
from retable.train.optim import learning_rate, set_learning_rate
from retable.train.process import gather, isolated, rng_kept
from retable.train.run import Run
from retable.weights.load import load_pretrained

if TYPE_CHECKING:
    from retable.data.loader import Batch

SEMANTICS = 1
"""Part of a run's id: raise it when the same config, seed and data would train other weights."""

_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    job: Job,
    data: RunData,
    sink: Sink,
    *,
    state: bytes | None = None,
    start: Mapping[str, Tensor] | None = None,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> nn.Module:
    """Train one run to its last epoch and return its model, on ``device`` and in evaluation mode.

    Every epoch is scored on the held-out videos, or on the test videos if none are held out, by one centre view per
    video. With ``state`` the run goes on from there; on a CPU it ends bit-identical to one never interrupted, and a
    finished state only gives its model back. With ``world > 1`` the caller has set up the process group and calls this
    on every rank with the same state; rank 0 alone calls the sink.

    ``start`` are weights of an earlier stage, each of which must fit; the others are drawn. Without it and without
    ``state`` training begins as the config's ``weights`` say.

    Raises:
        CheckpointMismatch: ``state`` is of another config or seed.
        CorruptCheckpoint: ``state`` is damaged.
        Interrupted: the sink wanted it; the state is saved.
        NonFiniteLoss: the loss became NaN or infinite.
        WeightsError: the config's initial weights are missing here, damaged, or of another network.
        RuntimeError: ``start`` is of another network.
        ValueError: the job cannot run here (number of workers, classes, or precision).
    """
    recipe = job.config.recipe
    _refuse_impossible(job, data, torch.device(device), world)
    with isolated(job, device):
        run = Run(job, torch.device(device), rank, world)
        if state is not None:
            run.restore(unpack(state))
        elif start is not None:
            load_weights(run.model, {**run.model.state_dict(), **start})
        else:
            load_pretrained(run.model, job.config.model)
        while run.epoch < recipe.epochs:
            lr = _train_epoch(run, data, sink)
            run.share_buffers()
            scored = _score(run, data)
            results = {**means(gather(run.meter.sums(), world)), "lr": lr, "step_seconds": run.meter.step_seconds()}
            best = run.finish_epoch(scored.get("val/top1"))
            _hand_over(run, sink, {**results, **scored}, best=best)
        return run.model.eval()


def _train_epoch(run: Run, data: RunData, sink: Sink) -> float:
    """The rest of the current epoch; returns the learning rate of its last update."""
    recipe, every = run.job.config.recipe, run.job.resources.checkpoint_steps
    steps = data.steps(recipe.batch_size)
    run.replica.train()
    run.meter.start()
    lr = recipe.lr
    for batches in _updates(run, data):
        _stop_if_wanted(run, sink)
        run.meter.check(run.epoch, run.step - 1)  # of the update before: a GPU is done with it, so little is waited for
        lr = learning_rate(recipe, run.epoch, run.epoch * steps + run.step)
        _update(run, batches, lr)
        run.step += 1
        run.meter.lap()
        if every and run.step % every == 0 and run.step < steps:
            run.meter.check(run.epoch, run.step - 1)
            _checkpoint(run, sink)
    run.meter.check(run.epoch, run.step - 1)
    if run.step != steps:
        raise RuntimeError(f"epoch {run.epoch} should have {steps} updates, but the data gave {run.step}")
    return lr


def _updates(run: Run, data: RunData) -> Iterator[list[Batch]]:
    """The micro-batches of each update that is left in the epoch."""
    recipe = run.job.config.recipe
    with rng_kept(run.device):
        batches = iter(
            data.train_batches(
                run.epoch,
                recipe.batch_size,
                seed=run.job.seed,
                start=run.step,
                micro=recipe.accumulation,
                rank=run.rank,
                world=run.world,
            )
        )
    while True:
        with rng_kept(run.device):
            update = list(islice(batches, recipe.accumulation))
        if not update:
            return
        yield update


def _update(run: Run, batches: list[Batch], lr: float) -> None:
    """One optimizer step on the mean gradient of the micro-batches (of all ranks)."""
    recipe = run.job.config.recipe
    set_learning_rate(run.optimizer, lr)
    run.optimizer.zero_grad()
    for index, batch in enumerate(batches):
        with _gradients_exchanged(run, index == len(batches) - 1):
            loss = _loss(run, batch) / len(batches)
            run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if recipe.clip_grad is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_grad)
    run.scaler.step(run.optimizer)
    run.scaler.update()


def _loss(run: Run, batch: Batch) -> Tensor:
    """Cross-entropy plus the model's own terms, of one micro-batch; entered into the meter."""
    recipe = run.job.config.recipe
    clips = to_inputs(batch.clips, run.inputs, run.device, last=recipe.channels_last)
    labels = to_device(batch.labels, run.device)
    side = {name: to_device(tensor, run.device) for name, tensor in batch.side.items()}
    with _autocast(recipe.precision, run.device):
        outputs = run.replica(**clips)
        terms: dict[str, Tensor] = dict(outputs.get("losses", {}))
        if (of_labels := getattr(run.model, "label_losses", None)) is not None:
            terms |= of_labels(outputs, labels, **side)
    logits = outputs["logits"]
    wide = torch.promote_types(logits.dtype, torch.float32)
    total = F.cross_entropy(logits.to(wide), labels) + sum(terms.values())
    run.meter.add({"loss": total, **{f"loss.{name}": value for name, value in terms.items()}}, logits, labels)
    judged = {f"{name}_false": 1.0 - flags.double().mean() for name, flags in side.items()}
    run.meter.watch(judged | outputs.get("watched", {}), len(labels))
    return total


def _score(run: Run, data: RunData) -> dict[str, float]:
    """The epoch's metrics on the held-out videos (``val/...``) or, without any, on the test videos (``test/...``)."""
    recipe = run.job.config.recipe
    subset: Literal["val", "test"] = "val" if run.job.config.data.holdout > 0 else "test"
    scores = evaluate(
        run.model,
        data,
        Protocol(),
        subset,
        device=run.device,
        batch_size=recipe.batch_size // (recipe.accumulation * run.world),
        rank=run.rank,
        world=run.world,
    )
    return {f"{subset}/{name}": value for name, value in metrics(scores).items() if name != "videos"}


def _hand_over(run: Run, sink: Sink, results: dict[str, float], *, best: bool) -> None:
    run.metrics = results
    state = run.state()
    if run.rank == 0:
        with rng_kept(run.device):
            sink.epoch(run.epoch - 1, results, pack(state), best=best)


def _checkpoint(run: Run, sink: Sink) -> None:
    state = run.state()
    if run.rank == 0:
        with rng_kept(run.device):
            sink.checkpoint(pack(state))


def _stop_if_wanted(run: Run, sink: Sink) -> None:
    if run.world > 1 and run.step % 10:
        return  # ranks must agree, and each time they exchange it they wait for each other
    wanted = torch.tensor(int(run.rank == 0 and sink.wants_stop()), device=run.device)
    if run.world > 1:
        torch.distributed.broadcast(wanted, src=0)
    if wanted.item():
        if run.step:  # else the epoch's end has saved all there is
            run.meter.check(run.epoch, run.step - 1)
            _checkpoint(run, sink)
        raise Interrupted(f"stopped in epoch {run.epoch} after {run.step} updates")


def _gradients_exchanged(run: Run, now: bool) -> AbstractContextManager[Any]:
    """Ranks exchange gradients once per update, after its last micro-batch."""
    if now or not isinstance(run.replica, DistributedDataParallel):
        return nullcontext()
    return run.replica.no_sync()


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=_AMP[precision])


def _refuse_impossible(job: Job, data: RunData, device: torch.device, world: int) -> None:
    recipe, classes = job.config.recipe, job.config.model["num_classes"]
    if world != recipe.workers:
        raise ValueError(f"the recipe says workers {recipe.workers}, but {world} processes are training")
    if classes != len(data.classes):
        raise ValueError(f"the model has {classes} classes, but the data has {len(data.classes)}")
    if recipe.precision != "fp32" and device.type != "cuda":
        # In bf16 on a CPU, PyTorch's weight gradient of a 3-D convolution of 2 frames is wrong by 98 % (2.15, oneDNN).
        raise ValueError(f"precision {recipe.precision} needs a GPU: on a CPU use fp32")
    if recipe.sync_bn and world > 1 and device.type != "cuda":
        raise ValueError("sync_bn needs GPUs: torch synchronises batch norm on GPUs only")


__all__ = ["SEMANTICS", "Job", "NonFiniteLoss", "RunData", "Sink", "train"]
