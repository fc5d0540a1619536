"""A Ray cluster file as plain data, and where every part of it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retable.study.problems import Problem, StudyError, YamlPath
from retable.study.source import Marks, Source, read

PLACEHOLDER = "CHANGE-ME"


class ClusterFileError(StudyError):
    """A cluster file cannot be used. ``problems`` holds every fault that was found."""


class ClusterError(RuntimeError):
    """A cluster cannot be reached or started as things are; the message says what to do."""


@dataclass(frozen=True)
class ClusterFile:
    """What a cluster file says. Anything may be missing or of the wrong type: it has only been read."""

    tree: Mapping[str, Any]
    source: Source

    @property
    def provider(self) -> str:
        """``aws``, ``gcp``, ``local``, ...; empty where it is not said."""
        return str(self.section("provider").get("type", ""))

    @property
    def name(self) -> str:
        """The cluster's name."""
        return str(self.tree.get("cluster_name", "default"))

    @property
    def head_type(self) -> str | None:
        """The node type of the head; None for a provider without node types."""
        named = self.tree.get("head_node_type")
        return named if isinstance(named, str) else None

    def section(self, *path: str) -> Mapping[str, Any]:
        """The mapping at ``path``; empty where there is none."""
        here: Any = self.tree
        for part in path:
            here = here.get(part) if isinstance(here, Mapping) else None
        return here if isinstance(here, Mapping) else {}

    @cached_property
    def node_configs(self) -> dict[str, Mapping[str, Any]]:
        """What each node type asks its cloud for, by type."""
        types = self.section("available_node_types")
        return {name: self.section("available_node_types", name, "node_config") for name in types}

    def commands(self, key: str) -> Iterator[tuple[YamlPath, str]]:
        """The shell commands of a list, each with its place."""
        listed = self.tree.get(key)
        for i, command in enumerate(listed if isinstance(listed, list) else ()):
            yield (key, i), str(command)

    def problem(self, path: YamlPath, message: str, hint: str, value: Any = None) -> Problem:
        """A problem at ``path``, or at the nearest enclosing place that stands in the file."""
        return self.source.problem(path, message, value, hint)

    def placeholders(self) -> list[Problem]:
        """What the owner of the file still has to fill in."""
        found: dict[tuple[int, int], Problem] = {}
        for path, value in leaves(self.tree):
            if PLACEHOLDER in str(value):
                problem = self.problem(path, f"{value!r} is still to be filled in", "see the comments beside it", value)
                found.setdefault((problem.line, problem.column), problem)  # an anchor's place once
        return list(found.values())


def leaves(node: Any, path: YamlPath = ()) -> Iterator[tuple[YamlPath, Any]]:
    """Every scalar of a tree with its path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from leaves(value, (*path, i))
    else:
        yield path, node


def load(path: Path) -> ClusterFile:
    """Read a cluster file.

    Raises:
        ClusterFileError: it is missing, or no YAML mapping, or a key stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ClusterFileError(
            [Problem(str(path), 1, 1, "cluster file", f"cannot be read: {error.strerror}")]
        ) from None
    except UnicodeDecodeError:
        raise ClusterFileError([Problem(str(path), 1, 1, "cluster file", "this is not UTF-8 text")]) from None
    return parse(text, str(path))


def parse(text: str, file: str = "<cluster>") -> ClusterFile:
    """Like :func:`load`, from a text."""
    try:
        tree, source, problems = read(
            text, file, form="a cluster file is a mapping that begins with 'cluster_name: NAME'"
        )
    except StudyError as error:
        raise ClusterFileError(error.problems) from None
    if problems:
        raise ClusterFileError(problems)
    marks = dict(source.marks)
    return ClusterFile(_merged(tree, (), marks), Source(file, marks))


def _merged(node: Any, path: YamlPath, marks: Marks) -> Any:
    """The tree with YAML's merge keys (``<<: *anchor``) carried out; what an anchor gave stands where it does."""
    if isinstance(node, list):
        return [_merged(item, (*path, i), marks) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    own = {key: _merged(value, (*path, key), marks) for key, value in node.items() if key != "<<"}
    for key, value in _taken(node.get("<<"), (*path, "<<"), marks):
        if key[-1] in own:
            continue
        own[str(key[-1])] = value
        for at in [at for at in marks if at[: len(key)] == key]:
            marks[(*path, *at[len(key) - 1 :])] = marks[at]
    return own


def _taken(merge: Any, path: YamlPath, marks: Marks) -> Iterator[tuple[YamlPath, Any]]:
    """The entries that a merge key takes in, the first of several mappings winning."""
    if isinstance(merge, list):
        for i, item in enumerate(merge):
            yield from _taken(item, (*path, i), marks)
    elif isinstance(merge, dict):
        for key, value in _merged(merge, path, marks).items():
            yield (*path, key), value
