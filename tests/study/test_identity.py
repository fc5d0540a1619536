"""Ids: everything that can change a number changes them, nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retable.study.config import Config, Protocol
from retable.study.identity import ID_HEX, PROVISIONAL, canonical, config_id, digest, run_id, view_key

BODY: dict[str, Any] = {
    "model": {"name": "msfnet", "groups": 4, "width": 24, "dropout": 0.5, "attention_at": [2, 4]},
    "data": {"dataset": "ucf101", "split": 1, "clip": {"frames": 8, "size": 112}, "num_classes": 101},
    "recipe": {"optimizer": "adam", "lr": 1e-4, "epochs": 40, "batch_size": 16},
}
KNOWN: dict[str, Any] = {
    "layout": "ucf101",
    "fingerprint": "f00d",
    "semantics": {"model": 1, "pipeline": 1, "loop": 1},
}


def changed(path: str, value: Any) -> Config:
    body = json.loads(json.dumps(BODY))
    *parents, last = path.split(".")
    node = body
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return Config.model_validate(body)


BASE = Config.model_validate(BODY)
ID = config_id(BASE, **KNOWN)


def test_the_ids_of_an_example_stay_what_they_are() -> None:
    # Changing them orphans every recorded run: only ever on purpose, with a migration of storages.
    assert ID == "24dafc982ac50c439ad1b5fb"
    assert run_id(ID, 3) == "f3af200db96f03466d3bc0c9"
    view = view_key(Protocol(clips=10, crops="three"), fingerprint="f00d", name="", subset="test", semantics=1)
    assert view == "e9a64a13592ad97d"


def test_ids_have_at_least_96_bits() -> None:
    assert ID_HEX * 4 >= 96
    assert len(ID) == len(run_id(ID, 0)) == ID_HEX
    assert int(ID, 16) >= 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.name", "msfnet2"),
        ("model.groups", 5),
        ("model.dropout", 0.25),
        ("model.attention_at", [4, 2]),
        ("model.extra", None),
        ("data.split", 2),
        ("data.stream", "flow"),
        ("data.clip.size", 128),
        ("data.clip.max_step", 2),
        ("data.clip.stride", 2),
        ("data.holdout", 0.1),
        ("data.on_damage", "drop"),
        ("data.num_classes", 51),
        ("recipe.lr", 2e-4),
        ("recipe.batch_size", 32),
        ("recipe.accumulation", 2),
        ("recipe.workers", 2),
        ("recipe.sync_bn", True),
        ("recipe.precision", "bf16"),
        ("recipe.deterministic", False),
        ("recipe.flip", "off"),
        ("recipe.crop", "jitter"),
        ("recipe.scales", {"flow": [1.0]}),
        ("recipe.schedule", {"every": 10}),
        ("recipe.epochs", 41),
    ],
)
def test_what_can_change_a_number_changes_the_id(path: str, value: Any) -> None:
    assert config_id(changed(path, value), **KNOWN) != ID


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "beef"},
        {"layout": "hmdb51"},
        {"semantics": {"model": 2, "pipeline": 1, "loop": 1}},
        {"semantics": {"model": 1, "pipeline": 2, "loop": 1}},
        {"semantics": {"model": 1, "pipeline": 1, "loop": 2}},
        {"parents": ("p",)},
        {"weights": "cafe"},
    ],
)
def test_what_a_config_is_trained_on_and_by_changes_the_id(changes: dict[str, Any]) -> None:
    assert config_id(BASE, **{**KNOWN, **changes}) != ID


def test_two_parents_are_not_the_one_of_their_joined_names() -> None:
    assert config_id(BASE, **KNOWN, parents=("a", "b")) != config_id(BASE, **KNOWN, parents=("ab",))
    assert config_id(BASE, **KNOWN, parents=("a", "b")) == config_id(BASE, **KNOWN, parents=("b", "a"))


def test_a_dataset_under_another_name_is_the_same_one() -> None:
    assert config_id(changed("data.dataset", "ucf101-copy"), **KNOWN) == ID


def test_without_its_fingerprint_a_dataset_is_its_name_and_the_id_provisional() -> None:
    unknown = {**KNOWN, "fingerprint": None}
    provisional = config_id(BASE, **unknown)
    assert provisional.startswith(PROVISIONAL)
    assert provisional[1:] != ID
    assert config_id(changed("data.dataset", "ucf101-copy"), **unknown) != provisional
    assert run_id(provisional, 0).startswith(PROVISIONAL)


def test_a_plug_in_is_the_same_model_wherever_its_file_lies_but_not_the_shipped_one() -> None:
    here, there = (config_id(changed("model.name", f"{place}/msfnet.py"), **KNOWN) for place in ("/a", "/b/c"))
    assert here == there
    assert here != ID


def test_weights_are_their_content_not_their_path() -> None:
    known = {**KNOWN, "weights": "cafe"}
    paths = [config_id(changed("model.weights", path), **known) for path in ("/a.pth", "/b.pth")]
    assert paths[0] == paths[1]


def test_integers_and_numbers_that_are_equal_in_a_typed_field_are_equal() -> None:
    assert config_id(changed("recipe.lr", 1), **KNOWN) == config_id(changed("recipe.lr", 1.0), **KNOWN)
    assert config_id(changed("recipe.weight_decay", -0.0), **KNOWN) == ID


def test_untyped_integers_and_numbers_differ_and_zero_has_no_sign() -> None:
    # Only types know whether 1 and 1.0 are one setting: a knob int | float may treat them differently.
    assert digest({"x": 1}) != digest({"x": 1.0})
    assert digest({"x": True}) != digest({"x": 1})
    assert digest({"x": 0.0}) == digest({"x": -0.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_equals_nothing_has_no_id(value: float) -> None:
    with pytest.raises(ValueError, match="an id cannot hold"):
        digest({"x": [value]})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same data with every mapping's keys the other way round, and tuples for lists."""
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return tuple(shuffled(v) for v in value) if isinstance(value, list) else value


@settings(max_examples=150)
@given(PLAIN)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical(shuffled(value)) == canonical(value)


@settings(max_examples=150)
@given(PLAIN, PLAIN)
def test_canonical_texts_are_equal_for_equal_data_only(one: Any, two: Any) -> None:
    assert json.loads(canonical(one)) == one
    if canonical(one) == canonical(two):
        assert one == two


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_seeds_are_told_apart(one: int, two: int) -> None:
    assert (run_id(ID, one) == run_id(ID, two)) == (one == two)


def test_a_view_is_its_protocol_and_its_evaluation_set() -> None:
    known: dict[str, Any] = {"fingerprint": "f", "name": "ucf101/1", "subset": "test", "semantics": 1}
    base = view_key(Protocol(), **known)
    assert view_key(Protocol(), **{**known, "name": "other"}) == base
    others = [
        view_key(Protocol(clips=2), **known),
        view_key(Protocol(crops="three"), **known),
        view_key(Protocol(checkpoint="best_val"), **known),
        view_key(Protocol(), **{**known, "fingerprint": "g"}),
        view_key(Protocol(), **{**known, "subset": "val"}),
        view_key(Protocol(), **{**known, "semantics": 2}),
        view_key(Protocol(), **{**known, "fingerprint": None}),
    ]
    assert len({base, *others}) == len(others) + 1
    assert others[-1].startswith(PROVISIONAL)
