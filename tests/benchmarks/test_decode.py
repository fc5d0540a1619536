"""The reading benchmark at tiny size: its corpora are what they say, its numbers add up, absent peers are named."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "decode.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_decode", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_decode"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "keys"), [("ucf-gop12", 4), ("ucf-gop250", 1), ("k400-gop12", 4), ("k400-gop250", 1), ("ssv2", 1)]
)
def test_a_corpus_has_the_key_frames_it_says(bench: Any, tmp_path: Path, name: str, keys: int) -> None:
    bench.encode(replace(bench.CORPORA[name], frames=48), tmp_path / f"v{bench.CORPORA[name].suffix}", seed=1)
    with av.open(str(next(tmp_path.iterdir()))) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    assert len(packets) == 48
    assert sum(packet.is_keyframe for packet in packets) == keys


def test_one_corpus_measured(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PEERS", {"absent-peer": lambda: bench.importlib.import_module("absent_peer")})
    corpus = replace(bench.CORPORA["ucf-gop12"], frames=24, width=96, height=80)
    found = bench.measure("ucf-gop12", corpus, tmp_path, clips=8, rounds=2)
    assert found["wrong"] == 0
    assert found["absent"] == ["absent-peer"]
    for sampling in ("tsn8", "dense8"):
        rows = found["samplings"][sampling]["readers"]
        assert set(rows) == {bench.BASE, "index", "pack"}
        assert rows[bench.BASE]["ratio"] == 1.0
        assert found["samplings"][sampling]["faults"] == {}
    result = {"schema": 1, "machine": bench.machine(), "clips": 8, "rounds": 2, "corpora": {"ucf-gop12": found}}
    page = bench.page(result)
    assert "| ucf-gop12 tsn8 |" in page
    assert "Not installed, not measured: absent-peer." in page


def test_a_reader_that_fails_is_a_fault_and_no_number(bench: Any) -> None:
    def broken(path: Path, indices: list[int]) -> None:
        raise ValueError("no such frame")

    readers = {bench.BASE: lambda path, indices: sum(range(20_000)), "broken": broken}
    found = bench.compare(readers, lambda number: [(Path("v"), [0])] * 20, 2)
    assert found["faults"] == {"broken": "ValueError: no such frame"}
    assert set(found["readers"]) == {bench.BASE}
