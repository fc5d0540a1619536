"""Parameters and multiply-accumulates of a model, counted on the meta device: no weights, no data, no arithmetic.

One convention for every table. A MAC is one multiply and one add in a convolution, a linear layer or a matrix product
(attention and recurrent cells written as products too): half of PyTorch's ``FlopCounterMode`` total. Not counted:
normalisation, activations, pooling, element-wise products, sums. One view, batch 1, evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retable.nn import InputSpec


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The module that ``build`` makes, with shapes and no storage, in evaluation mode."""
    with torch.device("meta"):
        return build().eval()


def parameters(build: Callable[[], nn.Module]) -> int:
    """Number of trainable parameters. Shared ones count once; buffers and frozen parameters do not count."""
    return sum(p.numel() for p in on_meta(build).parameters() if p.requires_grad)


def macs(build: Callable[[], nn.Module], inputs: Mapping[str, InputSpec]) -> int:
    """Multiply-accumulates of one clip through ``build()(**inputs)``.

    Args:
        build: makes the module; called once, under the meta device.
        inputs: name -> spec of one clip ``(T, C, H, W)``, as the model file's ``inputs(config)`` returns them.
    """
    module = on_meta(build)
    clips = {
        name: torch.empty((1, *spec.shape), dtype=getattr(torch, spec.dtype), device="meta")
        for name, spec in inputs.items()
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter, torch.device("meta"):
        module(**clips)
    return int(counter.get_total_flops()) // 2
