"""The data behind a search's figures."""

from __future__ import annotations

import io
import itertools
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from retable.report.searching import trials as table_of_trials
from retable.report.searching.figures import figures
from retable.report.searching.searched import expected_best, figure_data
from retable.report.style import encoded
from retable.study.load import parse
from retable.study.searches import Hunt
from retable.track.trials import State, TrialRecord
from tests.study.sample import TEXT

SEARCH = """\
search:
  space:
    model.attention: {choice: [none, se, fsam]}
    model.reduction: {int: [2, 8], when: {model.attention: [se]}}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
    recipe.weight_decay: {uniform: [0, 0.1]}
  objective: {maximize: top1, on: val}
"""
HUNT = Hunt(parse(TEXT + SEARCH, "s.yaml").study, "paper", {})
TWO = SEARCH.replace("objective: {maximize: top1, on: val}", "objectives: [{maximize: top1}, {minimize: params}]")


def trial(number: int, value: float, state: State = "complete", spent: int = 9, *more: float) -> TrialRecord:
    attention = ("none", "se", "fsam")[number % 3]
    point: dict[str, Any] = {"model.attention": attention}
    point |= {"model.reduction": 2 + number % 7} if attention == "se" else {}
    point |= {"recipe.lr": 10 ** (-5 + number % 4), "recipe.weight_decay": 0.01 * (number % 5)}
    return TrialRecord(number, state, point, (value, *more), f"run{number}", "tpe", spent, spent)


TRIALS = [*(trial(n, 50.0 + n) for n in range(6)), trial(6, 30.0, "pruned", 1), trial(7, 20.0, "failed", 0)]


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=6), st.booleans())
def test_the_best_of_k_draws_is_that_of_all_draws(values: list[float], maximize: bool) -> None:
    best = max if maximize else min
    for k, (mean, low, high) in enumerate(expected_best(values, maximize=maximize), start=1):
        every = [best(drawn) for drawn in itertools.combinations(values, k)]
        assert mean == pytest.approx(statistics.fmean(every))
        assert min(every) <= low <= mean + 1e-9
        assert mean - 1e-9 <= high <= max(every)


def test_the_reference_pays_for_whole_trials_and_counts_the_stopped_ones() -> None:
    data = figure_data("s", HUNT, TRIALS[:7], None)
    assert [p["spent"] for p in data["random"]] == [9 * k for k in range(1, 8)]
    assert data["random"][-1]["mean"] == pytest.approx(55.0)
    assert any("stopped early" in note for note in data["footnotes"])
    assert data["spent"] == 55


def test_a_figure_per_question_and_the_same_bytes_again() -> None:
    data = figure_data("s", HUNT, TRIALS, None)
    drawn = figures(data)
    assert set(drawn) == {"slice", "contour", "parallel", "budget"}
    assert encoded(drawn["budget"], "svg") == encoded(figures(data)["budget"], "svg")
    assert [ax.get_xlabel() for ax in drawn["slice"].axes][:4] == list(HUNT.search.space)
    assert drawn["budget"].axes[0].get_xlabel() == "Budget spent (epochs)"
    assert drawn["budget"].axes[0].get_ylabel() == "Best top1 (%), held-out videos"


def test_a_conditional_setting_is_drawn_where_it_is_searched() -> None:
    panel = figures(figure_data("s", HUNT, TRIALS, None))["slice"].axes[1]
    assert sum(len(np.asarray(line.get_xdata())) for line in panel.get_lines()) == 3


def test_two_objectives_have_a_set_of_figures_each_and_no_best_so_far() -> None:
    hunt = Hunt(parse(TEXT + TWO, "s.yaml").study, "paper", {})
    trials = [trial(n, 50.0 + n, "complete", 9, 1e6 + n) for n in range(4)]
    names = set(figures(figure_data("s", hunt, trials, None)))
    assert names == {f"{kind}-{m}" for kind in ("slice", "contour", "parallel") for m in ("top1", "params")}


def test_a_search_without_a_whole_trial_draws_what_there_is() -> None:
    assert set(figures(figure_data("s", HUNT, [TRIALS[6]], None))) == {"slice", "parallel"}


def test_the_table_of_trials_fits_a_terminal_of_80_columns_without_broken_words() -> None:
    out = Console(file=io.StringIO(), width=80)
    out.print(table_of_trials.table(table_of_trials.document("s", HUNT, TRIALS)))
    assert isinstance(out.file, io.StringIO)
    first, head, row, *_ = out.file.getvalue().splitlines()
    assert (first.split(), head.split()) == (
        ["weight_"],
        ["trial", "state", "top1", "attention", "lr", "decay", "reduction", "epochs"],
    )
    assert row.split() == ["0", "complete", "50.00", "none", "1e-05", "0", "9"]


def test_settings_that_end_alike_are_told_apart_by_their_whole_paths() -> None:
    point = {"model.dropout": 0.5, "recipe.dropout": 0.1, "recipe.lr": 0.1}
    trials = [TrialRecord(0, "complete", point, (50.0,), "run0", "tpe", 9, 9)]
    columns = table_of_trials.table(table_of_trials.document("s", HUNT, trials)).columns
    assert [str(column.header) for column in columns][3:6] == ["model.dropout", "recipe.dropout", "lr"]
