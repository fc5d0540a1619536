"""Layers to one typed config: who wins, what is refused, and which place of the file is to blame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retable.study.resolve import Leaf, Leaves, Resolved, Unresolvable, leaves, overlay, resolve
from retable.study.schema import Profile

BASE: dict[str, Any] = {
    "model": {"name": "msfnet", "width": 24},
    "data": {"dataset": "ucf101", "clip": {"frames": 8, "size": 32}},
    "recipe": {"epochs": 2},
}


def layer(origin: str, **settings: Any) -> Leaves:
    """Settings (``model__groups=3`` for ``model.groups: 3``) that stand at ``origin``."""
    return leaves({path.replace("__", "."): value for path, value in settings.items()}, (origin,))


def resolved(*layers: Leaves, profile: Profile | None = None) -> Resolved:
    return resolve(overlay(leaves(BASE, ("base",)), *layers), profile or Profile())


def refused(*layers: Leaves) -> tuple[Any, ...]:
    with pytest.raises(Unresolvable) as caught:
        resolved(*layers)
    return caught.value.faults


def test_leaves_are_dotted_and_know_their_place() -> None:
    found = leaves({"model": {"groups": 3}, "data.clip": {"size": 32}, "recipe": {"schedule": {}}}, ("base",))
    assert found == {
        "model.groups": Leaf(3, ("base", "model", "groups")),
        "data.clip.size": Leaf(32, ("base", "data.clip", "size")),
    }


def test_a_list_is_a_leaf() -> None:
    assert leaves({"recipe.schedule.milestones": [3, 5]}, ()) == {
        "recipe.schedule.milestones": Leaf([3, 5], ("recipe.schedule.milestones",))
    }


def test_later_layers_win_and_their_place_is_kept() -> None:
    merged = overlay(layer("a", recipe__lr=1.0, recipe__epochs=1), layer("b", recipe__lr=2.0))
    assert merged["recipe.lr"] == Leaf(2.0, ("b", "recipe.lr"))
    assert merged["recipe.epochs"].origin == ("a", "recipe.epochs")


def test_another_model_drops_the_knobs_of_the_one_before_it() -> None:
    merged = overlay(
        layer("base", model__name="msfnet", model__groups=4, recipe__epochs=1),
        layer("row", model__name="r2plus1d", model__width=8),
    )
    assert {path: leaf.value for path, leaf in merged.items()} == {
        "model.name": "r2plus1d",
        "model.width": 8,
        "recipe.epochs": 1,
    }


def test_the_same_model_named_again_keeps_its_knobs() -> None:
    merged = overlay(layer("base", model__name="msfnet", model__groups=4), layer("row", model__name="msfnet"))
    assert merged["model.groups"].value == 4


def test_a_scalar_replaces_a_subtree_and_the_other_way_round() -> None:
    tree, scalar = layer("a", data__clip__size=32, data__clip__frames=8), layer("b", data__clip=8)
    assert overlay(tree, scalar) == scalar
    assert overlay(scalar, tree) == tree


PATHS = st.sampled_from(["model.name", "model.groups", "data.clip", "data.clip.size", "recipe.lr", "recipe.lr.x"])


@settings(max_examples=100)
@given(st.lists(st.dictionaries(PATHS, st.integers(0, 3), max_size=3), max_size=5))
def test_every_leaf_of_the_last_layer_stands_at_the_end(layers: list[dict[str, int]]) -> None:
    single = [dict(list(layer.items())[:1]) for layer in layers]
    merged = overlay(*(leaves(layer, (str(i),)) for i, layer in enumerate(single)))
    last = next((leaves(layer, ()) for layer in reversed(single) if layer), {})
    assert list(merged)[-len(last) :] == list(last) if last else not merged
    for path in merged:
        assert not any(other.startswith(f"{path}.") for other in merged)


def test_linked_fields_come_from_the_data() -> None:
    config = resolved(layer("row", data__clip__frames=4, data__clip__size=48, data__num_classes=7)).config
    assert (config.model["frames"], config.model["size"], config.model["num_classes"]) == (4, 48, 7)


def test_the_number_of_classes_is_the_layouts_unless_it_is_set() -> None:
    assert resolved().config.data.num_classes == 101
    assert resolved(layer("column", data__num_classes=12)).config.data.num_classes == 12


def test_a_profile_renames_datasets_and_their_number_of_classes_follows() -> None:
    found = resolved(profile=Profile(datasets={"ucf101": "motions-ucf101"}))
    assert found.config.data.dataset == "motions-ucf101"
    assert found.config.data.num_classes == found.config.model["num_classes"] == 12


def test_every_knob_is_in_the_config_with_its_default() -> None:
    model = resolved().config.model
    assert model["name"] == "msfnet"
    assert (model["groups"], model["attention"], model["width"]) == (4, "none", 24)


@pytest.mark.parametrize(
    ("alias", "knobs"),
    [("r3d", {"model__msf": False}), ("msfnet-fsam", {"model__attention": "fsam"})],
)
def test_an_alias_is_the_same_config_as_its_knobs(alias: str, knobs: dict[str, Any]) -> None:
    by_alias = resolved(layer("row", model__name=alias, model__width=24))
    by_knobs = resolved(layer("row", **knobs))
    assert by_alias == by_knobs


def test_a_knob_may_be_set_on_top_of_an_alias() -> None:
    model = resolved(layer("row", model__name="msfnet-fsam", model__width=32, model__groups=3)).config.model
    assert (model["name"], model["attention"], model["groups"]) == ("msfnet", "fsam", 3)


@pytest.mark.parametrize(
    ("field", "home"),
    [("frames", "data.clip.frames"), ("size", "data.clip.size"), ("num_classes", "data.num_classes")],
)
def test_a_linked_field_set_under_the_model_says_where_it_belongs(field: str, home: str) -> None:
    (fault,) = refused(layer("row", **{f"model__{field}": 16}))
    assert (fault.path, fault.origin) == (f"model.{field}", ("row", f"model.{field}"))
    assert (fault.message, fault.hint, fault.value) == (f"is set once, as {home}", f"move it to {home}", 16)


@pytest.mark.parametrize(
    ("path", "value", "message", "hint"),
    [
        ("model.grups", 3, "there is no 'model.grups'", "did you mean 'groups'?"),
        ("recipe.learning", 3, "there is no 'recipe.learning'", None),
        ("recipe.epoch", 3, "there is no 'recipe.epoch'", "did you mean 'epochs'?"),
        ("recipe.schedule.gama", 3, "there is no 'recipe.schedule.gama'", "did you mean 'gamma'?"),
        ("data.clip.frame", 3, "there is no 'data.clip.frame'", "did you mean 'frames'?"),
        ("protocol.clip", 3, "there is no 'protocol.clip'", "did you mean 'clips'?"),
        ("resources.gpus", 3, "there is no 'resources.gpus'", None),
        ("modl.groups", 3, "unknown section 'modl'", "did you mean 'model'?"),
        ("lr", 3, "unknown section 'lr'", None),
        ("recipe", 3, "is a section, so it cannot be 3", "set recipe.NAME"),
        ("model.name", "msfnett", "there is no model 'msfnett'; did you mean msfnet", None),
        ("data.dataset", "ucf11o1", "no dataset layout serves 'ucf11o1'; did you mean ucf", None),
    ],
)
def test_an_unknown_name_points_to_where_it_was_set(path: str, value: Any, message: str, hint: str | None) -> None:
    fault = refused(leaves({path: value}, ("row",)))[0]
    assert fault.path == path
    assert fault.origin == ("row", path)
    assert fault.message.startswith(message)
    assert hint is None or fault.hint == hint


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.groups", "many", "valid integer"),
        ("model.attention", "eca", "'none', 'se'"),
        ("recipe.lr", -1.0, "greater than 0"),
        ("recipe.lr", float("inf"), "must be finite, but is inf"),
        ("recipe.betas", float("nan"), "must be finite, but is nan"),
        ("recipe.optimizer", "adamw", "'adam' or 'sgd'"),
        ("recipe.epochs", 1.5, "valid integer"),
        ("data.clip.frames", 0, "greater than or equal to 1"),
        ("data.clip", 8, "valid dictionary"),
        ("data.stream", "depth", "'rgb' or 'flow'"),
        ("protocol.crops", "five", "'center', 'three' or 'ten'"),
        ("model.name", None, "a config needs model.name"),
    ],
)
def test_a_wrong_value_points_to_where_it_was_set(path: str, value: Any, says: str) -> None:
    fault = refused(leaves({path: value}, ("row",)))[0]
    assert fault.path == path
    assert fault.origin == ("row", path)
    assert says in fault.message


def test_a_missing_setting_is_required() -> None:
    with pytest.raises(Unresolvable) as caught:
        resolve(leaves({**BASE, "recipe": {"lr": 1.0}}, ("base",)), Profile())
    (fault,) = caught.value.faults
    assert (fault.path, fault.message, fault.origin) == ("recipe.epochs", "is required", ("base", "recipe", "lr"))


def test_an_impossible_knob_points_to_the_setting_that_came_last() -> None:
    (fault,) = refused(layer("table", model__width=8), layer("row", model__groups=6))
    assert fault.origin == ("row", "model.groups")
    assert fault.message.startswith("groups 6: 8 channels split into 4 groups, not 6")
    assert "use fewer groups or a wider net" in fault.message
    (fault,) = refused(layer("row", model__groups=6), layer("--set", model__width=8))
    assert fault.origin == ("--set", "model.width")


def test_settings_of_a_section_that_do_not_go_together_point_to_the_last_one() -> None:
    (fault,) = refused(layer("row", recipe__accumulation=3))
    assert fault.path == "recipe"
    assert fault.origin == ("row", "recipe.accumulation")
    assert fault.message == "batch_size 16 must be a multiple of workers x accumulation = 1 x 3"


def test_all_faults_of_all_sections_are_found_at_once() -> None:
    spoilt = layer("row", recipe__epochs=0, model__grups=1, protocol__clips="x", data__clip__frames=-1, resources__a=1)
    assert {fault.path for fault in refused(spoilt)} == {
        "recipe.epochs",
        "model.grups",
        "protocol.clips",
        "data.clip.frames",
        "resources.a",
    }


def test_a_model_is_not_blamed_for_a_clip_whose_size_is_wrong() -> None:
    assert [f.path for f in refused(layer("row", data__clip__size="big", model__groups=6, model__width=8))] == [
        "data.clip.size"
    ]


def test_a_profiles_knobs_go_to_the_models_that_have_them_only() -> None:
    profile = leaves({"model.fc_hidden": 64, "model.width": 32}, ("profiles", "laptop", "model"))
    model = resolved(layer("row", model__name="r2plus1d"), profile).config.model
    assert model["width"] == 32
    assert "fc_hidden" not in model


def test_a_rows_knob_that_its_model_does_not_have_is_refused() -> None:
    (fault,) = refused(layer("row", model__name="r2plus1d", model__groups=3))
    assert fault.message == "there is no 'model.groups'"


def test_integers_given_for_numbers_are_the_same_settings() -> None:
    assert resolved(layer("row", recipe__lr=1)).config == resolved(layer("row", recipe__lr=1.0)).config
