"""MSF-Net's study: what the paper prints, what our models count, and which cells share their trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retable.report.results import document
from retable.study.load import LoadedStudy, load
from retable.study.plan import Plan
from retable.study.planner import World, make_plan

WORLD = World(lambda data: None, 1, 1, 1)

# Top-1 accuracies as the paper prints them, from the first row of each table to the last.
PRINTED = {
    "table1": (48.0, 49.5, 47.1, 45.2),
    "table2": (46.0, 49.5, 48.0, 47.6),
    "table3": (50.1, 45.5, 48.2, 52.8),
    "table4": (56.1, 61.0, 72.5, 67.5, 64.8, 66.7, 67.8),
    "table5": (44.9, 45.6, 41.6, 45.52, 47.3, 50.36, 47.7, 49.5, 52.8, 52.1, 53.8),
}

# Exact parameter counts at 101 classes.
COUNTS = {
    "table1": {"a": 26663533, "b": 21844845, "c": 16087501, "d": 15532653},
    "table2": {"s3": 21178989, "s4": 21844845, "s5": 21795225, "s6": 21496209},
    "table3": {"se": 21879661, "cbam": 21881033, "nst": 21846961, "fsam": 21881033},
    "table4": {"msf": 21844845, "msf-fsam": 21881033},
    "table5": {
        "c3d": 78409573,
        "r3d": 33227557,
        "r2plus1d": 33226750,
        "msf": 21844845,
        "msf-fsam": 21881033,
        "msf-c3d": 69203797,
        "msf-c3d-fsam": 69246129,
    },
}

# GMACs at 8 frames for R3D hosts, at 16 for C3D hosts.
GMACS = {"c3d": 38.55, "r3d": 20.35, "r2plus1d": 20.8, "msf": 14.05, "msf-fsam": 14.05, "msf-c3d": 28.38}


@pytest.fixture(scope="module")
def loaded() -> LoadedStudy:
    return load(Path(__file__).parents[2] / "studies" / "msfnet.yaml")


@pytest.fixture(scope="module")
def plan(loaded: LoadedStudy) -> Plan:
    return make_plan(loaded, WORLD, profile="paper")


@pytest.fixture(scope="module")
def doc(plan: Plan) -> dict[str, Any]:
    return document(plan, {})


def rows(doc: dict[str, Any], table: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row["cells"] for t in doc["tables"] if t["id"] == table for row in t["rows"]}


@pytest.mark.parametrize("table", PRINTED)
def test_accuracies_as_printed(doc: dict[str, Any], table: str) -> None:
    assert tuple(cells["top1"]["published"] for cells in rows(doc, table).values()) == PRINTED[table]


@pytest.mark.parametrize("table", COUNTS)
def test_every_own_row_has_its_exact_count(doc: dict[str, Any], table: str) -> None:
    own = {row: cells["params"] for row, cells in rows(doc, table).items() if cells["params"]["status"] == "static"}
    assert {row: round(cell["mean"] * 1e6) for row, cell in own.items()} == COUNTS[table]


def test_gmacs_of_the_comparison_on_ucf101(doc: dict[str, Any]) -> None:
    found = rows(doc, "table5")
    assert {row: found[row]["gmacs"]["mean"] for row in GMACS} == pytest.approx(GMACS, rel=0.005)


def test_c3d_is_counted_at_16_frames_and_trained_at_8(plan: Plan) -> None:
    cells = {c.column: c for c in plan.cells if (c.table, c.row) == ("table5", "c3d")}
    counted = cells["gmacs"].static
    assert counted is not None
    assert counted.model["frames"] == 16
    (key,) = plan.trainings_of(str(cells["top1"].evaluation))
    assert plan.trainings[key].config.model["frames"] == 8


def test_plain_s4_and_fsam_are_trained_once_for_all_tables(plan: Plan) -> None:
    shared = {tuple(sorted({f"{c.table}.{c.row}" for c in cells})) for cells in plan.users.values() if len(cells) > 1}
    assert shared == {
        ("ours-path-c.with", "ours-tuned.msf", "table1.b", "table2.s4", "table5.msf"),
        ("ours-frequencies.f16", "ours-tuned.msf-fsam", "table3.fsam", "table5.msf-fsam"),
        ("ours-tuned.r3d", "table5.r3d"),
    }
    assert len(plan.trainings) == 21


def test_kinetics_rows_train_400_classes_and_count_101(plan: Plan) -> None:
    cells = {c.column: c for c in plan.cells if (c.table, c.row) == ("table4", "msf")}
    counted = cells["params"].static
    assert counted is not None
    assert counted.model["num_classes"] == 101
    (key,) = plan.trainings_of(str(cells["top1"].evaluation))
    assert plan.trainings[key].config.model["num_classes"] == 400


def test_the_papers_inconsistencies_show_as_footnotes(doc: dict[str, Any]) -> None:
    notes = " ".join(note["text"] for t in doc["tables"] for note in t["footnotes"]) + " ".join(doc["notes"])
    for word in ("21.82 M", "without its classifier", "101-class", "152.4", "Eq. (2)", "eq. (4)", "Eq. (3)", "FASM"):
        assert word in notes
    for word in (
        "25 groups",
        "batch size",
        "last pooling layer",
        "without seeds",
        "parentheses",
        "38.5",
        "Table 3 for",
    ):
        assert word in notes


def test_every_claim_is_set_against_the_tables(loaded: LoadedStudy, doc: dict[str, Any]) -> None:
    claims = [claim for t in doc["tables"] for claim in t["claims"]]
    assert len(claims) == len(loaded.study.claims) == 9
    assert all(claim["values"] or claim["reason"] for claim in claims)
