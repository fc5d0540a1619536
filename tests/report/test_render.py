"""Printed formats against golden files (rewritten by ``UPDATE_GOLDEN=1``), and what must hold for any document."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from retable.report.render import Format, render
from retable.report.results import document
from retable.report.sheet import number, published, sheet

GOLDEN = Path(__file__).parent / "golden"
Json = dict[str, Any]


def matches(name: str, text: str) -> bool:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8") == text


def anonymous(doc: Json) -> Json:
    """Ids by order of appearance, so that the golden document outlives new config fields."""
    text, names = json.dumps(doc), dict[str, str]()
    for found in re.findall(r'"(?:run_id|config_id)": "(~?[0-9a-f]{24})"', text):
        names.setdefault(found, f"id-{len(names) + 1}")
    for found, name in names.items():
        text = text.replace(found, name)
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_document_of_a_small_study(small: Any, profile: str) -> None:
    plan = small.plan(profile)
    doc = anonymous(document(plan, small.some_records(plan), counts=small.counts))
    assert matches(f"{profile}.json", render(doc, "json"))


@pytest.fixture
def doc() -> Json:
    return json.loads((GOLDEN / "paper.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("format_", "width", "name"),
    [
        ("terminal", 100, "paper.txt"),
        ("terminal", 200, "paper-wide.txt"),
        ("terminal", 60, "paper-narrow.txt"),
        ("md", None, "paper.md"),
        ("latex", None, "paper.tex"),
        ("csv", None, "paper.csv"),
    ],
)
def test_formats_of_a_document(doc: Json, format_: Format, width: int | None, name: str) -> None:
    assert matches(name, render(doc, format_, width=width))


def test_terminal_of_a_profile_that_is_not_compared() -> None:
    doc = json.loads((GOLDEN / "laptop.json").read_text(encoding="utf-8"))
    text = render(doc, "terminal")
    assert matches("laptop.txt", text)
    assert "diff." not in text


@pytest.mark.parametrize("format_", ["terminal", "md", "latex", "csv", "json"])
def test_the_same_document_gives_the_same_bytes(doc: Json, format_: Format) -> None:
    again = json.loads(json.dumps(doc))
    assert render(doc, format_) == render(again, format_)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_terminal_line_is_wider_than_asked(doc: Json, width: int) -> None:
    tables = [line for line in render(doc, "terminal", width=width).splitlines() if line]
    assert max(map(len, tables)) <= max(width, 60)  # one block of a column and the labels need up to 60


def test_json_gives_the_document_back(doc: Json) -> None:
    assert json.loads(render(doc, "json")) == doc


def test_csv_has_a_line_per_cell_with_raw_values(doc: Json) -> None:
    lines = list(csv.DictReader(io.StringIO(render(doc, "csv"))))
    assert len(lines) == sum(len(row["cells"]) for table in doc["tables"] for row in table["rows"])
    one = next(line for line in lines if (line["table"], line["row"], line["column"]) == ("t1", "plain", "top1"))
    assert one["values"] == "49.25 49.75"
    assert float(one["mean"]) == 49.5


def test_latex_escapes_what_latex_would_read(doc: Json) -> None:
    text = render(doc, "latex")
    assert r"Other\_net {[}22{]}$^{\dagger}$" in text
    assert r"100 \% of" in text
    assert r"\textbar{} here $<$only$>$" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_latex_rows_have_as_many_cells_as_the_tabular_has_columns(doc: Json) -> None:
    for part in render(doc, "latex").split(r"\begin{tabular}")[1:]:
        columns = len(part[1 : part.index("}")])
        rows = [line for line in part.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spanned == columns, row


def test_markdown_rows_have_as_many_cells_as_the_head(doc: Json) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", render(doc, "md"), flags=re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1


def test_published_values_keep_the_digits_of_the_paper() -> None:
    assert published(21.8, 2) == "21.80"
    assert published(45.52, 1) == "45.52"
    assert published(254.0, 1) == "254.0"


def test_no_negative_zero_is_printed() -> None:
    assert number(-0.001, 2) == "0.00"
    assert number(-0.001, 2, sign=True) == "+0.00"


def test_every_mark_has_its_footnote(doc: Json) -> None:
    for table in doc["tables"]:
        printed = sheet(table)
        marks = {m for line in printed.lines for entry in line.entries for m in entry.marks} | set(printed.marks)
        assert marks == {mark for mark, _ in printed.footnotes}
