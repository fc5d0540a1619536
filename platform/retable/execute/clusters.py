"""Ray's cluster launcher, asked safely: its schema, up, status, down, and the way to the head."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from retable.cluster import kubernetes
from retable.cluster.check import PROVIDERS, Findings, examine
from retable.cluster.document import ClusterError, ClusterFile, load
from retable.cluster.form import Pins
from retable.execute import ssh
from retable.execute.credentials import make_token, require_key, require_mounts
from retable.study.problems import Problem

DASHBOARD, MLFLOW = 8265, 5000
"""Ports that the dashboard (with the jobs API) and MLflow listen on, on the head's loopback."""


def pins() -> Pins:
    """The versions that a cluster must have to understand this machine's commands."""
    return Pins(ray=version("ray"), retable=version("retable"), python="3.11")


def check(path: Path) -> Findings:
    """Everything that can be said of a cluster file offline: our checks and Ray's own schema.

    Raises:
        ClusterFileError: it cannot be read.
    """
    file = load(path)
    return examine(file, pins(), () if kubernetes.is_manifest(file) else _schema_problems(file))


def _schema_problems(file: ClusterFile) -> tuple[Problem, ...]:
    """What Ray says of a file that it would start: the first fault, as Ray stops there too."""
    if file.provider not in PROVIDERS:
        return ()
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with _quiet():
            prepared = prepare_config(copy.deepcopy(dict(file.tree)))
            validate_config(prepared)
    except Exception as error:  # jsonschema's ValidationError, or whatever else Ray raises; its abort is Click's
        if getattr(error, "validator", None) == "additionalProperties":
            return ()  # unknown names are found by name, each with its place
        reason = getattr(error, "message", None) or str(error) or type(error).__name__
        place = tuple(getattr(error, "absolute_path", ())) or ("provider",)
        return (file.problem(place, f"Ray: {reason}", "cluster.yaml and clusters/ show how"),)
    return ()


def require(path: Path) -> ClusterFile:
    """The cluster file at ``path``, if nothing is wrong with it and nothing is left to fill in.

    Raises:
        ClusterFileError: it cannot be read.
        ClusterError: it is not fit to go up.
    """
    found = check(path)
    if found.problems or found.to_fill_in:
        lines = [str(problem) for problem in (*found.problems, *found.to_fill_in)]
        raise ClusterError("\n".join([*lines, f"nothing was started; retable cluster check {path} says this again"]))
    file = load(path)
    if kubernetes.is_manifest(file):
        raise ClusterError(f"{path} is for Kubernetes: kubectl apply -f {path}")
    return file


def up(path: Path, *, restart: bool = False) -> None:
    """Start a cluster, or bring a running one in line with its file; running jobs go on unless ``restart``.

    Raises:
        ClusterError: something is missing here, the launcher failed, or the head does not answer.
    """
    file = require(path)
    make_token(file)
    require_mounts(file)
    require_key(file)
    words = ("up", str(path), "--yes", "--no-config-cache")
    _ray(*words, *([] if restart else ["--no-restart"]), file=file)
    if not restart and _without_ray(file):  # a head that came back from a loss of power; there are no jobs to end
        _ray(*words, file=file)


def _without_ray(file: ClusterFile) -> bool:
    """Whether the head surely runs no Ray: the launcher's --no-restart leaves one without that it has started once."""
    return ssh.run(file, head(file), "pgrep -x gcs_server").returncode == 1  # pgrep's "none"; its errors are others


def down(path: Path) -> None:
    """End a cluster's nodes. With provider local Ray stops on the head only: workers lose it and end by themselves.

    Nodes cost, so nothing that has been lost here (token, ssh key) stands in the way of ending them.
    """
    file = load(path)
    _ray("down", str(path), "--yes", file=file)
    ssh.known_hosts(file).unlink(missing_ok=True)


def status(path: Path) -> str:
    """What ``ray status`` says on the head."""
    file = load(path)
    done = ssh.run(file, head(file), "bash --login -c -i 'source ~/.bashrc; ray status'")
    if done.returncode != 0:
        raise ClusterError(f"the head of {file.name} answers, but Ray does not run there: retable cluster up {path}")
    return str(done.stdout)


@contextmanager
def tunnel(path: Path, ports: Mapping[int, int]) -> Iterator[subprocess.Popen[str]]:
    """Forward local ports of 127.0.0.1 to ports of the head's loopback, while the block runs.

    Raises:
        ClusterError: a local port is taken, or the head does not answer.
    """
    file = load(path)
    with ssh.forward(file, head(file), ports) as running:
        yield running


def head(file: ClusterFile) -> str:
    """What ssh reaches the head by: an address, or the instance's id where the proxy wants that.

    Raises:
        ClusterError: there is no head, or the cloud does not say.
    """
    provider = dict(file.section("provider"))
    if file.provider == "local":
        return str(provider.get("external_head_ip") or provider["head_ip"])
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND

    try:
        with _quiet():
            cloud: Any = _get_node_provider(provider, file.name)
            heads = cloud.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_HEAD})
            if not heads:
                raise ClusterError(f"{file.name} has no head: retable cluster up {file.source.file}")
            if file.section("auth").get("ssh_proxy_use_node_id"):
                return str(heads[0])
            internal = provider.get("use_internal_ips") and not provider.get("use_external_head_ip")
            return str(cloud.internal_ip(heads[0]) if internal else cloud.external_ip(heads[0]))
    except ImportError as error:
        raise ClusterError(f"{error}: pip install 'retable[{file.provider}]'") from None
    except ClusterError:
        raise
    except Exception as error:  # whatever the cloud's library raises: no credentials, no network, no permission
        raise ClusterError(f"{file.provider} does not say where the head of {file.name} is: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray prints by the way; what is wrong is in its exceptions."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        yield


def _ray(*words: str, file: ClusterFile) -> None:
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    if file.provider == "local":
        env["RAY_UP_enable_autoscaler_v2"] = "0"  # version 2 loses one worker of a local cluster for good
    done = subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *words], env=env, check=False)
    if done.returncode != 0:
        raise ClusterError(f"ray {words[0]} ended with {done.returncode}; what it said stands above")
