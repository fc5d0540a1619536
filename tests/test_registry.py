"""Models are found by file name, by the names of their configs, and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable import registry

PLUG_IN = """
from pydantic import BaseModel

PAPER = "none"
SEMANTICS = 3

class Config(BaseModel):
    knob: int = 1

CONFIGS = {"mine": Config(), "mine-two": Config(knob=2)}
TINY = Config()
"""


def test_a_files_name_is_its_registration() -> None:
    file, config = registry.resolve("msfnet")
    assert file.name == "msfnet"
    assert config == file.configs["msfnet"]
    assert "msfnet" in registry.files()


def test_an_alias_resolves_to_its_file_and_config() -> None:
    file, config = registry.resolve("msf-c3d")
    assert file.name == "msfnet"
    assert config == file.config_class(backbone="c3d")


def test_every_alias_resolves() -> None:
    for name, (owner, config) in registry.aliases().items():
        file, found = registry.resolve(name)
        assert (file.name, found) == (owner, config)


@pytest.mark.parametrize("find", [registry.load, registry.resolve])
def test_a_typo_is_answered_with_the_nearest_name(find: object) -> None:
    assert callable(find)
    with pytest.raises(registry.UnknownModelError, match=r"no model 'msfnett'; did you mean .*msfnet"):
        find("msfnett")


def test_a_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(registry.UnknownModelError, match=r"no model '12345'; known: .*msfnet.*r2plus1d"):
        registry.load("12345")


def test_a_plug_in_is_reached_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUG_IN)
    file, config = registry.resolve(str(path))
    assert (file.name, file.semantics, config.model_dump()) == ("mine", 3, {"knob": 1})
    assert registry.load(str(path)).module is file.module


def test_a_missing_plug_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(registry.UnknownModelError, match=r"no model file at .*gone\.py"):
        registry.load(str(tmp_path / "gone.py"))
