"""Sheets as GitHub Markdown: one pipe table each; notes below."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retable.report.sheet import PARTS, Entry, Head, Sheet


def lay_out(sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """All sheets, then the notes on the paper."""
    parts = ["\n".join(_table(s)) for s in sheets]
    if notes:
        parts.append("\n".join(["**Notes on the paper**", "", *(f"- {_escape(note)}" for note in notes)]))
    return "\n\n".join(parts) + "\n"


def _table(s: Sheet) -> list[str]:
    out = [f"### {_escape(s.title)}{_marks(s.marks)}", ""]
    out.append(_row([_head(head) for head in s.heads]))
    out.append(_row(["---" if head.part in ("label", "text", "verdict") else "---:" for head in s.heads]))
    for line in s.lines:
        if line.section:
            out.append(_row([f"**{_escape(line.section)}**", *("" for _ in s.heads[1:])]))
        out.append(_row([_entry(entry) for entry in line.entries]))
    if s.footnotes:
        out += ["", *(f"{_marks((mark,))} {_escape(text)}<br>" for mark, text in s.footnotes)]
    for heading, lines in s.remarks:
        out += ["", f"**{_escape(heading)}**", "", *(f"- {_escape(line)}" for line in lines)]
    return out


def _head(head: Head) -> str:
    if head.part in ("label", "text"):
        return _escape(head.group)
    return f"{_escape(head.group)} {PARTS[head.part]}"


def _entry(entry: Entry) -> str:
    return f"{_escape(entry.inline)}{_marks(entry.marks)}"


def _marks(marks: Sequence[str]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_|<>~#])", r"\\\1", " ".join(text.split()))
