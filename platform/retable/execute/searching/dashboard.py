"""optuna-dashboard over a search's storage, on this machine only. An optional package, run as a program."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import optuna

from retable.execute.searching.optuna_storage import SearchStorageError, default_url
from retable.track.server import HOST, Server, launch
from retable.track.storage import Storage

PROGRAM = "import sys, optuna_dashboard as d; d.run_server(sys.argv[1], host=sys.argv[2], port=int(sys.argv[3]))"
START_SECONDS = 60.0


def open_dashboard(storage: Storage, url: str | None, port: int, *, patience: float = START_SECONDS) -> Server:
    """Start the dashboard and wait until it answers. It shows every search in the storage.

    Args:
        storage: the runs' storage, whose ``search/optuna.db`` is shown.
        url: another Optuna storage: an SQLAlchemy URL or the path of an sqlite file.
        port: on 127.0.0.1.
        patience: seconds.

    Raises:
        SearchStorageError: optuna-dashboard is not installed, there is no such storage, the port is taken, or the
            dashboard did not come up, with its last words.
    """
    if find_spec("optuna_dashboard") is None:
        raise SearchStorageError("optuna-dashboard is not installed: pip install 'retable[dashboard]'")
    place = sqlalchemy_url(url or default_url(storage))
    return launch(
        [sys.executable, "-c", PROGRAM, place, HOST, str(port)],
        port,
        "/api/studies",
        lambda reason: SearchStorageError(f"optuna-dashboard over {place}: {reason}"),
        patience,
    )


def sqlalchemy_url(place: str) -> str:
    """An SQLAlchemy URL of an existing storage, from one or from the path of an sqlite file.

    Raises:
        SearchStorageError: there is no such file.
    """
    if "://" in place:
        return place
    if not Path(place).exists():
        raise SearchStorageError(f"there is no search in {place} yet: retable search STUDY begins one")
    return f"sqlite:///{Path(place).absolute()}"


def links(base: str, storage: Storage, url: str | None, begin: str) -> dict[str, str]:
    """Name -> URL below the dashboard at ``base`` of each search whose name begins with ``begin``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.get_all_study_summaries(sqlalchemy_url(url or default_url(storage)), include_best_trial=False)
    named = {s.study_name: s._study_id for s in found if s.study_name.startswith(begin)}
    return {name: f"{base}/dashboard/studies/{number}" for name, number in sorted(named.items())}
