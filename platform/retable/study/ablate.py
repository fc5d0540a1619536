"""A configuration -> a new study file that takes it apart: leave-one-out and one-at-a-time tables around it. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from retable import registry
from retable.study.check import check
from retable.study.load import LoadedStudy, parse
from retable.study.problems import Problem, StudyError, nearest
from retable.study.resolve import SECTIONS, Unresolvable, leaves, overlay, profile_leaves, resolve
from retable.study.schema import Profile

OUTSIDE = ("data.holdout", "data.num_classes", "data.dataset", "data.split", "data.on_damage")
"""Where the configuration was measured, which is no knob of it."""


@dataclass(frozen=True)
class Ablation:
    """A new study's text, its knobs with (study's value, configuration's value), and rows that cannot be."""

    text: str
    knobs: Mapping[str, tuple[Any, Any]]
    impossible: Mapping[str, str]


def ablate(
    loaded: LoadedStudy,
    profile: str,
    config: Mapping[str, Any],
    *,
    origin: str,
    knobs: Sequence[str] = (),
    metrics: Sequence[str] = ("params", "top1"),
    note: str | None = None,
) -> Ablation:
    """Tables around ``config`` (a resolved config as plain data), against the study's base under ``profile``.

    ``origin`` says where it is from, for people, and ``note`` what each of its numbers must say of itself. Without
    ``knobs``, every setting that differs from the base is one.

    Raises:
        StudyError: another model, an unknown knob, or nothing that differs.
    """
    study = loaded.study
    settings = overlay(leaves(study.base, ("base",)), profile_leaves(study, profile))
    base = resolve(settings, study.profiles[profile])
    theirs = _settings(config)
    mine = _settings(base.config.model_dump(mode="json"))
    found = _knobs(mine, theirs, knobs)
    plain = {path: leaf.value for path, leaf in settings.items()} | {"data.dataset": base.config.data.dataset}
    differing = {path: theirs[path] for path in theirs if mine.get(path) != theirs[path] and path not in OUTSIDE}
    top = {**plain, **differing}  # knobs that were not asked for stay as the configuration has them
    impossible: dict[str, str] = {}

    def rows(choices: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[CommentedMap]:
        kept = []
        for name, changes in choices.items():
            reason = _fault({**top, **changes})
            if reason is None:
                kept.append(_flow({"id": name, "label": labels[name], **({"set": _flow(changes)} if changes else {})}))
            else:
                impossible[labels[name]] = reason
        return kept

    body = _body(study.study, profile, origin, top, found, metrics, rows, [note] if note else [])
    text = _comment(study.study, origin, found, impossible) + _yaml(body)
    made = parse(text, f"{study.study}-ablation.yaml")
    problems = check(made)
    if problems:
        raise StudyError(problems)
    return Ablation(text, found, impossible)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settable leaves of a resolved config."""
    linked = {f"model.{field}" for field in registry.LINKED}
    return {path: leaf.value for path, leaf in leaves(config, ()).items() if path not in linked}


def _knobs(mine: Mapping[str, Any], theirs: Mapping[str, Any], asked: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    if mine["model.name"] != theirs["model.name"]:
        message = f"the configuration is a {theirs['model.name']}, the study's base a {mine['model.name']}"
        raise StudyError([Problem("--from", 1, 1, "model.name", message, hint="ablate it in a study of that model")])
    differ = {p: (mine[p], v) for p, v in theirs.items() if p in mine and mine[p] != v and p not in OUTSIDE}
    unknown = [p for p in asked if p not in differ]
    if unknown:
        problems = []
        for path in unknown:
            message = "has the study's own value in this configuration" if path in mine else "is no setting of it"
            problems.append(Problem("--knobs", 1, 1, path, message, hint=nearest(path, differ) if differ else None))
        raise StudyError(problems)
    if not differ:
        message = "the configuration is the study's base: there is nothing to leave out"
        raise StudyError([Problem("--from", 1, 1, "", message)])
    return {p: differ[p] for p in asked} if asked else differ


def _body(
    name: str,
    profile: str,
    origin: str,
    top: Mapping[str, Any],
    knobs: Mapping[str, tuple[Any, Any]],
    metrics: Sequence[str],
    rows: Any,
    notes: list[str],
) -> CommentedMap:
    ids = {path: path.replace(".", "-").replace("_", "-") for path in knobs}
    words = {path: f"{path} = {_word(theirs)}" for path, (_, theirs) in knobs.items()}
    without = {f"without-{ids[p]}": {p: mine} for p, (mine, _) in knobs.items()}
    alone = {
        f"only-{ids[p]}": {q: mine for q, (mine, _) in knobs.items() if q != p} for p in knobs
    }  # fmt: skip
    labels = {"full": "full", "base": "the study's base"}
    labels |= {f"without-{ids[p]}": f"without {words[p]}" for p in knobs}
    labels |= {f"only-{ids[p]}": f"only {words[p]}" for p in knobs}
    caption = "Each setting of the configuration put back to the study's base"
    tables: list[tuple[str, str, str, dict[str, Any]]] = [("leave-one-out", caption, "full", {"full": {}, **without})]
    if len(knobs) > 1:
        every = {p: mine for p, (mine, _) in knobs.items()}
        caption = "Each setting of the configuration alone, on the study's base"
        tables.append(("one-at-a-time", caption, "base", {"base": every, **alone, "full": {}}))
    made = []
    for table, caption, baseline, choices in tables:
        kept = rows(choices, labels)
        first = {"baseline": baseline} if any(row["id"] == baseline for row in kept) else {}
        last = {"notes": notes} if notes else {}
        made.append({"id": table, "caption": caption, **first, "columns": _columns(metrics), "rows": kept, **last})
    return CommentedMap(
        study=f"{name}-ablation",
        question=f"What does each setting of {origin} contribute?",
        default_profile=profile,
        base=_nested(top),
        profiles={profile: _flow({})},
        tables=made,
    )


def _columns(metrics: Sequence[str]) -> dict[str, Any]:
    forms: dict[str, dict[str, Any]] = {
        "params": {"metric": "params", "unit": "M", "decimals": 2, "better": "lower"},
        "gmacs": {"metric": "gmacs", "unit": "G", "decimals": 1, "better": "lower"},
    }
    return {m: _flow(forms.get(m, {"metric": m, "unit": "%", "decimals": 1})) for m in metrics}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = _flow_list(value)
    return {section: tree[section] for section in SECTIONS if section in tree}


def _fault(flat: Mapping[str, Any]) -> str | None:
    try:
        resolve(leaves(_nested(flat), ("base",)), Profile())
    except Unresolvable as error:
        return str(error)
    return None


def _comment(name: str, origin: str, knobs: Mapping[str, Any], impossible: Mapping[str, str]) -> str:
    count = 2 * len(knobs) + 1 + (len(knobs) > 1) - (len(knobs) == 1)
    lines = [
        f"Question: what does each setting of {origin} contribute?",
        f"Command:  retable run {name}-ablation.yaml --seeds 5",
        f"Cost:     at most {count} trainings per seed; `retable plan` says which are there already.",
        "Expect:   nothing: the configuration was chosen by its value, so what leaving a setting out costs is biased",
        "          towards a loss on the videos it was chosen on. Other seeds and other videos tell.",
    ]
    lines += [f"Left out: {label}, which is no valid config: {reason}" for label, reason in impossible.items()]
    return "".join(f"# {line}\n" for line in lines)


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _flow(mapping: Mapping[str, Any]) -> CommentedMap:
    made = CommentedMap((key, _flow_list(value)) for key, value in mapping.items())
    made.fa.set_flow_style()
    return made


def _flow_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    made = CommentedSeq(value)
    made.fa.set_flow_style()
    return made


def _yaml(body: Any) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 118
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(body, stream)
    return stream.getvalue()
