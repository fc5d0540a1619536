"""What a model's ``pretrained`` method is written with: tensors of an image network, fitted to a video network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

OPTIONAL = "num_batches_tracked"
"""Batch norm's counter: files from before PyTorch 0.4.1 lack it, and nothing here depends on it."""


class OtherArchitecture(ValueError):
    """The weights are of another network than the one they should fill."""


def take(state: Mapping[str, Tensor], names: Mapping[str, str], *, left_out: Sequence[str]) -> dict[str, Tensor]:
    """The tensors that ``names`` (ours -> the file's) asks for, under our names.

    Args:
        state: a file's tensors.
        names: where each of ours is in the file; one of the file's may serve several of ours.
        left_out: beginnings of the file's names that are knowingly not used, such as the classifier's.

    Raises:
        OtherArchitecture: the file lacks a tensor, or has one that is neither used nor left out. Without the latter
            check the first blocks of a ResNet-101 would pass for a ResNet-50.
    """
    missing = sorted({theirs for theirs in names.values() if theirs not in state and not theirs.endswith(OPTIONAL)})
    used = set(names.values())
    surplus = sorted(name for name in state if name not in used and not name.startswith(tuple(left_out)))
    if missing or surplus:
        raise OtherArchitecture("; ".join(filter(None, (_some("it lacks", missing), _some("it also has", surplus)))))
    return {ours: state[theirs] for ours, theirs in names.items() if theirs in state}


def inflate(kernel: Tensor, depth: int) -> Tensor:
    """(O, I, h, w) -> (O, I, depth, h, w): copies along time divided by ``depth``.

    On a clip that does not change it gives what the image network gives, except where the kernel reaches beyond the
    clip's ends (Carreira and Zisserman, CVPR 2017).
    """
    return kernel.unsqueeze(2).repeat(1, 1, depth, 1, 1) / depth


def across_modalities(kernel: Tensor, channels: int) -> Tensor:
    """(O, 3, h, w) -> (O, channels, h, w): the mean over RGB for every channel (Wang et al., TSN, ECCV 2016)."""
    return kernel.mean(1, keepdim=True).repeat(1, channels, 1, 1)


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}" if names else ""
