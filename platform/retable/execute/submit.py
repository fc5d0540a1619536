"""``retable submit``: a study and the files around it go to a cluster's head, which runs ``retable run`` there."""

from __future__ import annotations

import json
import os
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from retable.cluster.document import ClusterError, load
from retable.data.manifest import dataset_folder
from retable.execute import clusters, nodes, stopping
from retable.execute.credentials import token_path
from retable.execute.jobs import Cluster, JobsUnavailable
from retable.execute.upload import stage
from retable.workspace import find_study

STOP_SECONDS = int(stopping.GRACE_SECONDS) + 30
"""How long a driver that was asked to stop may take before Ray kills it: its runs' grace, and time to record them."""
ENVIRONMENT = {
    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),  # 3 s otherwise
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # read where a run with several workers is started, on any machine
    "RAY_worker_niceness": "0",
}
_CODE = Path("platform") / "retable" / "cli.py"
_IMPORTABLE = """\
python -c 'import retable.cli' || {
  echo "the head's python ($(command -v python || echo none)) cannot import retable; the error is above. Install it" \\
    "where Ray was started from (setup_commands of the cluster file), or submit from retable's checkout" >&2
  exit 3
}"""
"""Shell: go on only where the command can begin at all."""


@dataclass(frozen=True)
class Submission:
    """What is sent: the folder around the study, and the words of ``retable run`` that follow the study."""

    folder: Path
    study: str
    options: tuple[str, ...]
    check_only: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """The command that the head runs, in the folder that was sent."""
        mode = ["--check-only"] if self.check_only else []
        told = json.dumps(nodes.versions())
        words = ["python", "-m", "retable.cli", "run-submitted", "--from", told, *mode, self.study, *self.options]
        return f"{_IMPORTABLE}\nexec {shlex.join(words)}"

    @property
    def environment(self) -> dict[str, str]:
        """A checkout brings its own code, which goes before what is installed on the cluster."""
        own_code = (self.folder / _CODE).is_file()
        return {**ENVIRONMENT, **({"PYTHONPATH": str(_CODE.parent.parent)} if own_code else {}), **self.variables}


def submission(
    study: str,
    options: Sequence[str],
    *,
    folder: Path,
    check_only: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Submission:
    """The study as the cluster will find it: by its path below ``folder``, or by its name if it is a shipped one.

    Raises:
        JobsUnavailable: the file lies outside the folder that is sent.
    """
    path = find_study(study).absolute()
    if path.is_relative_to(folder):
        return Submission(folder, str(path.relative_to(folder)), tuple(options), check_only, variables or {})
    if Path(study).exists():
        raise JobsUnavailable(
            f"{study} lies outside {folder}, and only that folder goes to the cluster: change to the study's folder"
        )
    return Submission(folder, Path(study).stem, tuple(options), check_only, variables or {})


def submit(cluster: Cluster, sent: Submission) -> str:
    """Send and start; the job's id.

    Raises:
        UploadRefused: the folder is too large.
        JobsUnavailable: the cluster cannot be reached or refuses.
    """
    name = f"{Path(sent.study).stem}-{time.strftime('%m%d-%H%M%S')}-{uuid4().hex[:4]}"
    with tempfile.TemporaryDirectory(prefix="retable-submit-") as staged:
        stage(sent.folder, Path(staged), leave_out=(dataset_folder("", os.environ.get("RETABLE_DATA")),))
        about = shlex.join([sent.study, *sent.options])
        return cluster.submit(sent.entrypoint, Path(staged), sent.environment, about, name)


@contextmanager
def reached(file: Path) -> Iterator[Cluster]:
    """The cluster of a cluster file, through a tunnel to its head's loopback, with its token.

    Raises:
        JobsUnavailable: there is no token or key here, the head does not answer, or it refuses.
    """
    try:
        token = token_path(load(file))
        port = _free_port()
        with clusters.tunnel(file, {port: clusters.DASHBOARD}):
            yield Cluster(f"http://127.0.0.1:{port}", token)
    except ClusterError as error:
        raise JobsUnavailable(str(error)) from error


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
