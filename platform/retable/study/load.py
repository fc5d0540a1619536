"""YAML file -> Study. Every fault is reported at once, with file, line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retable.study.problems import Problem, StudyError, YamlPath, dotted, nearest
from retable.study.schema import Study

Marks = dict[YamlPath, tuple[int, int]]


@dataclass(frozen=True)
class Source:
    """Where a study's parts stand in its file. ``marks`` are 1-based (line, column) by YAML path."""

    file: str
    marks: Marks = field(default_factory=dict)

    def problem(self, path: YamlPath, message: str, value: Any = None, hint: str | None = None) -> Problem:
        """A problem at ``path``, or at the nearest enclosing place that stands in the file."""
        at = path
        while at and at not in self.marks:
            at = at[:-1]
        line, column = self.marks.get(at, (1, 1))
        shown = None if value is None or isinstance(value, dict | list) else str(value)
        return Problem(self.file, line, column, dotted(path), message, shown, hint)


@dataclass(frozen=True)
class LoadedStudy:
    """A study and where its parts stand."""

    study: Study
    source: Source


def load(path: Path | str) -> LoadedStudy:
    """Read and check a study file's form: YAML, known keys, types, references inside the file.

    Settings are checked against models and datasets by :func:`retable.study.plan.check`.

    Raises:
        StudyError: the file is missing or faulty; every fault found is listed.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError([Problem(str(path), 1, 1, "", "there is no such study file", hint=_other_studies(path))])
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, file: str = "<study>") -> LoadedStudy:
    """Like :func:`load`, from a text."""
    source = Source(file)
    problems: list[Problem] = []
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise StudyError([Problem(file, line, column, "", f"this is not YAML: {error.problem}")]) from None
    if not isinstance(node, MappingNode):
        raise StudyError([Problem(file, 1, 1, "", "a study file is a mapping that begins with 'study: NAME'")])
    tree = _plain(node, (), source, problems)
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        problems.extend(_schema_problems(error, source))
        raise StudyError(problems) from None
    problems.extend(_reference_problems(study, source))
    if problems:
        raise StudyError(problems)
    return LoadedStudy(study, source)


def _plain(node: Node, path: YamlPath, source: Source, problems: list[Problem]) -> Any:
    source.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, MappingNode):
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if key in tree:
                problems.append(
                    source.problem(here, f"{key!r} stands here and again on line {key_node.start_mark.line + 1}")
                )
            source.marks[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            tree[key] = _plain(value_node, here, source, problems)
        return tree
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, i), source, problems) for i, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(node)


def _scalar(node: ScalarNode) -> Any:
    """YAML 1.2 scalars; ``1e-4`` (no dot) is a number too, as every recipe writer means it."""
    text, tag = str(node.value), str(node.tag).rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text.replace("_", ""), 0) if text.lower()[:2] in ("0x", "0o") else int(text.replace("_", ""))
    if tag == "float" or (tag == "str" and node.style is None and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text)):
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan"))
    return text


def _schema_problems(error: ValidationError, source: Source) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        if item["type"] == "extra_forbidden":
            yield source.problem(path, f"unknown key {path[-1]!r}", None, nearest(str(path[-1]), _keys(path[:-1])))
        elif item["type"] == "missing":
            yield source.problem(path[:-1], f"{str(path[-1])!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            value = item["input"]
            read = "" if isinstance(value, dict | list) or str(value) in message else f", but is {value!r}"
            yield source.problem(path, f"{message}{read}", value)


def _keys(path: YamlPath) -> list[str]:
    """The keys that the schema knows at ``path``."""
    model: Any = Study
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _element(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _element(annotation: Any) -> Any:
    """The model inside ``tuple[Row, ...]``, ``dict[str, Column]`` or ``Paper | None``."""
    inner = [_element(a) for a in getattr(annotation, "__args__", ())]
    models = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
    return models[0] if models else annotation


def _reference_problems(study: Study, source: Source) -> Iterator[Problem]:
    if study.default_profile not in study.profiles:
        hint = nearest(study.default_profile, study.profiles)
        yield source.problem(("default_profile",), f"there is no profile {study.default_profile!r}", None, hint)
    seen_tables: set[str] = set()
    for t, table in enumerate(study.tables):
        at: YamlPath = ("tables", t)
        if table.id in seen_tables:
            yield source.problem((*at, "id"), f"table id {table.id!r} is used twice")
        seen_tables.add(table.id)
        for name, column in table.columns.items():
            for operand in (*column.fuse, *column.mean_of):
                if operand not in table.columns:
                    message = f"column {name!r} uses {operand!r}, which is not a column of {table.id!r}"
                    yield source.problem((*at, "columns", name), message, operand, nearest(operand, table.columns))
        if table.baseline is not None and not _has_row(study, table.id, table.baseline):
            yield source.problem((*at, "baseline"), f"there is no row {table.baseline!r}", table.baseline)
        yield from _row_problems(study, t, source)


def _row_problems(study: Study, t: int, source: Source) -> Iterator[Problem]:
    table = study.tables[t]
    first: dict[str, int] = {}
    for r, row in enumerate(table.rows):
        at: YamlPath = ("tables", t, "rows", r)
        if row.id in first:
            before = source.marks.get(("tables", t, "rows", first[row.id]), (0, 0))[0]
            hint = "labels may repeat, ids may not"
            yield source.problem((*at, "id"), f"row id {row.id!r} is used on line {before} already", row.id, hint)
        first.setdefault(row.id, r)
        for part in ("published", "text", "cells"):
            for name in getattr(row, part):
                if name not in table.columns:
                    message = f"table {table.id!r} has no column {name!r}"
                    yield source.problem((*at, part, name), message, None, nearest(name, table.columns))


def _has_row(study: Study, table: str, reference: str) -> bool:
    table_id, dot, row_id = reference.rpartition(".")
    rows = {(t.id, row.id) for t in study.tables for row in t.rows}
    return (table_id if dot else table, row_id) in rows


def _other_studies(path: Path) -> str:
    beside = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    return f"{path.parent}/ holds {', '.join(beside)}" if beside else f"{path.parent} holds no study"
