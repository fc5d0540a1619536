"""``retable weights list|fetch|import``: whole and verified files only, whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from retable import registry
from retable.weights import WeightsError, sources, store

CONTENT = bytes(range(256)) * 9000  # more than two of the pieces in which it arrives
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETABLE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a file that a server would offer."""
    (tmp_path / "net.pth").write_bytes(CONTENT)
    return (tmp_path / "net.pth").as_uri()


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []


def test_the_list_names_every_published_file_with_its_users_and_place(folder: Path) -> None:
    folder.mkdir()
    (folder / "vgg16-397923af.pth").touch()
    entries = {e.name: e for e in store.entries()}
    assert entries["vgg16"].models == ("mast", "stidf")
    assert entries["vgg16"].present
    assert entries["resnet50"].path == folder / "resnet50-0676ba61.pth"
    assert not entries["resnet50"].present
    assert {"bninception", "resnet50-v2", "resnet152"} <= set(entries)
    assert set(entries["resnet50"].to_json()) == {"name", "models", "file", "sha256", "url", "path", "present"}


def test_a_download_is_whole_verified_and_told_about(url: str, folder: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = store.fetch(f"{url}#sha256={DIGEST}", lambda *now: told.append(now))
    assert path == folder / f"net-{DIGEST[:8]}.pth"
    assert path.read_bytes() == CONTENT
    assert [total for _, total in told] == [len(CONTENT)] * len(told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == len(CONTENT)


def test_a_second_download_asks_nobody(url: str) -> None:
    first = store.fetch(f"{url}#sha256={DIGEST}")
    Path(url.removeprefix("file://")).unlink()
    assert store.fetch(f"{url}#sha256={DIGEST}") == first


def test_other_bytes_than_meant_are_not_kept(url: str, folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"its SHA-256 is .* should begin with 0123456789. Nothing was kept"):
        store.fetch(f"{url}#sha256=0123456789")
    assert left(folder) == []


def test_an_interrupted_download_leaves_nothing(url: str, folder: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch(f"{url}#sha256={DIGEST}", interrupt)
    assert left(folder) == []


def test_a_damaged_file_in_place_is_reported(url: str) -> None:
    store.fetch(f"{url}#sha256={DIGEST}").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"is damaged or another file"):
        store.fetch(f"{url}#sha256={DIGEST}")


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("retable.weights.store.urlopen", unreachable)
    with pytest.raises(WeightsError) as error:
        store.fetch("resnet50")
    for part in ("resnet50-0676ba61.pth: Name or service", f"put it at {folder / 'resnet50-0676ba61.pth'}", "import"):
        assert part in str(error.value)
    assert left(folder) == []


@pytest.mark.parametrize("name", ["resnet34", "resnet50-v2"])
def test_whatever_a_model_may_ask_for_can_be_fetched(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def published(network: str, version: str) -> sources.Source:
        return sources.Source(network, f"{network}-{version}.pth", DIGEST[:8], url)

    monkeypatch.setattr("retable.weights.sources.published", published)
    network, _, version = name.partition("-")
    expected = f"{network}-imagenet{'-' + version if version else ''}.pth"
    assert store.fetch(name) == folder / expected


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"no published weights 'resnet5O'; did you mean resnet50\?"):
        store.fetch("resnet5O")


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    path = tmp_path / "from-somewhere.bin"
    torch.save(torchvision.models.get_model("resnet50", weights=None).state_dict(), path)
    return path


def test_an_imported_file_can_start_a_model_by_its_path(resnet: Path, folder: Path) -> None:
    taken = store.import_file(resnet)
    assert taken.architecture == "resnet50"
    assert taken.path == folder / f"resnet50-{taken.sha256[:8]}.pth"
    file = registry.load("tsn")
    pinned = sources.pinned(file, file.config_class(weights=taken.value))
    assert pinned == f"{taken.path}#sha256={taken.sha256}"


def test_a_published_file_is_recognised_whatever_it_is_called(
    resnet: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sources.file_hash(resnet)
    theirs = sources.Source("resnet50-v2", f"resnet50-{digest[:8]}.pth", digest[:8], "https://example.org/r.pth")
    monkeypatch.setattr("retable.weights.sources.known_of", lambda network: [theirs])
    taken = store.import_file(resnet)
    assert taken.value == "imagenet-v2"
    assert left(folder) == [theirs.file]
    assert store.import_file(taken.path).path == taken.path  # already in its place


def test_code_in_a_file_is_not_run(tmp_path: Path, folder: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(WeightsError, match=r"harm\.pth cannot be read as weights"):
        store.import_file(tmp_path / "harm.pth")
    assert not (tmp_path / "ran").exists()
    assert left(folder) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, r"is not a state dict"),
        (
            {"conv1.weight": torch.zeros(2)},
            r"is of no image network that a model here starts from\. .*resnet50: it lacks",
        ),
    ],
    ids=["checkpoint", "unknown"],
)
def test_what_is_no_image_network_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        store.import_file(tmp_path / "x.pth")


def test_files_of_old_pytorch_are_read(resnet: Path, folder: Path) -> None:
    state = torch.load(resnet, weights_only=True)
    torch.save(state, resnet, _use_new_zipfile_serialization=False)
    assert store.import_file(resnet).architecture == "resnet50"
