"""What can be said of a cluster file without a network: names, form, safety, what is still to fill in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retable.cluster import form, kubernetes, names, safety
from retable.cluster.document import ClusterFile
from retable.cluster.form import Pins
from retable.study.problems import Problem

PROVIDERS = ("aws", "gcp", "local")


@dataclass(frozen=True)
class Findings:
    """What is wrong with a file, and what its owner has yet to fill in. Both empty: it can go up."""

    problems: tuple[Problem, ...]
    to_fill_in: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """``errors`` and ``to_fill_in``, each a list in the fixed form of problems."""
        return {
            "errors": [problem.to_json() for problem in self.problems],
            "to_fill_in": [problem.to_json() for problem in self.to_fill_in],
        }


def examine(file: ClusterFile, pins: Pins, schema: tuple[Problem, ...] = ()) -> Findings:
    """Our checks of a file, with what Ray's own ``schema`` says of it, in the order of its lines."""
    if kubernetes.is_manifest(file):
        found = [*kubernetes.problems(file, pins)]
    elif not file.provider:
        found = _provider(file)  # whatever this is, `ray up` has no use for it
    else:
        found = [*_provider(file), *names.problems(file), *form.problems(file, pins), *safety.problems(file)]
    named = {(p.line, p.path) for p in found}
    found += [p for p in schema if (p.line, p.path) not in named]
    return Findings(_in_order(found), _in_order(file.placeholders()))


def _provider(file: ClusterFile) -> list[Problem]:
    if file.provider in PROVIDERS:
        return []
    message = f"provider {file.provider!r} is not one that retable checks" if file.provider else "provider is missing"
    return [file.problem(("provider", "type"), message, f"type: one of {', '.join(PROVIDERS)}", file.provider)]


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    once = {(p.line, p.column, p.message): p for p in reversed(problems)}  # what an anchor says, at its place only
    return tuple(once[place] for place in sorted(once))
