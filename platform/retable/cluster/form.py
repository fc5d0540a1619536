"""What a cluster file must say for `ray up` to do what its owner means: places, heads and workers, versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from retable.cluster.document import ClusterFile
from retable.study.problems import Problem

SETUP = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_PINS = {
    "python": re.compile(r"--python[= ]([\w.]+)"),
    "ray": re.compile(r"--ray[= ]([\w.]+)|\bray(?:\[[\w,-]*\])?==([\w.]+)"),
    "retable": re.compile(r"--retable[= ]([\w.]+)|\bretable(?:\[[\w,-]*\])?==([\w.]+)"),
}


@dataclass(frozen=True)
class Pins:
    """The versions that are installed here: the cluster must have the same. ``python`` is the oldest that is taken."""

    ray: str
    retable: str
    python: str


def problems(file: ClusterFile, pins: Pins) -> Iterator[Problem]:
    """Missing places, a head that is also a worker, versions that differ from ours."""
    if file.provider == "aws":
        yield from _aws(file)
    elif file.provider == "gcp":
        yield from _gcp(file)
    elif file.provider == "local":
        yield from _local(file)
    yield from _head(file)
    yield from _versions(file, pins)


def _aws(file: ClusterFile) -> Iterator[Problem]:
    provider = file.section("provider")
    region = provider.get("region")
    if not region:
        yield file.problem(("provider", "region"), "region is missing", "region: eu-central-1")
    for zone in str(provider.get("availability_zone") or "").replace(" ", "").split(","):
        if region and zone and not zone.startswith(str(region)):
            place = ("provider", "availability_zone")
            yield file.problem(place, f"zone {zone} is not in region {region}", f"availability_zone: {region}a", zone)
    if provider.get("cache_stopped_nodes") is not False:
        place = ("provider", "cache_stopped_nodes")
        yield file.problem(place, "stopped nodes are kept, and their disks cost", "cache_stopped_nodes: false")
    for name, config in file.node_configs.items():
        for key in ("ImageId", "InstanceType"):
            if not config.get(key) and not config.get("LaunchTemplate"):
                at = ("available_node_types", name, "node_config", key)
                yield file.problem(at, f"{key} is missing; Ray's default is years old", f"{key}: ...")


def _gcp(file: ClusterFile) -> Iterator[Problem]:
    provider = file.section("provider")
    for key in ("region", "availability_zone", "project_id"):
        if not provider.get(key):
            yield file.problem(("provider", key), f"{key} is missing", f"{key}: ...")


def _local(file: ClusterFile) -> Iterator[Problem]:
    provider = file.section("provider")
    head, workers = provider.get("head_ip"), provider.get("worker_ips")
    workers = workers if isinstance(workers, list) else []
    if not head and not provider.get("coordinator_address"):
        yield file.problem(("provider", "head_ip"), "head_ip is missing", "head_ip: 192.168.0.10")
    for i, worker in enumerate(workers):
        if worker == head:
            at = ("provider", "worker_ips", i)
            yield file.problem(at, f"{worker} is the head and also a worker", "take it off worker_ips", worker)
        elif worker in workers[:i]:
            yield file.problem(("provider", "worker_ips", i), f"{worker} stands twice", "take one off", worker)


def _head(file: ClusterFile) -> Iterator[Problem]:
    head = file.head_type
    if head is None or head not in file.node_configs:
        return  # Ray's own check says so
    for key in ("min_workers", "max_workers"):
        count = file.section("available_node_types", head).get(key)
        if isinstance(count, int) and count > 0:
            yield file.problem(
                ("available_node_types", head, key), f"the head's type {head!r} is also a worker type",
                f"{key}: 0, and a type of its own for workers", count,
            )  # fmt: skip
    market = file.node_configs[head].get("InstanceMarketOptions")
    if isinstance(market, dict) and market.get("MarketType") == "spot":
        at = ("available_node_types", head, "node_config", "InstanceMarketOptions")
        yield file.problem(at, "a spot head can be taken away, and the cluster with it", "on demand for the head")


def _versions(file: ClusterFile, pins: Pins) -> Iterator[Problem]:
    commands = [c for key in SETUP for c in file.commands(key)]
    for name, pattern in _PINS.items():
        ours = getattr(pins, name)
        found = [(path, m[1] or m[m.lastindex or 1]) for path, command in commands for m in pattern.finditer(command)]
        if not found:
            yield file.problem(
                ("setup_commands",), f"nothing says which {name} the nodes must have",
                f"bash ~/retable/clusters/setup.sh --python {pins.python} --ray {pins.ray} --retable {pins.retable}",
            )  # fmt: skip
        for path, version in found:
            if name == "python" and _numbers(version) < _numbers(ours):
                yield file.problem(path, f"Python {version} is too old", f"--python {ours} or later", version)
            elif name != "python" and version != ours:
                yield file.problem(path, f"{name} {version} on the cluster, {ours} here", f"--{name} {ours}", version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
