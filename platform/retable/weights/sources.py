"""What a model's ``weights`` value names, by content. Needs no file for published weights, and never the network.

torchvision puts the first eight hex digits of a file's SHA-256 into its name; they are what identifies it here.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from retable import registry
from retable.registry import ModelFile
from retable.weights import WeightsError

NONE = "none"
VERSIONS = {"imagenet": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
"""A ``weights`` value -> torchvision's name for that version."""
ELSEWHERE = {
    "bninception": "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
}
"""ImageNet weights that torchvision does not have; BN-Inception's were converted from the authors' Caffe model."""

_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9.]+$")
_DECLARED = "#sha256="


@dataclass(frozen=True)
class Source:
    """A file of weights: its name in the weights folder or its absolute path, and how its SHA-256 begins."""

    name: str
    file: str
    sha256: str
    url: str | None = None


def pinned(file: ModelFile, settings: BaseModel) -> str | None:
    """The ``weights`` value of a model's settings, complete: a path is made absolute and given its content's hash.

    So a config says by itself what it starts from. None where the model has no such knob.

    Raises:
        WeightsError: not a value, no such file, a URL whose content is not known, or a model that no weights fit.
    """
    spec = getattr(settings, "weights", None)
    if not isinstance(spec, str):
        return None
    if spec != NONE and spec not in VERSIONS and "://" not in spec:
        spec = _pinned_path(spec)
    source_of(file, {**settings.model_dump(), "weights": spec})
    return spec


def source_of(file: ModelFile, knobs: Mapping[str, Any]) -> Source | None:
    """The file that settings whose ``weights`` is :func:`pinned` start from; None for random weights.

    Raises:
        WeightsError: as :func:`pinned`.
    """
    spec = str(knobs.get("weights", NONE))
    if spec == NONE:
        return None
    architecture = _architecture(file, knobs)
    if spec in VERSIONS:
        return published(architecture, spec)
    return at_url(spec) if "://" in spec else Source(spec, *_split(spec))


def identity(model: Mapping[str, Any]) -> str | None:
    """What the weights of a config's ``model`` section contribute to a run's id: a hash; None for random weights.

    A published file has the same identity by whatever name, path or URL it is given.
    """
    if model.get("weights", NONE) == NONE:
        return None
    file, knobs = _loaded(model)
    source = source_of(file, knobs)
    assert source is not None
    same = (known for known in known_of(_architecture(file, knobs)) if source.sha256.startswith(known.sha256))
    return f"sha256:{next(same, source).sha256}"


def of_config(model: Mapping[str, Any]) -> Source | None:
    """The file that a config's ``model`` section starts from; None for random weights."""
    return source_of(*_loaded(model)) if model.get("weights", NONE) != NONE else None


def published(architecture: str, version: str) -> Source:
    """The published weights of an image network; ``version`` is ``imagenet`` or ``imagenet-v2``.

    Raises:
        WeightsError: there are none of this version.
    """
    url = _urls(architecture).get(VERSIONS[version])
    if url is None:
        known = ", ".join(v for v, theirs in VERSIONS.items() if theirs in _urls(architecture)) or "none at all"
        raise WeightsError(f"{architecture} has no published weights {version!r}; it has {known}")
    file = PurePosixPath(urlsplit(url).path).name
    name = architecture + version.removeprefix("imagenet")
    return Source(name, file, _hash_in(file), url)


def known_of(architecture: str) -> list[Source]:
    """All published weights of an image network."""
    return [published(architecture, v) for v, theirs in VERSIONS.items() if theirs in _urls(architecture)]


def at_url(url: str) -> Source:
    """The source at a URL whose content's hash is known.

    Raises:
        WeightsError: its hash is neither declared nor in its file name.
    """
    location, declared = _split(url)
    name = PurePosixPath(urlsplit(location).path).name
    return Source(url, name if declared[:8] in name else _with_hash(name, declared), declared, location)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(model: Mapping[str, Any]) -> tuple[ModelFile, dict[str, Any]]:
    knobs = dict(model)
    return registry.load(knobs.pop("name")), knobs


def _architecture(file: ModelFile, knobs: Mapping[str, Any]) -> str:
    try:
        return file.architecture(file.config_class.model_validate(dict(knobs)))
    except ValueError as error:
        raise WeightsError(str(error)) from error


@functools.cache
def _urls(architecture: str) -> dict[str, str]:
    """Version -> URL, by torchvision's own names."""
    if architecture in ELSEWHERE:
        return {"IMAGENET1K_V1": ELSEWHERE[architecture]}
    from torchvision.models import get_model_weights

    return {weights.name: weights.url for weights in get_model_weights(architecture)}


def _pinned_path(spec: str) -> str:
    location, mark, declared = spec.partition(_DECLARED)
    path = Path(location).expanduser().resolve()
    if not mark and not path.is_file():
        near = difflib.get_close_matches(spec, [NONE, *VERSIONS], n=1)
        hint = f"did you mean {near[0]}?" if near else "put it there, or take imagenet or none"
        raise WeightsError(f"there is no file of weights at {path}: {hint}")
    if mark:
        return f"{path}{mark}{declared}"
    status = path.stat()
    return f"{path}{_DECLARED}{_hashed_once(path, status.st_size, status.st_mtime_ns)}"


@functools.cache
def _hashed_once(path: Path, _size: int, _mtime: int) -> str:
    return file_hash(path)


def _split(spec: str) -> tuple[str, str]:
    """A path or URL, and its hash as declared behind it or as its file name ends."""
    location, _, declared = spec.partition(_DECLARED)
    found = declared.lower() or _hash_in(urlsplit(location).path)
    if not re.fullmatch(r"[0-9a-f]{8,64}", found):
        raise WeightsError(
            f"what is at {location} could change, and runs with it: add {_DECLARED}<its SHA-256, at least 8 hex digits>"
        )
    return location, found


def _hash_in(name: str) -> str:
    match = _IN_NAME.search(name)
    return match.group(1) if match else ""


def _with_hash(name: str, sha256: str) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{sha256[:8]}{path.suffix}"
