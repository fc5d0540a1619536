"""What a batch holds follows from dataset, config, seed, epoch and place, and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retable.data import loader
from retable.data.config import Clip, Data, Protocol
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.layouts import Layout
from retable.data.loader import SEMANTICS, Augment, Batch, RunData, open_run_data
from retable.data.manifest import Manifest, open_dataset

CLIP = Clip(frames=4, size=16, resize=20)
PLAIN = Augment(crop="center", flip="off")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def open_tiny(tiny_motions: Manifest, cache_dir: Path) -> Callable[..., RunData]:
    def make(augment: Augment | None = None, **settings: Any) -> RunData:
        data = Data(dataset="motions-tiny", clip=CLIP, **settings.pop("data", {}))
        augment = augment or Augment(contrast=0.2)
        return open_run_data(tiny_motions, data, augment=augment, cache_dir=cache_dir, **settings)

    return make


def flat(batches: Iterable[Batch]) -> list[tuple[bytes, list[int], list[int], list[bool]]]:
    return [
        (b.clips["rgb"].numpy().tobytes(), b.labels.tolist(), b.videos.tolist(), b.mirrored.tolist()) for b in batches
    ]


def test_a_batch_is_uint8_clips_with_int64_labels(open_tiny: Callable[..., RunData]) -> None:
    batch = next(open_tiny().train_batches(0, 8, seed=0))
    assert batch.clips["rgb"].shape == (8, 4, 16, 16, 3)
    assert batch.clips["rgb"].dtype == torch.uint8
    assert batch.labels.shape == batch.videos.shape == batch.mirrored.shape == (8,)
    assert batch.labels.dtype == batch.videos.dtype == torch.int64
    assert batch.mirrored.dtype == torch.bool
    assert not batch.mirrored.any()


def test_an_epoch_takes_each_video_at_most_once_and_drops_the_partial_batch(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny()
    assert len(data.videos("train")) == 32
    assert data.steps(5) == 6
    videos = torch.cat([b.videos for b in data.train_batches(0, 5, seed=0)]).tolist()
    assert len(videos) == len(set(videos)) == 30


def test_seeds_and_epochs_differ(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny()
    first = [flat(data.train_batches(e, 8, seed=s)) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert first[0] != first[1] != first[2] != first[0]
    assert flat(data.train_batches(0, 8, seed=0)) == first[0]


def test_an_epoch_taken_up_again_goes_on_with_the_same_batches(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny()
    assert flat(data.train_batches(2, 8, seed=3, start=2)) == flat(data.train_batches(2, 8, seed=3))[2:]


def test_ranks_and_micro_batches_cut_the_same_global_batch(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny()
    whole = list(data.train_batches(0, 8, seed=0))
    parts = [list(data.train_batches(0, 8, seed=0, rank=r, world=2, micro=2)) for r in (0, 1)]
    for update, batch in enumerate(whole):
        pieces = [parts[r][2 * update + m] for r in (0, 1) for m in (0, 1)]
        assert torch.equal(torch.cat([p.videos for p in pieces]), batch.videos)
        assert torch.equal(torch.cat([p.clips["rgb"] for p in pieces]), batch.clips["rgb"])


def test_a_batch_that_ranks_cannot_share_is_refused(open_tiny: Callable[..., RunData]) -> None:
    with pytest.raises(ValueError, match="multiple of world x micro = 3 x 1"):
        open_tiny().train_batches(0, 8, seed=0, world=3)


def test_data_processes_change_nothing(open_tiny: Callable[..., RunData]) -> None:
    alone, helped = open_tiny(), open_tiny(loader_workers=2)
    before = torch.get_rng_state()
    for epoch in (0, 1):
        assert flat(helped.train_batches(epoch, 8, seed=0)) == flat(alone.train_batches(epoch, 8, seed=0))
    next(helped.train_batches(0, 8, seed=0))  # left in the middle
    assert flat(helped.eval_batches("test", Protocol(clips=2), 8)) == flat(
        alone.eval_batches("test", Protocol(clips=2), 8)
    )
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws from this generator


def test_reading_from_the_files_changes_nothing(open_tiny: Callable[..., RunData]) -> None:
    cached, direct = open_tiny(), open_tiny(cache_limit=0)
    assert flat(cached.train_batches(0, 8, seed=0)) == flat(direct.train_batches(0, 8, seed=0))
    assert flat(cached.eval_batches("test", Protocol(), 8)) == flat(direct.eval_batches("test", Protocol(), 8))


def test_rows_with_other_augmentation_see_the_same_frames_and_crops(open_tiny: Callable[..., RunData]) -> None:
    plain = next(open_tiny(Augment(flip="off")).train_batches(0, 8, seed=0))
    contrasted = next(open_tiny(Augment(flip="off", contrast=1e-9)).train_batches(0, 8, seed=0))
    assert torch.equal(plain.clips["rgb"], contrasted.clips["rgb"])


def test_a_mirrored_clip_has_the_mirrored_label(open_tiny: Callable[..., RunData]) -> None:
    plain, flipping = open_tiny(PLAIN), open_tiny(Augment(crop="center"))
    kept = mirrored = 0
    left, right = plain.classes.index("MoveLeft"), plain.classes.index("MoveRight")
    swap = {left: right, right: left}
    for a, b in zip(plain.train_batches(0, 8, seed=0), flipping.train_batches(0, 8, seed=0), strict=True):
        labels = zip(a.labels.tolist(), b.labels.tolist(), strict=True)
        for x, y, (before, after) in zip(a.clips["rgb"], b.clips["rgb"], labels, strict=True):
            if torch.equal(x, y):
                kept += 1
                assert after == before
            else:
                mirrored += 1
                assert torch.equal(x.flip(2), y)
                assert after == swap.get(before, before)
    assert kept > 5
    assert mirrored > 5


def without_mirror(manifest: Manifest) -> Manifest:
    module = ModuleType("never")
    vars(module).update({**vars(manifest.layout.module), "flip": lambda classes: "never"})
    return replace(manifest, layout=Layout("never", module))


def test_a_dataset_that_must_not_be_mirrored_never_is(tiny_motions: Manifest, cache_dir: Path) -> None:
    data = Data(dataset="motions-tiny", clip=CLIP)
    opened = [
        open_run_data(without_mirror(tiny_motions), data, augment=augment, cache_dir=cache_dir)
        for augment in (Augment(crop="center"), PLAIN)
    ]
    assert flat(opened[0].train_batches(0, 8, seed=0)) == flat(opened[1].train_batches(0, 8, seed=0))
    with pytest.raises(DatasetError, match="use crops center or three, not ten"):
        opened[0].eval_batches("test", Protocol(crops="ten"), 8)


def test_plain_flips_mirror_every_dataset_and_keep_labels_in_training_and_at_test(
    tiny_motions: Manifest, cache_dir: Path
) -> None:
    data, plain = Data(dataset="motions-tiny", clip=CLIP), Augment(crop="center", flip="plain")
    for manifest in (tiny_motions, without_mirror(tiny_motions)):
        still, flipping = (open_run_data(manifest, data, augment=a, cache_dir=cache_dir) for a in (PLAIN, plain))
        mirrored = 0
        for a, b in zip(still.train_batches(0, 8, seed=0), flipping.train_batches(0, 8, seed=0), strict=True):
            assert torch.equal(a.labels, b.labels)
            for x, y in zip(a.clips["rgb"], b.clips["rgb"], strict=True):
                turned = not torch.equal(x, y)
                mirrored += turned
                assert torch.equal(x.flip(2) if turned else x, y)
        assert 5 < mirrored < 27
        assert flipping.flip_permutation is None
        assert (
            next(flipping.eval_batches("test", Protocol(crops="ten"), 10)).mirrored.tolist() == [False] * 5 + [True] * 5
        )


def test_test_crops_may_have_another_size_than_training_crops(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny(PLAIN)
    assert next(data.train_batches(0, 8, seed=0)).clips["rgb"].shape == (8, 4, 16, 16, 3)
    small, large = (
        next(data.eval_batches("test", Protocol(crops="three", size=size), 3)).clips["rgb"] for size in (None, 20)
    )
    assert small.shape == (3, 4, 16, 16, 3)
    assert large.shape == (3, 4, 20, 20, 3)
    assert torch.equal(large[1, :, 2:18, 2:18], small[1])  # both middle crops


@pytest.mark.parametrize("crop", ["multi_scale", "jitter", "area"])
def test_resized_crops_keep_the_clip_size_and_differ_from_plain_ones(
    open_tiny: Callable[..., RunData], crop: Any
) -> None:
    plain, cut = (
        next(open_tiny(Augment(crop=c, flip="off")).train_batches(0, 8, seed=0)).clips["rgb"] for c in ("random", crop)
    )
    assert plain.shape == cut.shape
    assert not torch.equal(plain, cut)


@pytest.mark.parametrize(
    ("clips", "crops", "views"), [(1, "center", 1), (3, "center", 3), (2, "three", 6), (1, "ten", 10)]
)
@pytest.mark.parametrize("world", [1, 3])
def test_every_test_video_is_seen_once_by_one_rank(
    open_tiny: Callable[..., RunData], clips: int, crops: Any, views: int, world: int
) -> None:
    data, protocol = open_tiny(), Protocol(clips=clips, crops=crops)
    rows = [
        torch.cat([b.videos for b in data.eval_batches("test", protocol, 8, rank=r, world=world)]) for r in range(world)
    ]
    assert all((part % world == r).all() for r, part in enumerate(rows))
    assert torch.bincount(torch.cat(rows)).tolist() == [views] * len(data.videos("test"))


def test_ten_crops_flag_mirror_images_and_the_permutation_puts_labels_back(
    open_tiny: Callable[..., RunData],
) -> None:
    data = open_tiny()
    batch = next(data.eval_batches("test", Protocol(crops="ten"), 10))
    assert batch.mirrored.tolist() == [False] * 5 + [True] * 5
    assert torch.equal(batch.clips["rgb"][:5].flip(3), batch.clips["rgb"][5:])
    assert data.flip_permutation is not None
    order = data.flip_permutation
    assert [data.classes[k] for k in order] == ["Grow", "MoveRight", "MoveLeft", "Shrink"]
    assert torch.equal(order[order], torch.arange(4))


def test_a_hold_out_appears_as_val_and_leaves_train(open_tiny: Callable[..., RunData]) -> None:
    data = open_tiny(data={"holdout": 0.25})
    assert len(data.videos("val")) == 8
    assert len(data.videos("train")) == 24
    assert not set(data.videos("val")) & set(data.videos("train"))
    assert sum(len(b.labels) for b in data.eval_batches("val", Protocol(), 8)) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 7}, "num_classes is 7 but motions-tiny has 4"),
        ({"stream": "flow"}, "the stream is flow, but the model takes rgb only"),
    ],
)
def test_settings_the_dataset_cannot_meet_are_refused(
    open_tiny: Callable[..., RunData], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        open_tiny(data=settings)


def test_a_training_set_smaller_than_a_batch_is_refused(open_tiny: Callable[..., RunData]) -> None:
    with pytest.raises(DatasetError, match="32 training videos do not fill a batch of 64"):
        open_tiny().steps(64)


def test_a_damaged_video_stops_the_run_or_is_dropped_as_the_policy_says(ucf_tree: Path, tmp_path: Path) -> None:
    manifest = open_dataset("ucf101-two", ucf_tree)
    bad = "UCF-101/Jump/v_Jump_g02_c01.avi"
    (ucf_tree / bad).write_bytes(b"nothing")
    with pytest.raises(DamagedVideo, match=r"v_Jump_g02_c01\.avi.*1 damaged; data\.on_damage: drop"):
        open_run_data(manifest, Data(dataset="ucf101-two", clip=CLIP), augment=PLAIN, cache_dir=tmp_path / "c")
    lenient = Data(dataset="ucf101-two", clip=CLIP, on_damage="drop")
    data = open_run_data(manifest, lenient, augment=PLAIN, cache_dir=tmp_path / "c")
    assert bad not in data.videos("train")
    assert len(data.videos("train")) == 3
    assert list(data.damaged) == [bad]


class Synthetic:
    """Frames without any decoder: a formula of video, frame and place."""

    damaged: dict[str, str]

    def __init__(self, paths: Sequence[str]) -> None:
        self.numbers = {path: k for k, path in enumerate(paths)}
        self.counts = {path: 20 + k for path, k in self.numbers.items()}
        self.damaged = {}

    def read(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        t, y, x, c = np.ogrid[0 : len(indices), 0:20, 0:27, 0:3]
        values = 37 * self.numbers[path] + 11 * np.asarray(indices)[t] + 5 * y + 3 * x + 70 * c
        return np.asarray(values % 251, np.uint8)


def test_canary_the_pipeline_gives_the_numbers_it_gave(
    tiny_motions: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when sampling, augmentation or order change: raise PIPELINE_SEMANTICS, then write the new values here."""
    monkeypatch.setattr(loader, "open_frames", lambda manifest, paths, *args, **kwargs: Synthetic(paths))
    digests = []
    for sampling in ("random_step", "segments"):
        clip = Clip.model_validate({**CLIP.model_dump(), "sampling": sampling})
        data = Data(dataset="motions-tiny", clip=clip, holdout=0.25)
        run = open_run_data(tiny_motions, data, augment=Augment(contrast=0.2), cache_dir=tmp_path)
        seen = [
            *flat(run.train_batches(1, 8, seed=5)),
            *flat(run.eval_batches("val", Protocol(clips=2, crops="ten"), 8)),
        ]
        digests.append(hashlib.sha256(repr(seen).encode()).hexdigest()[:16])
    assert (SEMANTICS, digests) == (1, ["f2253474a9d44b24", "7bfd5ead53195ea2"])
