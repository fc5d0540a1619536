"""Whether every machine of a cluster can do a driver's work: same versions, same storage, same videos."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import retable
from retable.data.errors import DataError
from retable.data.manifest import dataset_folder, open_dataset
from retable.execute.order import Order, Places
from retable.study.identity import digest
from retable.track.drivers import seen
from retable.track.storage import Storage, StorageError

SECONDS = 120.0
"""A node that has not answered by then cannot work: it has Ray, but no environment for a worker, or no network."""


class UnfitNodes(RuntimeError):
    """Machines of the cluster cannot do this work; the message names each and what to do."""


@dataclass(frozen=True)
class Facts:
    """What a machine says of itself. ``storage`` and the values of ``data`` are complaints, or None and a digest."""

    host: str
    versions: Mapping[str, str]
    storage: str | None
    data: Mapping[str, str]
    missing: Mapping[str, str]


def versions() -> dict[str, str]:
    """What must be the same wherever a study's code runs."""
    found = {name: version(name) for name in ("ray", "torch", "torchvision")}
    return {"retable": retable.__version__, "python": ".".join(platform.python_version_tuple()[:2]), **found}


def differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """``torch 2.15.0 instead of 2.14.1`` for what differs."""
    return [f"{k} {theirs.get(k, 'missing')} instead of {mine[k]}" for k in mine if theirs.get(k) != mine[k]]


def look(places: Places, datasets: Sequence[str]) -> Facts:
    """What is found on the machine that this is called on."""
    data, missing = {}, {}
    for name in datasets:
        try:
            data[name] = _listing(name, places)
        except (DataError, LookupError) as error:
            missing[name] = str(error)
    return Facts(socket.gethostname(), versions(), _storage(places), data, missing)


def judge(mine: Facts, theirs: Sequence[Facts]) -> list[str]:
    """What is wrong with other machines, measured by the driver's own; one line each."""
    found = []
    for facts in theirs:
        found += [f"{facts.host}: {what}" for what in differing(mine.versions, facts.versions)]
        if facts.storage is not None:
            found.append(f"{facts.host}: {facts.storage}")
        found += [f"{facts.host}: {why}" for why in facts.missing.values()]
        found += [
            f"{facts.host}: dataset {name} has other files than on {mine.host}: copy it anew, or share one folder"
            for name, listed in facts.data.items()
            if name in mine.data and mine.data[name] != listed
        ]
    return found


def refuse_unfit(orders: Sequence[Order]) -> int:
    """Look at every machine that could work, before anything starts; how many there are.

    Raises:
        UnfitNodes: naming all that is wrong, machine by machine.
    """
    nodes = [n for n in ray.nodes() if n["Alive"] and _works(n)]  # type: ignore[no-untyped-call]
    others = [n for n in nodes if n["NodeID"] != ray.get_runtime_context().get_node_id()]
    if not others:
        return len(nodes)
    places, datasets = orders[0].places, sorted({order.config.data.dataset for order in orders})
    facts, faults = _ask(others, places, datasets)
    faults += judge(look(places, datasets), facts)
    if faults:
        raise UnfitNodes("\n".join(["not started: some machines of the cluster cannot do this work", *faults]))
    return len(nodes)


def _ask(nodes: Sequence[Mapping[str, Any]], places: Places, datasets: Sequence[str]) -> tuple[list[Facts], list[str]]:
    ask = ray.remote(look)
    asked = {
        ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(places, datasets): str(node["NodeManagerHostname"])
        for node in nodes
    }
    facts, faults = [], []
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS) if asked else ([], [])
    for answer in answered:
        try:
            facts.append(ray.get(answer))
        except ray.exceptions.RayError as error:
            faults.append(f"{asked[answer]}: no worker could be started there ({_last_line(error)})")
    faults += [f"{asked[answer]}: no answer within {SECONDS:.0f} s" for answer in silent]
    return facts, faults


def strange_storage(places: Places) -> str | None:
    """Why a worker on another machine than its driver's must not start: its storage folder is another disk."""
    if not seen(Storage(places.storage), places.driver):
        return (
            f"{places.storage} is not the driver's folder, but a disk of {socket.gethostname()}'s own: with several"
            " machines --storage must be a bucket, or a folder that all of them share"
        )
    return None


def _storage(places: Places) -> str | None:
    try:
        strange = strange_storage(places)
        if strange is None:
            Storage(places.storage).check()
    except StorageError as error:
        return str(error)
    return strange


def _listing(name: str, places: Places) -> str:
    """A digest of the dataset's videos and labels by name: quick, also for large ones. Contents are in run ids."""
    folder = dataset_folder(name, places.data)
    manifest = open_dataset(name, folder)
    return digest([[i.path, i.label, i.subset] for split in manifest.layout.splits for i in manifest.items(split)])


def _works(node: Mapping[str, Any]) -> bool:
    return any(node["Resources"].get(kind, 0) > 0 for kind in ("CPU", "GPU"))


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


def local_folder(place: str | None) -> bool:
    """Whether a place is a folder given relative to the current one, which means nothing on another machine."""
    return place is not None and "://" not in place and not Path(place).is_absolute()
