"""YAML text -> plain data, and where every part of it stands. Knows nothing of studies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retable.study.problems import Problem, StudyError, YamlPath, dotted

Marks = dict[YamlPath, tuple[int, int]]

# YAML wants a dot in a float; every recipe writer means a number by 1e-4.
_DOTLESS_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_PREFIXED_INT = re.compile(r"[-+]?0[box]", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where a file's parts stand in it. ``marks`` are 1-based (line, column) by YAML path."""

    file: str
    marks: Marks = field(default_factory=dict)

    def line(self, path: YamlPath) -> int:
        """The line of ``path``, or of the nearest enclosing place that stands in the file."""
        return self._mark(path)[0]

    def problem(self, path: YamlPath, message: str, value: Any = None, hint: str | None = None) -> Problem:
        """A problem at ``path``, or at the nearest enclosing place that stands in the file."""
        line, column = self._mark(path)
        shown = None if value is None or isinstance(value, dict | list) else str(value)
        return Problem(self.file, line, column, dotted(path), message, shown, hint)

    def _mark(self, path: YamlPath) -> tuple[int, int]:
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, (1, 1))


STUDY_FORM = "a study file is a mapping that begins with 'study: NAME'"


def read(text: str, file: str, form: str = STUDY_FORM) -> tuple[dict[str, Any], Source, list[Problem]]:
    """The mapping in a YAML text, where its parts stand, and the faults that leave it readable (keys given twice).

    ``form`` says what the file should be, where it is no mapping.

    Raises:
        StudyError: it is not YAML, or not a mapping.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise StudyError([Problem(file, line, column, "", f"this is not YAML: {error.problem}")]) from None
    except YAMLError as error:  # a character that no YAML file holds; its error knows the position only
        before = text[: getattr(error, "position", 0)]
        column = len(before) - before.rfind("\n")
        reason = str(error).splitlines()[0]
        raise StudyError([Problem(file, before.count("\n") + 1, column, "", f"this is not YAML: {reason}")]) from None
    if not isinstance(node, MappingNode):
        raise StudyError([Problem(file, 1, 1, "", form)])
    reader = _Reader(Source(file))
    tree = reader.plain(node, ())
    assert isinstance(tree, dict)
    return tree, reader.source, reader.problems


class _Reader:
    def __init__(self, source: Source):
        self.source = source
        self.problems: list[Problem] = []
        self._inside: set[int] = set()

    def plain(self, node: Node, path: YamlPath) -> Any:
        """Dicts, lists and scalars. A mapping's value is marked where its key stands, an item where it begins."""
        self.source.marks.setdefault(path, _place(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._inside:
            self.problems.append(self.source.problem(path, "this alias stands inside what it names"))
            return None
        self._inside.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._inside.discard(id(node))

    def _mapping(self, node: MappingNode, path: YamlPath) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = _place(key_node)
            if not isinstance(key_node, ScalarNode):
                file = self.source.file
                self.problems.append(
                    Problem(file, line, column, dotted(path), "a key is a word, not a list or a mapping")
                )
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in tree:
                self.problems.append(self.source.problem(here, f"{key!r} stands here and again on line {line}"))
            self.source.marks[here] = line, column
            tree[key] = self.plain(value_node, here)
        return tree

    def _scalar(self, node: ScalarNode, path: YamlPath) -> Any:
        text, tag = str(node.value), str(node.tag).rpartition(":")[2]
        if tag == "str" and node.style is None and _DOTLESS_FLOAT.fullmatch(text):
            tag = "float"
        try:
            return _typed(text, tag)
        except ValueError:
            self.problems.append(self.source.problem(path, f"{text!r} is not of YAML type {tag}", text))
            return None


def _typed(text: str, tag: str) -> Any:
    """A scalar as YAML 1.2 reads it; text for types that a study has no use for."""
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text.replace("_", ""), 0 if _PREFIXED_INT.match(text) else 10)
    if tag == "float":
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
