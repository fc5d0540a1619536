"""What the cost of a study says before and after its runs are recorded."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.data.config import Protocol
from retable.workspace import Workspace, open_study

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "laptop_studies.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("bench_laptop_studies", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_laptop_studies"] = module
    spec.loader.exec_module(module)
    return module


def test_a_study_that_was_not_run_has_holes_and_no_cost(bench: Any, tmp_path: Path) -> None:
    found = bench.cost(Workspace(str(tmp_path), str(tmp_path)), "quickstart", [0])
    assert found.runs == 3
    assert (found.done, found.failed, found.cpu_minutes) == (0, 0, 0)
    assert found.cpu_seconds_max is None
    assert found.wall_minutes is None
    assert found.holes == {f"attention.{row}.top1": "missing" for row in ("none", "se", "fsam")}


def test_a_run_lasts_from_the_claim_of_the_attempt_that_finished_it_to_its_result(bench: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "abc"
    for attempt, begun in enumerate((3.0, 1000.5)):
        (folder / "attempts" / str(attempt)).mkdir(parents=True)
        (folder / "attempts" / str(attempt) / "claim.json").write_text(json.dumps({"time": begun}))
    (folder / "result.json").write_text(json.dumps({"attempt": 1, "finished": "1970-01-01T00:17:00Z"}))
    assert bench.span(Workspace(str(tmp_path), None).storage, "abc") == (1000.5, 1020.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=8))
def test_a_study_takes_the_time_in_which_any_of_its_runs_was_carried_out(bench: Any, spans: list[Any]) -> None:
    busy = {second for start, length in spans for second in range(start, start + length)}
    assert bench.covered((float(start), float(start + length)) for start, length in spans) == len(busy)


def test_views_are_clips_times_crops(bench: Any) -> None:
    assert bench.views(Protocol(clips=3, crops="ten")) == 30


def test_a_run_is_named_by_the_first_cell_that_needs_it(bench: Any, tmp_path: Path) -> None:
    plan = Workspace(str(tmp_path), str(tmp_path)).plan(open_study("stidf"), tables=("table2",), profile="laptop")
    names = [bench.name(plan, run.run_id) for run in plan.runs]
    assert names[:2] == ["first stage of table2.ucf11-stidf.top1", "table2.ucf11-stidf.top1"]
