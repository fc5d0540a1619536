"""A table of the document as printed strings: columns, rows, footnotes and remarks. The layouts only place them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from retable.report.power import needed_legend, needed_words
from retable.report.searching.tuning import row_line

Json = dict[str, Any]
Part = Literal["label", "text", "published", "ours", "difference", "verdict"]
PARTS: dict[Part, str] = {"published": "published", "ours": "ours", "difference": "diff.", "verdict": "verdict"}
HOLE = "–"
DAGGER = "†"


@dataclass(frozen=True)
class Entry:
    """One printed cell: its text, what may stand on a second line, and its footnote marks."""

    text: str = ""
    extra: str = ""
    marks: tuple[str, ...] = ()

    @property
    def inline(self) -> str:
        """Both lines as one: ``45.6 ± 3.2 (n=2: 45.3, 45.8)``."""
        return f"{self.text.removesuffix(')')}: {self.extra})" if self.extra else self.text


@dataclass(frozen=True)
class Head:
    """One printed column: the table's column that it belongs to, and which part of it."""

    column: str
    group: str
    part: Part


@dataclass(frozen=True)
class Line:
    """One printed row; a section's name stands before its first row."""

    section: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Sheet:
    """One table, ready to be laid out. ``remarks`` are paragraphs below the footnotes: a heading and its lines."""

    id: str
    cite: str | None
    caption: str
    marks: tuple[str, ...]
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    footnotes: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def title(self) -> str:
        """``Table 2. Number of channel groups S``."""
        return f"{self.cite}. {self.caption}" if self.cite else self.caption


def sheet(table: Json) -> Sheet:
    """The printed form of one table of the document."""
    heads = (Head("", "", "label"), *(head for column in table["columns"] for head in _heads(table, column)))
    columns = {column["id"]: column for column in table["columns"]}
    lines, section = [], None
    for row in table["rows"]:
        entries = tuple(_entry(row, columns.get(head.column), head) for head in heads)
        lines.append(Line(row["section"] if row["section"] != section else None, entries))
        section = row["section"]
    footnotes = [(str(note["n"]), note["text"]) for note in table["footnotes"]]
    if any(row["quoted"] is not None for row in table["rows"]):
        footnotes.insert(0, (DAGGER, "Quoted from the cited work, not run."))
    marks = tuple(str(n) for n in table["notes"])
    named = table["id"], table["cite"], table["caption"]
    return Sheet(*named, marks, heads, tuple(lines), tuple(footnotes), _remarks(table))


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """A value with the column's digits; never ``-0.0``."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text.replace("-", "+" if sign else "") if float(text) == 0 else text


def published(value: float, decimals: int) -> str:
    """A published value with the column's digits, or more where the paper prints more."""
    own = repr(float(value)).partition(".")[2]
    return number(value, decimals if own == "0" else max(decimals, len(own)))


def interval(mean: float, half_width: float | None, n: int, decimals: int) -> str:
    """``45.6 ± 0.7 (n=3)``; without an interval for one seed."""
    around = f" ± {number(half_width, decimals)}" if half_width is not None else ""
    return f"{number(mean, decimals)}{around} (n={n})"


def _heads(table: Json, column: Json) -> list[Head]:
    group = f"{column['label']} ({column['unit']})" if column["unit"] else column["label"]
    if column["kind"] == "text":
        return [Head(column["id"], group, "text")]
    cells = [row["cells"][column["id"]] for row in table["rows"]]
    wanted: dict[Part, bool] = {
        "published": any(cell["published"] is not None for cell in cells),
        "ours": any(cell["status"] not in ("quoted", "not in the paper") for cell in cells),
        "difference": any(cell["difference"] is not None for cell in cells),
        "verdict": column["kind"] not in ("static", "speed") and any(cell["verdict"] for cell in cells),
    }
    return [Head(column["id"], group, part) for part, there in wanted.items() if there]


def _entry(row: Json, column: Json | None, head: Head) -> Entry:
    if column is None:
        marks = (*((DAGGER,) if row["quoted"] is not None else ()), *(str(n) for n in row["notes"]))
        return Entry(row["label"], marks=marks)
    if head.part == "text":
        return Entry(row["text"].get(head.column, ""))
    cell, digits = row["cells"][head.column], column["decimals"]
    marks = tuple(str(n) for n in cell["notes"])
    run = cell["status"] not in ("quoted", "not in the paper")
    if head.part == "published":
        text = HOLE if cell["published"] is None else published(cell["published"], digits)
        return Entry(text if not run or cell["published"] is not None else "", marks=() if run else marks)
    if head.part == "ours":
        return _ours(cell, digits, marks) if run else Entry()
    if head.part == "difference":
        return Entry("" if cell["difference"] is None else number(cell["difference"], digits, sign=True))
    return Entry(cell["verdict"] or "")


def _ours(cell: Json, digits: int, marks: tuple[str, ...]) -> Entry:
    if cell["mean"] is None:
        return Entry(HOLE, marks=marks)
    if cell["kind"] == "static":
        return Entry(number(cell["mean"], digits), marks=marks)
    if cell["kind"] == "speed":
        low, high = (number(cell["values"][0][end], digits) for end in ("low", "high"))
        return Entry(f"{number(cell['mean'], digits)} ({low} to {high})", marks=marks)
    extra = ", ".join(number(v["value"], digits) for v in cell["values"]) if cell["n"] == 2 else ""
    return Entry(interval(cell["mean"], cell["half_width"], cell["n"], digits), extra, marks)


def _remarks(table: Json) -> tuple[tuple[str, tuple[str, ...]], ...]:
    tuned = table.get("tuning", {"rows": ()})["rows"]
    found = (
        ("Tuned rows, all with the same budget", tuple(row_line(row) for row in tuned)),
        ("Order of rows, ours against published (Kendall's tau)", tuple(_order_line(table, o) for o in table["order"])),
        ("Against the baseline, paired by seed", tuple(_baseline_lines(table))),
        ("Claims", tuple(_claim_line(claim) for claim in table["claims"])),
        ("Made with", (*_legend(table), *table["provenance"]["sentences"])),
    )
    return tuple((heading, lines) for heading, lines in found if lines)


def _column(table: Json, name: str) -> Json:
    return next(column for column in table["columns"] if column["id"] == name)


def _order_line(table: Json, order: Json) -> str:
    seeds = ", ".join(f"{entry['tau']:.2f}" for entry in order["by_seed"])
    parts = [f"{order['rows']} rows"]
    if len(order["by_seed"]) == 1:
        parts.append("1 seed that all rows have")
    if len(order["by_seed"]) > 1:
        parts += [f"seeds {seeds}", f"95 % of resampled seeds {order['low']:.2f} to {order['high']:.2f}"]
    said = f": {order['verdict']}" if order["verdict"] else ""
    return f"{_column(table, order['column'])['label']}: {order['tau']:.2f} ({'; '.join(parts)}){said}."


def _baseline_lines(table: Json) -> list[str]:
    lines = []
    for column in table["columns"]:
        for row in table["rows"]:
            to = row["cells"][column["id"]]["to_baseline"]
            if to is not None:
                lines.append(
                    f"{column['label']}, {row['label']} − {to['label']}: {_difference(to, column['decimals'])}."
                )
    return lines + needed_legend(table)


def _difference(to: Json, digits: int) -> str:
    around = f" ± {number(to['half_width'], digits)}" if to["half_width"] is not None else ""
    text = f"{number(to['mean'], digits, sign=True)}{around} (n={to['n']})"
    if to["verdict"]:
        text += f", {to['verdict']}"
        text += f", {needed_words(to['seeds_needed'])}" if to["seeds_needed"] else ""
        text += "" if to["verdict"].startswith("undecided") else f" (Holm p = {max(to['p'], 0.001):.3f})"
    if to["published"] is not None:
        text += f"; published {number(to['published'], digits, sign=True)}"
    if to["same_sign"] is not None:
        text += f", same sign in {to['same_sign']} of {to['n']}"
    return text


def _claim_line(claim: Json) -> str:
    printed = claim["printed"]
    said = []
    if claim["published"] is not None:
        said.append(f"paper {claim['published']:g}")
    if printed is not None:
        words = ("hold" if printed else "do not hold") if isinstance(printed, bool) else f"give {printed:.3g}"
        said.append(f"its tables {words}")
    if claim["mean"] is not None:
        around = f" ± {claim['half_width']:.2g}" if claim["half_width"] is not None else ""
        seeds = "" if claim["values"][0]["seed"] is None else f" (n={claim['n']})"
        said.append(f"ours {claim['mean']:.3g}{around}{seeds}")
    if claim["verdict"]:
        said.append(claim["verdict"] if claim["mean"] is not None else f"ours {claim['verdict']}")
    if claim["reason"]:
        said.append(f"ours {HOLE}: {claim['reason']}")
    note = f" {claim['note']}" if claim["note"] else ""
    return f"{claim['text']} [{'; '.join(said)}]{note}"


def _legend(table: Json) -> tuple[str, ...]:
    cells = [cell for row in table["rows"] for cell in row["cells"].values()]
    if not any(cell["mean"] is not None and cell["kind"] not in ("static", "speed") for cell in cells):
        return ()
    return ("ours: mean ± half-width of the 95 % t-interval over n seeds; no interval for one seed.",)
