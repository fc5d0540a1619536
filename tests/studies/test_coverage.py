"""What the shipped studies hold of their papers, how large their plans are, and what lint finds in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable.study.config import Config
from retable.study.lint import Coverage, coverage, findings
from retable.study.load import LoadedStudy, load
from retable.study.plan import Plan
from retable.study.planner import World, make_plan

FOLDER = Path(__file__).parents[2] / "studies"
PAPERS = ("mast", "stidf", "statsn", "maagn", "msfnet")
WORLD = World(lambda data: None, 1, 1, 1)

# Trainings, and evaluations with the fused and averaged ones, of one seed.
SIZES = {"mast": (17, 19), "stidf": (18, 11), "statsn": (62, 77), "maagn": (21, 22), "msfnet": (21, 21)}


@pytest.fixture(scope="module")
def studies() -> dict[str, LoadedStudy]:
    return {name: load(FOLDER / f"{name}.yaml") for name in PAPERS}


@pytest.fixture(scope="module")
def plans(studies: dict[str, LoadedStudy]) -> dict[tuple[str, str], Plan]:
    return {
        (name, profile): make_plan(loaded, WORLD, profile=profile)
        for name, loaded in studies.items()
        for profile in ("paper", "laptop")
    }


def no_counts(config: Config, metric: str) -> float:
    """Stands for what is not asked here: no published count is near it."""
    return 1.0


def test_every_table_row_and_value_of_the_papers_is_there(studies: dict[str, LoadedStudy]) -> None:
    found = coverage(loaded.study for loaded in studies.values())
    assert found == (
        Coverage("mast", tables=4, own_rows=11, own_cells=12),
        Coverage("stidf", tables=2, own_rows=3, own_cells=3),
        Coverage("statsn", tables=5, own_rows=16, own_cells=83),
        Coverage("maagn", tables=8, own_rows=26, own_cells=41),
        Coverage("msfnet", tables=5, own_rows=21, own_cells=51),
    )
    assert (sum(c.tables for c in found), sum(c.own_rows for c in found)) == (24, 77)
    assert sum(c.own_cells for c in found) == 190


def test_what_the_papers_do_not_have_is_marked_as_ours(studies: dict[str, LoadedStudy]) -> None:
    for loaded in studies.values():
        for table in loaded.study.tables:
            beyond = table.cite is None
            assert table.id.startswith("ours-") == beyond
            assert table.caption.startswith("Ours, beyond the paper") == beyond


@pytest.mark.parametrize("name", PAPERS)
def test_a_laptop_plan_is_as_large_as_the_papers(name: str, plans: dict[tuple[str, str], Plan]) -> None:
    for profile in ("paper", "laptop"):
        plan = plans[name, profile]
        assert (len(plan.trainings), len(plan.evaluations)) == SIZES[name]


def test_everything_that_the_studies_ask_for_can_be_done(plans: dict[tuple[str, str], Plan]) -> None:
    assert {key: plan.unsupported for key, plan in plans.items() if plan.unsupported} == {}


def test_speeds_are_planned_apart_from_trainings(plans: dict[tuple[str, str], Plan]) -> None:
    found = {key: [m.metric for m in plan.measurements.values()] for key, plan in plans.items() if plan.measurements}
    assert found == {("maagn", profile): ["videos_per_second"] * 4 for profile in ("paper", "laptop")} | {
        ("stidf", profile): ["ms_per_video"] for profile in ("paper", "laptop")
    }


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_sta_tsn_trains_heads_on_the_features_of_its_first_stage(
    profile: str, plans: dict[tuple[str, str], Plan]
) -> None:
    plan = plans["statsn", profile]
    heads = [t for t in plan.trainings.values() if t.parents]
    assert all(t.use == "features" and t.config.model["head_only"] for t in heads)
    assert {c.row.split("-")[0] for t in heads for c in plan.users[t.config_id]} == {"sta"}
    assert len(heads) == 28  # 18 splits and streams, THUMOS14's two, and 8 of ours
    first = {parent for t in heads for parent in t.parents}
    of_tables = {c.row for key in first for c in plan.users[key]}
    assert of_tables == {"sa"}
    assert sum(not plan.users[key] for key in first) == 14  # the other splits, and THUMOS14


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_stidf_is_trained_twice(profile: str, plans: dict[tuple[str, str], Plan]) -> None:
    plan = plans["stidf", profile]
    second = [t for t in plan.trainings.values() if t.parents]
    assert len(second) == 8
    for training in second:
        first = plan.trainings[training.parents[0]]
        assert training.use == "weights"
        assert training.config.recipe.lr == pytest.approx(first.config.recipe.lr / 10)
        assert training.config.model == first.config.model
    assert [plan.users[t.parents[0]][0].row for t in second if plan.users[t.parents[0]]][:1] in (["lr1e-5"], ["lr1e-3"])


def test_sta_tsns_later_tables_train_nothing_beyond_table_3(studies: dict[str, LoadedStudy]) -> None:
    table3 = make_plan(studies["statsn"], WORLD, profile="paper", tables=["table3"])
    later = make_plan(studies["statsn"], WORLD, profile="paper", tables=["table4", "table5", "table6"])
    assert set(later.trainings) <= set(table3.trainings)
    assert set(later.evaluations) <= set(table3.evaluations)


def test_table_3s_first_split_is_table_2s(studies: dict[str, LoadedStudy]) -> None:
    plan = make_plan(studies["statsn"], WORLD, profile="paper", tables=["table2", "table3"])
    evaluations = {f"{c.table}.{c.row}.{c.column}": c.evaluation for c in plan.cells}
    for dataset in ("ucf101", "hmdb51", "jhmdb"):
        for stream in ("rgb", "flow", "two"):
            assert evaluations[f"table3.sta-{dataset}-{stream}.split1"] == evaluations[f"table2.sta.{dataset}-{stream}"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mast", ["printed values give 10.9"]),
        ("stidf", ["84.2 on ucf11", "84.9 on ucf11", "89.5 on ucf11"]),
        ("statsn", ["82.1 is not the mean", "every stream. But the printed values contradict it"]),
        ("maagn", ["62.7 % on Something-Something V2. But the printed values give 62.4"]),
        ("msfnet", ["21.82 here, but 21.84", "printed values give 16.82"]),
    ],
)
def test_lint_finds_the_papers_slips_and_each_is_explained(
    name: str, words: list[str], studies: dict[str, LoadedStudy]
) -> None:
    found = [p for p in findings(studies[name], counts=no_counts) if "is published, ours has" not in p.message]
    assert len(found) == len(words)
    for word in words:
        assert any(word in problem.message for problem in found), word
    assert all(problem.hint and problem.hint.startswith("noted: ") for problem in found)


def places(plan: Plan, config_id: str) -> set[str]:
    return {f"{cell.table}.{cell.row}.{cell.column}" for cell in plan.users[config_id]}
