"""The process around a run: seeds, random states, threads, determinism flags; set for the run, put back after it."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from retable.train.job import Job

T = TypeVar("T")

RngState = dict[str, Any]
"""Random states of one process as tensors, numbers and lists only, so that a weights-only load accepts them."""


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed torch (every device), numpy and python; ranks get streams of their own, derived from the run's seed."""
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))


def rng_state(device: torch.device) -> RngState:
    """The random states of torch on the CPU and on ``device``, of numpy and of python."""
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
    }


def set_rng_state(state: RngState, device: torch.device) -> None:
    """Put back what :func:`rng_state` took. A state without a GPU's part (taken on a CPU) leaves the GPU's as it is."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    legacy = state["numpy"]
    key = legacy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
    python = state["python"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))


@contextmanager
def rng_kept(device: torch.device) -> Iterator[None]:
    """Whatever runs inside leaves the random states as they were.

    Reading data goes through here: a ``DataLoader`` draws from torch's global generator whenever it starts, which
    would make the weights depend on the number of loader processes and on where a run was resumed.
    """
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """One torch thread on a CPU: with another number of threads sums are formed in another order."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def isolated(job: Job, device: str | torch.device = "cpu") -> Iterator[None]:
    """A process prepared and seeded for ``job``, and handed back as it was found, also after an error.

    Inside: one thread on a CPU, float32 as the default dtype, float32 arithmetic without TF32, and deterministic
    algorithms if the recipe says so. On a GPU some layers of video models (3-D pooling) have no deterministic backward
    pass: those warn instead of failing the run. May be nested; ``train`` enters it by itself.
    """
    place = torch.device(device)
    deterministic = job.config.recipe.deterministic
    if deterministic and place.type == "cuda":
        # Read once per process by cuBLAS, at its first call: set before it, and left, since unsetting has no effect.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with ExitStack() as stack:
        stack.callback(_release, place)
        if place.type == "cuda":
            stack.enter_context(torch.cuda.device(place))
        stack.enter_context(rng_kept(place))
        stack.enter_context(one_thread(place))
        for read, write in _FLAGS:
            stack.callback(write, read())
        _set_flags(deterministic=deterministic, warn_only=place.type != "cpu")
        seed_everything(job.seed)
        yield


def gather(value: T, world: int) -> list[T]:
    """Every rank's ``value`` in rank order, on every rank."""
    if world == 1:
        return [value]
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, value)
    return parts


def _set_flags(*, deterministic: bool, warn_only: bool) -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    # Filling every fresh buffer with NaN finds reads of unwritten memory; it changes no result and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


_FLAGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (_determinism, lambda flags: torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])),
    _attribute(torch.backends.cudnn, "deterministic"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn, "allow_tf32"),
    _attribute(torch.backends.cuda.matmul, "allow_tf32"),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
)
"""(read, write) of every process-wide setting a run changes."""
