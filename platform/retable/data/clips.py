"""One way to ask for frames, whatever they come from: a pack, in a folder or a bucket, or video files and an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from retable.data.container import VideoFiles
from retable.data.decode import Frames
from retable.data.errors import DatasetError
from retable.data.index import index_file, load_index
from retable.data.manifest import Manifest
from retable.data.packed import Pack, open_pack
from retable.data.packlist import is_pack


class Clips(Protocol):
    """Exact frames of the videos of a dataset."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of frames of every video; of a damaged one, those before the damage."""

    @property
    def damaged(self) -> Mapping[str, str]:
        """Why a video does not decode to its end, of all for which that is so."""

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read them, too."""

    def read(self, video: str, frame_indices: Sequence[int], short_side: int, /) -> Frames:
        """Frames in the order asked for, repeats allowed, resized: uint8 ``(T, H, W, 3)``.

        Raises:
            DamagedVideo: the video has no such frame, was written since it was indexed, or does not decode.
            KeyError: no such video.
        """


def open_clips(source: Manifest | Path | str) -> Clips:
    """Frames of a dataset, or of the pack in a folder or below a bucket's URL.

    A dataset's own pack is preferred to its index.

    Raises:
        DatasetError: there is neither.
    """
    if not isinstance(source, Manifest):
        return open_pack(source)
    found = _pack(source) or _files(source)
    if found is None:
        raise DatasetError(
            f"dataset {source.name} has neither pack nor index: make one with retable data index {source.name}"
        )
    return found


def current_clips(manifest: Manifest, contents: Mapping[str, str]) -> Clips | None:
    """The dataset's pack or index, if it holds all videos of ``contents`` (path -> SHA-256) as they are; else None.

    Raises:
        DatasetError: the dataset is a pack that cannot be read. What merely lies in it may be of another version.
    """
    if manifest.contents is not None:
        return open_pack(manifest.root)
    with suppress(DatasetError):
        pack = _pack(manifest)
        if pack is not None and all(pack.contents.get(path) == content for path, content in contents.items()):
            return pack
    with suppress(DatasetError):
        files = _files(manifest)
        if files is not None and files.covers(contents):
            return files
    return None


def pack_folder(manifest: Manifest) -> Path:
    """Where the pack of a dataset is looked for, and made by default."""
    return manifest.root / ".retable" / "pack"


def _pack(manifest: Manifest) -> Pack | None:
    """The pack that a dataset is, or that lies in it."""
    place = next((place for place in (manifest.root, pack_folder(manifest)) if is_pack(place)), None)
    pack = None if place is None else open_pack(place)
    if pack is not None and pack.card["dataset"] != manifest.name:  # a proxy is a dataset of another name
        raise DatasetError(f"{pack.place} is a pack of {pack.card['dataset']}, not of {manifest.name}")
    return pack


def _files(manifest: Manifest) -> VideoFiles | None:
    file = index_file(manifest)
    return VideoFiles(manifest.root, load_index(file)) if file.is_file() else None
