"""What can be wrong with a dataset on disk. One clear message each; the command line prints it and exits with 3."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """Something about a dataset, its videos or the disk that a user has to put right."""


class DatasetError(DataError):
    """A dataset folder that is missing, incomplete or not in the layout it should be in."""


class DamagedVideo(DataError):
    """A video that cannot be decoded to the end, or has no frame that was asked for."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"damaged video {path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedVideo], tuple[str, str]]:
        return DamagedVideo, (self.path, self.reason)  # exceptions cross process borders


class DiskFull(DataError):
    """No space left for something retable writes. Nothing half-written is left behind."""

    def __init__(self, folder: Path | str, needed: int, what: str) -> None:
        super().__init__(
            f"no space left in {folder}: {what} needs about {needed:,} bytes ({needed / 1e9:.2f} GB); free some, or"
            " choose another folder"
        )
        self.folder, self.needed, self.what = str(folder), needed, what

    def __reduce__(self) -> tuple[type[DiskFull], tuple[str, int, str]]:
        return DiskFull, (self.folder, self.needed, self.what)


class FlowUnavailable(DataError):
    """Optical flow that cannot be computed here: a library or a file of weights is missing."""
