"""Each finding on a small study whose fault is known, with its line; and studies without faults find nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable.study.config import Config
from retable.study.lint import Coverage, coverage, findings, lint
from retable.study.load import parse
from retable.study.problems import StudyError

TEXT = """\
study: small
default_profile: laptop
base:
  model: {name: msfnet}
  data: {dataset: ucf101, clip: {frames: 8, size: 112}}
  recipe: {epochs: 4}
profiles:
  laptop: {model: {width: 24}}
  paper: {}
tables:
  - id: t1
    cite: Table 1
    caption: Comparison on UCF101
    columns:
      params: {metric: params, unit: M}
      top1: {metric: top1, unit: "%"}
    rows:
      - {id: snippets, label: Snippets, quoted: "[36]", published: {params: null, top1: 89.5}}
      - {id: se, label: SE, set: {model.attention: se}, published: {params: 21.88, top1: 50.1}}
      - {id: plain, label: plain, published: {params: 21.84, top1: 49.5}}
  - id: t2
    cite: Table 2
    caption: Splits
    columns:
      split1: {metric: top1, unit: "%", set: {data.split: 1}}
      split2: {metric: top1, unit: "%", set: {data.split: 2}}
      split3: {metric: top1, unit: "%", set: {data.split: 3}}
      mean: {mean_of: [split1, split2, split3], unit: "%"}
    rows:
      - {id: plain, label: plain, published: {split1: 49.5, split2: 48.0, split3: 48.3, mean: 48.6}}
  - id: t3
    cite: Table 3
    caption: Comparison on HMDB51
    set: {data.dataset: hmdb51}
    columns:
      top1: {metric: top1, unit: "%"}
    rows:
      - {id: snippets, label: Snippets, quoted: "[36]", published: {top1: 57.0}}
      - {id: plain, label: plain, published: {top1: 30.2}}
  - id: ours-extra
    caption: Beyond the paper
    columns:
      top1: {metric: top1, unit: "%"}
    rows:
      - {id: fsam, label: FSAM, set: {model.attention: fsam}}
claims:
  - {text: SE gains 0.6 points., value: t1.se.top1 - t1.plain.top1, published: 0.6}
  - {text: SE is better., value: t1.se.top1 > t1.plain.top1}
"""
COUNTS = {"none": 21.844845e6, "se": 21.879661e6}


def counts(config: Config, metric: str) -> float:
    return COUNTS[config.model["attention"]]


def found(old: str = "", new: str = "") -> list[tuple[int, str, str | None]]:
    """Line, message and hint of the findings in the study with ``old`` replaced."""
    assert old in TEXT
    text = TEXT.replace(old, new, 1) if old else TEXT
    return [(p.line, p.message, p.hint) for p in findings(parse(text, "small.yaml"), counts=counts)]


def test_a_study_whose_numbers_agree_has_no_findings() -> None:
    assert found() == []


def test_a_claim_that_the_values_do_not_give() -> None:
    ((line, message, hint),) = found("published: 0.6}", "published: 0.9}")
    assert line == 47
    assert message == "SE gains 0.6 points. But the printed values give 0.6."
    assert hint == "if the paper says so, say so in the claim's note"


def test_rounding_of_what_is_printed_is_no_contradiction() -> None:
    assert found("published: 0.6}", "published: 0.7}") == []  # 50.149 - 49.451 rounds to 0.7
    assert found("published: 0.6}", "published: 1}") == []


def test_a_claimed_order_that_the_values_contradict_and_its_note() -> None:
    ((line, message, hint),) = found(
        "value: t1.se.top1 > t1.plain.top1", "value: t1.se.top1 < t1.plain.top1, note: A slip."
    )
    assert (line, hint) == (48, "noted: A slip.")
    assert message == "SE is better. But the printed values contradict it."


def test_a_mean_that_is_not_the_mean() -> None:
    ((line, message, _),) = found("mean: 48.6", "mean: 48.7")
    assert line == 30
    assert message == "Table 2, plain, mean: 48.7 is not the mean of 49.5, 48, 48.3: 48.6"


def test_a_mean_is_compared_only_where_all_of_it_is_printed() -> None:
    assert found("split3: 48.3, mean: 48.6", "split3: null, mean: 40.0") == []


def test_one_configuration_with_two_values_points_at_the_first_of_the_rarest() -> None:
    ((line, message, _),) = found("split1: 49.5, split2: 48.0, split3: 48.3, mean: 48.6", "split1: 49.9")
    assert line == 20
    assert message == "Table 1, plain, top1: 49.5 here, but 49.9 for the same configuration in Table 2, plain, split1"


def test_a_value_printed_with_fewer_digits_is_the_same_value() -> None:
    assert found("split1: 49.5, split2: 48.0, split3: 48.3, mean: 48.6", "split1: 50") == []


def test_a_quoted_value_that_stands_on_two_datasets() -> None:
    ((line, message, _),) = found("published: {top1: 57.0}", "published: {top1: 89.5}")
    assert line == 38
    assert message == "Table 3, Snippets, top1: 89.5 on hmdb51 stands on ucf101 too, in Table 1, Snippets, top1"


def test_a_count_that_the_network_does_not_have_and_the_cells_note() -> None:
    ((line, message, hint),) = found(
        "published: {params: 21.88, top1: 50.1}",
        "published: {params: 22.88, top1: 50.1}, cells: {params: {note: Another head.}}",
    )
    assert (line, hint) == (19, "noted: Another head.")
    assert message == "Table 1, SE, params: 22.88 M is published, ours has 21.88 (-4.4 %)"


def test_a_count_within_a_percent_is_no_finding() -> None:
    assert found("params: 21.88", "params: 22.09") == []


def test_findings_come_from_the_papers_profile_in_the_order_of_the_file() -> None:
    changed = TEXT.replace("params: 21.84", "params: 20.0").replace("mean: 48.6", "mean: 49.9")
    assert [p.line for p in findings(parse(changed), counts=counts)] == [20, 30]


def test_faults_come_before_findings_and_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT.replace("model.attention: se", "model.atention: se").replace("mean: 48.6", "mean: 49.9"))
    with pytest.raises(StudyError) as error:
        lint(path, counts=counts)
    assert [p.line for p in error.value.problems] == [19]


def test_lint_reads_a_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT.replace("mean: 48.6", "mean: 49.9"))
    (problem,) = lint(path, counts=counts)
    assert (problem.file, problem.path, problem.value) == (str(path), "tables[1].rows[0].published.mean", "49.9")


def test_coverage_counts_own_rows_and_values_of_the_papers_tables_only() -> None:
    assert coverage([parse(TEXT).study]) == (Coverage("small", tables=3, own_rows=4, own_cells=9),)
