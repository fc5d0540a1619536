"""Study files: what is read, and every fault with the place where it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from retable.study.load import load, parse
from retable.study.problems import Problem, StudyError, dotted, nearest
from retable.study.schema import Claim, Column, Paper, Row
from tests.study.sample import TEXT, faults, place, sample, spoilt

LINES = TEXT.splitlines()


def only(text: str) -> Problem:
    found = faults(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def at(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.column


def test_the_sample_is_read_as_it_stands() -> None:
    study = sample().study
    assert [t.id for t in study.tables] == ["t1", "t2"]
    assert study.base["recipe"] == {"lr": 1e-4, "epochs": 2}
    assert study.table("t1").row("s3").set == {"model.groups": 3}
    assert study.table("t2").columns["mean"].mean_of == ("split1", "split2")
    assert [c.kind for c in study.table("t2").columns.values()] == ["metric", "metric", "mean_of", "text"]
    assert study.table("t1").columns["params"].kind == "static"


def test_marks_are_lines_and_columns_from_one() -> None:
    marks = sample().source.marks
    assert marks["study",] == (1, 1)
    assert marks["base", "data", "clip", "size"] == place(TEXT, "size: 32")
    assert marks["tables", 0, "rows", 1] == place(TEXT, "{id: s4")
    assert marks["tables", 1, "columns", "split2", "set", "data.split"] == place(TEXT, "data.split: 2")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-3e2", -300.0),
        ("1.5e-3", 1.5e-3),
        ("1.0e-4", 1e-4),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("010", 10),
        ("1_000", 1000),
        ("-5", -5),
        ("true", True),
        ("no", "no"),
        ("~", None),
        ("", None),
        ("2023-01-01", "2023-01-01"),
        ("3.0", 3.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
    ],
)
def test_scalars(written: str, read: Any) -> None:
    value = sample(("groups: 4", f"groups: {written}")).study.base["model"]["groups"]
    assert value == read
    assert type(value) is type(read)


def test_a_number_of_another_type_than_its_tag_says_is_refused() -> None:
    text = spoilt(("groups: 4", "groups: !!int four"))
    assert at(only(text)) == place(text, "groups: !!int")
    assert only(text).message == "'four' is not of YAML type int"


@pytest.mark.parametrize(
    ("line", "where", "key"),
    [
        ("paper: {title", "", "default_profil"),
        ("    model: {width", "profiles.laptop", "recip"),
        ("    caption: Channel", "tables[0]", "captions"),
        ("    caption: Splits", "tables[1]", "colums"),
    ],
)
def test_an_unknown_key_is_reported_where_it_stands_with_the_nearest_name(line: str, where: str, key: str) -> None:
    index = next(i for i, text in enumerate(LINES) if text.startswith(line))
    indent = len(line) - len(line.lstrip())
    lines = [*LINES[: index + 1], f"{' ' * indent}{key}: 1", *LINES[index + 1 :]]
    problem = only("\n".join(lines))
    assert at(problem) == (index + 2, indent + 1)
    assert problem.path == f"{where}.{key}".lstrip(".")
    assert problem.message == f"unknown key {key!r}"
    assert re.fullmatch(r"did you mean '\w+'\?", problem.hint or "")


NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=12)
FLOW = [m.start() + 1 for m in re.finditer(r"\{(?=metric|id:|mean_of|text:|title)", TEXT)]
PARTS: dict[str, type[BaseModel]] = {"id": Row, "title": Paper, "text": Claim}


@settings(max_examples=100)
@given(start=st.sampled_from(FLOW), name=NAMES)
def test_any_unknown_key_anywhere_is_reported_at_its_column(start: int, name: str) -> None:
    first = re.match(r"\w+", TEXT[start:])
    assert first is not None
    known = (Column if TEXT.startswith("text: true", start) else PARTS.get(first[0], Column)).model_fields
    assume(name not in known)
    text = f"{TEXT[:start]}{name}: 7, {TEXT[start:]}"
    problem = only(text)
    before = text[:start]
    assert at(problem) == (before.count("\n") + 1, start - before.rfind("\n"))
    assert problem.message == f"unknown key {name!r}"
    assert problem.hint is not None
    near = re.fullmatch(r"did you mean '(\w+)'\?", problem.hint)
    assert near[1] in known if near else problem.hint == f"known: {', '.join(sorted(known))}"


@settings(max_examples=60)
@given(st.data())
def test_whatever_line_is_lost_the_rest_is_read_or_refused_in_words(data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, len(LINES) - 1), min_size=1, max_size=3))
    text = "\n".join(line for i, line in enumerate(LINES) if i not in gone)
    for problem in faults(text):
        assert 1 <= problem.line <= len(LINES)
        assert problem.message


def test_several_faults_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = spoilt(
        ("year: 2023", "yaer: 2023"),
        ("default_profile: paper", "default_profile: papper"),
        ("metric: params", "metric: params, decimals: many"),
        ("{params: 21.84, top1: 49.5}", "{parms: 21.84}"),
        ("mean_of: [split1, split2]", "mean_of: [split1, split3]"),
    )
    found = faults(text)
    fragments = ["default_profile", "yaer", "decimals", "parms", "mean_of"]
    assert [at(p) for p in found] == [place(text, fragment) for fragment in fragments]
    assert [p.hint for p in found] == [
        "did you mean 'paper'?",
        "did you mean 'year'?",
        None,
        "did you mean 'params'?",
        "did you mean 'split2'?",
    ]


def test_a_key_given_twice_names_both_lines() -> None:
    text = spoilt(("    caption: Splits\n", "    caption: Splits\n    caption: Again\n"))
    problem = only(text)
    again = place(text, "caption: Again")[0]
    assert at(problem) == place(text, "caption: Splits")
    assert problem.message == f"'caption' stands here and again on line {again}"


def test_a_row_id_given_twice_names_the_first_line() -> None:
    text = spoilt(("{id: s4, label: S = 4,", "{label: S = 4, id: s3,"), ("baseline: s4", "baseline: s3"))
    problem, first = faults(text)[0], place(text, "{id: s3")
    assert at(problem) == place(text, "id: s3, published")
    assert problem.message == f"row id 's3' is used on line {first[0]} already"
    assert problem.value == "s3"
    assert problem.hint == "labels may repeat, ids may not"


def test_labels_may_repeat() -> None:
    assert sample(("label: S = 4", "label: S = 3")).study.tables[0].rows[1].label == "S = 3"


def test_a_table_id_given_twice_names_the_first_line() -> None:
    text = spoilt(("id: t2", "id: t1"))
    problem = only(text)
    assert problem.line == place(text, "caption: Splits")[0] - 1
    assert problem.message == f"table id 't1' is used on line {place(text, 'cite')[0] - 1} already"


@pytest.mark.parametrize(
    ("change", "fragment", "message", "hint"),
    [
        (("{params: 21.84,", "{prams: 21.84,"), "prams", "table 't1' has no column 'prams'", "did you mean 'params'?"),
        (("text: {input:", "text: {inputs:"), "inputs", "table 't2' has no column 'inputs'", "did you mean 'input'?"),
        (
            ("label: Plain,", "label: Plain, cells: {splitt1: {note: x}},"),
            "splitt1",
            "table 't2' has no column 'splitt1'",
            "did you mean 'split1'?",
        ),
        (
            ("mean_of: [split1, split2]", "fuse: [split1, spatial]"),
            "fuse",
            "column 'mean' uses 'spatial', which is not a column of 't2'",
            "known: input, mean, split1, split2",
        ),
        (("baseline: s4", "baseline: s44"), "baseline", "there is no row 's44'", "did you mean 's4'?"),
        (
            ("baseline: s4", "baseline: t2.plan"),
            "baseline",
            "there is no row 't2.plan'",
            "did you mean 't2.plain'?",
        ),
        (
            ("default_profile: paper", "default_profile: labtop"),
            "default_profile",
            "there is no profile 'labtop'",
            "did you mean 'laptop'?",
        ),
        (
            ("mean_of: [split1, split2]", "mean_of: [mean, split1]"),
            "mean_of",
            "column 'mean' is made of itself",
            None,
        ),
        (
            ("mean_of: [split1, split2]", "mean_of: [split1, input]"),
            "mean_of",
            "column 'mean' uses 'input', which is of kind text: that has no scores to average",
            None,
        ),
    ],
)
def test_a_name_that_nothing_has_is_reported(
    change: tuple[str, str], fragment: str, message: str, hint: str | None
) -> None:
    text = spoilt(change)
    problem = only(text)
    assert (problem.message, problem.hint) == (message, hint)
    assert at(problem) == place(text, fragment)


def test_a_baseline_may_stand_in_another_table() -> None:
    assert sample(("baseline: s4", "baseline: t2.plain")).study.tables[0].baseline == "t2.plain"


def test_a_profile_renames_datasets_that_the_study_uses() -> None:
    text = spoilt(("{ucf101: motions-ucf101}", "{ucf11: motions-ucf101}"))
    problem = only(text)
    assert at(problem) == place(text, "ucf11:")
    assert (problem.message, problem.hint) == ("the study uses no dataset 'ucf11'", "did you mean 'ucf101'?")


@pytest.mark.parametrize("other", ["kinetics400", "motions-ucf101"])
def test_a_profile_keeps_different_datasets_different(other: str) -> None:
    renaming = (
        "{ucf101: motions-ucf101, kinetics400: motions-ucf101}"
        if other == "kinetics400"
        else "{ucf101: motions-ucf101}"
    )
    text = spoilt(("set: {data.split: 2}", f"set: {{data.dataset: {other}}}"), ("{ucf101: motions-ucf101}", renaming))
    problem = only(text)
    assert problem.line == place(text, "datasets")[0]
    assert problem.message.endswith("both become motions-ucf101: their cells would all be equal")


def test_columns_made_of_each_other_are_refused() -> None:
    text = spoilt(("input: {text: true}", "input: {text: true}\n      again: {mean_of: [mean, split1]}"))
    assert faults(text) == ()
    circle = text.replace("[split1, split2]", "[split1, again]")
    assert [p.message for p in faults(circle)] == [f"column {n!r} is made of itself" for n in ("mean", "again")]


def test_means_cannot_be_fused() -> None:
    text = spoilt(("input: {text: true}", "input: {text: true}\n      both: {fuse: [mean, split1]}"))
    assert only(text).message == "column 'both' uses 'mean', which is of kind mean_of: that has no scores to fuse"


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (("  model: {name: msfnet,", "  model.name: msfnet\n  model: {name: msfnet,"), "name: msfnet,"),
        (("split: 1", "split: 1\n    clip.frames: 16"), "frames: 8"),
        (("set: {model.groups: 3}", "set: {model: {groups: 3}, model.groups: 4}"), "model.groups: 4"),
        (("{width: 24}", "{conv: 1, conv.width: 24}"), "conv.width"),
    ],
)
def test_a_setting_given_twice_in_one_place_is_refused(change: tuple[str, str], fragment: str) -> None:
    text = spoilt(change)
    problem = only(text)
    assert at(problem) == place(text, fragment)
    assert re.fullmatch(r"\S+ is set on line \d+ already", problem.message)


@pytest.mark.parametrize(
    ("change", "fragment", "says"),
    [
        (("year: 2023", "year: soon"), "year", r"valid integer.*'soon'"),
        (("metric: top1, unit", "metric: top9, unit"), "metric: top9", r"unknown metric 'top9'; did you mean"),
        (("{text: true}", "{text: true, metric: top1}"), "input: {text: true", "but this one has text"),
        (("{text: true}", "{unit: m}"), "input: {unit", "needs metric, fuse, mean_of or text"),
        (("published: {mean: 50.0}", "set: {model.groups: 3}"), "{id: theirs", r"is quoted from \[1\]"),
        (("- id: t2", "- id: t 2"), "id: t 2", "pattern.*'t 2'"),
        (("top1: 46.0", "top1: high"), "top1: high", "valid number.*'high'"),
        (("hidden: true, set", "hidden: yess, set"), "hidden: yess", "valid boolean.*'yess'"),
        (
            ("{mean_of: [split1, split2]}", "{fuse: [split1, split2], weights: [1]}"),
            "mean: {",
            "1 weights for 2 fused columns",
        ),
    ],
)
def test_a_wrong_value_is_reported_where_it_stands(change: tuple[str, str], fragment: str, says: str) -> None:
    text = spoilt(change)
    problem = faults(text)[0]
    assert at(problem) == place(text, fragment)
    assert re.search(says, problem.message)


def test_a_label_that_looks_like_a_number_says_to_quote_it() -> None:
    text = spoilt(("label: Plain", "label: 16"))
    problem = only(text)
    assert at(problem) == place(text, "label: 16")
    assert (problem.value, problem.hint) == ("16", 'text that looks like a number needs quotes: "16"')


def test_a_table_whose_only_row_is_faulty_is_not_said_to_have_none() -> None:
    text = TEXT[: TEXT.index("      - {id: theirs")].replace("label: Plain", "label: 16")
    assert [p.path for p in faults(text)] == ["tables[1].rows[0].label"]
    empty = re.sub(r"rows:\n      - \{id: plain.*\n", "rows: []\n", text)
    assert [(p.path, at(p)) for p in faults(empty)] == [("tables[1].rows", place(empty, "rows: []"))]


def test_a_missing_key_is_reported_at_what_lacks_it() -> None:
    text = spoilt(("    caption: Splits\n", ""))
    problem = only(text)
    assert problem.message == "'caption' is missing"
    assert problem.path == "tables[1]"
    assert at(problem) == place(text, "id: t2")


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("study: [a\nb: 1\n", 2, 2, "this is not YAML"),
        ("study: a\n\tpaper: b\n", 2, 1, "this is not YAML: found character"),
        ("study: a\nbase: *b\n", 2, 7, "this is not YAML: found undefined alias"),
        ("study: a\n---\nstudy: b\n", 2, 1, "this is not YAML: but found another document"),
        ("study: a\nb: \x07\n", 2, 4, "this is not YAML: unacceptable character"),
        ("", 1, 1, "a study file is a mapping that begins with 'study: NAME'"),
        ("- a\n", 1, 1, "a study file is a mapping"),
        ("words\n", 1, 1, "a study file is a mapping"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_one_fault(text: str, line: int, column: int, says: str) -> None:
    problem = only(text)
    assert at(problem) == (line, column)
    assert problem.message.startswith(says)


def test_an_alias_of_itself_is_a_fault() -> None:
    text = TEXT + "notes: &a [*a]\n"
    assert faults(text)[0].message == "this alias stands inside what it names"
    assert faults(text)[0].line == len(LINES) + 1


def test_an_alias_repeats_what_it_names() -> None:
    text = spoilt(("paper: {}", "paper: &p {note: n}")).replace("  laptop:\n", "  copy: *p\n  laptop:\n")
    assert parse(text).study.profiles["copy"].note == "n"


def test_a_key_that_is_a_list_is_a_fault() -> None:
    text = TEXT + "[a, b]: 1\n"
    assert at(only(text)) == (len(LINES) + 1, 1)
    assert only(text).message == "a key is a word, not a list or a mapping"


def test_a_missing_file_names_the_others(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt"):
        (tmp_path / name).touch()
    with pytest.raises(StudyError, match="there is no such study file") as caught:
        load(tmp_path / "d.yaml")
    assert caught.value.problems[0].hint == f"{tmp_path}/ holds a.yml, b.yaml"
    with pytest.raises(StudyError, match="holds no study"):
        load(tmp_path / "nowhere" / "d.yaml")
    with pytest.raises(StudyError, match="there is no such study file"):
        load(tmp_path)


def test_a_file_is_named_in_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(spoilt(("year: 2023", "yaer: 2023")), encoding="utf-8")
    line, column = place(file.read_text(), "yaer")
    with pytest.raises(StudyError) as caught:
        load(str(file))
    assert str(caught.value) == (f"{file}:{line}:{column}: paper.yaer: unknown key 'yaer'\n    did you mean 'year'?")
    assert caught.value.problems[0].to_json() == {
        "file": str(file),
        "line": line,
        "column": column,
        "path": "paper.yaer",
        "value": None,
        "message": "unknown key 'yaer'",
        "hint": "did you mean 'year'?",
    }


def test_a_file_that_is_not_utf_8_says_where(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"study: a\nnotes: caf\xe9\n")
    with pytest.raises(StudyError, match=r"s\.yaml:2:11: .*not UTF-8"):
        load(tmp_path / "s.yaml")


def test_a_problem_without_a_mark_stands_at_the_nearest_enclosing_place() -> None:
    source = sample().source
    problem = source.problem(("base", "recipe", "momentum", "x"), "m", {"a": 1})
    assert at(problem) == place(TEXT, "recipe: {lr")
    assert problem.value is None
    assert source.problem((), "m").line == 1


def test_paths_and_names_for_people() -> None:
    assert dotted(("tables", 0, "rows", 2, "set", "model.groups")) == "tables[0].rows[2].set.model.groups"
    assert nearest("grups", ["width", "groups"]) == "did you mean 'groups'?"
    assert nearest("zzz", ["b", "a", "a"]) == "known: a, b"
