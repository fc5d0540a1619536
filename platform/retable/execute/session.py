"""Ray for the time of a command: a private one, or a cluster's. It leaves nothing running and nothing in the home."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory

import ray

_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # workers run at nice +15 otherwise
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "OMP_NUM_THREADS": "1",
}
_TOKEN = "RAY_AUTH_TOKEN"


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the time of a ``with``: a private local one, or the cluster at ``address``; one already up is used."""
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("ray.tune", "ray.train", "ray"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if address is not None:
        with _ended():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
            yield
        return
    with _own_token(), TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder, _ended():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=folder,  # a short path: sockets lie in it, whose paths end at 107 bytes
        )
        yield


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_token() -> Iterator[None]:
    """A private Ray's token. Without one Ray takes the user's, or writes one into ``~/.ray`` that all may read."""
    before = os.environ.get(_TOKEN)
    os.environ[_TOKEN] = _token()
    try:
        yield
    finally:
        del os.environ[_TOKEN]
        if before is not None:
            os.environ[_TOKEN] = before


@cache
def _token() -> str:
    return secrets.token_hex(32)  # one for all sessions: Ray keeps the first that it sees as long as the process lives
