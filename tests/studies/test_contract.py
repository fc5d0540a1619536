"""What every shipped study keeps to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retable.report.render import Format, render
from retable.report.results import document
from retable.study.check import check
from retable.study.claims import parse
from retable.study.load import LoadedStudy, load
from retable.study.plan import Plan
from retable.study.planner import World, make_plan

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
WORLD = World(lambda data: None, 1, 1, 1)


@pytest.fixture(scope="module", params=STUDIES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def loaded(path: Path) -> LoadedStudy:
    return load(path)


def size(plan: Plan) -> dict[str, int]:
    return {"cells": len(plan.cells), "evaluations": len(plan.evaluations), "trainings": len(plan.trainings)}


def test_there_are_studies() -> None:
    assert {"msfnet", "quickstart"} <= {path.stem for path in STUDIES}


def test_its_name_is_its_files(path: Path, loaded: LoadedStudy) -> None:
    assert loaded.study.study == path.stem


def test_it_opens_with_its_question_command_cost_and_expectation(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\nstudy:")[0]
    for word in ("# Question: ", "# Command: ", "# Cost: ", "# Expect: "):
        assert word in head
    assert f"retable run studies/{path.name}" in head


def test_it_is_clean_in_every_profile(loaded: LoadedStudy) -> None:
    assert [str(problem) for problem in check(loaded)] == []


def test_a_bare_run_starts_on_a_laptop(loaded: LoadedStudy) -> None:
    assert loaded.study.default_profile == "laptop"
    assert not loaded.study.profiles["laptop"].comparable


def test_every_profile_plans_as_many_trainings_evaluations_and_cells(loaded: LoadedStudy) -> None:
    sizes = {name: size(make_plan(loaded, WORLD, profile=name)) for name in loaded.study.profiles}
    assert sizes == dict.fromkeys(sizes, sizes["laptop"])


def test_equal_settings_are_trained_once(loaded: LoadedStudy) -> None:
    plan = make_plan(loaded, WORLD)
    configs = [json.dumps(t.config.model_dump(mode="json"), sort_keys=True) for t in plan.trainings.values()]
    assert len(set(configs)) == len(configs)


def test_the_printed_values_bear_its_claims_out_or_a_note_says_that_they_do_not(loaded: LoadedStudy) -> None:
    published = {
        (t.id, row.id, name): value
        for t in loaded.study.tables
        for row in t.rows
        for name, value in row.published.items()
    }
    for claim in loaded.study.claims:
        value = parse(claim.value).evaluate(published.get)
        if isinstance(value, bool):
            assert value or claim.note, claim.text
        elif claim.published is not None:
            assert value == pytest.approx(claim.published, rel=0.06) or claim.note, claim.text


@pytest.fixture(scope="module")
def documents(loaded: LoadedStudy) -> dict[str, dict[str, Any]]:
    """Nothing recorded: counts, quoted values and holes."""
    return {name: document(make_plan(loaded, WORLD, profile=name), {}) for name in loaded.study.profiles}


def test_with_nothing_recorded_every_count_is_there_and_every_hole_has_its_reason(
    documents: dict[str, dict[str, Any]],
) -> None:
    for doc in documents.values():
        cells = [cell for t in doc["tables"] for row in t["rows"] for cell in row["cells"].values()]
        statuses = {cell["status"] for cell in cells}
        assert statuses <= {"static", "missing", "unsupported", "quoted", "not in the paper", "text"}
        assert all(cell["mean"] > 0 for cell in cells if cell["status"] == "static")
        assert all(cell["notes"] for cell in cells if cell["status"] in ("missing", "unsupported", "not in the paper"))


@pytest.mark.parametrize("format_", ["terminal", "md", "latex", "csv", "json"])
def test_it_prints_in_every_format(documents: dict[str, dict[str, Any]], format_: Format) -> None:
    for doc in documents.values():
        text = render(doc, format_)
        for table in doc["tables"]:
            assert table["id"] in text or table["caption"][:20] in text
