"""Claims: what the grammar reads, where it stops, and that it computes what it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.study import load
from retable.study.claims import ClaimError, Reference, parse, problems

CELLS: dict[Reference, float] = {
    ("table5", "msf-fsam", "top1"): 52.8,
    ("table5", "r3d", "top1"): 45.6,
    ("table2", "s4", "params"): 21.84,
    ("table5", "r3d", "params"): 33.18,
}


def value(text: str) -> float | bool | None:
    return parse(text).evaluate(CELLS.get)


def test_difference_of_two_cells() -> None:
    assert value("table5.msf-fsam.top1 - table5.r3d.top1") == pytest.approx(7.2)


def test_ratio_and_constant() -> None:
    assert value("1 - table2.s4.params / table5.r3d.params") == pytest.approx(1 - 21.84 / 33.18)


def test_products_bind_closer_and_chains_of_minus_go_left_to_right() -> None:
    assert value("2 + 3 * 4") == 14
    assert value("10 - 3 - 2") == 5
    assert value("16 / 4 / 2") == 2
    assert value("-(2 + 3) * -2") == 10


def test_min_and_max_take_several_terms() -> None:
    assert value("max(table5.msf-fsam.top1, table5.r3d.top1, 50 + 1) - min(2, 1)") == pytest.approx(51.8)


def test_orderings_are_true_or_false() -> None:
    assert value("table5.msf-fsam.top1 > table5.r3d.top1") is True
    assert value("table5.msf-fsam.top1 < table5.r3d.top1") is False
    assert value("1 < 2 <= 2 < 3") is True
    assert value("1 < 3 < 2") is False
    assert parse("1 < 2").is_ordering
    assert not parse("1 + 2").is_ordering


@pytest.mark.parametrize("text", ["table9.a.b - 1", "max(table9.a.b, 1)", "table9.a.b > 1", "-table9.a.b"])
def test_a_missing_cell_gives_no_value(text: str) -> None:
    assert value(text) is None


def test_division_by_zero_gives_no_value() -> None:
    assert value("1 / (table5.r3d.top1 - table5.r3d.top1)") is None


def test_references_are_listed_once_in_order() -> None:
    found = parse("b.r-1.c - a.r.c / max(b.r-1.c, 3a.r.2)").references()
    assert found == (("b", "r-1", "c"), ("a", "r", "c"), ("3a", "r", "2"))


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "ends"),
        ("1 +", 4, "ends"),
        ("(1 + 2", 7, "ends"),
        ("1 2", 3, "does not follow"),
        ("1 + )", 5, "does not follow"),
        ("table5.r3d", 1, "table.row.column"),
        ("a.b.c-a.b.d", 6, "space on both sides"),
        ("2 -3", 3, "space on both sides"),
        ("a.b.c >a.b.d", 7, "space on both sides"),
        ("abs(1)", 1, "is not a cell"),
        ("__import__('os')", 1, "cannot stand"),
        ("1 ** 2", 3, "space on both sides"),
        ("(1 < 2) + 1", 4, "expected ')'"),
    ],
)
def test_errors_say_where_and_what(text: str, column: int, says: str) -> None:
    with pytest.raises(ClaimError) as error:
        parse(text)
    assert error.value.column == column
    assert says in str(error.value)


Term = tuple[str, Callable[[], float]]
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,6}", fullmatch=True)
NUMBERS = st.floats(0, 1e6).map(lambda x: (repr(x), lambda: x))


def _join(a: Term, op: str, b: Term) -> Term:
    def compute() -> float:
        x, y = a[1](), b[1]()
        z = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else math.nan}[op]
        return z if math.isfinite(z) else math.nan  # a part without a value leaves the whole without one

    return f"({a[0]}) {op} ({b[0]})", compute


TERMS = st.recursive(
    NUMBERS, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: _join(*t)), max_leaves=8
)


@given(TERMS)
def test_any_arithmetic_has_the_value_that_python_gives(term: Term) -> None:
    expected = term[1]()
    found = parse(term[0]).evaluate(CELLS.get)
    assert found == expected if math.isfinite(expected) else found is None


@given(IDS, IDS, IDS, st.floats(-1e9, 1e9))
def test_any_ids_make_a_cell(table: str, row: str, column: str, x: float) -> None:
    expression = parse(f"0 + {table}.{row}.{column}")
    assert expression.references() == ((table, row, column),)
    assert expression.evaluate({(table, row, column): x}.get) == 0 + x


@given(st.text(alphabet="ab1.-+*/()<>=, minx", max_size=30))
def test_any_text_is_read_or_refused_with_a_column_inside(text: str) -> None:
    column = 1
    try:
        parse(text)
    except ClaimError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1


STUDY = """
study: s
default_profile: p
base: {model: {name: msfnet}, data: {dataset: ucf101}, recipe: {epochs: 1}}
profiles: {p: {}}
tables:
  - id: t1
    caption: c
    columns: {top1: {metric: top1}}
    rows: [{id: r3d, label: a}, {id: fsam, label: b}]
claims:
  - {text: fine, value: t1.fsam.top1 > t1.r3d.top1}
"""


def faults(claim: str) -> list[tuple[int, str, str | None]]:
    loaded = load.parse(f"{STUDY}  - {{text: x, value: '{claim}'}}\n")
    return [(p.line, p.message, p.hint) for p in problems(loaded)]


def test_claims_on_cells_that_exist_are_in_order() -> None:
    assert faults("t1.fsam.top1 - t1.r3d.top1") == []


def test_a_claim_on_an_unknown_cell_is_located_and_gets_the_nearest_name() -> None:
    line = len(STUDY.splitlines()) + 1
    assert faults("t1.fsan.top1 - 1") == [(line, "no table has the cell t1.fsan.top1", "did you mean 't1.fsam.top1'?")]


def test_a_claim_that_cannot_be_read_is_located() -> None:
    ((line, message, hint),) = faults("t1.fsam.top1 -1")
    assert line == len(STUDY.splitlines()) + 1
    assert message.startswith("column 14 of the claim: '-' needs a space")
    assert hint == "ids may hold '-'"


def test_a_claim_about_no_cell_is_refused() -> None:
    ((_, message, _),) = faults("1 + 1")
    assert "at least one cell" in message
