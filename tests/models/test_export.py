"""Tiny models exported, and traced as ``torch.compile`` traces them, have the same scores."""

from __future__ import annotations

import pytest
import torch

from retable import registry, testing


@pytest.mark.parametrize("name", ["msfnet", "r2plus1d"])  # the others' own tests export them
def test_export_gives_a_program_of_the_same_scores(name: str) -> None:
    file = registry.load(name)
    model, clips = testing.build(file, file.tiny).eval(), testing.clips(file, file.tiny, batch=2)
    with torch.no_grad():
        exported = torch.export.export(model, (), clips).module()
        torch.testing.assert_close(exported(**clips)["logits"], model(**clips)["logits"])


@pytest.mark.parametrize("name", registry.files())
def test_compile_traces_the_model(name: str) -> None:
    file = registry.load(name)
    model, clips = testing.build(file, file.tiny).eval(), testing.clips(file, file.tiny, batch=2)
    torch.compiler.reset()
    traced = torch.compile(model, backend="eager")  # tracing alone: no C++ compiler is needed here
    with torch.no_grad():
        torch.testing.assert_close(traced(**clips)["logits"], model(**clips)["logits"])
