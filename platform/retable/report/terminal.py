"""Sheets for a terminal of a given width. A table that is too wide puts seeds' values on a second line, then splits
into blocks of columns that each repeat the row labels."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Sequence

from rich.cells import cell_len

from retable.report.sheet import PARTS, Entry, Head, Sheet

GAP = "  "
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LABEL_WIDTH = 30
Text = Callable[[Entry], tuple[str, ...]]


def lay_out(sheets: Sequence[Sheet], notes: Sequence[str], width: int) -> str:
    """All sheets, then the notes on the paper."""
    parts = ["\n".join(_table(s, max(width, 40))) for s in sheets]
    if notes:
        parts.append("\n".join(["Notes on the paper", *_bullets(notes, max(width, 40))]))
    return "\n\n".join(parts) + "\n"


def _table(s: Sheet, width: int) -> list[str]:
    title = f"{s.title}{_marks(s.marks)}"
    out = textwrap.wrap(title, width)
    for heads, text in _blocks(s, width):
        out += ["", *_block(s, heads, text)]
    if s.footnotes:
        out.append("")
        indent = max(len(mark) for mark, _ in s.footnotes) + 1
        for mark, note in s.footnotes:
            first = f"{mark.translate(SUPERSCRIPT):<{indent}}"
            out += textwrap.wrap(note, width, initial_indent=first, subsequent_indent=" " * indent)
    for heading, lines in s.remarks:
        out += ["", heading, *_bullets(lines, width)]
    return out


def _blocks(s: Sheet, width: int) -> list[tuple[list[int], Text]]:
    """Head indices of each block, and how its entries are written: the first arrangement that fits."""
    everything = list(range(len(s.heads)))
    for text in (_one_line, _two_lines):
        if _width(s, everything, text) <= width:
            return [(everything, text)]
    groups = [list(g) for _, g in itertools.groupby(everything[1:], key=lambda i: s.heads[i].column)]
    pieces = [part for g in groups for part in ([g] if _width(s, [0, *g], _two_lines) <= width else [[i] for i in g])]
    blocks: list[list[int]] = []
    for piece in pieces:
        if blocks and _width(s, [0, *blocks[-1], *piece], _two_lines) <= width:
            blocks[-1] += piece
        else:
            blocks.append(list(piece))
    return [([0, *block], _two_lines) for block in blocks]


def _block(s: Sheet, heads: list[int], text: Text) -> list[str]:
    shapes = {i: _shape(s, i, heads, text) for i in heads}
    total = _width(s, heads, text)
    out = [*_header(s, heads, shapes), "─" * total]
    for line in s.lines:
        if line.section:
            out.append(line.section)
        height = max(len(text(line.entries[i])) for i in heads)
        for k in range(height):
            out.append(GAP.join(_cell(line.entries[i], k, s.heads[i], shapes[i], text) for i in heads).rstrip())
    return out


def _header(s: Sheet, heads: list[int], shapes: dict[int, tuple[int, int]]) -> list[str]:
    top, bottom = [], []
    for _, members in itertools.groupby(heads, key=lambda i: s.heads[i].column):
        group = list(members)
        room = sum(sum(shapes[i]) for i in group) + len(GAP) * (len(group) - 1)
        top.append(_pad(s.heads[group[0]].group, room))
        for i in group:
            label = PARTS.get(s.heads[i].part, "")
            bottom.append(_pad(_pad(label, shapes[i][0], right=_right(s.heads[i])), sum(shapes[i])))
    return [line.rstrip() for line in (GAP.join(top), GAP.join(bottom)) if line.strip()]


def _cell(entry: Entry, k: int, head: Head, shape: tuple[int, int], text: Text) -> str:
    lines = text(entry)
    shown = lines[k] if k < len(lines) else ""
    marks = _marks(entry.marks) if k == 0 else ""
    if not _right(head):
        return _pad(shown + marks, sum(shape))
    return _pad(_pad(shown, shape[0], right=True) + marks, sum(shape))


def _shape(s: Sheet, i: int, heads: Sequence[int], text: Text) -> tuple[int, int]:
    """Widths of a column's text and of its footnote marks, in a block of these heads."""
    head, entries = s.heads[i], [line.entries[i] for line in s.lines]
    texts = max(cell_len(t) for entry in entries for t in text(entry))
    marks = max(cell_len(_marks(entry.marks)) for entry in entries)
    if not _right(head):
        texts, marks = max(cell_len(t) + cell_len(_marks(e.marks)) for e in entries for t in text(e)), 0
    texts = max(texts, cell_len(PARTS.get(head.part, "")))
    members = [j for j in heads if s.heads[j].column == head.column]
    if i == members[-1] and head.group:  # the last column of a group takes what the group's name needs more
        others = sum(sum(_shape(s, j, heads, text)) + len(GAP) for j in members[:-1])
        texts = max(texts, cell_len(head.group) - others - marks)
    return texts, marks


def _width(s: Sheet, heads: Sequence[int], text: Text) -> int:
    return sum(sum(_shape(s, i, heads, text)) for i in heads) + len(GAP) * (len(heads) - 1)


def _one_line(entry: Entry) -> tuple[str, ...]:
    return (entry.inline,)


def _two_lines(entry: Entry) -> tuple[str, ...]:
    lines = (entry.text, entry.extra) if entry.extra else (entry.text,)
    return tuple(part for line in lines for part in (textwrap.wrap(line, LABEL_WIDTH) or [""]))


def _right(head: Head) -> bool:
    return head.part in ("published", "ours", "difference")


def _pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space


def _marks(marks: Sequence[str]) -> str:
    """Superscripts after a space, so that they do not read as powers of the number before."""
    return f" {','.join(marks).translate(SUPERSCRIPT)}" if marks else ""


def _bullets(lines: Sequence[str], width: int) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    ]
