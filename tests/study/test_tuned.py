"""Rows that are tuned: what is searched, what is trained with what was chosen, and what is refused where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from retable.study.best import PLACE, with_best
from retable.study.check import check
from retable.study.load import LoadedStudy, parse
from retable.study.planner import make_plan
from retable.study.problems import Problem, StudyError
from retable.study.searches import Hunt, row_hunts
from retable.study.trialling import search_name, some_run
from retable.study.tuned import Tuned
from tests.study.sample import EQUIPPED, TEXT, place

TABLE = """\
  - id: tuned
    caption: Channel groups, each with its own learning rate
    tune_rows:
      space: {recipe.lr: {log_uniform: [1e-5, 1e-2]}}
      objective: {maximize: top1, on: val}
      first: [{recipe.lr: 1e-4}]
      scheduler: {kind: asha}
      budget: {trials: 6}
    columns:
      plain: {metric: top1}
      best: {metric: top1, tuned: true}
      again: {metric: top1, tuned: true, hidden: true, set: {data.split: 2}}
      mean: {mean_of: [best, again], tuned: true}
    rows:
      - {id: s3, label: S = 3, set: {model.groups: 3}}
      - {id: s4, label: S = 4}
      - {id: theirs, label: "Theirs [1]", quoted: "[1]", published: {plain: 50.0}}
"""
SEARCH = """\
search:
  space: {recipe.lr: {log_uniform: [1e-5, 1e-2]}}
  objective: {maximize: top1, on: val}
  set: {recipe.epochs: 3}
"""


def study(*changes: tuple[str, str]) -> LoadedStudy:
    text = TEXT.replace("claims:", TABLE + "claims:")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse(text, "s.yaml")


def end(row: tuple[str, str] | None, **point: Any) -> Tuned:
    trials = {"complete": 4, "pruned": 2, "failed": 0}
    return Tuned("name", "~name", row, point, 3, "run", 51.0, "top1", "val", "tpe", "asha", {}, trials, 9, 1.0, 0.0)


def test_every_own_row_is_searched_on_top_of_its_settings() -> None:
    hunts = row_hunts(study().study, "paper")
    assert [hunt.row for hunt in hunts] == [("tuned", "s3"), ("tuned", "s4")]
    trials = [hunt.resolve({"recipe.lr": 1e-3}).config for hunt in hunts]
    assert [(t.model["groups"], t.recipe.lr, t.data.holdout) for t in trials] == [(3, 1e-3, 0.2), (4, 1e-3, 0.2)]
    assert [[point for _, _, point in hunt.first()] for hunt in hunts] == [[{"recipe.lr": 1e-4}]] * 2


def test_nothing_is_trained_for_tuned_columns_before_their_values_are_chosen() -> None:
    loaded = study()
    plan = make_plan(loaded, EQUIPPED, tables=("tuned",))
    untuned = {(c.row, c.column) for c in plan.cells if c.untuned}
    assert untuned == {(row, column) for row in ("s3", "s4") for column in ("best", "again", "mean")}
    assert len(plan.trainings) == 2


def test_what_was_chosen_is_trained_on_all_of_train_and_shared_where_configs_are_equal() -> None:
    loaded = study()
    plan = make_plan(loaded, EQUIPPED, tuned={("tuned", "s3"): end(("tuned", "s3"), **{"recipe.lr": 1e-4})})
    by_cell = {(c.table, c.row, c.column): c.evaluation for c in plan.cells}
    # 1e-4 is what the rows have anyway: the tuned run is the untuned one, and that of another table
    assert by_cell["tuned", "s3", "best"] == by_cell["tuned", "s3", "plain"] == by_cell["t1", "s3", "top1"]
    other = make_plan(loaded, EQUIPPED, tuned={("tuned", "s3"): end(("tuned", "s3"), **{"recipe.lr": 2e-4})})
    cells = {(c.table, c.row, c.column): c for c in other.cells}
    (key,) = other.trainings_of(str(cells["tuned", "s3", "best"].evaluation))
    hunt = row_hunts(loaded.study, "paper")[0]
    assert other.trainings[key].config == hunt.resolve({"recipe.lr": 2e-4}, full=True).config
    splits = other.trainings_of(str(cells["tuned", "s3", "mean"].evaluation))
    assert [(other.trainings[k].config.data.split, other.trainings[k].config.recipe.lr) for k in splits] == [
        (1, 2e-4),
        (2, 2e-4),
    ]
    assert cells["tuned", "s4", "best"].untuned
    assert cells["tuned", "s3", "plain"].evaluation == by_cell["tuned", "s3", "plain"]


def test_what_the_user_sets_stands_above_what_was_chosen() -> None:
    chosen = {("tuned", "s4"): end(("tuned", "s4"), **{"recipe.lr": 2e-4})}
    plan = make_plan(study(), EQUIPPED, tuned=chosen, settings={"recipe.epochs": 7}, tables=("tuned",), rows=("s4",))
    assert {(t.config.recipe.epochs, t.config.recipe.lr) for t in plan.trainings.values()} == {(7, 1e-4), (7, 2e-4)}


def test_a_rows_search_is_another_one_where_it_is_done_in_another_way_but_its_budget_may_grow() -> None:
    def name(*changes: tuple[str, str], row: int = 0) -> str:
        hunt = row_hunts(study(*changes).study, "paper")[row]
        run = some_run(hunt, EQUIPPED)
        assert run is not None
        return search_name(hunt, run)

    assert name().startswith("sample-paper-tuned-s3-")
    assert name() == name(("trials: 6", "trials: 12"))
    others = [
        ("kind: asha", "kind: median"),
        ("budget: {", "sampler: random\n      budget: {"),
        ("1e-5, 1e-2", "1e-5, 1"),
    ]
    assert len({name(), name(row=1), *(name(change) for change in others)}) == 5


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        (", tuned: true, hidden: true", ", hidden: true", "mean: {mean_of: [best", "is made of 'again', which is un"),
        ("again], tuned: true", "again]", "mean: {mean_of: [best", "'best', which is tuned"),
        ("      space: {recipe.lr", "      space: {model.groups: {choice: [3, 4]}, recipe.lr", "model.groups: {ch",
         "varies model.groups within the table"),
        ("[1e-5, 1e-2]", "[1e-2, 1e-5]", "recipe.lr: {log", "bounds must increase"),
        ("[1e-5, 1e-2]", "[1e-5, -1]", "recipe.lr: {log", "must increase"),
        ("space: {recipe.lr", "space: {recipe.rl", "1e-5, 1e-2]", "there is no 'recipe.rl'"),
        ("space: {recipe.lr: {log_uniform: [1e-5, 1e-2]}}", "space: {}", "space: {}", "at least 1"),
        ("objective: {maximize: top1, on: val}", "objectives: [{maximize: top1}, {minimize: params}]", "tune_rows:",
         "one objective"),
        ("      budget: {trials: 6}", "      budget: {}", "budget: {}", "needs trials, epochs, gpu_hours or hours"),
        ("      budget: {trials: 6}", "      budget: {hours: 0}", "hours: 0", "greater than 0"),
        ("      scheduler: {kind: asha}", "      set: {recipe.epochs: 1}", "tune_rows:", "has no set"),
        ("first: [{recipe.lr: 1e-4}]", "first: [t1.s3]", "tune_rows:", "begins with points"),
        ("first: [{recipe.lr: 1e-4}]", "first: [{recipe.lr: 1}]", "{recipe.lr: 1}]", "1 is not within"),
        ("{id: s4, label: S = 4}", "{id: s4, label: S = 4, init_from: {set: {recipe.epochs: 1}}}", "init_from:",
         "trains in stages"),
        ("best: {metric: top1, tuned", "words: {text: true, tuned: true}\n      best: {metric: top1, tuned",
         "tuned: true}\n      best", "cannot be tuned"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_refused_with_its_place(old: str, new: str, at: str, says: str) -> None:
    text = TEXT.replace("claims:", TABLE + "claims:")
    assert text.count(old) == 1
    text = text.replace(old, new)
    found = faults(text)
    assert found, "nothing was found"
    assert says in str(found[0])
    assert (found[0].line, found[0].column) == place(text, at)


def test_tuned_columns_and_tune_rows_need_each_other() -> None:
    (fault,) = faults(TEXT.replace('top1: {metric: top1, unit: "%"}', "top1: {metric: top1, tuned: true}"))
    assert "has no tune_rows" in str(fault)
    bare = TABLE.replace(", tuned: true", "")
    (fault,) = faults(TEXT.replace("claims:", bare + "claims:"))
    assert "no measured column is tuned" in str(fault)


def faults(text: str) -> tuple[Problem, ...]:
    try:
        return tuple(check(parse(text, "s.yaml")))
    except StudyError as error:
        return error.problems


def test_the_best_trial_of_a_search_is_a_row_trained_on_all_of_train_and_scored_on_test() -> None:
    loaded = parse(TEXT + SEARCH, "s.yaml")
    hunt = Hunt(loaded.study, "laptop", {"recipe.batch_size": 4})
    found = with_best(loaded, hunt.search, end(None, **{"recipe.lr": 2e-4}))
    tuned = {PLACE: end(None, **{"recipe.lr": 2e-4})}
    plan = make_plan(
        found,
        EQUIPPED,
        profile="laptop",
        tables=(PLACE[0],),
        tuned=tuned,
        settings={"recipe.batch_size": 4},
        seeds=(0, 1),
    )
    (training,) = plan.trainings.values()
    assert training.config == hunt.resolve({"recipe.lr": 2e-4}, full=True).config
    assert (training.config.recipe.epochs, training.config.data.holdout) == (1, 0.0)
    assert {view.subset for view in training.views} == {"test"}
    assert [run.seed for run in plan.runs] == [0, 1]
    again = with_best(found, hunt.search, replace(end(None, **{"recipe.lr": 1e-3}), trial=9))
    assert [t.id for t in again.study.tables] == ["t1", "t2", "search-best"]
    assert again.study.table("search-best").row("best").label == "trial 9"
