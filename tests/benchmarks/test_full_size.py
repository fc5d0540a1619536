"""The full-size check at tiny size: what it calls healthy, what it notices, and that it needs no heavy library."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retable import registry

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "full_size.py"
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "mlflow", "optuna", "av"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import json, runpy
sys.argv = ["full_size.py"]
script = runpy.run_path(SCRIPT)
from retable import registry
file = registry.load("mast")
print(json.dumps(script["one_step"](file, file.tiny, "cpu")))
"""


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("full_size", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_without_ray_mlflow_optuna_and_av() -> None:
    code = f"SCRIPT = {str(SCRIPT)!r}\n{BLOCKED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["peak_bytes"] > 1e7
    assert set(found["seconds"]) == {"build", "forward", "backward", "step"}


def test_every_model_file_is_checked(script: Any) -> None:
    assert {registry.resolve(name)[0].name for name in script.MODELS} == set(registry.files())
    assert {name for name in registry.files() if name != "msfnet"} <= set(script.MODELS)


@pytest.mark.parametrize("name", ["stidf", "statsn", "maagn"])
def test_a_step_of_a_healthy_model_has_no_failure(script: Any, name: str) -> None:
    file = registry.load(name)
    assert script.one_step(file, file.tiny, "cpu")["failures"] == []


class Ill(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear, self.idle, self.how = nn.Linear(1, 2), nn.Parameter(torch.ones(1)), how

    def forward(self, rgb: torch.Tensor) -> dict[str, Any]:
        logits = self.linear(rgb.flatten(1)[:, :1])
        if self.how == "nan":
            logits = logits + (self.idle - 1).log() * 0
        return {"logits": logits, "losses": {"idle": self.idle.sum()} if self.how == "fine" else {}}


@pytest.mark.parametrize(
    ("how", "failures"),
    [("fine", set()), ("idle", {"idle has no gradient"}), ("nan", {"the loss is not finite"})],
)
def test_what_is_wrong_is_named(script: Any, how: str, failures: set[str]) -> None:
    model = Ill(how)
    loss = script.loss_of(model, {"rgb": torch.ones(1, 1, 1, 1, 1)}, torch.zeros(1, dtype=torch.long))
    loss.backward()
    found = set(script.not_finite(model, loss))
    assert failures <= found
    assert bool(found) == bool(failures)


def test_a_batch_fills_when_more_clips_are_no_faster(script: Any) -> None:
    rates = {1: 10.0, 2: 19.0, 4: 30.0, 8: 30.5, 16: 99.0}
    asked: list[int] = []

    def rate(batch: int) -> float:
        asked.append(batch)
        return rates[batch]

    assert script.filling_batch(rate) == (8, 30.5)
    assert asked == [1, 2, 4, 8]


def test_a_batch_that_does_not_fit_ends_the_search(script: Any) -> None:
    def rate(batch: int) -> float:
        if batch > 4:
            raise torch.OutOfMemoryError
        return float(batch)

    assert script.filling_batch(rate) == (4, 4.0)


@pytest.mark.parametrize("train", [True, False])
def test_clips_per_second_are_a_share_of_the_matrix_rate(
    script: Any, monkeypatch: pytest.MonkeyPatch, train: bool
) -> None:
    monkeypatch.setattr(script, "BATCHES", (1, 2))
    file, cpu = registry.load("tsn"), torch.device("cpu")
    found = script.speed(file, file.tiny, cpu, macs=500, peak=1e6, train=train, least=0.0)
    assert found["batch"] in (1, 2)
    assert found["share_of_peak"] == pytest.approx(found["clips_per_second"] * (3e-3 if train else 1e-3))
    assert script.matrix_rate(cpu, side=64) > 1e6


def test_a_process_that_dies_is_that_models_failure(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.sys, "executable", "false")
    found = script.in_own_process("tsn", "cpu", None, 1.0)
    assert found["failures"] == ["exit 1: killed without a word: out of memory?"]
    assert "FAILED" in script.line(found)


def test_results_are_written_only_if_all_passed(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"parameters": 1, "gmacs": 1.0, "loss": "1", "seconds": {"step": 1.0}, "peak_bytes": 1, "failures": []}
    target = tmp_path / "results" / "r.json"
    command = ["full_size.py", "--device", "cpu", "--models", "tsn", "tsm", "--results", str(target)]
    monkeypatch.setattr(script.sys, "argv", command)
    ill = {**good, "name": "tsm", "failures": ["the loss is not finite"]}
    monkeypatch.setattr(script, "in_own_process", lambda name, *_: ill if name == "tsm" else {**good, "name": name})
    assert script.main() == 1
    assert not target.exists()
    assert "1 of 2 models" in capsys.readouterr().out
    monkeypatch.setattr(script, "in_own_process", lambda name, *_: {**good, "name": name})
    assert script.main() == 0
    written = json.loads(target.read_text())
    assert [m["name"] for m in written["models"]] == ["tsn", "tsm"]
    assert {"cpu", "cpus", "memory", "python", "torch", "torchvision"} <= set(written["machine"])
