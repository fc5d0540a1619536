"""Videos that are folders of numbered images: which files are its frames, in which order. Decoding is not here."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from retable.data.errors import DamagedVideo
from retable.data.layouts import IMAGE_SUFFIXES

_NUMBER = re.compile(r"\d+(?=\D*$)")


def image_names(folder: Path) -> list[str]:
    """Names of the images in ``folder``, sorted by name. Other files and folders inside are left alone."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES)


def frame_files(folder: Path) -> list[Path]:
    """The images of a video in the order of the last number in their names: frame k is the k-th of them.

    Raises:
        DamagedVideo: no image, an image without a number, a number twice, or, where names are numbers and nothing else
            (``00001.jpg``), a number that is left out.
    """
    try:
        files = [folder / name for name in image_names(folder)]
    except OSError as error:
        raise DamagedVideo(folder, str(error)) from error
    if not files:
        raise DamagedVideo(folder, "no image in it")
    numbered = sorted((_number(file), file) for file in files)
    plain = all(file.stem.isdigit() for file in files)
    for (a, first), (b, second) in pairwise(numbered):
        if a == b:
            raise DamagedVideo(folder, f"{first.name} and {second.name} have the same number")
        if plain and b != a + 1:
            raise DamagedVideo(folder, f"image {a + 1} is missing: {first.name} is followed by {second.name}")
    return [file for _, file in numbered]


def _number(file: Path) -> int:
    found = _NUMBER.search(file.stem)
    if found is None:
        raise DamagedVideo(file.parent, f"image {file.name} has no number")
    return int(found[0])
