"""The arithmetic of a claim, such as ``table5.msf-fsam.top1 - table5.r3d.top1``: a small grammar of its own, no eval.

::

    claim   := sum (("<" | "<=" | ">" | ">=") sum)*        a chain holds when every link does
    sum     := product (("+" | "-") product)*
    product := factor (("*" | "/") factor)*
    factor  := "-" factor | "(" sum ")" | ("min" | "max") "(" sum ("," sum)* ")" | number | cell
    cell    := table "." row "." column

Ids may hold ``-`` and digits, so operators between two terms stand between spaces.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retable.study.load import LoadedStudy
from retable.study.problems import Problem, nearest

Reference = tuple[str, str, str]
"""Table, row and column id of a cell."""
Lookup = Callable[[Reference], float | None]
Value = float | bool | None

_ID = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_TOKEN = re.compile(
    rf"(?P<cell>{_ID}\.{_ID}\.{_ID})(?![\w.])"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])"
    rf"|(?P<name>{_ID}(?:\.{_ID})*\.?)"
    r"|(?P<op><=|>=|[-+*/()<>,])"
)
_SPACED = {"+", "-", "*", "/", "<", "<=", ">", ">="}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CALLS: dict[str, Callable[..., float]] = {"min": min, "max": max}


class ClaimError(ValueError):
    """An expression that cannot be read: ``column`` is 1-based in the expression, ``hint`` the way out."""

    def __init__(self, message: str, column: int, hint: str | None = None):
        self.message, self.column, self.hint = message, column, hint
        super().__init__(f"column {column}: {message}{f' ({hint})' if hint else ''}")


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Cell:
    """The value of a table's cell."""

    reference: Reference


@dataclass(frozen=True)
class Operation:
    """``op`` is an arithmetic sign, ``min`` or ``max``; ``-`` of one operand negates."""

    op: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Chain:
    """``a > b >= c``: operands and the comparisons between neighbours."""

    operands: tuple[Node, ...]
    comparisons: tuple[str, ...]


Node = Number | Cell | Operation | Chain


@dataclass(frozen=True)
class Expression:
    """A parsed claim."""

    text: str
    root: Node

    @property
    def is_ordering(self) -> bool:
        """Whether it compares, so that it is true or false rather than a number."""
        return isinstance(self.root, Chain)

    def references(self) -> tuple[Reference, ...]:
        """The cells it uses, each once, in the order of the text."""
        return tuple(dict.fromkeys(_references(self.root)))

    def evaluate(self, lookup: Lookup) -> Value:
        """Its value; None where a cell has none, or where it is not finite (a division by zero)."""
        return _chain(self.root, lookup) if isinstance(self.root, Chain) else _number(self.root, lookup)


def parse(text: str) -> Expression:
    """Read a claim's value.

    Raises:
        ClaimError: with the column where reading stopped.
    """
    parser = _Parser(text)
    root = parser.claim()
    parser.end()
    return Expression(text, root)


def problems(loaded: LoadedStudy) -> Iterator[Problem]:
    """Faults of a study's claims: expressions that cannot be read, cells that no table has."""
    columns = {(t.id, row.id, name) for t in loaded.study.tables for row in t.rows for name in t.columns}
    for i, claim in enumerate(loaded.study.claims):
        at = ("claims", i, "value")
        try:
            references = parse(claim.value).references()
        except ClaimError as error:
            message = f"column {error.column} of the claim: {error.message}"
            yield loaded.source.problem(at, message, claim.value, error.hint)
            continue
        for reference in references:
            if reference not in columns:
                name = ".".join(reference)
                hint = nearest(name, [".".join(known) for known in columns])
                yield loaded.source.problem(at, f"no table has the cell {name}", claim.value, hint)
        if not references:
            yield loaded.source.problem(at, "a claim is about at least one cell (table.row.column)", claim.value)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    spaced: bool


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise ClaimError(f"{text[at]!r} cannot stand in a claim", at + 1, "allowed: + - * / ( ) < <= > >= min max")
        end = match.end()
        spaced = text[at - 1 : at].isspace() and (end == len(text) or text[end].isspace())
        found.append(_Token(str(match.lastgroup), match.group(), at, spaced))
        at = end
    return found


class _Parser:
    """Recursive descent over the tokens; one method per rule of the grammar."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0

    def claim(self) -> Node:
        operands, comparisons = [self.sum()], []
        while op := self.binary(_COMPARE):
            comparisons.append(op)
            operands.append(self.sum())
        return Chain(tuple(operands), tuple(comparisons)) if comparisons else operands[0]

    def sum(self) -> Node:
        node = self.product()
        while op := self.binary("+-"):
            node = Operation(op, (node, self.product()))
        return node

    def product(self) -> Node:
        node = self.factor()
        while op := self.binary("*/"):
            node = Operation(op, (node, self.factor()))
        return node

    def factor(self) -> Node:
        token = self.next("a number, a cell or '('")
        if token.text == "-":
            return Operation("-", (self.factor(),))
        if token.text == "(":
            node = self.sum()
            self.expect(")")
            return node
        if token.kind == "number":
            return Number(float(token.text))
        if token.kind == "cell":
            table, row, column = token.text.split(".")
            return Cell((table, row, column))
        if token.text in _CALLS:
            return self.call(token.text)
        raise _not_a_term(token)

    def call(self, name: str) -> Node:
        self.expect("(")
        operands = [self.sum()]
        while self.peek() == ",":
            self.at += 1
            operands.append(self.sum())
        self.expect(")")
        return Operation(name, tuple(operands))

    def binary(self, allowed: str | dict[str, Callable[[float, float], bool]]) -> str | None:
        """The next operator if it is one of ``allowed``; it has to stand between spaces."""
        if self.peek() is None or self.peek() not in allowed:
            return None
        token = self.tokens[self.at]
        if token.text in _SPACED and not token.spaced:
            raise ClaimError(f"{token.text!r} needs a space on both sides", token.start + 1, "ids may hold '-'")
        self.at += 1
        return token.text

    def peek(self) -> str | None:
        return self.tokens[self.at].text if self.at < len(self.tokens) else None

    def next(self, wanted: str) -> _Token:
        if self.at == len(self.tokens):
            raise ClaimError(f"the claim ends where {wanted} should stand", len(self.text) + 1)
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> None:
        token = self.next(repr(text))
        if token.text != text:
            raise ClaimError(f"expected {text!r}, found {token.text!r}", token.start + 1)

    def end(self) -> None:
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            raise ClaimError(
                f"{token.text!r} does not follow here", token.start + 1, "put an operator between two terms"
            )


def _not_a_term(token: _Token) -> ClaimError:
    column = token.start + 1
    if token.kind != "name":
        return ClaimError(f"{token.text!r} does not follow here", column, "expected a number, a cell or '('")
    if token.text.count(".") > 2:
        return ClaimError(
            f"{token.text!r} has too many parts", column, "a cell is table.row.column; write ' - ' for minus"
        )
    return ClaimError(f"{token.text!r} is not a cell", column, "a cell is table.row.column")


def _references(node: Node) -> list[Reference]:
    if isinstance(node, Cell):
        return [node.reference]
    return [] if isinstance(node, Number) else [ref for operand in node.operands for ref in _references(operand)]


def _chain(chain: Chain, lookup: Lookup) -> bool | None:
    numbers = [_number(operand, lookup) for operand in chain.operands]
    values = [n for n in numbers if n is not None]
    if len(values) < len(numbers):
        return None
    return all(_COMPARE[op](a, b) for op, a, b in zip(chain.comparisons, values, values[1:], strict=False))


def _number(node: Node, lookup: Lookup) -> float | None:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Cell):
        return lookup(node.reference)
    assert isinstance(node, Operation)  # a chain stands at the top only: the grammar has it nowhere else
    operands = [_number(operand, lookup) for operand in node.operands]
    values = [v for v in operands if v is not None]
    if len(values) < len(operands):
        return None
    value = _apply(node.op, values)
    return value if value is not None and math.isfinite(value) else None


def _apply(op: str, values: list[float]) -> float | None:
    if op in _CALLS:
        return _CALLS[op](values)
    if len(values) == 1:
        return -values[0]
    a, b = values
    if op == "/":
        return a / b if b else None
    if op == "*":
        return a * b
    return a + b if op == "+" else a - b
