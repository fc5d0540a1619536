"""``retable plan --prices``: recorded GPU-hours at the user's prices; what has no time or price is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable import cli
from retable.report import prices
from retable.study.problems import StudyError

ROOT = Path(__file__).resolve().parents[2]
OWN = """
currency: EUR
as_of: 2026-11-25
instances:
  one: {gpu: L4, gpus: 1, per_hour: 1.0}
  four: {gpu: L4, gpus: 4, per_hour: 2.0}
  big: {gpu: A100, gpus: 8, per_hour: 24.0}
"""


def loaded(tmp_path: Path, text: str = OWN) -> prices.Prices:
    (tmp_path / "prices.yaml").write_text(text)
    return prices.load(tmp_path / "prices.yaml")


def run(seconds: float | None, *devices: str, gpus: float = 1, state: str = "to run") -> dict[str, Any]:
    return {"state": state, "seconds": seconds, "gpus": gpus, "devices": list(devices)}


def test_hours_are_priced_per_gpu_with_the_cheapest_instance_of_the_recorded_kind(tmp_path: Path) -> None:
    runs = [run(7200, "NVIDIA L4"), run(3600, "NVIDIA A100-SXM4-80GB", gpus=2), run(9e9, "NVIDIA L4", state="done")]
    cost = prices.money({"runs": runs}, loaded(tmp_path))
    assert cost["instances"] == {"four": {"gpu_hours": 2.0, "cost": 1.0}, "big": {"gpu_hours": 2.0, "cost": 6.0}}
    assert cost["total"] == cost["total_of_known"] == 7.0


def test_a_kind_without_a_price_is_named_and_the_total_stays_open(tmp_path: Path) -> None:
    runs = [run(3600, "NVIDIA L4"), run(3600, "NVIDIA L40S"), run(None), run(60, "cpu x86_64", gpus=0)]
    cost = prices.money({"runs": runs}, loaded(tmp_path))
    assert cost["total"] is None
    assert cost["total_of_known"] == 0.5
    assert any("NVIDIA L40S; there are prices for A100, L4" in reason for reason in cost["unpriced"])
    assert sum(cost["unpriced"].values()) == 3


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 8)), max_size=5))
def test_the_total_is_the_sum_of_its_parts(parts: list[tuple[float, int]]) -> None:
    known = prices.Prices.model_validate(
        {"currency": "EUR", "as_of": "2026-11-25", "instances": {"one": {"gpu": "L4", "gpus": 2, "per_hour": 3.0}}}
    )
    cost = prices.money({"runs": [run(seconds, "NVIDIA L4", gpus=gpus) for seconds, gpus in parts]}, known)
    assert cost["total"] == pytest.approx(sum(seconds * gpus / 3600 * 1.5 for seconds, gpus in parts))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per_hour: 1.0", "per_hours: 1.0", "prices.yaml:5:27: instances.one.per_hours: unknown key 'per_hours'"),
        ("gpus: 4", "gpus: 0", "greater than 0"),
        ("per_hour: 24.0", "per_hour: free", "valid number"),
        ("currency: EUR", "", "currency"),
    ],
)
def test_faults_are_found_with_their_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as raised:
        loaded(tmp_path, OWN.replace(old, new))
    assert said in str(raised.value)


def test_a_plan_of_the_paper_has_no_price_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "plan",
        "msfnet",
        "--profile",
        "paper",
        "--tables",
        "table2",
        "--prices",
        str(ROOT / "clusters/prices.yaml"),
    ]
    said = []
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["retable", *words, *more])
        with pytest.raises(SystemExit):
            cli.main()
        said.append(capsys.readouterr().out)
    assert "no price for 4 runs: nothing like them has been recorded yet" in said[0]
    assert "GPUs: 0.00 USD at your prices of 2026-11-25 for the runs that have a price" in said[0]
    assert json.loads(said[1])["money"]["total"] is None
