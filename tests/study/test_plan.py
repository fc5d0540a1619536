"""Cells to trainings: equal configs are one training, ids are provisional without data, wrong names are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retable.data.config import Data
from retable.study.check import check
from retable.study.identity import PROVISIONAL
from retable.study.load import LoadedStudy, parse
from retable.study.plan import Plan
from retable.study.planner import World, make_plan
from retable.study.problems import Problem, StudyError
from retable.workspace import open_study
from tests.study.sample import EQUIPPED, TEXT, WORLD, place, sample, spoilt


def plan(*changes: tuple[str, str], world: World = EQUIPPED, **options: Any) -> Plan:
    return make_plan(sample(*changes), world, **options)


def refused(**options: Any) -> tuple[Problem, ...]:
    with pytest.raises(StudyError) as caught:
        plan(**options)
    return caught.value.problems


def configs(found: Plan) -> list[tuple[Any, int]]:
    return [(t.config.model["groups"], t.config.data.split) for t in found.trainings.values()]


def test_equal_configs_of_several_tables_are_one_training() -> None:
    found = plan()
    # s3; s4, which is t2's first split; t2's second split
    assert configs(found) == [(3, 1), (4, 1), (4, 2)]
    shared = list(found.trainings)[1]
    users = [(c.table, c.row, c.column) for c in found.users[shared]]
    assert users == [("t1", "s4", "top1"), ("t2", "plain", "split1"), ("t2", "plain", "mean")]


def test_every_training_runs_once_per_seed() -> None:
    found = plan(seeds=(0, 7, 7, 3))
    assert found.seeds == (0, 7, 3)
    assert [(r.training.config_id, r.seed) for r in found.runs] == [(t, s) for t in found.trainings for s in (0, 7, 3)]
    assert len({r.run_id for r in found.runs}) == len(found.runs) == 9


def test_an_evaluation_of_a_mean_has_one_part_for_each_split() -> None:
    found = plan()
    (cell,) = [c for c in found.cells if (c.row, c.column) == ("plain", "mean")]
    assert cell.evaluation is not None
    evaluation = found.evaluations[cell.evaluation]
    assert (evaluation.kind, evaluation.weights) == ("mean", (0.5, 0.5))
    assert found.trainings_of(cell.evaluation) == tuple(found.trainings)[1:]


def test_the_same_training_under_two_protocols_has_two_views() -> None:
    found = plan(("input: {text: true}", "input: {text: true}\n      ten: {metric: top1, protocol: {clips: 10}}"))
    assert configs(found) == [(3, 1), (4, 1), (4, 2)]
    views = list(found.trainings.values())[1].views
    assert [view.protocol.clips for view in views] == [1, 10]
    assert len({view.key for view in views}) == 2


def test_static_cells_and_holes_need_no_training() -> None:
    found = plan(tables=["t2"], rows=["theirs"])
    assert found.trainings == {}
    assert {c.hole for c in found.cells} == {"quoted from [1]", "text"}
    params = plan(("top1: {metric", "top5: {metric"), ("top1: 46.0", "top5: 46.0"), ("top1: 49.5", "top5: null"))
    assert {c.column for c in params.cells if c.static} == {"params"}


def test_resources_labels_and_notes_do_not_make_another_training() -> None:
    changes = [
        ("  laptop:\n", "  laptop:\n    resources: {cpus_per_worker: 3}\n    note: slow\n"),
        ("label: S = 4,", "label: Other words, notes: [n],"),
        ("study: sample", "study: other"),
    ]
    assert set(plan(*changes, profile="laptop").trainings) == set(plan(profile="laptop").trainings)


@pytest.mark.parametrize("semantics", ["pipeline", "loop"])
def test_raised_semantics_make_other_trainings(semantics: str) -> None:
    pipeline, loop = (1 + (name == semantics) for name in ("pipeline", "loop"))
    raised = plan(world=World(EQUIPPED.fingerprint, pipeline, loop, 1))
    assert not set(raised.trainings) & set(plan().trainings)


def test_raised_semantics_of_evaluation_make_other_views_of_the_same_trainings() -> None:
    raised = plan(world=World(EQUIPPED.fingerprint, 1, 1, evaluation=2))
    assert set(raised.trainings) == set(plan().trainings)
    assert not set(raised.evaluations) & set(plan().evaluations)


def test_without_datasets_every_id_is_provisional() -> None:
    found = plan(world=WORLD)
    assert configs(found) == configs(plan())
    ids = [
        *found.trainings,
        *(r.run_id for r in found.runs),
        *(v.key for t in found.trainings.values() for v in t.views),
    ]
    assert all(i.startswith(PROVISIONAL) for i in ids)
    assert not any(i.startswith(PROVISIONAL) for i in [*plan().trainings, *(r.run_id for r in plan().runs)])


def test_a_provisional_plan_finds_what_was_recorded_with_the_dataset() -> None:
    without, equipped = plan(world=WORLD), plan()
    assert [t.provisional_id for t in equipped.trainings.values()] == list(without.trainings)
    for t, u in zip(without.trainings.values(), equipped.trainings.values(), strict=True):
        assert u.fingerprint is not None
        assert [view.under(u.fingerprint) for view in t.views] == [view.key for view in u.views]


def test_one_missing_dataset_makes_only_its_own_runs_provisional() -> None:
    def fingerprint(data: Data) -> str | None:
        return None if data.split == 2 else "f"

    found = plan(world=World(fingerprint, 1, 1, 1))
    assert [key.startswith(PROVISIONAL) for key in found.trainings] == [False, False, True]


def test_a_spec_tells_everything_that_determines_the_run() -> None:
    run = plan(seeds=(5,)).runs[0]
    spec = run.to_json()
    assert (spec["run_id"], spec["config_id"], spec["seed"]) == (run.run_id, run.training.config_id, 5)
    assert spec["provisional_id"] == run.training.provisional_id
    assert spec["dataset"] == {"name": "ucf101", "layout": "ucf101", "fingerprint": "ucf101-1"}
    assert set(spec["semantics"]) == {"model", "pipeline", "loop"}
    assert spec["config"]["model"]["groups"] == 3
    assert spec["config"]["recipe"]["lr"] == 1e-4


def test_a_profile_and_settings_change_the_plan() -> None:
    found = plan(profile="laptop", settings={"recipe.lr": 0.5, "data.clip": {"frames": 4}})
    for training in found.trainings.values():
        assert training.config.data.dataset == "motions-ucf101"
        assert (training.config.model["width"], training.config.recipe.lr) == (24, 0.5)
        assert (training.config.data.clip.frames, training.config.data.clip.size) == (4, 32)
    assert found.settings == {"recipe.lr": 0.5, "data.clip": {"frames": 4}}


def test_tables_and_rows_are_chosen_by_globs() -> None:
    assert {c.table for c in plan(tables=["*2"]).cells} == {"t2"}
    assert {c.row for c in plan(rows=["s?"]).cells} == {"s3", "s4"}
    assert configs(plan(rows=["s3", "theirs"])) == [(3, 1)]


def test_a_part_of_a_plan_has_the_same_ids_as_the_whole() -> None:
    whole = plan()
    for part in (plan(tables=["t1"]), plan(rows=["plain"])):
        assert set(part.trainings) <= set(whole.trainings)
        assert set(part.evaluations) <= set(whole.evaluations)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"profile": "labtop"}, "there is no profile 'labtop'", "did you mean 'laptop'?"),
        ({"tables": ["t3x"]}, "there is no table 't3x'", "known: t1, t2"),
        ({"tables": ["t1", "tt2"]}, "there is no table 'tt2'", "did you mean 't2'?"),
        ({"rows": ["plan"]}, "there is no row 'plan'", "did you mean 'plain'?"),
        ({"tables": ["t9"], "rows": ["s3"]}, "there is no table 't9'", "known: t1, t2"),
        ({"tables": ["t1"], "rows": ["plain"]}, "there is no row 'plain'", "known: s3, s4"),
    ],
)
def test_an_unknown_profile_table_or_row_names_the_nearest(options: dict[str, Any], message: str, hint: str) -> None:
    (problem,) = refused(**options)
    assert (problem.message, problem.hint) == (message, hint)
    assert problem.line in (place(TEXT, "profiles:")[0], place(TEXT, "tables:")[0])


def test_faults_of_settings_stand_at_their_line() -> None:
    text = spoilt(("{model.groups: 3}", "{model.grups: 3}"))
    with pytest.raises(StudyError) as caught:
        make_plan(parse(text, "s.yaml"), WORLD)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place(text, "model.grups")
    assert str(problem).startswith(f"s.yaml:{problem.line}:{problem.column}: model.grups: there is no 'model.grups'")
    assert problem.value == "3"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.grups", 3, "there is no 'model.grups'"),
        ("model.groups", 60, "groups 60: "),
        ("lr", 1.0, "unknown section 'lr'"),
        ("recipe.lr", "fast", "valid number"),
    ],
)
def test_faults_of_the_users_settings_are_theirs(path: str, value: Any, says: str) -> None:
    problem = refused(settings={path: value}, tables=["t2"])[0]
    assert problem.file == "--set"
    assert says in problem.message


# check: every profile


def found_by_check(*changes: tuple[str, str]) -> list[Problem]:
    return check(sample(*changes))


def test_the_sample_has_no_faults() -> None:
    assert found_by_check() == []


def test_faults_of_every_profile_are_found() -> None:
    text = spoilt(("paper: {}", "paper: {recipe: {epochs: 0}}"), ("recipe: {epochs: 1}", "recipe: {epoch: 1}"))
    found = check(parse(text, "s.yaml"))
    assert [(p.line, p.column) for p in found] == [place(text, "epochs: 0"), place(text, "epoch: 1")]


def test_a_knob_of_a_profile_that_no_model_has_is_a_typing_error() -> None:
    changes = ("{width: 24}", "{wdth: 24}")
    (problem,) = found_by_check(changes)
    assert (problem.line, problem.column) == place(spoilt(changes), "wdth")
    assert problem.message == "no model of this study has the knob 'wdth'"
    assert problem.hint == "did you mean 'width'?"


@pytest.mark.parametrize(
    ("changes", "fragment", "varied"),
    [
        ([("{width: 24}", "{width: 24, groups: 4}")], "groups: 4}\n", "model.groups: 3"),
        ([("recipe: {epochs: 1}", "data: {split: 1}")], "split: 1}", "data.split: 2"),
        (
            [
                ("recipe: {epochs: 1}", "recipe: {lr: 1}"),
                ("S = 4,", "S = 4, mean_over: {path: recipe.lr, values: [1, 2]},"),
            ],
            "lr: 1}",
            "mean_over",
        ),
        (
            [
                ("recipe: {epochs: 1}", "recipe: {flip: plain}"),
                ("S = 4,", "S = 4, cells: {top1: {set: {recipe.flip: off}}},"),
            ],
            "flip: plain",
            "recipe.flip",
        ),
    ],
)
def test_a_profile_that_overlays_what_a_cell_varies_is_refused(
    changes: list[tuple[str, str]], fragment: str, varied: str
) -> None:
    text = spoilt(*changes)
    (problem,) = check(parse(text, "s.yaml"))
    assert (problem.line, problem.column) == place(text, fragment)
    assert f"which line {place(text, varied)[0]} varies: its cells would all be equal" in problem.message


def test_an_impossible_knob_of_a_row_is_reported_at_its_line() -> None:
    changes = (("groups: 4,", "width: 8,"), ("{model.groups: 3}", "{model.groups: 6}"))
    found = check(sample(*changes))
    paper = [p for p in found if p.message.startswith("groups 6: 8 channels split into 4 groups, not 6")]
    assert [(p.line, p.column) for p in paper] == [place(spoilt(*changes), "model.groups: 6")]


def test_claims_are_checked_with_the_settings() -> None:
    (problem,) = found_by_check(("t1.s4.top1 >", "t1.s5.top1 >"))
    assert "t1.s5.top1" in problem.message


def test_faults_of_form_and_of_settings_are_reported_together(tmp_path: Path) -> None:
    text = spoilt(("year: 2023", "yaer: 2023"), ("{model.groups: 3}", "{model.grups: 3}"))
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        open_study(str(tmp_path / "s.yaml"))
    places = [(p.line, p.column) for p in caught.value.problems]
    assert places == [place(text, "yaer"), place(text, "model.grups")]


def test_references_that_fail_are_not_planned(tmp_path: Path) -> None:
    text = spoilt(("mean_of: [split1, split2]", "mean_of: [mean, split1]"), ("{model.groups: 3}", "{model.grups: 3}"))
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="column 'mean' is made of itself"):
        open_study(str(tmp_path / "s.yaml"))


# properties

KNOBS = st.fixed_dictionaries(
    {},
    optional={
        "model.groups": st.sampled_from([3, 4]),
        "model.attention": st.sampled_from(["none", "se"]),
        "recipe.lr": st.sampled_from([1, 1.0, 0.5]),
        "data.split": st.sampled_from([1, 2]),
        "recipe.epochs": st.sampled_from([2, 3]),
    },
)


def study_of(rows: list[list[dict[str, Any]]]) -> LoadedStudy:
    lines = [TEXT[: TEXT.index("tables:")], "tables:"]
    for t, table in enumerate(rows):
        lines += [f"  - id: t{t}", "    caption: c", "    columns: {top1: {metric: top1}}", "    rows:"]
        for r, knobs in enumerate(table):
            flow = ", ".join(f"{k}: {v}" for k, v in knobs.items())
            lines.append(f"      - {{id: r{r}, label: same, set: {{{flow}}}}}")
    return parse("\n".join(lines), "s.yaml")


@settings(max_examples=40)
@given(
    st.lists(st.lists(KNOBS, min_size=1, max_size=4), min_size=1, max_size=3), st.sets(st.integers(0, 9), min_size=1)
)
def test_there_are_as_many_trainings_as_distinct_configs(rows: list[list[dict[str, Any]]], seeds: set[int]) -> None:
    found = make_plan(study_of(rows), EQUIPPED, seeds=tuple(seeds))
    defaults = {"model.groups": 4, "model.attention": "none", "recipe.lr": 1e-4, "data.split": 1, "recipe.epochs": 2}
    distinct = {tuple(sorted({**defaults, **knobs}.items())) for table in rows for knobs in table}
    assert len(found.trainings) == len(distinct)
    assert len(found.runs) == len(distinct) * len(seeds)
    assert len(found.cells) == sum(len(table) for table in rows)
    assert {c for cell in found.cells if cell.evaluation for c in found.trainings_of(cell.evaluation)} == set(
        found.trainings
    )


def test_planning_touches_neither_ray_nor_mlflow_nor_pandas(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT, encoding="utf-8")
    code = (
        "import sys; from retable.study.load import load; from retable.study.check import check;"
        "from retable.study.planner import World, make_plan;"
        "w = World(lambda d: None, 1, 1, 1);"
        "print(len(make_plan(load('s.yaml'), w).runs), len(check(load('s.yaml'))));"
        "print(sorted({'ray', 'mlflow', 'pandas', 'av', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3 0", "[]"]
