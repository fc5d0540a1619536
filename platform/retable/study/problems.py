"""What is wrong with a study file, each with its place, all reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retable.study.load import LoadedStudy

YamlPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One fault: where it stands (1-based line and column), what was read there, and the way out."""

    file: str
    line: int
    column: int
    path: str
    message: str
    value: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.file != "--set" else "--set"
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{place}: {self.path or 'study'}: {self.message}{hint}"

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form: file, line, column, path, value, message, hint."""
        return asdict(self)


class StudyError(ValueError):
    """A study cannot be used. ``problems`` holds every fault that was found.

    ``rest`` is the study without its faulty leaves, where that still makes one: its settings can be checked too.
    """

    def __init__(self, problems: Iterable[Problem], rest: LoadedStudy | None = None):
        self.problems = tuple(problems)
        self.rest = rest
        super().__init__("\n".join(str(p) for p in self.problems))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the nearest known name, else the known names."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def dotted(path: Iterable[str | int]) -> str:
    """``("tables", 0, "rows")`` as ``tables[0].rows``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
