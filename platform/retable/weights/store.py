"""Behind ``retable weights list|fetch|import``: which files there are, getting one, taking one in."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

from pydantic import BaseModel

from retable import registry
from retable.nn.count import on_meta
from retable.nn.pretrained import OtherArchitecture
from retable.registry import ModelFile
from retable.weights import WeightsError, load, sources
from retable.weights.sources import Source

Progress = Callable[[int, int | None], None]
"""Told the bytes so far, and all bytes if the server says how many."""

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Entry:
    """One published file: what ``fetch`` calls it, the model files whose configs start from it, where it is or goes."""

    name: str
    models: tuple[str, ...]
    file: str
    sha256: str
    url: str
    path: Path
    present: bool

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**vars(self), "models": list(self.models), "path": str(self.path)}


@dataclass(frozen=True)
class Imported:
    """A file taken into the weights folder, and the ``weights`` value that starts from it."""

    path: Path
    architecture: str
    sha256: str
    value: str


def entries() -> list[Entry]:
    """Every published file that a named config of some model can start from."""
    found = []
    for architecture, users in sorted(_users().items()):
        models = tuple(file.name for file, _ in users)
        for source in sources.known_of(architecture):
            path = load.located(source)
            assert source.url is not None
            found.append(
                Entry(source.name, models, source.file, source.sha256, source.url, path, present=path.is_file())
            )
    return found


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download ``resnet50``, ``resnet50-v2``, ..., or a URL with a known hash, into the weights folder.

    Verified while it arrives, and in place only once it is whole: an interrupted download leaves nothing behind. A file
    that is there already is verified instead.

    Raises:
        WeightsError: no such name, no network, or not the bytes that were meant.
    """
    source = sources.at_url(name) if "://" in name else _known(name)
    assert source.url is not None
    path = load.located(source)
    if path.is_file():
        return load.verified(path, source.sha256)
    try:
        with _new_file(path) as file, urlopen(source.url, timeout=_TIMEOUT) as answer:
            found = _copied(answer, file, progress)
            if not found.startswith(source.sha256):
                raise WeightsError(
                    f"what came from {source.url} is not {source.file}: its SHA-256 is {found[:16]}..., but should"
                    f" begin with {source.sha256}. Nothing was kept"
                )
    except (OSError, HTTPException) as error:  # no network, no such page, no disk space
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"cannot download {source.url}: {reason}. Without a network, download it elsewhere and put it at {path},"
            " its name kept, or run `retable weights import` on it"
        ) from error
    return path


def import_file(path: Path | str) -> Imported:
    """Take a file of weights, however named, into the weights folder: of any image network that a model starts from.

    A published file goes under its published name. Others (a torchvision ResNet or VGG trained elsewhere, BN-Inception
    converted from Caffe) are stored under their network's name and their content's hash.

    Raises:
        WeightsError: the file is missing, cannot be read without running code, or is of no known network.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    sha256, architecture = sources.file_hash(path), _recognised(path)
    known = next((s for s in sources.known_of(architecture) if sha256.startswith(s.sha256)), None)
    if known is not None:
        value = "imagenet" + known.name.removeprefix(architecture)
        return Imported(_put(path, load.located(known)), architecture, sha256, value)
    target = _put(path, load.folder().resolve() / f"{architecture}-{sha256[:8]}.pth")
    return Imported(target, architecture, sha256, str(target))


def _users() -> dict[str, list[tuple[ModelFile, BaseModel]]]:
    """Image network -> the model files that start from it, each with its first config that does."""
    found: dict[str, dict[str, tuple[ModelFile, BaseModel]]] = {}
    for name in registry.files():
        file = registry.load(name)
        for config in file.configs.values():
            with contextlib.suppress(ValueError):  # this config starts from none
                found.setdefault(file.architecture(config), {}).setdefault(name, (file, config))
    return {architecture: list(users.values()) for architecture, users in found.items()}


def _known(name: str) -> Source:
    architecture, mark, version = name.partition("-v")
    with contextlib.suppress(WeightsError, KeyError, ValueError):  # ValueError: torchvision has no such network
        return sources.published(architecture, f"imagenet{mark}{version}")
    known = sorted(source.name for network in _users() for source in sources.known_of(network))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise WeightsError(f"there are no published weights {name!r}; {hint}")


def _recognised(path: Path) -> str:
    """The image network whose every tensor the file has, tried on the models that start from one."""
    state = load.read(path)
    refused = []
    for architecture, users in _users().items():
        file, config = users[0]
        try:
            load.fitted(on_meta(lambda file=file, config=config: file.build(config)), state)  # type: ignore[misc]
        except OtherArchitecture as error:
            refused.append(f"{architecture}: {error}")
        else:
            return architecture
    raise WeightsError(f"{path} is of no image network that a model here starts from. " + ". ".join(refused))


def _copied(source: IO[bytes], target: IO[bytes], progress: Progress | None) -> str:
    """Copy to the end; the SHA-256 of what went through."""
    total = getattr(source, "headers", {}).get("Content-Length")
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        target.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, int(total) if total else None)
    return digest.hexdigest()


def _put(source: Path, target: Path) -> Path:
    if source != target.resolve():
        with _new_file(target) as file, source.open("rb") as original:
            shutil.copyfileobj(original, file, _CHUNK)
    return target


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is ``path`` once it is complete; after an exception there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
