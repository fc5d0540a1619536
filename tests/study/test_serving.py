"""Protocols that a config cannot serve are refused before anything trains, with the model and the setting named."""

from __future__ import annotations

from typing import Any

import pytest

from retable.study.config import Resources
from retable.study.resolve import Fault, Resolved, Unresolvable, leaves, resolve
from retable.study.schema import Profile

BASE: dict[str, dict[str, Any]] = {
    "model": {"name": "r2plus1d", "width": 8},
    "data": {"dataset": "ucf101", "clip": {"frames": 8, "size": 48, "resize": 64}},
    "recipe": {"epochs": 1},
}
C3D = {"name": "msfnet", "backbone": "c3d", "width": 8, "fc_hidden": 16}


def resolved(**sections: dict[str, Any]) -> Resolved:
    recipe = {**BASE["recipe"], **sections.pop("recipe", {})}
    return resolve(leaves({**BASE, **sections, "recipe": recipe}, ()), Profile())


def fault(**sections: Any) -> Fault:
    with pytest.raises(Unresolvable) as error:
        resolved(**sections)
    (found,) = error.value.faults
    return found


def test_a_convolutional_model_is_tested_on_larger_crops_than_it_was_trained_on() -> None:
    found = resolved(protocol={"size": 64, "crops": "three"})
    assert (found.protocol.size, found.config.model["size"]) == (64, 48)


def test_a_model_whose_weights_depend_on_the_size_is_refused_by_name() -> None:
    found = fault(model=C3D, protocol={"size": 64})
    assert found.path == "protocol.size"
    assert "msfnet, trained on crops of 48, cannot be tested on crops of 64" in found.message
    assert "would be" in found.message
    resolved(model=C3D, protocol={"size": 48})


def test_a_test_crop_larger_than_the_frames_is_refused() -> None:
    found = fault(protocol={"size": 65})
    assert (found.path, found.message) == ("protocol.size", "is 65, but frames have a short side of 64 pixels")


def test_a_jitter_that_leaves_no_room_for_the_crop_is_refused() -> None:
    found = fault(recipe={"crop": "jitter", "jitter": [0.5, 1.0]})
    assert (found.path, found.message) == ("recipe.jitter", "makes frames of 32 pixels, too few for crops of 48")


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        ({}, (0, 0), 0),
        ({"cpus_per_worker": 4}, (16, 0), 3),
        ({"gpus_per_worker": 1}, (16, 1), 15),
        ({"gpus_per_worker": 1}, (32, 4), 7),
        ({"gpus_per_worker": 0.25}, (16, 1), 3),
        ({"gpus_per_worker": 1, "cpus_per_worker": 12}, (32, 4), 11),
        ({"gpus_per_worker": 1, "loader_workers": 2}, (16, 1), 2),
        ({"loader_workers": 0, "cpus_per_worker": 4}, (16, 0), 0),
    ],
)
def test_data_processes_are_the_free_cores_unless_told(
    asked: dict[str, Any], machine: tuple[float, float], expected: int
) -> None:
    assert Resources(**asked).data_processes(*machine) == expected
