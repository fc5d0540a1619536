"""The name of a proxy says what it is: ``<dataset>-proxy<short side>-gop<frames>``. Light: no decoder is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"(?P<source>.+)-proxy(?P<side>\d+)-gop(?P<gop>\d+)")


@dataclass(frozen=True)
class Tier:
    """How a proxy is encoded. ``short_side``: pixels; ``gop``: frames from key frame to key frame."""

    short_side: int
    gop: int


def proxy_name(dataset: str, tier: Tier) -> str:
    """What the proxy of ``dataset`` is called, as a dataset and as a folder."""
    return f"{dataset}-proxy{tier.short_side}-gop{tier.gop}"


def proxy_of(name: str) -> tuple[str, Tier] | None:
    """The dataset whose proxy this is, and how it is encoded; None for a dataset that is no proxy."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found["source"], Tier(int(found["side"]), int(found["gop"])))


def source_of(name: str) -> str:
    """The dataset that ``name`` is a proxy of, or ``name``."""
    found = proxy_of(name)
    return name if found is None else found[0]


def proxy_command(name: str) -> str | None:
    """The command that makes a proxy; None for a dataset that is no proxy."""
    found = proxy_of(name)
    if found is None:
        return None
    source, tier = found
    return f"retable data proxy {source} --short-side {tier.short_side} --gop {tier.gop}"


def proxy_words(name: str) -> str | None:
    """What a table must say of numbers made from a proxy; None for a dataset that is no proxy."""
    found = proxy_of(name)
    if found is None:
        return None
    source, tier = found
    keys = "every frame a key frame" if tier.gop == 1 else f"a key frame every {tier.gop} frames"
    return (
        f"From the proxy {name}: the videos of {source} encoded again with loss (H.264, short side"
        f" {tier.short_side} pixels, {keys}), so pixels differ from those of {source}."
    )
