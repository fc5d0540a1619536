"""Which settings mattered: on trials whose answer is known. Nothing is trained."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from retable.execute.searching.importance import importance
from retable.study.load import parse
from retable.study.problems import StudyError
from retable.study.searches import Hunt
from retable.track.trials import TrialRecord
from tests.study.sample import TEXT

SEARCH = """\
search:
  space:
    model.attention: {choice: [none, se]}
    model.reduction: {choice: [2, 4], when: {model.attention: [se]}}
    model.groups: {choice: [3, 4]}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
  objective: {maximize: top1, on: val}
"""
HUNT = Hunt(parse(TEXT + SEARCH, "s.yaml").study, "paper", {})


def trials(count: int, value: Any, state: Any = "complete") -> list[TrialRecord]:
    rng, found = random.Random(3), []
    for number in range(count):
        point: dict[str, Any] = {"model.attention": rng.choice(["none", "se"])}
        point |= {"model.reduction": rng.choice([2, 4])} if point["model.attention"] == "se" else {}
        point |= {"model.groups": rng.choice([3, 4]), "recipe.lr": 10 ** rng.uniform(-5, -2)}
        values = tuple(value(point))
        found.append(TrialRecord(number, state, point, values, f"run{number}", "random", 9, 9))
    return found


def shares(doc: dict[str, Any], method: str, objective: int = 0) -> dict[str, float]:
    told = doc["objectives"][objective]["methods"][method]["parameters"]
    return {entry["parameter"]: entry["importance"] for entry in told}


def test_the_setting_that_decides_has_the_largest_share_and_shares_sum_to_one() -> None:
    doc = importance("s", HUNT, trials(40, lambda p: [10.0 * p["model.groups"]]), resamples=4)
    for method in ("fanova", "ped-anova"):
        found = shares(doc, method)
        assert max(found, key=lambda name: found[name]) == "model.groups"
        assert math.isclose(sum(found.values()), 1.0)
    for told in doc["objectives"][0]["methods"].values():
        assert all(0 <= e["low"] <= e["high"] <= 1 for e in told["parameters"])


def test_a_learning_rate_counts_on_its_own_logarithmic_scale() -> None:
    """Below 1e-3 lies nine tenths of a linear range, and two thirds of the trials' own."""
    doc = importance("s", HUNT, trials(40, lambda p: [float(p["recipe.lr"] < 1e-4) + 0.5 * (p["model.groups"] == 3)]),
                     resamples=0)  # fmt: skip
    found = shares(doc, "fanova")
    assert found["recipe.lr"] > 0.6  # variances 0.22 and 0.06; on the linear scale its share would be a tenth
    assert doc["objectives"][0]["methods"]["fanova"]["parameters"][0]["low"] is None


def test_conditional_settings_are_judged_by_the_method_that_can() -> None:
    doc = importance("s", HUNT, trials(30, lambda p: [p.get("model.reduction", 3.0)]), resamples=0)
    assert doc["objectives"][0]["methods"]["fanova"]["left_out"] == ["model.reduction"]
    assert "model.reduction" in shares(doc, "ped-anova")
    assert any("model.reduction" in note for note in doc["footnotes"])


def test_trials_stopped_early_are_left_out_and_counted() -> None:
    whole, stopped = trials(10, lambda p: [p["model.groups"]]), trials(5, lambda p: [99.0], "pruned")
    doc = importance("s", HUNT, [*whole, *stopped], resamples=0)
    assert (doc["trials"], doc["left_out"]) == (10, 5)
    assert any("5 trials" in note for note in doc["footnotes"])


def test_the_same_seed_gives_the_same_document() -> None:
    known = trials(12, lambda p: [p["recipe.lr"]])
    assert importance("s", HUNT, known, resamples=3) == importance("s", HUNT, known, resamples=3)


def test_each_objective_has_its_own_answer() -> None:
    text = SEARCH.replace("objective: {maximize: top1, on: val}", "objectives: [{maximize: top1}, {minimize: params}]")
    hunt = Hunt(parse(TEXT + text, "s.yaml").study, "paper", {})
    doc = importance("s", hunt, trials(40, lambda p: [p["model.groups"], math.log10(p["recipe.lr"])]), resamples=0)
    first, second = shares(doc, "fanova", 0), shares(doc, "fanova", 1)
    assert max(first, key=lambda name: first[name]) == "model.groups"
    assert max(second, key=lambda name: second[name]) == "recipe.lr"


def test_too_few_whole_trials_are_refused_with_the_way_out() -> None:
    with pytest.raises(StudyError, match="5 whole trials"):
        importance("s", HUNT, trials(5, lambda p: [1.0]))
