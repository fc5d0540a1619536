"""Batches of flow, and of frames with flow: the same clips, crops and mirrors in both; frames as without flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retable.data import loader
from retable.data.cache import FrameSource
from retable.data.config import Clip, Data, Flow, Protocol
from retable.data.errors import DatasetError
from retable.data.loader import Augment, Batch, RunData, open_run_data
from retable.data.manifest import Manifest
from retable.nn import InputSpec

RGB = InputSpec((4, 3, 16, 16))
FLOW = InputSpec((4, 6, 16, 16), "flow", fields=3)
BOTH = {"rgb": RGB, "flow": FLOW}
Open = Callable[..., RunData]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def open_tiny(tiny_motions: Manifest, cache_dir: Path) -> Open:
    def make(inputs: Mapping[str, InputSpec] | None = BOTH, augment: Augment | None = None, **settings: Any) -> RunData:
        data = {"flow": Flow(method="dis", bound=4)} | settings.pop("data", {})
        return open_run_data(
            tiny_motions,
            Data(dataset="motions-tiny", clip=Clip(frames=4, size=16, resize=20), **data),
            augment=augment or Augment(contrast=0.2),
            cache_dir=cache_dir,
            inputs=inputs,
            **settings,
        )

    return make


@dataclass(frozen=True)
class Pixels:
    """In place of flow: field t has frame t's red and green, so that crops and mirrors can be told."""

    frames: FrameSource

    def read(self, path: str, fields: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.concatenate([self.frames.read(path, column.tolist())[..., :2] for column in fields.T], -1)


@pytest.fixture
def pixels_for_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_m: Manifest, _paths: Sequence[str], frames: FrameSource, *_: Any, **__: Any) -> Pixels:
        return Pixels(frames)

    monkeypatch.setattr(loader, "open_flow", opened)


def equal(a: Batch, b: Batch) -> bool:
    same = [torch.equal(getattr(a, name), getattr(b, name)) for name in ("labels", "videos", "mirrored")]
    return a.clips.keys() == b.clips.keys() and all(torch.equal(a.clips[n], b.clips[n]) for n in a.clips) and all(same)


def test_a_batch_holds_what_the_model_takes(open_tiny: Open) -> None:
    batch = next(open_tiny().train_batches(0, 8, seed=0))
    assert {name: (clip.shape, clip.dtype) for name, clip in batch.clips.items()} == {
        "rgb": ((8, 4, 16, 16, 3), torch.uint8),
        "flow": ((8, 4, 16, 16, 6), torch.uint8),
    }
    alone = next(open_tiny({"flow": FLOW}, data={"stream": "flow"}).train_batches(0, 8, seed=0))
    assert list(alone.clips) == ["flow"]
    assert torch.equal(alone.clips["flow"], batch.clips["flow"])
    assert batch.clips["flow"].float().std() > 1  # something moves


def test_frames_are_the_same_with_and_without_flow(open_tiny: Open) -> None:
    for with_flow, without in zip(
        [*open_tiny().train_batches(0, 8, seed=3), *open_tiny().eval_batches("test", Protocol(crops="three"), 8)],
        [
            *open_tiny(None).train_batches(0, 8, seed=3),
            *open_tiny(None).eval_batches("test", Protocol(crops="three"), 8),
        ],
        strict=True,
    ):
        assert equal(replace(with_flow, clips={"rgb": with_flow.clips["rgb"]}), without)


def test_flow_has_the_frames_crops_and_mirrors_with_x_reversed(open_tiny: Open, pixels_for_flow: None) -> None:
    data = open_tiny({"rgb": RGB, "flow": replace(FLOW, shape=(4, 2, 16, 16), fields=1)}, Augment())
    mirrored = 0
    for batch in data.train_batches(0, 8, seed=0):
        # Not the fourth frame: if it is a video's last, no field begins there.
        for rgb, flow in zip(batch.clips["rgb"][:, :3].int(), batch.clips["flow"][:, :3].int(), strict=True):
            assert torch.equal(flow[..., 1], rgb[..., 1])
            if not torch.equal(flow[..., 0], rgb[..., 0]):
                mirrored += 1
                assert torch.equal(flow[..., 0], (256 - rgb[..., 0]).clamp(max=255))
    assert 5 < mirrored < 27  # of 32


def test_mirrored_test_views_have_x_reversed(open_tiny: Open, pixels_for_flow: None) -> None:
    inputs = {"rgb": RGB, "flow": replace(FLOW, shape=(4, 2, 16, 16), fields=1)}
    batch = next(open_tiny(inputs).eval_batches("test", Protocol(crops="ten"), 20))
    assert batch.mirrored.tolist() == 2 * ([False] * 5 + [True] * 5)
    x, red = batch.clips["flow"][..., 0].int(), batch.clips["rgb"][..., 0].int()
    assert torch.equal(x, torch.where(batch.mirrored[:, None, None, None], (256 - red).clamp(max=255), red))
    assert torch.equal(batch.clips["flow"][..., 1], batch.clips["rgb"][..., 1])


def test_contrast_never_touches_flow(open_tiny: Open) -> None:
    plain, changed = (next(open_tiny(BOTH, Augment(contrast=c)).train_batches(0, 8, seed=0)) for c in (0.0, 0.5))
    assert torch.equal(plain.clips["flow"], changed.clips["flow"])
    assert not torch.equal(plain.clips["rgb"], changed.clips["rgb"])


def test_stacks_follow_the_inputs_length_and_place(open_tiny: Open, pixels_for_flow: None) -> None:
    def stacks(spec: InputSpec) -> torch.Tensor:
        data = open_tiny({"rgb": RGB, "flow": spec}, Augment(crop="center", flip="off"))
        return next(data.eval_batches("test", Protocol(), 8)).clips["flow"]

    ahead = stacks(replace(FLOW, shape=(4, 8, 16, 16), fields=4))
    around = stacks(replace(FLOW, shape=(4, 8, 16, 16), fields=4, centred=True))
    assert torch.equal(around[..., 4:8], ahead[..., 0:4])  # the third field of the one is the first of the other


def test_data_processes_and_resuming_change_nothing(open_tiny: Open) -> None:
    alone, helped = open_tiny(), open_tiny(loader_workers=1)
    batches = list(alone.train_batches(1, 8, seed=0))
    assert all(map(equal, helped.train_batches(1, 8, seed=0), batches))
    assert all(map(equal, alone.train_batches(1, 8, seed=0, start=2), batches[2:]))


@pytest.mark.parametrize(
    ("inputs", "data", "message"),
    [
        ({"features": RGB}, {}, "the model takes features, which cannot be read from videos"),
        ({"flow": FLOW}, {}, "the stream is rgb, but the model takes flow only"),
        ({"rgb": RGB, "flow": replace(FLOW, shape=(4, 9, 16, 16))}, {}, "9 channels of flow for 3 fields"),
    ],
)
def test_inputs_that_videos_do_not_give_are_refused(
    open_tiny: Open, inputs: Mapping[str, InputSpec], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        open_tiny(inputs, data=data)
