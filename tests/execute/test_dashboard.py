"""optuna-dashboard on a search's storage: the real program, on this machine only, and clear refusals."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import optuna
import psutil
import pytest

from retable.execute.searching import dashboard
from retable.execute.searching.dashboard import links, open_dashboard
from retable.execute.searching.optuna_storage import SearchStorageError
from retable.track.storage import Storage


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    folder = tmp_path / "search"
    folder.mkdir()
    for name in ("small-laptop-1", "other-laptop-2"):
        optuna.create_study(study_name=name, storage=f"sqlite:///{folder / 'optuna.db'}")
    return Storage(str(tmp_path))


def test_it_shows_the_searches_of_the_storage_on_this_machine_only(storage: Storage) -> None:
    with open_dashboard(storage, None, free_port()) as running:
        with build_opener(ProxyHandler({})).open(f"{running.url}/api/studies", timeout=20) as answer:
            shown = {s["study_name"]: s["study_id"] for s in json.load(answer)["study_summaries"]}
        addresses = {
            c.laddr.ip for c in psutil.Process(running.process.pid).net_connections("tcp") if c.status == "LISTEN"
        }
        assert links(running.url, storage, None, "small-") == {
            "small-laptop-1": f"{running.url}/dashboard/studies/{shown['small-laptop-1']}"
        }
    assert set(shown) == {"small-laptop-1", "other-laptop-2"}
    assert addresses == {"127.0.0.1"}
    assert running.process.poll() is not None


def test_without_the_package_it_says_how_to_get_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(SearchStorageError, match=r"pip install 'retable\[dashboard\]'"):
        open_dashboard(storage, None, free_port())


def test_without_a_search_it_says_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(SearchStorageError, match="retable search STUDY"):
        open_dashboard(Storage(str(tmp_path)), None, free_port())


def test_a_port_in_use_is_refused(storage: Storage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SearchStorageError, match="give another --port"):
            open_dashboard(storage, None, taken.getsockname()[1])
