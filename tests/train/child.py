"""Processes that tests of training start: a run that waits at a chosen moment to be killed, and one rank of several.

``python -m tests.train.child until MOMENT DIR``, ``python -m tests.train.child rank R WORLD DIR``, or, on a GPU,
``python -m tests.train.child synchronised R WORLD DIR``.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from retable.data.config import Protocol
from retable.data.loader import Batch
from retable.train.evaluate import evaluate
from retable.train.loop import train
from tests.train.fakes import Blobs, Kept, make_job

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the checkout first on the path."""
    path = [str(ROOT / "platform"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}


def wait_for_the_end() -> None:
    print("here", flush=True)
    sys.stdin.read()


class Files(Kept):
    """Puts every state into a file of its own, atomically; may stop at its fourth one, half written or whole."""

    def __init__(self, folder: Path, moment: str) -> None:
        super().__init__()
        self.folder, self.moment = folder, moment

    def checkpoint(self, state: bytes) -> None:
        super().checkpoint(state)
        path = self.folder / f"{len(self.states):03}.pt"
        part = path.with_suffix(".part")
        if len(self.states) == 4 and self.moment == "in-write":
            part.write_bytes(state[: len(state) // 2])
            wait_for_the_end()
        part.write_bytes(state)
        part.replace(path)

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        self.checkpoint(state)
        if self.moment == "in-epoch-end":
            wait_for_the_end()


class Seeing(Blobs):
    """Keeps the first numbers that the training process would draw in every update."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[float] = []

    def train_batches(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        for batch in super().train_batches(*args, **kwargs):
            self.draws.append(torch.rand(()).item())
            yield batch


class Stalling(Blobs):
    """Stops before the second update of the second epoch."""

    def train_batches(self, epoch: int, batch_size: int, **place: Any) -> Iterator[Batch]:
        for index, batch in enumerate(super().train_batches(epoch, batch_size, **place)):
            if (epoch, index) == (1, 1):
                wait_for_the_end()
            yield batch


def until(moment: str, folder: Path) -> None:
    job = make_job(checkpoint_steps=1, model={"dropout": 0.4, "penalty": 0.1, "smooth": 0.1})
    train(job, Stalling() if moment == "in-update" else Blobs(), Files(folder, moment))


def rank(number: int, world: int, folder: Path) -> None:
    """Train with ``world`` processes, resume from the middle of the first epoch, score subsets of several sizes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world)
    job = make_job(checkpoint_steps=1, workers=world, accumulation=2, model={"dropout": 0.4})
    data, sink = Seeing(), Kept()
    model = train(job, data, sink, rank=number, world=world)
    states: list[Any] = [sink.states]
    dist.broadcast_object_list(states, src=0)
    again = train(job, Blobs(), Kept(), state=states[0][1], rank=number, world=world)
    plain = make_job(workers=world, model={"norm": False})
    found = {
        "weights": model.state_dict(),
        "resumed": again.state_dict(),
        "plain": train(plain, Blobs(), Kept(), rank=number, world=world).state_dict(),
        "trained": data.trained,
        "draws": data.draws,
        "states": len(sink.states),
        "last": states[0][-1],
    }
    for videos in (1, 7):
        scores = evaluate(model, Blobs(test=videos), Protocol(clips=2), "test", batch_size=3, rank=number, world=world)
        found[f"scores of {videos}"] = torch.from_numpy(scores.probs)
    torch.save(found, folder / f"{number}.pt")
    gc.collect()  # what still holds the process group in a reference cycle would abort the process at its end
    dist.destroy_process_group()


def synchronised(number: int, world: int, folder: Path) -> None:
    """Train on the first GPU with batch statistics over all ranks, and over each rank's own clips."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world)
    found = {}
    for name, sync in (("synchronised", True), ("apart", False)):
        job = make_job(workers=world, sync_bn=sync, optimizer="sgd", momentum=0.0)
        model = train(job, Blobs(), Kept(), device="cuda", rank=number, world=world)
        found[name] = {key: value.cpu() for key, value in model.state_dict().items()}
    torch.save(found, folder / f"{number}.pt")
    del model
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["until", moment, folder]:
            until(moment, Path(folder))
        case ["rank", number, world, folder]:
            rank(int(number), int(world), Path(folder))
        case ["synchronised", number, world, folder]:
            synchronised(int(number), int(world), Path(folder))
