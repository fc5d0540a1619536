"""What a run starts from, in its id: by content, known without the file, the same by whatever name it is given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from retable import registry
from retable.data.config import Data
from retable.registry import ModelFile
from retable.study.config import Config, Recipe
from retable.study.identity import config_id
from retable.study.problems import StudyError
from retable.train.checkpoint import stamp
from retable.weights import WeightsError, sources
from retable.workspace import Workspace, open_study

TSN = registry.load("tsn")


def settings(weights: str, file: ModelFile = TSN, **knobs: Any) -> BaseModel:
    return file.config_class(weights=weights, **knobs)


def model(weights: str, **knobs: Any) -> dict[str, Any]:
    """A config's ``model`` section as a study resolves it."""
    made = settings(weights, **knobs)
    return {"name": "tsn", **made.model_dump(mode="json"), "weights": sources.pinned(TSN, made)}


def run_config(weights: str) -> Config:
    return Config(model=model(weights), data=Data(dataset="motions-ucf101"), recipe=Recipe(epochs=1))


def key(weights: str) -> str:
    config = run_config(weights)
    identity = sources.identity(config.model)
    return config_id(config, layout="x", fingerprint="f", semantics={}, weights=identity)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pth"
    torch.save({"conv1.weight": torch.ones(2)}, path)
    return path


@pytest.mark.parametrize(
    ("network", "version", "file", "hash_"),
    [
        ("resnet18", "imagenet", "resnet18-f37072fd.pth", "f37072fd"),
        ("resnet50", "imagenet", "resnet50-0676ba61.pth", "0676ba61"),
        ("resnet50", "imagenet-v2", "resnet50-11ad3fa6.pth", "11ad3fa6"),
        ("resnet101", "imagenet", "resnet101-63fe2227.pth", "63fe2227"),
        ("resnet152", "imagenet", "resnet152-394f9c45.pth", "394f9c45"),
        ("vgg16", "imagenet", "vgg16-397923af.pth", "397923af"),
        ("bninception", "imagenet", "bn_inception-52deb4733.pth", "52deb4733"),
    ],
)
def test_published_files_are_known_by_name(network: str, version: str, file: str, hash_: str) -> None:
    found = sources.published(network, version)
    assert (found.file, found.sha256) == (file, hash_)
    assert found.url is not None
    assert found.url.endswith("/" + file)


def test_ids_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETABLE_WEIGHTS", str(tmp_path))
    absent = key("imagenet")
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"anything")
    assert key("imagenet") == absent
    assert sources.identity(model("imagenet")) == "sha256:0676ba61"


def test_every_start_has_its_own_id(file: Path) -> None:
    assert len({key(w) for w in ("none", "imagenet", "imagenet-v2", str(file))}) == 4


def test_random_weights_leave_the_id_as_it_was_before_there_were_others() -> None:
    config = run_config("none")
    assert sources.identity(config.model) is None
    assert key("none") == config_id(config, layout="x", fingerprint="f", semantics={})


def test_a_path_is_known_by_its_content_wherever_it_lies(file: Path, tmp_path: Path) -> None:
    first, other = key(str(file)), tmp_path / "elsewhere.pth"
    other.write_bytes(file.read_bytes())
    assert key(str(other)) == first
    other.write_bytes(b"something else")
    assert key(str(other)) != first


def test_a_checkpoint_goes_on_after_the_file_moved(file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.pth"
    moved.write_bytes(file.read_bytes())
    assert stamp(run_config(str(file))) == stamp(run_config(str(moved))) != stamp(run_config("none"))


def test_a_config_carries_the_absolute_path_and_the_hash(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert model("./mine.pth")["weights"] == f"{file}#sha256={digest}"


def test_a_published_file_is_the_same_start_by_path_and_by_url() -> None:
    full = "0676ba61" + 56 * "0"
    names = (f"https://mirror.example/r.pth#sha256={full}", f"/weights/r.pth#sha256={full}", "imagenet")
    assert {sources.identity(model(name)) for name in names} == {"sha256:0676ba61"}
    assert len({key(name) for name in names}) == 1


@pytest.mark.parametrize(
    ("url", "file", "hash_"),
    [
        ("https://x.org/net-0123abcd.pth", "net-0123abcd.pth", "0123abcd"),
        ("https://x.org/net-0123abcd.pth?dl=1", "net-0123abcd.pth", "0123abcd"),
        ("https://x.org/net.pth#sha256=0123ABCDEF", "net-0123abcd.pth", "0123abcdef"),
    ],
)
def test_a_url_is_known_by_its_declared_hash_or_its_file_names(url: str, file: str, hash_: str) -> None:
    found = sources.of_config(model(url))
    assert found is not None
    assert (found.file, found.sha256) == (file, hash_)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("https://x.org/net.pth", r"could change, and runs with it: add #sha256="),
        ("https://x.org/net.pth#sha256=12", r"add #sha256=<its SHA-256, at least 8 hex digits>"),
        ("imagnet", r"there is no file of weights at .*/imagnet: did you mean imagenet\?"),
        ("/nowhere/net.pth", r"there is no file of weights at /nowhere/net\.pth"),
    ],
)
def test_what_is_not_known_by_content_is_refused(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        sources.pinned(TSN, settings(weights))


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("tsn", {"width": 8}, "set width 64 and depth_divisor 1 .not 8 and 1., or weights none"),
        ("tsm", {"depth_divisor": 2}, "of a whole resnet50"),
        ("maagn", {"width": 8}, "of a whole resnet50"),
        ("mast", {"stem": 3}, "of a whole resnet50"),
        ("mast", {"backbone": "bninception", "width": 8}, "of a whole bninception"),
        ("mast", {"backbone": "vgg16", "weights": "imagenet-v2"}, "vgg16 has no .* 'imagenet-v2'; it has imagenet$"),
        ("stidf", {"size": 112}, "VGG-16 at 224 pixels"),
        ("statsn", {"backbone": "tiny"}, "no weights for backbone tiny"),
        ("statsn", {"head_only": True}, "no trunk to fill"),
    ],
)
def test_weights_that_cannot_fit_are_refused_when_the_study_is_read(
    name: str, knobs: dict[str, Any], message: str
) -> None:
    file = registry.load(name)
    with pytest.raises(WeightsError, match=message):
        sources.pinned(file, settings(**{"weights": "imagenet", **knobs}, file=file))


def test_a_model_without_the_knob_starts_from_random_weights() -> None:
    file = registry.load("r2plus1d")
    assert sources.pinned(file, file.tiny) is None
    assert sources.identity({"name": "r2plus1d"}) is None


STUDY = """
study: small
default_profile: paper
profiles: {paper: {}}
base:
  model: {name: tsn, weights: WEIGHTS}
  data: {dataset: motions-ucf101, split: 1, clip: {frames: 2, size: 32}}
  recipe: {epochs: 1, batch_size: 2}
tables:
  - id: t
    caption: T
    columns: {top1: {metric: top1, unit: "%"}}
    rows: [{id: a, label: A}]
"""


def planned(folder: Path, weights: str) -> Any:
    path = folder / "small.yaml"
    path.write_text(STUDY.replace("WEIGHTS", weights))
    return Workspace(str(folder / "store"), str(folder / "data")).plan(open_study(str(path)))


def test_a_plan_knows_its_weights_by_content(tmp_path: Path, file: Path) -> None:
    ids = {
        weights: next(iter(planned(tmp_path, weights).trainings)) for weights in ("none", "imagenet", file.as_posix())
    }
    assert len(set(ids.values())) == 3
    assert all(i.startswith("~") for i in ids.values())  # no dataset here either


def test_a_wrong_value_is_reported_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"small\.yaml:6:.*did you mean imagenet\?"):
        planned(tmp_path, "imagenett")
