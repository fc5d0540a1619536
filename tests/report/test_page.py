"""The report of a study: one page, complete by itself, that says what the tables say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from retable import __version__
from retable.report.page import page
from retable.report.results import document
from retable.report.sheet import sheet
from retable.report.table_draw import draw
from retable.track.records import RunRecord
from tests.report.test_render import GOLDEN, matches

Json = dict[str, Any]
VOID = {"meta", "img", "br", "link", "input"}


class Outline(HTMLParser):
    """Elements with their attributes; fails on tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str, name: str) -> list[str]:
        return [str(attrs[name]) for found, attrs in self.seen if found == tag and name in attrs]


@pytest.fixture
def doc() -> Json:
    return json.loads((GOLDEN / "paper.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_page_of_a_document(doc: Json) -> None:
    text = re.sub(r"<style>.*</style>\n", "", page(doc, {}, figures=False), flags=re.DOTALL)
    assert matches("paper.html", text.replace(__version__, "VERSION"))


def test_every_table_row_and_run_is_on_the_page(doc: Json) -> None:
    text = page(doc, {}, figures=False)
    outline = Outline(text)
    assert outline.all("section", "id") == [table["id"] for table in doc["tables"]]
    for table in doc["tables"]:
        for line in sheet(table).lines:
            assert line.entries[0].text in text
        for row in table["rows"]:
            for value in (v for cell in row["cells"].values() for v in cell["values"] if v["run_id"]):
                assert value["run_id"] in text


def with_epochs(records: Mapping[str, RunRecord]) -> dict[str, RunRecord]:
    line = {"test/top1": 40.0, "train/loss": 1.0}
    return {k: replace(r, epochs=tuple({"epoch": float(e)} | line for e in range(3))) for k, r in records.items()}


def test_the_page_needs_nothing_else_and_is_the_same_again(small: Any) -> None:
    plan = small.plan("laptop", tables=["t1"])
    records = with_epochs(small.some_records(plan))
    doc = document(plan, records, counts=small.counts)
    text = page(doc, records)
    assert text == page(doc, records)
    outline = Outline(text)
    assert not outline.all("script", "src") + outline.all("link", "href")
    assert "url(" not in text
    assert all(source.startswith("data:image/svg+xml;base64,") for source in outline.all("img", "src"))
    assert len(outline.all("img", "src")) == 2  # rows and curves of the one measured column
    assert all(outline.all("img", "alt"))
    assert {link for link in outline.all("a", "href") if not link.startswith("#")} == {"https://doi.org/10.0/1"}


def test_what_html_would_read_is_text(doc: Json) -> None:
    text = page(doc, {}, figures=False)
    assert "here &lt;only&gt;" in text
    assert "<only>" not in text


def test_published_values_share_an_axis_only_where_they_may_be_compared(small: Any) -> None:
    from retable.report.table_figures import rows_figure

    for profile, panels in (("paper", 1), ("laptop", 2)):
        plan = small.plan(profile)
        (table, *_) = document(plan, small.some_records(plan), counts=small.counts)["tables"]
        column = next(c for c in table["columns"] if c["id"] == "top1")
        figure = rows_figure(table, column, comparable=profile == "paper")
        assert figure is not None
        assert len(figure.axes) == panels


def test_figures_of_tables_are_written_with_their_data(small: Any, tmp_path: Any) -> None:
    plan = small.plan("laptop", tables=["t1"])
    records = with_epochs(small.some_records(plan))
    written = {path.name for path in draw(plan, records, tmp_path, seeds=[0, 1])}
    figures = {f"t1-{kind}-top1.{end}" for kind in ("rows", "curves") for end in ("png", "svg")}
    assert written == figures | {"t1.json", "t1.csv"}
    data = json.loads((tmp_path / "t1.json").read_text())
    assert data["curves"]["top1"][0]["runs"][0]["epochs"] == [1, 2, 3]
    assert data["tables"][0]["id"] == "t1"
