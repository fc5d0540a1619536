"""What every cell asks for: which layer wins, what is a hole, and how means and fusions are built."""

from __future__ import annotations

from typing import Any

import pytest

from retable.study.cells import Combine, Demand, Demands, Score, Tree, demands, matches, varied_paths
from retable.study.check import check
from retable.study.resolve import Resolved, leaves
from tests.study.sample import place, sample, spoilt

# One setting given by every layer, and a row that takes what no row of its own sets.
LAYERED = """\
study: layers
default_profile: none
base: {model: {name: msfnet}, data: {dataset: ucf101, clip: {size: 32}}, recipe: {epochs: 1, lr: 1}}
profiles: {none: {}, over: {recipe: {epochs: 7}}}
tables:
  - id: t
    caption: c
    set: {recipe.epochs: 2, recipe.lr: 2}
    protocol: {clips: 2}
    columns:
      plain: {metric: top1}
      column: {metric: top1, set: {recipe.epochs: 3, recipe.lr: 3}, protocol: {clips: 3}}
    rows:
      - {id: none, label: L}
      - {id: row, label: L, set: {recipe.epochs: 4}, protocol: {clips: 4}, cells: {column: {set: {recipe.epochs: 5}}}}
"""


def layered() -> Any:
    from retable.study.load import parse

    return parse(LAYERED, "layers.yaml").study


def cell(found: Demands, row: str, column: str) -> Demand:
    assert not found.faults, found.faults
    (one,) = [c for c in found.cells if (c.row, c.column) == (row, column)]
    return one


def scores(tree: Tree | None) -> list[Resolved]:
    assert tree is not None
    return [tree.resolved] if isinstance(tree, Score) else [r for part in tree.parts for r in scores(part)]


def only(demand: Demand) -> Resolved:
    (resolved,) = scores(demand.tree)
    return resolved


@pytest.mark.parametrize(
    ("row", "column", "epochs", "lr", "clips"),
    [("none", "plain", 2, 2, 2), ("none", "column", 3, 3, 3), ("row", "plain", 4, 2, 4), ("row", "column", 5, 3, 4)],
)
def test_later_layers_win(row: str, column: str, epochs: int, lr: float, clips: int) -> None:
    found = only(cell(demands(layered(), "none"), row, column))
    assert (found.config.recipe.epochs, found.config.recipe.lr, found.protocol.clips) == (epochs, lr, clips)


def test_a_profile_wins_over_every_layer_of_the_tables_and_the_user_over_the_profile() -> None:
    over = demands(layered(), "over")
    assert {only(c).config.recipe.epochs for c in over.cells} == {7}
    user = demands(layered(), "over", settings=leaves({"recipe.epochs": 8}, ("--set",)))
    assert {only(c).config.recipe.epochs for c in user.cells} == {8}


def test_cells_come_in_printed_order() -> None:
    found = demands(sample().study, "paper")
    assert [(c.table, c.row, c.column) for c in found.cells] == [
        *[("t1", row, column) for row in ("s3", "s4") for column in ("params", "top1")],
        *[("t2", row, c) for row in ("plain", "theirs") for c in ("split1", "split2", "mean", "input")],
    ]


def test_a_static_cell_has_a_config_and_asks_for_no_training() -> None:
    demand = cell(demands(sample().study, "paper"), "s3", "params")
    assert (demand.kind, demand.metric, demand.tree, demand.hole) == ("static", "params", None, None)
    assert demand.static is not None
    assert demand.static.config.model["groups"] == 3


@pytest.mark.parametrize(
    ("change", "row", "column", "hole"),
    [
        (("top1: 46.0}", "top1: null}"), "s3", "top1", "not in the paper"),
        (("{params: 21.18,", "{params: null,"), "s3", "params", "not in the paper"),
        (("S = 3,", "S = 3 again,"), "theirs", "mean", "quoted from [1]"),
        (('quoted: "[1]"', 'quoted: ""'), "theirs", "mean", "quoted"),
        (("S = 3,", "S = 3 again,"), "plain", "input", "text"),
        (("S = 3,", "S = 3 again,"), "theirs", "input", "text"),
    ],
)
def test_holes_say_why(change: tuple[str, str], row: str, column: str, hole: str) -> None:
    demand = cell(demands(sample(change).study, "paper"), row, column)
    assert (demand.hole, demand.tree, demand.static) == (hole, None, None)


def test_a_column_that_published_leaves_out_is_run() -> None:
    demand = cell(demands(sample(("{params: 21.18, top1: 46.0}", "{params: 21.18}")).study, "paper"), "s3", "top1")
    assert demand.hole is None
    assert isinstance(demand.tree, Score)


def test_a_hidden_operand_is_run_although_the_paper_prints_none() -> None:
    loaded = sample(("text: {input: RGB}", "published: {split1: null, mean: 40.0}"))
    found = demands(loaded.study, "paper")
    assert cell(found, "plain", "split1").hole is None
    assert cell(found, "plain", "mean").hole is None


def test_a_mean_of_columns_has_the_trees_of_its_operands() -> None:
    demand = cell(demands(sample().study, "paper"), "plain", "mean")
    assert isinstance(demand.tree, Combine)
    assert (demand.kind, demand.metric, demand.tree.kind, demand.tree.weights) == (
        "mean_of",
        "top1",
        "mean",
        (0.5, 0.5),
    )
    assert [r.config.data.split for r in scores(demand.tree)] == [1, 2]


FUSED = ("mean: {mean_of: [split1, split2]}", "mean: {fuse: [split1, split2], weights: [1, 1.5]}")


def test_scores_of_different_videos_are_not_fused() -> None:
    loaded = sample(FUSED)
    (problem,) = check(loaded)
    assert problem.path == "data.split"
    assert problem.message == "scores of different videos cannot be fused: 1 here, 2 there"
    assert (problem.line, problem.column) == place(spoilt(FUSED), "fuse: [")


def test_a_fused_column_keeps_its_weights() -> None:
    loaded = sample(FUSED, ("set: {data.split: 2}", "set: {recipe.lr: 0.5}"))
    tree = cell(demands(loaded.study, "paper"), "plain", "mean").tree
    assert isinstance(tree, Combine)
    assert (tree.kind, tree.weights) == ("fuse", (1.0, 1.5))


def shape(tree: Tree | None) -> Any:
    """``("mean", [split, ...])``, streams and splits as numbers."""
    assert tree is not None
    if isinstance(tree, Score):
        return tree.resolved.config.data.split, tree.resolved.config.recipe.lr
    return tree.kind, [shape(part) for part in tree.parts]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("mean_over: {path: data.split, values: [1, 3]}", ("mean", [(1, 1e-4), (3, 1e-4)])),
        ("fuse_over: {path: recipe.lr, values: [1, 2]}", ("fuse", [(1, 1.0), (1, 2.0)])),
        (
            "mean_over: {path: data.split, values: [1, 3]}, fuse_over: {path: recipe.lr, values: [1, 2]}",
            ("mean", [("fuse", [(1, 1.0), (1, 2.0)]), ("fuse", [(3, 1.0), (3, 2.0)])]),
        ),
    ],
)
def test_a_row_fuses_and_averages_over_a_path(row: str, expected: Any) -> None:
    loaded = sample(("{id: s4, label: S = 4,", f"{{id: s4, label: S = 4, {row},"))
    assert shape(cell(demands(loaded.study, "paper"), "s4", "top1").tree) == expected
    assert cell(demands(loaded.study, "paper"), "s4", "params").static is not None


def test_weights_over_a_path_are_kept() -> None:
    row = "fuse_over: {path: recipe.lr, values: [1, 2], weights: [2, 1]},"
    tree = cell(demands(sample(("S = 4,", f"S = 4, {row}")).study, "paper"), "s4", "top1").tree
    assert isinstance(tree, Combine)
    assert tree.weights == (2.0, 1.0)


def test_rows_and_tables_are_chosen_by_globs() -> None:
    study = sample().study
    assert {c.table for c in demands(study, "paper", tables=["t1"]).cells} == {"t1"}
    assert {c.row for c in demands(study, "paper", rows=["s*", "plain"]).cells} == {"s3", "s4", "plain"}
    assert matches("table2", [])
    assert not matches("table2", ["Table2"])


def test_equal_faults_of_several_cells_are_one() -> None:
    loaded = sample(("attention: none", "atention: none"))
    (fault,) = demands(loaded.study, "paper").faults
    assert (fault.path, fault.origin) == ("model.atention", ("base", "model", "atention"))


def test_the_faults_of_different_rows_are_all_found() -> None:
    loaded = sample(("{model.groups: 3}", "{model.grups: 3}"), ("{data.split: 2}", "{data.split: 0}"))
    found = demands(loaded.study, "paper")
    assert [fault.path for fault in found.faults] == ["model.grups", "data.split"]
    assert loaded.source.problem(found.faults[0].origin, "").line == place(spoilt(), "{model.groups: 3}")[0]
    assert len(found.cells) == 8, "the cells without a fault are there"


def test_a_row_that_cannot_be_is_blamed_for_its_own_setting() -> None:
    loaded = sample(("groups: 4,", "width: 8,"), ("{model.groups: 3}", "{model.groups: 6}"))
    (fault,) = demands(loaded.study, "paper").faults
    assert fault.origin == ("tables", 0, "rows", 0, "set", "model.groups")
    assert fault.hint is None


def test_a_profile_that_makes_a_row_impossible_names_the_first_such_cell() -> None:
    loaded = sample(("{width: 24}", "{width: 8}"), ("{model.groups: 3}", "{model.groups: 6}"))
    (fault,) = demands(loaded.study, "laptop").faults
    assert fault.origin == ("profiles", "laptop", "model", "width")
    assert fault.message.startswith("groups 6: 8 channels split into 4 groups, not 6")
    assert fault.hint == "first asked for by t1.s3.params"


def test_varied_paths_are_those_that_measured_cells_differ_in() -> None:
    loaded = sample(
        ("params: {metric: params, unit: M}", "params: {metric: params, set: {data.num_classes: 7}}"),
        ("{id: s4, label: S = 4,", "{id: s4, label: S = 4, mean_over: {path: recipe.lr, values: [1, 2]},"),
        ("{id: plain, label: Plain,", "{id: plain, label: Plain, cells: {split1: {set: {recipe.flip: off}}},"),
    )
    found = varied_paths(loaded.study)
    assert set(found) == {"model.groups", "recipe.lr", "data.split", "recipe.flip"}
    assert found["model.groups"] == ("tables", 0, "rows", 0, "set", "model.groups")


def test_a_profile_sets_what_another_setting_asks_for() -> None:
    where = "where: [{when: {data.split: [2]}, set: {recipe.epochs: 7}}]"
    found = demands(sample(("paper: {}", f"paper: {{{where}}}")).study, "paper")
    tree = cell(found, "plain", "mean").tree
    assert tree is not None
    assert [(r.config.data.split, r.config.recipe.epochs) for r in scores(tree)] == [(1, 2), (2, 7)]


def test_a_setting_that_nothing_sets_cannot_be_asked_for() -> None:
    where = "where: [{when: {data.splti: [2]}, set: {recipe.epochs: 7}}]"
    found = demands(sample(("paper: {}", f"paper: {{{where}}}")).study, "paper")
    assert {(f.path, f.origin) for f in found.faults} == {("data.splti", ("profiles", "paper", "where", 0, "when"))}
