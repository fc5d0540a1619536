"""The reading benchmark at tiny size: its corpora are what they say, its numbers add up, absent peers are named."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from retable.data.config import Clip

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "decode.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_decode", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_decode"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "keys"), [("ucf-gop12", 4), ("ucf-gop250", 1), ("k400-gop12", 4), ("k400-gop250", 1), ("ssv2", 1)]
)
def test_a_corpus_has_the_key_frames_it_says(bench: Any, tmp_path: Path, name: str, keys: int) -> None:
    encode = sys.modules["decoding.corpora"].encode
    encode(replace(bench.CORPORA[name], frames=48), tmp_path / f"v{bench.CORPORA[name].suffix}", seed=1)
    with av.open(str(next(tmp_path.iterdir()))) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    assert len(packets) == 48
    assert sum(packet.is_keyframe for packet in packets) == keys


def test_one_corpus_measured(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {"absent-peer": lambda: importlib.import_module("absent_peer")}
    monkeypatch.setattr(readers(), "PEERS", peers)
    corpus = replace(bench.CORPORA["ucf-gop12"], frames=24, width=96, height=80)
    found = bench.measure("ucf-gop12", corpus, tmp_path, clips=8, rounds=2)
    assert found["wrong"] == 0
    assert found["absent"] == {"absent-peer": "ModuleNotFoundError: No module named 'absent_peer'"}
    for sampling in ("tsn8", "dense8"):
        rows = found["samplings"][sampling]["readers"]
        assert set(rows) == {"pyav-docs", "index", "pack", "proxy-gop1", "proxy-gop12"}
        assert rows["pyav-docs"]["ratio"] == 1.0
        assert found["samplings"][sampling]["faults"] == {}
    page = bench.page({"schema": 1, "machine": bench.machine(), "corpora": {"ucf-gop12": found}})
    assert "| ucf-gop12 tsn8 | pyav-docs | " in page
    assert "- absent-peer: ModuleNotFoundError" in page


def test_what_a_training_is_fed(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = replace(bench.CORPORA["k400-gop12"], frames=16, width=96, height=80)
    clip = Clip(frames=4, size=32, sampling="segments")
    monkeypatch.setitem(bench.CORPORA, "k400-gop12", corpus)
    monkeypatch.setattr(bench.feeding, "STEPS", {"full size": ({"name": "msfnet", "msf": False, "width": 4}, clip)})
    monkeypatch.setattr(bench.feeding, "BATCH", 2)
    monkeypatch.setattr(bench, "FED_CLIPS", 8)
    found = bench.feed(tmp_path, 8, 1, 0.1)
    assert set(found["loader"]) == {"pack", "proxy-gop1", "proxy-gop12"}
    step = found["steps"]["full size"]
    assert all(0 < one["share"] < 1 for one in step["data"].values())
    page = bench.page({"schema": 1, "machine": bench.machine(), "corpora": {}, "feeding": found})
    assert "| full size |" in page


def readers() -> Any:
    return sys.modules["decoding.readers"]


def test_a_reader_that_fails_is_a_fault_and_no_number(bench: Any) -> None:
    def broken(path: Path, indices: list[int]) -> None:
        raise ValueError("no such frame")

    base = readers().BASE
    mine = {base: lambda path, indices: sum(range(20_000)), "broken": broken}
    found = bench.compare(mine, Path(), lambda number: [("v", [0])] * 20, 2)
    assert found["faults"] == {"broken": "ValueError: no such frame"}
    assert set(found["readers"]) == {base}
