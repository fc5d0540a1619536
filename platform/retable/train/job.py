"""What training is given and where it puts its results: types only, no torch at run time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from retable.data import config as views
from retable.study.config import Config, Resources

if TYPE_CHECKING:
    from torch import Tensor

    from retable.data.loader import Batch

Subset = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Job:
    """One run: what to train, with which seed, on which resources."""

    config: Config
    seed: int
    resources: Resources = field(default_factory=Resources)


class RunData(Protocol):
    """The videos of a run as training sees them; :mod:`retable.data.loader` has the real one and the full contract."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def flip_permutation(self) -> Tensor | None:
        """``(K,)``: the class that each class looks like when mirrored; ``None`` if mirroring changes no label."""

    def videos(self, subset: Subset) -> tuple[str, ...]: ...

    def label_sets(self, subset: Subset) -> tuple[tuple[int, ...], ...] | None:
        """All labels of each of the subset's videos; ``None`` where every video has exactly one."""

    def steps(self, batch_size: int) -> int: ...

    def train_batches(
        self, epoch: int, batch_size: int, *, seed: int, start: int = 0, micro: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]: ...

    def eval_batches(
        self, subset: Subset, protocol: views.Protocol, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]: ...


class Interrupted(RuntimeError):
    """The sink asked training to stop; everything up to the last update is saved."""


class Sink(Protocol):
    """Receives the results of a run. Only rank 0 calls it; an exception it raises ends the training."""

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        """An epoch (0-based) is finished. Percentages are 0-100, times are seconds.

        ``best``: its top-1 on the held-out videos beats every earlier epoch's; never true without a hold-out,
        because nothing is chosen on the test set.
        """

    def checkpoint(self, state: bytes) -> None:
        """The state inside an epoch, every ``resources.checkpoint_steps`` updates."""

    def wants_stop(self) -> bool:
        """Whether to save now and stop. Asked before every update (with several ranks, every tenth): must be quick."""
