"""The MLflow UI: recorded through and read from over HTTP, looked at in a browser, stopped as a whole."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from retable.track import server as servers
from retable.track import view
from retable.track.connection import TrackingUnavailable
from retable.track.reader import read
from retable.track.record import check, publish
from retable.track.server import Server, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(empty_store, folder / "mlflow.db")
    with serve(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts") as running:
        yield running


def test_recording_through_a_server_comes_back_exactly(server: Server, toy: Any) -> None:
    files = {f"scores/{toy.view}.parquet": toy.scores()}
    for created in (10, 0):
        done = publish(server.url, toy.plan.study, toy.plan, toy.records, toy.document, artifacts=lambda _: files)
        assert (done.created, done.updated) == (created, 0)
    assert read(server.url, "toy") == toy.records


def test_it_is_on_this_machine_only(server: Server) -> None:
    group = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    ports = {c.laddr for p in group for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in ports} == {"127.0.0.1"}


@pytest.mark.skipif(CHROMIUM is None or find_spec("playwright") is None, reason="needs chromium and playwright")
def test_the_browser_shows_the_table_as_printed(server: Server, toy: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    done = publish(server.url, toy.plan.study, toy.plan, toy.records, toy.document)
    url = view.links(server.url, done.experiment_id, "table2", done.profile)["table"]
    with sync_playwright() as player:
        browser = player.chromium.launch_persistent_context(str(tmp_path), executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.set_viewport_size({"width": 2200, "height": 900})
        page.goto(url)
        page.get_by_text("matching runs").first.wait_for()
        page.get_by_text("S = 4").first.wait_for()
        names = page.locator('.ag-cell[col-id="attributes.`Run Name`"]').all_inner_texts()
        shown = page.locator('.ag-cell[col-id="tags.`top1/ours`"]').all_inner_texts()
        browser.close()
    assert [name.splitlines()[-1] for name in names] == ["S = 3", "S = 4"]
    assert len(shown) == 2
    assert all("±" in text for text in shown)


def test_a_server_that_can_be_written_is_found_so(server: Server, toy: Any) -> None:
    check(server.url, toy.plan.study)
    check(server.url, toy.plan.study)


@pytest.mark.parametrize(("status", "says"), [(401, "401"), (403, "403"), (507, "507")])
def test_a_server_that_refuses_or_is_full_is_found_before_anything_trains(status: int, says: str, toy: Any) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            with pytest.raises(TrackingUnavailable, match=says):
                check(f"http://127.0.0.1:{http.server_address[1]}", toy.plan.study)
        finally:
            http.shutdown()


def test_stopping_ends_every_process_that_it_started(server: Server) -> None:
    group = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    server.stop()
    assert psutil.wait_procs(group, timeout=5)[1] == []


def test_a_server_that_never_answers_is_given_up_and_stopped(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "command", lambda *args: ["sleep", "600"])
    with pytest.raises(TrackingUnavailable, match="did not answer in time: no output"):
        serve(uri, tmp_path, patience=0.2)
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "sleep"]


def test_a_server_that_dies_says_its_last_words(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "command", lambda *args: ["sh", "-c", "echo schema is out of date >&2; exit 1"])
    with pytest.raises(TrackingUnavailable, match="ended at once: schema is out of date"):
        serve(uri, tmp_path)


def test_a_taken_port_is_refused_at_once(uri: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        start = time.monotonic()
        with pytest.raises(TrackingUnavailable, match="is taken by another program"):
            serve(uri, tmp_path, other.getsockname()[1])
        assert time.monotonic() - start < 2


def test_an_interrupt_stops_what_was_started(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "command", lambda *args: ["sleep", "600"])
    monkeypatch.setattr(servers, "_until_it_answers", lambda *args: None)
    with pytest.raises(KeyboardInterrupt), serve(uri, tmp_path) as started:
        raise KeyboardInterrupt
    assert started.process.poll() is not None
