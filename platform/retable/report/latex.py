"""Sheets as LaTeX ``table`` environments; needs the package booktabs and UTF-8 input (LaTeX's default)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from retable.report.sheet import DAGGER, PARTS, Entry, Head, Sheet

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    DAGGER: r"$\dagger$",
    "[": "{[}",  # after \\ a bracket would be read as a length
    "]": "{]}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def lay_out(sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """All sheets, then the notes on the paper."""
    parts = ["% needs \\usepackage{booktabs}", *("\n".join(_table(s)) for s in sheets)]
    if notes:
        items = "\n".join(f"\\item {escape(note)}" for note in notes)
        parts.append(f"\\paragraph{{Notes on the paper}}\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text with LaTeX's special characters, signs and dashes written as LaTeX reads them."""
    return "".join(SPECIAL.get(c, c) for c in " ".join(text.split()))


def _table(s: Sheet) -> list[str]:
    align = "".join("l" if head.part in ("label", "text", "verdict") else "r" for head in s.heads)
    out = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(s.title)}{_marks(s.marks)}}}",
        f"\\label{{tab:{s.id}}}",
    ]
    out += [f"\\begin{{tabular}}{{{align}}}", "\\toprule", *_header(s.heads), "\\midrule"]
    for line in s.lines:
        if line.section:
            out.append(f"\\multicolumn{{{len(s.heads)}}}{{l}}{{\\emph{{{escape(line.section)}}}}} \\\\")
        out.append(_row([_entry(entry) for entry in line.entries]))
    out += ["\\bottomrule", "\\end{tabular}", "\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"]
    out += [f"{_marks((mark,))} {escape(text)}\\par" for mark, text in s.footnotes]
    for heading, lines in s.remarks:
        out += [f"\\textbf{{{escape(heading)}.}}", *(f"{escape(line)}\\par" for line in lines)]
    return [*out, "\\end{minipage}", "\\end{table}"]


def _header(heads: Sequence[Head]) -> list[str]:
    groups = [
        (group, len(list(members))) for group, members in itertools.groupby(heads, key=lambda h: (h.column, h.group))
    ]
    top, rules, at = [], [], 1
    for (_, group), width in groups:
        spanning = width > 1
        top.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}" if spanning else escape(group))
        if spanning:
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    parts = [PARTS.get(head.part, "") for head in heads]
    return [_row(top), *([" ".join(rules)] if rules else []), *([_row(parts)] if any(parts) else [])]


def _entry(entry: Entry) -> str:
    text = escape(entry.inline)
    if entry.inline[:1] in "+-" and entry.inline[1:2].isdigit():
        text = f"${entry.inline}$"
    return f"{text}{_marks(entry.marks)}"


def _marks(marks: Sequence[str]) -> str:
    return f"$^{{{','.join(m.replace(DAGGER, chr(92) + 'dagger') for m in marks)}}}$" if marks else ""


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
