"""What a study declares before it can run: earlier stages; and a profile's settings for some cells."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from retable.study.check import check
from retable.study.load import parse
from retable.study.plan import Evaluation, Plan
from retable.study.planner import World, make_plan
from retable.study.problems import StudyError

WORLD = World(lambda data: None, 1, 1, 1)
TEXT = """\
study: small
default_profile: paper
base:
  model: {name: msfnet}
  data: {dataset: ucf101, clip: {frames: 8, size: 112}}
  recipe: {epochs: 4}
profiles:
  paper: {}
  laptop: {one_stage: true, recipe: {epochs: 2}}
tables:
  - id: t1
    caption: Stages
    columns:
      top1: {metric: top1}
    rows:
      - {id: first, label: first}
      - {id: second, label: second, init_from: {set: {recipe.epochs: 9}}}
  - id: t2
    caption: Splits and streams
    columns:
      rgb: {metric: top1}
      flow: {metric: top1, set: {data.stream: flow}}
      two: {fuse: [rgb, flow]}
    rows:
      - {id: mean, label: mean, mean_over: {path: data.split, values: [1, 2]}}
  - id: t3
    caption: Hidden operands
    columns:
      rgb: {metric: top1, hidden: true}
      flow: {metric: top1, hidden: true, set: {data.stream: flow}}
      two: {fuse: [rgb, flow]}
      map: {fuse: [rgb, flow], metric: map}
    rows:
      - {id: none, label: none, set: {model.groups: 3}, published: {two: null, map: null}}
      - {id: one, label: one, set: {model.groups: 5}}
"""


def plan(
    profile: str = "paper", old: str = "", new: str = "", *, tables: Sequence[str] = (), rows: Sequence[str] = ()
) -> Plan:
    loaded = parse(TEXT.replace(old, new, 1) if old else TEXT)
    assert check(loaded) == []
    return make_plan(loaded, WORLD, profile=profile, tables=tables, rows=rows)


def reasons(plan: Plan) -> dict[str, list[str]]:
    return {why: [f"{c.table}.{c.row}.{c.column}" for c in cells] for why, cells in plan.unsupported.items()}


def test_a_run_that_starts_from_another_comes_after_it_with_the_same_seed() -> None:
    staged = make_plan(parse(TEXT), WORLD, profile="paper", tables=["t1"], seeds=(0, 1))
    epochs = [(run.training.config.recipe.epochs, run.seed) for run in staged.runs]
    assert epochs == [(4, 0), (4, 1), (9, 0), (9, 1), (4, 0), (4, 1)]
    first, child = staged.runs[2], staged.runs[4]
    assert child.parents == (first.run_id,)
    assert child.to_json()["parents"] == [first.run_id]
    assert child.to_json()["use"] == "weights"
    assert "use" not in first.to_json()


def test_an_earlier_stage_that_a_row_asks_for_too_is_trained_once() -> None:
    shared = plan(old="{recipe.epochs: 9}", new="{recipe.epochs: 4}, use: weights", tables=["t1"])
    assert len(shared.trainings) == 2
    parent, child = shared.trainings.values()
    assert child.parents == (parent.config_id,)
    assert [c.row for c in shared.users[parent.config_id]] == ["first"]
    assert [c.row for c in shared.served[parent.config_id]] == ["first", "second"]


def test_an_earlier_stage_without_a_cell_serves_those_of_its_children() -> None:
    staged = plan(tables=["t1"])
    parent = next(t for t in staged.trainings.values() if t.config.recipe.epochs == 9)
    assert staged.users[parent.config_id] == ()
    assert [c.row for c in staged.served[parent.config_id]] == ["second"]
    assert parent.views == ()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("data.dataset: hmdb51", "has the number of classes 51, but its weights go to one with 101"),
        ("model.name: mast", "has the model mast, but its weights go to one with msfnet"),
        ("data.stream: flow", "has the stream flow, but its weights go to one with rgb"),
    ],
)
def test_weights_of_another_model_stream_or_number_of_classes_are_refused_at_load(what: str, message: str) -> None:
    problems = check(parse(TEXT.replace("{recipe.epochs: 9}", f"{{{what}}}")))
    assert message in problems[0].message
    assert problems[0].line == 17


def test_a_model_without_a_head_of_its_own_cannot_use_features() -> None:
    (problem,) = check(parse(TEXT.replace("{recipe.epochs: 9}", "{recipe.epochs: 9}, use: features")))
    assert "msfnet cannot be trained on another run's features: it has no knob head_only" in problem.message


def test_its_parents_settings_are_part_of_its_id() -> None:
    ids = {plan(old="epochs: 9", new=f"epochs: {n}", rows=["second"]).cells[0].evaluation for n in (9, 9, 10)}
    assert len(ids) == 2


def test_a_profile_of_one_stage_trains_it_from_the_start() -> None:
    assert len(plan("laptop", tables=["t1"]).trainings) == 1  # as the first row then
    required = plan("laptop", "{recipe.epochs: 9}}", "{recipe.epochs: 9}, required: true}", tables=["t1"])
    assert [len(t.parents) for t in required.trainings.values()] == [0, 1]


def test_an_earlier_stage_is_checked_like_any_config() -> None:
    loaded = parse(TEXT.replace("{recipe.epochs: 9}", "{model.grups: 9}"))
    (problem,) = check(loaded)
    assert (problem.line, problem.path, problem.hint) == (17, "model.grups", "did you mean 'groups'?")


def test_a_quoted_row_has_no_stage() -> None:
    with pytest.raises(StudyError, match=r"cannot have set, protocol, init_from"):
        parse(TEXT.replace("label: second,", 'label: second, quoted: "[1]",'))


def test_splits_are_averaged_outside_the_fusion_of_streams() -> None:
    fused = plan(tables=["t2"])
    top = fused.evaluations[str(fused.cells[-1].evaluation)]
    kinds = [kind(fused, part) for part in top.parts]
    assert (top.kind, kinds) == ("mean", ["fuse", "fuse"])
    assert len(fused.trainings) == 4


def test_operands_that_nothing_printed_needs_are_not_trained() -> None:
    hidden = plan(tables=["t3"])
    assert {t.config.model["groups"] for t in hidden.trainings.values()} == {5}
    assert {c.hole for c in hidden.cells if c.row == "none"} == {"not in the paper"}


def test_two_metrics_of_one_fusion_share_it() -> None:
    hidden = plan(tables=["t3"], rows=["one"])
    two, precision = hidden.cells[-2:]
    assert two.evaluation == precision.evaluation
    assert (two.metric, precision.metric) == ("top1", "map")


WHERE = "  laptop: {recipe: {epochs: 2}, where: [WHAT]}"


def with_where(what: str) -> str:
    return TEXT.replace("  laptop: {one_stage: true, recipe: {epochs: 2}}", WHERE.replace("WHAT", what))


def test_a_profile_may_set_things_for_some_cells_only() -> None:
    text = with_where("{tables: [t2], columns: [fl*], set: {recipe.epochs: 7}}")
    planned = make_plan(parse(text), WORLD, profile="laptop", tables=["t2"])
    epochs = {t.config.data.stream: t.config.recipe.epochs for t in planned.trainings.values()}
    assert epochs == {"rgb": 2, "flow": 7}


@pytest.mark.parametrize(("stage", "epochs"), [("first", [2, 7, 2]), ("last", [7, 2, 7]), ("both", [7, 7])])
def test_a_profile_may_set_things_for_one_stage_only(stage: str, epochs: list[int]) -> None:
    text = with_where(f"{{tables: [t1], stage: {stage}, set: {{recipe.epochs: 7}}}}")
    text = text.replace("set: {recipe.epochs: 9}", "set: {recipe.lr: 0.5}")
    planned = make_plan(parse(text), WORLD, profile="laptop", tables=["t1"])
    assert [t.config.recipe.epochs for t in planned.trainings.values()] == [*epochs, *([7] if stage == "both" else [])]


def test_settings_for_some_cells_may_not_overlay_what_these_vary() -> None:
    (problem,) = check(parse(with_where("{tables: [t3], set: {model.groups: 4}}")))
    assert "overlays model.groups" in problem.message
    assert check(parse(with_where("{tables: [t1], set: {model.groups: 4}}"))) == []


def kind(plan: Plan, key: str) -> str:
    node: Evaluation = plan.evaluations[key]
    return node.kind


def test_a_head_draws_crops_only_where_random_views_are_kept() -> None:
    text = TEXT.replace("{name: msfnet}", "{name: statsn, backbone: tiny, key_frames: true}").replace(
        "clip: {frames: 8, size: 112}", "clip: {frames: 30, size: 48, sampling: segments}"
    )
    text = text.replace("recipe: {epochs: 4}", "recipe: {epochs: 4, crop: random}")
    start = "{set: {model.tsn: false, model.key_frames: false, data.clip.frames: 1}, use: features}"
    crops = []
    for views in (0, 2):
        found = text.replace(
            "init_from: {set: {recipe.epochs: 9}}", f"set: {{recipe.feature_views: {views}}}, init_from: {start}"
        )
        head = make_plan(parse(found), WORLD, tables=["t1"], rows=["second"]).runs[-1].training.config
        assert head.model["head_only"]
        crops.append(head.recipe.crop)
    assert crops == ["center", "random"]
