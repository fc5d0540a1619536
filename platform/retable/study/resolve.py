"""Overlays to one typed config: base < table < column < row < cell < profile < ``--set``, each leaf with its origin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from retable import registry
from retable.data import layouts
from retable.data.config import Flow
from retable.data.errors import FlowUnavailable
from retable.data.flow import pinned
from retable.study import serving
from retable.study.config import Config, Data, Protocol, Recipe, Resources
from retable.study.problems import YamlPath, nearest
from retable.study.schema import Profile, Study
from retable.weights import WeightsError, sources

SECTIONS: dict[str, type[BaseModel] | None] = {
    "model": None,  # checked by the model file's own Config
    "data": Data,
    "recipe": Recipe,
    "protocol": Protocol,
    "resources": Resources,
}


@dataclass(frozen=True)
class Leaf:
    """A setting and the place in the study file that gave it."""

    value: Any
    origin: YamlPath


Leaves = dict[str, Leaf]


@dataclass(frozen=True)
class Resolved:
    """One cell's settings, typed."""

    config: Config
    protocol: Protocol
    resources: Resources


@dataclass(frozen=True)
class Fault:
    """A setting that cannot be: its dotted path, where it was set, and why."""

    path: str
    origin: YamlPath
    message: str
    value: Any = None
    hint: str | None = None


class Unresolvable(ValueError):
    """The settings do not make a config; ``faults`` says why."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{f.path}: {f.message}" for f in self.faults))


def leaves(tree: Mapping[str, Any], origin: YamlPath, prefix: str = "") -> Leaves:
    """Flatten nested settings to dotted leaves. A list or scalar is a leaf; an empty mapping vanishes."""
    found: Leaves = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            found |= leaves(value, (*origin, str(key)), path)
        else:
            found[path] = Leaf(value, (*origin, str(key)))
    return found


def overlay(*layers: Leaves) -> Leaves:
    """Later layers win. Naming another model drops the knobs of the one before it.

    A scalar replaces a subtree, and a setting below a scalar replaces the scalar.
    """
    merged: Leaves = {}
    for layer in layers:
        name = layer.get("model.name")
        if name is not None and name.value != _value(merged, "model.name"):
            merged = {p: leaf for p, leaf in merged.items() if not p.startswith("model.")}
        for path in layer:
            merged = {p: leaf for p, leaf in merged.items() if not _overlap(p, path)}
        merged |= layer  # at the end, so that the last leaf is the one set last
    return merged


def profile_leaves(study: Study, name: str) -> Leaves:
    """The settings that a profile overlays (its dataset renaming is applied by :func:`resolve`)."""
    found: Leaves = {}
    for section in SECTIONS:
        found |= leaves(getattr(study.profiles[name], section), ("profiles", name, section), section)
    return found


def resolve(settings: Leaves, profile: Profile) -> Resolved:
    """Typed config, protocol and resources of fully overlaid settings.

    Linked fields are filled here: the model's ``frames`` and ``size`` from ``data.clip``, its ``num_classes`` from
    ``data.num_classes`` or the dataset's layout. ``data.flow`` is there if and only if the model takes flow.

    Raises:
        Unresolvable: unknown keys, wrong types, impossible values; every one found.
    """
    faults: list[Fault] = []
    tree = _nest(settings, faults)
    data = _section("data", _renamed(tree.get("data", {}), profile), settings, faults)
    recipe = _section("recipe", tree.get("recipe", {}), settings, faults)
    protocol = _section("protocol", tree.get("protocol", {}), settings, faults)
    resources = _section("resources", tree.get("resources", {}), settings, faults)
    if not isinstance(data, Data):
        unsized: list[Fault] = []
        _model(dict(tree.get("model", {})), Data(dataset="", num_classes=2), settings, unsized)
        # What the model says of its knobs together may hang on the clip's size, which is unknown here.
        raise Unresolvable([*faults, *(f for f in unsized if f.path != "model")])
    data = _counted(data, settings, faults)
    model = _model(dict(tree.get("model", {})), data, settings, faults)
    data = _with_flow(data, model, settings, faults)
    if isinstance(protocol, Protocol) and protocol.checkpoint == "best_val" and data.holdout == 0:
        message = "best_val chooses among epochs on held-out videos, and there are none"
        where = _origin("protocol.checkpoint", settings)
        faults.append(Fault("protocol.checkpoint", where, message, "best_val", "set data.holdout, or checkpoint: last"))
    if faults:
        raise Unresolvable(faults)
    assert isinstance(recipe, Recipe)
    assert isinstance(protocol, Protocol)
    assert isinstance(resources, Resources)
    if refused := list(serving.refusals(model, data, recipe, protocol)):
        raise Unresolvable(Fault(p, _origin(p, settings), message, value, hint) for p, value, message, hint in refused)
    return Resolved(Config(model=model, data=data, recipe=recipe), protocol, resources)


def _value(settings: Leaves, path: str) -> Any:
    return settings[path].value if path in settings else None


def _overlap(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _nest(settings: Leaves, faults: list[Fault]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in settings.items():
        *parents, last = path.split(".")
        section = path.partition(".")[0]
        if section not in SECTIONS:
            message = f"unknown section {section!r}"
            faults.append(Fault(path, leaf.origin, message, leaf.value, nearest(section, SECTIONS)))
            continue
        if not parents:
            message = f"is a section, so it cannot be {leaf.value!r}"
            faults.append(Fault(path, leaf.origin, message, leaf.value, f"set {path}.NAME"))
            continue
        if isinstance(leaf.value, float) and not math.isfinite(leaf.value):
            faults.append(Fault(path, leaf.origin, f"must be finite, but is {leaf.value}", leaf.value))
            continue
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf.value
    return tree


def _renamed(data: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    name = data.get("dataset")
    return {**data, "dataset": profile.datasets.get(name, name)} if isinstance(name, str) else dict(data)


def _counted(data: Data, settings: Leaves, faults: list[Fault]) -> Data:
    try:
        classes = layouts.num_classes(data.dataset)
    except LookupError as error:
        faults.append(Fault("data.dataset", _origin("data.dataset", settings), str(error), data.dataset))
        return data.model_copy(update={"num_classes": data.num_classes or 2})
    count = data.num_classes or classes
    if count is None:
        message = f"layout of {data.dataset!r} does not fix the number of classes: set data.num_classes"
        faults.append(Fault("data.num_classes", _origin("data.dataset", settings), message))
        count = 2
    return data.model_copy(update={"num_classes": count})


def _model(tree: dict[str, Any], data: Data, settings: Leaves, faults: list[Fault]) -> dict[str, Any]:
    name = tree.pop("name", None)
    if not isinstance(name, str):
        faults.append(Fault("model.name", _origin("model", settings), "a config needs model.name"))
        return {}
    try:
        file, base = registry.resolve(name)
    except registry.UnknownModelError as error:
        faults.append(Fault("model.name", _origin("model.name", settings), str(error), name))
        return {}
    for field, home in registry.LINKED.items():
        if field in tree:
            where = _origin(f"model.{field}", settings)
            faults.append(
                Fault(f"model.{field}", where, f"is set once, as {home}", tree.pop(field), f"move it to {home}")
            )
    known = file.config_class.model_fields
    # A profile's knobs apply to the models that have them: one profile serves rows of several models.
    tree = {k: v for k, v in tree.items() if k in known or _origin(f"model.{k}", settings)[:1] != ("profiles",)}
    linked = {k: _linked(data, home) for k, home in registry.LINKED.items() if k in known}
    changed = {k: getattr(base, k) for k in base.model_fields_set if k not in registry.LINKED}
    try:
        config = file.config_class.model_validate({**changed, **tree, **linked})
    except ValidationError as error:
        faults.extend(_faults("model", error, settings, list(known)))
        return {}
    # A plug-in keeps its path, so that workers find it; its id does not (identity.config_id). Weights likewise.
    kept = str(Path(name).resolve()) if name.endswith(".py") else file.name
    model = {"name": kept, **config.model_dump(mode="json")}
    try:
        weights = sources.pinned(file, config)
    except WeightsError as error:
        faults.append(Fault("model.weights", _origin("model.weights", settings), str(error), model["weights"]))
        return {}
    return model if weights is None else {**model, "weights": weights}


def _with_flow(data: Data, model: Mapping[str, Any], settings: Leaves, faults: list[Fault]) -> Data:
    """``data.flow`` is that of the models that take flow, complete: the others' runs do not depend on it."""
    if not model:
        return data
    knobs = dict(model)
    file = registry.load(knobs.pop("name"))
    inputs = file.inputs(file.config_class.model_validate(knobs))
    if all(spec.modality != "flow" for spec in inputs.values()):
        return data.model_copy(update={"flow": None})
    try:
        return data.model_copy(update={"flow": pinned(data.flow or Flow())})
    except FlowUnavailable as error:
        weights = data.flow.weights if data.flow else None
        faults.append(Fault("data.flow.weights", _origin("data.flow.weights", settings), str(error), weights))
        return data


def _linked(data: Data, home: str) -> Any:
    value: Any = data
    for part in home.split(".")[1:]:
        value = getattr(value, part)
    return value


def _section(name: str, tree: Mapping[str, Any], settings: Leaves, faults: list[Fault]) -> BaseModel | None:
    section = SECTIONS[name]
    assert section is not None
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        faults.extend(_faults(name, error, settings, []))
        return None


def _faults(section: str, error: ValidationError, settings: Leaves, fields: list[str]) -> list[Fault]:
    found = []
    for item in error.errors(include_url=False):
        loc = [str(part) for part in item["loc"] if not isinstance(part, int)]
        path = ".".join([section, *loc])
        hint = None
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = fields if len(loc) == 1 and fields else _fields(section, loc[:-1])
            message, hint = f"there is no {path!r}", nearest(loc[-1], known)
        elif item["type"] == "missing":
            message = "is required"
        value = item.get("input") if loc else None
        found.append(Fault(path, _origin(path, settings), message, value, hint))
    return found


def _fields(section: str, parents: list[str]) -> list[str]:
    model: Any = SECTIONS[section]
    for parent in parents:
        model = model.model_fields[parent].annotation if model is not None else None
    return list(model.model_fields) if model is not None else []


def _origin(path: str, settings: Leaves) -> YamlPath:
    """Where ``path`` was set: itself, else the last-set leaf below it or below its parents."""
    while path:
        below = [leaf.origin for p, leaf in settings.items() if p == path or p.startswith(f"{path}.")]
        if below:
            return below[-1]
        path = path.rpartition(".")[0]
    return ()
