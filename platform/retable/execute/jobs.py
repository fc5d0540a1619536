"""A cluster's jobs, seen from outside: one client, with a token where the cluster wants one; errors explained."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a tunnel to a cluster ends, and where a head on this machine listens."""
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
"""How long a head may take to be there at all, and to answer when it is busy."""
OURS = "retable"
"""The key of a job's metadata that says what was submitted."""
_LOUD = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


class JobsUnavailable(RuntimeError):
    """The cluster cannot be asked, or refuses; the message says what to do."""


class Cluster:
    """A running cluster's jobs API at ``address``. ``token`` is the path of a file that holds its token.

    Raises:
        JobsUnavailable: nobody answers, the token is missing or wrong, or Ray's version is another one.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, token: Path | None = None) -> None:
        self.address = address.rstrip("/")
        for name in _LOUD:
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
        headers = _admitted(self.address, token)
        with _explained(self.address), _no_overrides():
            self.client = JobSubmissionClient(self.address, headers=headers)

    def submit(self, entrypoint: str, folder: Path, env: Mapping[str, str], about: str, job: str) -> str:
        """Send a folder and start a command in it on the head; the job's id."""
        with _explained(self.address):
            return str(
                self.client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job,
                    runtime_env={"working_dir": str(folder), "env_vars": dict(env)},
                    metadata={OURS: about},
                )
            )

    def jobs(self) -> list[dict[str, Any]]:
        """Jobs that were submitted by ``retable submit``, newest first."""
        with _explained(self.address):
            found = [j for j in self.client.list_jobs() if j.submission_id and OURS in (j.metadata or {})]
        return sorted(map(_facts, found), key=lambda job: -job["started"])

    def job(self, job: str) -> dict[str, Any]:
        """What is known of a job.

        Raises:
            JobsUnavailable: there is none of this id.
        """
        with _explained(self.address):
            return _facts(self.client.get_job_info(job))

    def follow(self, job: str, tell: Callable[[str], None]) -> dict[str, Any]:
        """Tell a job's output from its beginning until its end; what is then known of it."""

        async def tail() -> None:
            async for text in self.client.tail_job_logs(job):
                tell(text)

        with _explained(self.address):
            asyncio.run(tail())
            return self.wait(job, ANSWER_SECONDS)

    def wait(self, job: str, seconds: float) -> dict[str, Any]:
        """What is known of a job at its end, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            facts = self.job(job)
            if facts["ended"] or time.monotonic() > deadline:
                return facts
            time.sleep(0.3)

    def stop(self, job: str) -> bool:
        """Ask a job to stop (SIGTERM to its driver); False if it had ended already."""
        with _explained(self.address):
            return bool(self.client.stop_job(job))


def token_file() -> Path:
    """Where this user's token is: ``$RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def read_token(path: Path | None = None) -> str:
    """The token in a file, or in ``$RAY_AUTH_TOKEN``.

    Raises:
        JobsUnavailable: there is none, or others may read it.
    """
    if path is None and os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    path = path or token_file()
    if not path.is_file():
        raise JobsUnavailable(
            f"the cluster wants a token, and there is none in {path}: get it from who started the cluster (mode 600)"
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise JobsUnavailable(f"others on this machine may read the token {path}: chmod 600 {path}")
    return path.read_text(encoding="utf-8").strip()


def _admitted(address: str, token: Path | None) -> dict[str, str]:
    """The headers that the cluster lets us in with; checks Ray's version. The token goes only to who asks for one."""
    answer = _ask(address, {})
    headers = {}
    if answer.status_code in (401, 403):
        headers = {"Authorization": f"Bearer {read_token(token)}"}
        answer = _ask(address, headers)
    if answer.status_code in (401, 403):
        where = token or ("$RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else token_file())
        raise JobsUnavailable(f"{address} refuses the token in {where}: it is another cluster's, or an old one")
    try:
        theirs = str(answer.json()["ray_version"])
    except (ValueError, KeyError) as error:
        raise JobsUnavailable(
            f"{address} is something else than a Ray dashboard (HTTP {answer.status_code})"
        ) from error
    if theirs != ray.__version__:
        raise JobsUnavailable(
            f"the cluster runs Ray {theirs}, this machine has Ray {ray.__version__}: install ray=={theirs} here, or"
            " start the cluster with this machine's version"
        )
    return headers


def _ask(address: str, headers: Mapping[str, str]) -> requests.Response:
    with _explained(address):
        return requests.get(f"{address}/api/version", headers=dict(headers), timeout=(CONNECT_SECONDS, ANSWER_SECONDS))


@contextmanager
def _explained(address: str) -> Iterator[None]:
    way_out = "is the cluster up, and the tunnel open? (retable cluster status, retable cluster tunnel)"
    try:
        yield
    except JobsUnavailable:
        raise
    except AuthenticationError as error:
        raise JobsUnavailable(f"{address} refuses the token: {_first_line(error)}") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, ConnectionError) as error:
        raise JobsUnavailable(f"nobody answers at {address} ({_kind(error)}): {way_out}") from error
    except (RuntimeError, OSError, requests.exceptions.RequestException) as error:
        if "does not exist" in str(error):
            raise JobsUnavailable(f"{address} knows no such job: retable jobs lists them") from error
        raise JobsUnavailable(f"{address}: {_first_line(error)}; {way_out}") from error


@contextmanager
def _no_overrides() -> Iterator[None]:
    """Ray's client would talk to $RAY_ADDRESS instead of the address that it is given."""
    before = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _facts(job: Any) -> dict[str, Any]:
    return {
        "id": job.submission_id,
        "status": job.status.value.lower(),
        "ended": job.status.is_terminal(),
        "stopped": job.status == JobStatus.STOPPED,
        "about": (job.metadata or {}).get(OURS, ""),
        "started": (job.start_time or 0) / 1000,
        "exit_code": job.driver_exit_code,
        "message": job.message or "",
    }


def _kind(error: BaseException) -> str:
    """``ConnectTimeout``, or what the system said of a connection: the library's own sentence is several lines long."""
    found = re.search(r"\[Errno \d+\] ([^'\")]+)", str(error))
    return found[1] if found else type(error).__name__


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
