"""Run, config and view ids: hashes of everything that can change a number, and of nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from retable.data.flow import weights_hash
from retable.study.config import Config, Protocol, Resources

ID_HEX = 24  # 96 bits
VIEW_HEX = 16
PROVISIONAL = "~"
"""Prefix of ids made without the dataset at hand. They are printed, never written to storage."""


def canonical(value: Any) -> str:
    """The one JSON text of plain data: sorted keys, no spaces; NaN and infinity are refused.

    ``1`` and ``1.0`` differ here: whether they are the same setting is known to a config's types only, which make both
    the same value first. ``-0.0`` is ``0.0``.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = ID_HEX) -> str:
    """The first ``length`` hex digits of the SHA-256 of :func:`canonical`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def config_id(
    config: Config,
    *,
    layout: str,
    fingerprint: str | None,
    semantics: Mapping[str, int],
    parents: tuple[str, ...] = (),
    weights: str | None = None,
) -> str:
    """The id of a training, without its seed.

    The dataset enters as its fingerprint (and the layout that labels and flips it), not as a name; without a
    fingerprint the name stands in and the id is provisional (prefixed ``~``). Initial weights and those of optical
    flow enter by the hash of their file, not by the path or URL that names it.
    """
    body = _body(config)
    name = body["data"].pop("dataset")
    if weights is not None:
        body["model"].pop("weights", None)
    key = digest(
        {
            "config": body,
            "dataset": fingerprint if fingerprint is not None else {"name": name},
            "layout": layout,
            "parents": sorted(parents),
            "semantics": dict(semantics),
            "weights": weights,
        }
    )
    return key if fingerprint is not None else PROVISIONAL + key


def speed_id(
    config: Config,
    *,
    metric: str,
    protocol: Protocol,
    resources: Resources,
    fingerprint: str | None,
    semantics: Mapping[str, int],
) -> str:
    """The id of what is timed, without the machine: the network (its weights change no time), the videos, the views,
    and how the test loop runs. Without a fingerprint it is provisional."""
    body = _body(config)
    name = body["data"].pop("dataset")
    body["model"].pop("weights", None)
    recipe = body["recipe"]
    key = digest(
        {
            "metric": metric,
            "model": body["model"],
            "data": body["data"],
            "dataset": fingerprint if fingerprint is not None else {"name": name},
            "loop": {k: recipe[k] for k in ("batch_size", "workers", "channels_last", "deterministic")},
            "resources": resources.model_dump(mode="json", exclude={"checkpoint_steps"}),
            "protocol": protocol.model_dump(mode="json", exclude={"checkpoint"}),
            "semantics": dict(semantics),
        }
    )
    return key if fingerprint is not None else PROVISIONAL + key


def measurement_id(speed_key: str, machine: Mapping[str, str] | None) -> str:
    """The id of a speed on one machine, as :func:`retable.train.machine.describe` tells it; provisional without one."""
    known = machine is not None and not speed_key.startswith(PROVISIONAL)
    return ("" if known else PROVISIONAL) + digest({"speed": speed_key, "machine": dict(machine or {})})


def run_id(config_key: str, seed: int) -> str:
    """The id of one training with one seed."""
    prefix = PROVISIONAL if config_key.startswith(PROVISIONAL) else ""
    return prefix + digest({"config": config_key, "seed": seed})


def view_key(protocol: Protocol, *, fingerprint: str | None, name: str, subset: str, semantics: int) -> str:
    """The id of one protocol on one evaluation set: what a run's scores are stored under."""
    prefix = "" if fingerprint is not None else PROVISIONAL
    dataset: Any = fingerprint if fingerprint is not None else {"name": name}
    body = {"protocol": protocol.model_dump(mode="json"), "dataset": dataset, "subset": subset, "semantics": semantics}
    return prefix + digest(body, VIEW_HEX)


def _body(config: Config) -> dict[str, Any]:
    """A config as plain data, without the paths that name a plug-in or the weights of optical flow."""
    body = config.model_dump(mode="json")
    if "name" in body["model"]:  # a plug-in's path is not part of what it computes
        body["model"]["name"] = PurePath(body["model"]["name"]).name
    flow = body["data"].get("flow")
    if flow is not None and flow["weights"] is not None:
        flow["weights"] = weights_hash(flow["weights"])
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"an id cannot hold {value}")
        return value + 0.0  # -0.0 equals 0.0, but prints differently
    return value
