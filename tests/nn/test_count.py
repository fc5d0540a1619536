"""Counts agree with hand arithmetic for every kind of layer that the convention names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retable.nn import InputSpec, count


def clip(t: int, c: int, h: int, w: int) -> dict[str, InputSpec]:
    return {"rgb": InputSpec(shape=(t, c, h, w))}


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm = nn.BatchNorm3d(5)

    def forward(self, rgb: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(rgb.transpose(1, 2))).relu()
        return out


class Recurrence(nn.Module):
    """One gated cell, written as a linear layer and a product, unrolled over T frames."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(6 + 4, 16)

    def forward(self, rgb: Tensor) -> Tensor:
        state = cell = torch.zeros(rgb.shape[0], 4)
        for frame in rgb.flatten(2).unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, state], dim=1)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
        return state


class Attention(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        tokens = rgb.flatten(2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_convolution_counts_taps_times_outputs() -> None:
    assert count.parameters(Convolution) == 3 * 5 * 9 + 5 + 10
    assert count.macs(Convolution, clip(4, 3, 8, 8)) == (3 * 9) * (5 * 4 * 4 * 4)


def test_recurrent_cell_counts_once_per_frame() -> None:
    assert count.macs(Recurrence, clip(7, 6, 1, 1)) == 7 * (6 + 4) * 16


def test_attention_counts_both_products() -> None:
    assert count.macs(Attention, clip(5, 2, 2, 2)) == 2 * (5 * 5 * 8)


def test_multihead_attention_is_not_hidden_by_its_fast_path() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, rgb: Tensor) -> Tensor:
            tokens = rgb.flatten(2)
            out: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return out

    assert count.macs(Heads, clip(5, 2, 2, 2)) == 4 * (5 * 8 * 8) + 2 * (5 * 5 * 8)


def test_shared_and_frozen_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = self.one
            self.fixed = nn.Linear(4, 4).requires_grad_(False)

    assert count.parameters(Tied) == 20


def test_counting_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    count.parameters(Convolution)
    count.macs(Convolution, clip(4, 3, 8, 8))
    assert torch.equal(before, torch.random.get_rng_state())
