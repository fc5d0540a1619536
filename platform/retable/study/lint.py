"""What a paper's tables say against themselves: the arithmetic of the printed values, and counts against the network's.

Findings are not errors: a study copies its paper as printed. ``coverage`` counts what of the papers the studies hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retable.study import claims
from retable.study.check import check
from retable.study.claims import Reference
from retable.study.config import Config
from retable.study.load import LoadedStudy, load
from retable.study.plan import Cell, Plan
from retable.study.planner import World, make_plan
from retable.study.problems import Problem, StudyError
from retable.study.schema import Claim, Row, Study, Table
from retable.study.static import in_unit, static_counts

Counts = Callable[[Config, str], float]
COUNT_TOLERANCE = 0.01
"""Share by which our count may differ from a published one before it is a finding."""
_SLACK = 1e-9
_NOWHERE = World(lambda data: None, 0, 0, 0)


@dataclass(frozen=True)
class Coverage:
    """What a study holds of its paper. Tables beyond the paper (without ``cite``) and hidden columns do not count."""

    study: str
    tables: int
    own_rows: int
    own_cells: int


def lint(path: Path | str, *, counts: Counts = static_counts) -> list[Problem]:
    """Findings about a study's published values, in the order of the file.

    Args:
        path: a study file.
        counts: (config, "params" or "gmacs") -> count of the config's model.

    Raises:
        StudyError: the study cannot be used; every fault found, before any finding.
    """
    loaded = load(path)
    if faults := check(loaded):
        raise StudyError(faults)
    return findings(loaded, counts=counts)


def findings(loaded: LoadedStudy, *, counts: Counts = static_counts) -> list[Problem]:
    """:func:`lint` of a study that is loaded and checked."""
    plan = make_plan(loaded, _NOWHERE, profile=_profile(loaded.study))
    printed = _Printed(loaded)
    found = [
        *_claims(loaded, printed),
        *_means(printed),
        *_twins(plan, printed),
        *_shared(plan, printed),
        *_counts(plan, printed, counts),
    ]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def coverage(studies: Iterable[Study]) -> tuple[Coverage, ...]:
    """For each study: its paper's tables, their own (not quoted) rows, and the published values in these."""
    return tuple(_covered(study) for study in studies)


def _covered(study: Study) -> Coverage:
    tables = [table for table in study.tables if table.cite is not None]
    rows = [(table, row) for table in tables for row in table.rows if row.quoted is None]
    cells = sum(
        value is not None and not table.columns[name].hidden
        for table, row in rows
        for name, value in row.published.items()
    )
    return Coverage(study.study, len(tables), len(rows), cells)


def _profile(study: Study) -> str:
    """The profile whose configs are the paper's."""
    return next((name for name, profile in study.profiles.items() if profile.comparable), study.default_profile)


class _Printed:
    """The published values: where they stand, how finely they are printed, and how they are named."""

    def __init__(self, loaded: LoadedStudy):
        self.study, self.source = loaded.study, loaded.source
        self.at = {
            (table.id, row.id, name): (t, r)
            for t, table in enumerate(loaded.study.tables)
            for r, row in enumerate(table.rows)
            for name in table.columns
        }

    def table(self, ref: Reference) -> Table:
        return self.study.tables[self.at[ref][0]]

    def row(self, ref: Reference) -> Row:
        t, r = self.at[ref]
        return self.study.tables[t].rows[r]

    def value(self, ref: Reference) -> float | None:
        return self.row(ref).published.get(ref[2]) if ref in self.at else None

    def half(self, ref: Reference) -> float:
        """Half a unit of the last digit that the column prints."""
        column = self.table(ref).columns[ref[2]]
        values = [row.published.get(ref[2]) for row in self.table(ref).rows]
        digits = max((_digits(v) for v in values if v is not None), default=0)
        return 0.5 * 10.0 ** -(digits if column.decimals is None else column.decimals)

    def note(self, ref: Reference) -> str:
        """The explanation that the study gives, else how to give one."""
        cell = self.row(ref).cells.get(ref[2])
        return (
            f"noted: {cell.note}"
            if cell is not None and cell.note
            else "if it is printed so, say so in the cell's note"
        )

    def name(self, ref: Reference) -> str:
        """``Table 3, UCF101 (RGB-Stream), Mean``."""
        table, row = self.table(ref), self.row(ref)
        section = f" ({row.section})" if row.section else ""
        return f"{table.cite or table.id}, {row.label or row.id}{section}, {table.columns[ref[2]].label or ref[2]}"

    def problem(self, ref: Reference, message: str) -> Problem:
        t, r = self.at[ref]
        place = ("tables", t, "rows", r, "published", ref[2])
        return self.source.problem(place, f"{self.name(ref)}: {message}", self.value(ref), self.note(ref))


def _digits(value: float) -> int:
    fraction = repr(float(value)).partition(".")[2]
    return 0 if fraction == "0" or "e" in fraction else len(fraction)


def _claims(loaded: LoadedStudy, printed: _Printed) -> Iterator[Problem]:
    """Claims that the printed values do not bear out, beyond what rounding explains."""
    for i, claim in enumerate(loaded.study.claims):
        message = _contradiction(claim, printed)
        if message is not None:
            note = f"noted: {claim.note}" if claim.note else "if the paper says so, say so in the claim's note"
            yield loaded.source.problem(("claims", i, "value"), f"{claim.text} {message}", claim.published, note)


def _contradiction(claim: Claim, printed: _Printed) -> str | None:
    expression = claims.parse(claim.value)
    value = expression.evaluate(printed.value)
    if isinstance(value, bool):
        return None if value else "But the printed values contradict it."
    if value is None or claim.published is None:
        return None
    slack = 0.5 * 10.0 ** -_digits(claim.published) + _SLACK
    exact = {ref: printed.value(ref) for ref in expression.references()}
    for ref, operand in exact.items():
        moved = expression.evaluate({**exact, ref: (operand or 0.0) + printed.half(ref)}.get)
        slack += abs(moved - value) if moved is not None else 0.0
    return None if abs(value - claim.published) <= slack else f"But the printed values give {value:.4g}."


def _means(printed: _Printed) -> Iterator[Problem]:
    """Published means that are not the mean of what they average."""
    for ref in printed.at:
        column = printed.table(ref).columns[ref[2]]
        parts = [printed.value((*ref[:2], name)) for name in column.mean_of]
        value, known = printed.value(ref), [part for part in parts if part is not None]
        if value is None or not known or len(known) < len(parts):
            continue
        mean = sum(known) / len(known)
        if abs(mean - value) > printed.half(ref) + _SLACK:
            yield printed.problem(ref, f"{value:g} is not the mean of {', '.join(f'{v:g}' for v in known)}: {mean:.4g}")


def _twins(plan: Plan, printed: _Printed) -> Iterator[Problem]:
    """One configuration, seen the same way, that is published with several values."""
    groups: dict[str, list[Reference]] = {}
    for cell in plan.cells:
        ref = (cell.table, cell.row, cell.column)
        key = _key(cell)
        if key is not None and printed.value(ref) is not None:
            groups.setdefault(key, []).append(ref)
    for refs in groups.values():
        odd, others = _odd_one(refs, printed)
        if odd is not None:
            message = f"{printed.value(odd):g} here, but {printed.value(others[0]):g} for the same configuration in"
            yield printed.problem(odd, f"{message} {'; '.join(printed.name(ref) for ref in others)}")


def _key(cell: Cell) -> str | None:
    if cell.static is not None:
        return f"{cell.metric} {cell.static.model}"
    return None if cell.evaluation is None else f"{cell.metric} {cell.evaluation}"


def _odd_one(refs: list[Reference], printed: _Printed) -> tuple[Reference | None, list[Reference]]:
    """The cell whose value is rarest, and the cells that have another; the first of equally rare ones."""
    values = {ref: float(printed.value(ref) or 0.0) for ref in refs}
    same = {ref: [o for o in refs if _equal(ref, o, values, printed)] for ref in refs}
    odd = min(refs, key=lambda ref: len(same[ref]))
    others = [ref for ref in refs if ref not in same[odd]]
    return (odd, others) if others else (None, [])


def _equal(a: Reference, b: Reference, values: dict[Reference, float], printed: _Printed) -> bool:
    """Whether two printed values can be one number, rounded as coarsely as the coarser of them is."""
    return abs(values[a] - values[b]) < max(printed.half(a), printed.half(b)) + _SLACK


def _shared(plan: Plan, printed: _Printed) -> Iterator[Problem]:
    """Quoted values of one work that are equal on different datasets: one of the two is probably the other's."""
    datasets = _datasets(plan, printed)
    seen: dict[tuple[str, float], Reference] = {}
    for ref in printed.at:
        row, value = printed.row(ref), printed.value(ref)
        if row.quoted is None or value is None or _context(ref, printed) not in datasets:
            continue
        first = seen.setdefault((row.label, value), ref)
        mine, other = datasets[_context(ref, printed)], datasets[_context(first, printed)]
        if mine != other:
            yield printed.problem(ref, f"{value:g} on {mine} stands on {other} too, in {printed.name(first)}")


def _context(ref: Reference, printed: _Printed) -> tuple[str, str | None, str]:
    return ref[0], printed.row(ref).section, ref[2]


def _datasets(plan: Plan, printed: _Printed) -> dict[tuple[str, str | None, str], str]:
    """The dataset that a column's own rows are measured on, by table, section and column."""
    found: dict[tuple[str, str | None, str], str] = {}
    for cell in plan.cells:
        if cell.evaluation is not None:
            names = {plan.trainings[key].config.data.dataset for key in plan.trainings_of(cell.evaluation)}
            context = _context((cell.table, cell.row, cell.column), printed)
            found.setdefault(context, ", ".join(sorted(names)))
    return found


def _counts(plan: Plan, printed: _Printed, counts: Counts) -> Iterator[Problem]:
    """Published parameters and GMACs that our network does not have."""
    for cell in plan.cells:
        ref = (cell.table, cell.row, cell.column)
        value = printed.value(ref)
        if cell.static is None or value is None:
            continue
        unit = printed.table(ref).columns[cell.column].unit
        ours = in_unit(counts(cell.static, str(cell.metric)), str(cell.metric), unit)
        share = ours / value - 1 if value else 0.0
        if abs(share) > COUNT_TOLERANCE:
            yield printed.problem(ref, f"{value:g} {unit} is published, ours has {ours:.4g} ({100 * share:+.1f} %)")
