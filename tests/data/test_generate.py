"""The generated videos: reproducible bytes, UCF101's tree, and pairs that only order in time tells apart."""

from __future__ import annotations

import csv
import errno
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import stats

from retable.data import generate as generate_module
from retable.data import scenes
from retable.data.errors import DatasetError, DiskFull
from retable.data.generate import generate, plan_size
from retable.data.manifest import Manifest
from retable.data.variants import PAIRS, SHORTEST, VARIANTS, Variant

SMALL = Variant(seed=9, pairs=(0,), groups=3, clips=1, width=32, height=24, frames=(28, 28))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(VARIANTS, "motions-small", SMALL)
    return "motions-small"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_variant_gives_the_same_bytes_with_any_number_of_processes(small: str, tmp_path: Path) -> None:
    one = contents(generate(small, tmp_path / "one", processes=1))
    assert contents(generate(small, tmp_path / "two", processes=2)) == one
    assert sum(name.endswith(".avi") for name in one) == SMALL.videos == 6


def test_another_seed_gives_other_videos(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = contents(generate(small, tmp_path / "one", processes=1))
    monkeypatch.setitem(VARIANTS, small, replace(SMALL, seed=10))
    second = contents(generate(small, tmp_path / "two", processes=1))
    videos = [name for name in first if name.endswith(".avi")]
    assert all(first[name] != second[name] for name in videos)


def test_files_are_mpeg4_avi_in_the_tree_of_ucf101(tiny_motions: Manifest) -> None:
    path = tiny_motions.root / tiny_motions.items(1)[0].path
    assert path.relative_to(tiny_motions.root).as_posix() == "videos/Grow/v_Grow_g01_c01.avi"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (container.format.name, stream.codec_context.name, float(stream.average_rate or 0)) == (
            "avi",
            "mpeg4",
            25.0,
        )


def test_splits_test_on_disjoint_scenes(tiny_motions: Manifest) -> None:
    tested: list[set[str]] = []
    for split in (1, 2, 3):
        items = tiny_motions.items(split)
        train, test = ({i.group for i in items if i.subset == s} for s in ("train", "test"))
        assert not train & test
        assert len(items) == 48
        tested.append(test)
    assert len(set.union(*tested)) == sum(map(len, tested))


def test_the_ground_truth_says_where_the_action_is(tiny_motions: Manifest) -> None:
    with (tiny_motions.root / "ground_truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["video"] for row in rows} == {i.path.removeprefix("videos/") for i in tiny_motions.items(1)}
    seeds: dict[str, set[int]] = {"Grow": set(), "Shrink": set(), "MoveLeft": set(), "MoveRight": set()}
    for row in rows:
        seeds[row["class"]].add(int(row["seed"]))
        assert 2 <= int(row["start"]) < int(row["end"]) <= 28
    assert seeds["Grow"] == seeds["Shrink"] != seeds["MoveLeft"] == seeds["MoveRight"]
    assert len(seeds["Grow"]) == 12


@pytest.mark.parametrize("pair", PAIRS[:5])
def test_both_classes_of_a_pair_hold_the_same_single_frames_in_reverse_order(pair: tuple[str, str]) -> None:
    spec = replace(VARIANTS["motions"], width=32, height=24)
    for group, clip in ((1, 1), (2, 2)):
        first, second = (scenes.film(spec, name, group, clip) for name in pair)
        assert np.array_equal(first.frames, second.frames[::-1])
        assert not np.array_equal(first.frames, second.frames)
        assert (first.start, first.end) == (len(second.frames) - second.end, len(second.frames) - second.start)


def test_slow_and_fast_swings_leave_the_target_in_the_same_places_at_any_moment() -> None:
    spec, moment = VARIANTS["motions"], 35
    offsets = []
    for member in (0, 1):
        paths = [scenes._PROGRAMS[PAIRS[5]](spec, np.random.default_rng(seed), 50, member)[0] for seed in range(2000)]
        offsets.append([path(moment).x for path in paths])
    slow, fast = (np.asarray(member) for member in offsets)
    assert stats.ks_2samp(slow, fast).pvalue > 0.01
    assert np.abs(slow - fast).mean() > 1  # not the same places in the same video


def test_the_action_moves_the_target_and_its_surroundings_hardly_move_it() -> None:
    spec = VARIANTS["motions"]
    film = scenes.film(spec, "Grow", 1, 1)
    change = np.abs(np.diff(film.frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    inside = change[film.start : film.end - 1].mean()
    outside = np.concatenate([change[: film.start], change[film.end - 1 :]]).mean()
    assert inside > outside


@pytest.mark.parametrize("name", VARIANTS)
def test_the_shortest_video_of_every_variant_holds_the_longest_action(name: str) -> None:
    spec = VARIANTS[name]
    for pair in spec.pairs:
        for seed in range(100):
            program = scenes._PROGRAMS[PAIRS[pair]]
            _, start, end = program(spec, np.random.default_rng(seed), spec.frames[0], 1)
            assert 2 <= start < end <= spec.frames[0] - 2


def test_videos_too_short_for_their_actions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"videos of 30 frames are too short: pairs \(5,\) need 40"):
        Variant(seed=0, pairs=(5,), frames=(30, 60))
    assert len(SHORTEST) == len(PAIRS)


def test_every_variant_has_its_own_seed() -> None:
    assert len({spec.seed for spec in VARIANTS.values()}) == len(VARIANTS)


def test_a_finished_dataset_is_left_alone(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(small, tmp_path / "out", processes=1)
    monkeypatch.setattr(generate_module, "film", lambda *args: pytest.fail("rendered again"))
    assert generate(small, tmp_path / "out", processes=1) == tmp_path / "out"


def test_a_broken_off_generation_goes_on(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(generate(small, tmp_path / "whole", processes=1))
    encoded, encode = [], generate_module.encode

    def dies(*args: object) -> bytes:
        encoded.append(args)
        if len(encoded) == 4:
            raise KeyboardInterrupt
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(generate_module, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(small, tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()
    assert contents(generate(small, tmp_path / "out", processes=1)) == whole
    assert len(encoded) == 4 + 3  # the three that were there are not encoded again


def test_foreign_content_is_refused(small: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(DatasetError, match="holds something else than motions-small"):
        generate(small, tmp_path / "out", processes=1)
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no generated dataset 'motions-x'; there are motions, motions-ucf101"):
        generate("motions-x", tmp_path / "out")


def test_a_full_disk_is_one_clear_message_and_leaves_nothing(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull, match=f"no space left in {tmp_path}: dataset motions-small needs about"):
        generate(small, tmp_path / "out", processes=1)
    assert list(tmp_path.iterdir()) == []


def test_the_planned_size_is_near_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "motions-small", Variant(seed=1, pairs=(0, 2), groups=3, clips=1))
    planned = plan_size("motions-small")
    files = contents(generate("motions-small", tmp_path / "out", processes=1))
    real = sum(len(data) for name, data in files.items() if name.endswith(".avi"))
    assert planned.videos == 12
    assert 0.5 < real / planned.bytes < 2
