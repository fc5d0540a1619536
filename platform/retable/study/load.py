"""YAML file -> Study. Every fault is reported at once, with file, line and column."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from retable.study import references
from retable.study.problems import Problem, StudyError, YamlPath, nearest
from retable.study.schema import Study
from retable.study.source import Source, read


@dataclass(frozen=True)
class LoadedStudy:
    """A study and where its parts stand."""

    study: Study
    source: Source


def load(path: Path | str) -> LoadedStudy:
    """Read and check a study file's form: YAML, known keys, types, references inside the file.

    Settings are checked against models and datasets by :func:`retable.study.check.check`.

    Raises:
        StudyError: the file is missing or faulty; every fault found is listed.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError([Problem(str(path), 1, 1, "", "there is no such study file", hint=_other_studies(path))])
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise StudyError([Problem(str(path), line, column, "", "this is not UTF-8 text")]) from None
    return parse(text, str(path))


def parse(text: str, file: str = "<study>") -> LoadedStudy:
    """Like :func:`load`, from a text."""
    tree, source, problems = read(text, file)
    study, errors = _validated(tree)
    problems += _schema_problems(errors, source)
    if study is None:
        raise StudyError(_in_order(problems))
    loaded = LoadedStudy(study, source)
    unsound = [*references.problems(study, source)]
    if problems or unsound:
        raise StudyError(_in_order([*problems, *unsound]), None if unsound else loaded)
    return loaded


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: (p.line, p.column))


def _validated(tree: dict[str, Any]) -> tuple[Study | None, list[ErrorDetails]]:
    """The study and what is wrong with it: the study without its faulty leaves, where that still makes one."""
    try:
        return Study.model_validate(tree), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    try:
        return Study.model_validate(_without(tree, errors)), errors
    except ValidationError:
        return None, errors


def _without(tree: dict[str, Any], errors: Sequence[ErrorDetails]) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    for item in errors:
        *parents, last = item["loc"] or ("",)
        node: Any = tree
        for part in parents:
            inside = isinstance(node, list) or (isinstance(node, dict) and part in node)
            node = node[part] if inside else None
        if isinstance(node, dict) and (item["type"] == "extra_forbidden" or not isinstance(item["input"], dict)):
            node.pop(last, None)
    return tree


def _schema_problems(errors: Sequence[ErrorDetails], source: Source) -> Iterator[Problem]:
    for item in errors:
        path = tuple(part for part in item["loc"] if part != "[key]")
        inner = any(e["loc"][: len(item["loc"])] == item["loc"] and e is not item for e in errors)
        if item["type"] == "too_short" and inner:
            continue  # pydantic leaves faulty items out and then counts what is left
        if item["type"] == "extra_forbidden":
            yield source.problem(path, f"unknown key {path[-1]!r}", None, nearest(str(path[-1]), _keys(path[:-1])))
        elif item["type"] == "missing":
            yield source.problem(path[:-1], f"{str(path[-1])!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            value = item["input"]
            read = "" if isinstance(value, dict | list) or str(value) in message else f", but is {value!r}"
            numeric = isinstance(value, int | float)
            hint = f'text that looks like a number needs quotes: "{value}"' if numeric and "string" in message else None
            yield source.problem(path, f"{message}{read}", value, hint)


def _keys(path: YamlPath) -> list[str]:
    """The keys that the schema knows at ``path``."""
    here: Any = Study
    for part in path:
        fields = here.model_fields if isinstance(here, type) and issubclass(here, BaseModel) else {}
        here = _present(fields[str(part)].annotation) if part in fields else _item(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _item(annotation: Any) -> Any:
    """What a ``tuple[Row, ...]`` or a ``dict[Identifier, Column]`` holds."""
    arguments = get_args(annotation)
    index = 1 if get_origin(annotation) is dict else 0
    return _present(arguments[index]) if len(arguments) > index else None


def _present(annotation: Any) -> Any:
    """``Paper`` of ``Paper | None``."""
    choices = [a for a in get_args(annotation) if a is not type(None)]
    return choices[0] if type(None) in get_args(annotation) else annotation


def _other_studies(path: Path) -> str:
    beside = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    return f"{path.parent}/ holds {', '.join(beside)}" if beside else f"{path.parent} holds no study"
