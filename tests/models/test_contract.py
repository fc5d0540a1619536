"""Every model file passes the contract of retable.testing. A new file is picked up with no edit here."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable import registry, testing

MODELS = registry.files()
CANARIES = Path(__file__).with_name("canaries.json")


@pytest.mark.parametrize("check", testing.MODEL_CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, check: testing.Check) -> None:
    file = registry.load(name)
    check(file, file.tiny)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_move_only_with_semantics(name: str) -> None:
    testing.check_canary(registry.load(name), CANARIES)


@pytest.fixture(scope="module")
def two_ranks() -> dict[str, str]:
    return testing.train_on_two_ranks(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_trains_on_two_ranks(name: str, two_ranks: dict[str, str]) -> None:
    assert two_ranks[name] == ""


def test_names_of_configs_are_unique() -> None:
    names = [alias for name in MODELS for alias in registry.load(name).configs]
    assert len(names) == len(set(names))
