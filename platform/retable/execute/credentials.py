"""What this machine must hold to start or reach a cluster: the token, the ssh key, the files that are sent."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from retable.cluster.document import ClusterError, ClusterFile
from retable.cluster.safety import TOKEN


def token_path(file: ClusterFile) -> Path:
    """Where the token of a cluster lies on this machine.

    Raises:
        ClusterError: the file sends none to its nodes.
    """
    local = file.section("file_mounts").get(TOKEN)
    if not local:
        raise ClusterError(f"{file.source.file} sends no {TOKEN}: retable cluster check {file.source.file}")
    return Path(local).expanduser()


def make_token(file: ClusterFile) -> Path:
    """The cluster's token, made where there is none, readable by its owner only."""
    path = token_path(file)
    if not path.is_file():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
    elif not path.read_text().strip():
        raise ClusterError(f"the token {path} is empty: remove it, and a new one is made")
    path.chmod(0o600)  # Ray's own command writes it readable to all
    return path


def require_mounts(file: ClusterFile) -> None:
    """Refuse a file that sends what is not here (ClusterError)."""
    absent = [str(p) for p in file.section("file_mounts").values() if not Path(str(p)).expanduser().exists()]
    if absent:
        raise ClusterError(
            f"file_mounts of {file.source.file} name what is not here: {', '.join(absent)}. "
            "Their paths are relative to where you start: start at the top of the checkout"
        )


def require_key(file: ClusterFile) -> None:
    """Refuse an ssh key that is missing or that others may read (ClusterError)."""
    named = file.section("auth").get("ssh_private_key")
    if not named:
        return
    key = Path(str(named)).expanduser()
    if not key.is_file():
        raise ClusterError(
            f'there is no ssh key {key}: ssh-keygen -t ed25519 -N "" -f {key}, and let the nodes know it'
        )
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise ClusterError(f"others may read the ssh key {key}, so ssh refuses it: chmod 600 {key}")
