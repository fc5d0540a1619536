"""GPU-hours into money at the user's own prices. What has no recorded time or no price stays open, never guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from retable.study.problems import Problem, StudyError, nearest
from retable.study.source import read


class Instance(BaseModel):
    """A machine to rent: which GPUs it has, how many, and what it costs by the hour."""

    model_config = ConfigDict(extra="forbid")
    gpu: str
    gpus: Annotated[int, Field(gt=0)]
    per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def per_gpu_hour(self) -> float:
        """Price of one GPU for an hour."""
        return self.per_hour / self.gpus

    def has(self, device: str) -> bool:
        """Whether ``device``, as CUDA names it ("NVIDIA A100-SXM4-80GB"), is a GPU of this kind ("A100")."""
        return _words(self.gpu) <= _words(device)


class Prices(BaseModel):
    """A file of prices."""

    model_config = ConfigDict(extra="forbid")
    currency: str
    as_of: date
    instances: Annotated[dict[str, Instance], Field(min_length=1)]

    def cheapest(self, device: str) -> str | None:
        """The instance with that GPU which costs least per GPU; None where no instance has it."""
        fitting = [name for name, instance in self.instances.items() if instance.has(device)]
        return min(fitting, key=lambda name: self.instances[name].per_gpu_hour, default=None)


def load(path: Path) -> Prices:
    """Read a file of prices.

    Raises:
        StudyError: it is missing or faulty; every fault with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError([Problem(str(path), 1, 1, "prices", f"cannot be read: {error}")]) from None
    tree, source, problems = read(text, str(path), form="a file of prices is a mapping: see clusters/prices.yaml")
    try:
        prices = Prices.model_validate(tree)
    except ValidationError as error:
        for item in error.errors():
            last, unknown = str(item["loc"][-1]), item["type"] == "extra_forbidden"
            known = [*Prices.model_fields, *Instance.model_fields]
            message = f"unknown key {last!r}" if unknown else item["msg"]
            problems.append(source.problem(item["loc"], message, hint=nearest(last, known) if unknown else None))
        raise StudyError(problems) from None
    if problems:
        raise StudyError(problems)
    return prices


def money(seen: Mapping[str, Any], prices: Prices) -> dict[str, Any]:
    """What the runs of a preview that are still to do would cost: per instance, together, and what is left open why.

    ``total`` is None while anything is open; ``total_of_known`` is the sum of the rest.
    """
    hours: Counter[str] = Counter()
    unpriced: Counter[str] = Counter()
    for run in seen["runs"]:
        if run["state"] == "done":
            continue
        name, reason = _instance(run, prices)
        if name is None:
            unpriced[reason] += 1
        else:
            hours[name] += run["seconds"] * run["gpus"] / 3600
    cost = {name: {"gpu_hours": h, "cost": h * prices.instances[name].per_gpu_hour} for name, h in hours.items()}
    known = sum(item["cost"] for item in cost.values())
    return {
        "currency": prices.currency,
        "as_of": prices.as_of.isoformat(),
        "instances": cost,
        "total": None if unpriced else known,
        "total_of_known": known,
        "unpriced": dict(unpriced),
    }


def show(cost: Mapping[str, Any], out: Console) -> None:
    """Print what runs would cost, for people."""
    currency = cost["currency"]
    for name, item in cost["instances"].items():
        out.print(f"  {name}: {item['gpu_hours']:.1f} GPU-hours, {item['cost']:.2f} {currency}")
    for reason, count in cost["unpriced"].items():
        out.print(f"  no price for {count} runs: {reason}")
    known = f"{cost['total_of_known']:.2f} {currency} at your prices of {cost['as_of']}"
    out.print(f"GPUs: {known}" if cost["total"] is not None else f"GPUs: {known} for the runs that have a price")


def _instance(run: Mapping[str, Any], prices: Prices) -> tuple[str | None, str]:
    """The instance that a run is priced with, else why it has no price."""
    if run["seconds"] is None:
        return None, "nothing like them has been recorded yet, so their time is unknown"
    if not run["gpus"]:
        return None, "they ask for no GPU"
    for device in run["devices"]:
        name = prices.cheapest(device)
        if name is not None:
            return name, ""
    kinds = sorted({instance.gpu for instance in prices.instances.values()})
    return None, f"their time was recorded on {', '.join(run['devices'])}; there are prices for {', '.join(kinds)}"


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
