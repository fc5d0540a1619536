"""What records hold for the measurements of a table. All of its speeds are from one machine: only then can its rows be
compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retable.report.provenance import clip_words
from retable.report.values import Hole
from retable.study import identity
from retable.study.config import Config
from retable.study.plan import Measurement, Plan
from retable.track.records import RunRecord

WHAT = {
    "videos_per_second": "Test videos per second of the test loop from end to end: clips from the loader, as runs read"
    " them (frames decoded beforehand wherever they fit into the cache), to the device, through the network, scores to"
    " the host",
    "ms_per_video": "Time of one video after the other, from its decoded clips in memory to its scores there;"
    " reading, decoding and optical flow are not in it",
}


class Speeds:
    """The measurements of some cells, those of one machine: the plan's own if it has any, else that with most."""

    def __init__(self, plan: Plan, keys: Iterable[str], records: Iterable[RunRecord]):
        self.plan = plan
        asked = [plan.measurements[key] for key in dict.fromkeys(keys)]
        by_machine: dict[str, dict[str, RunRecord]] = {}
        for record in records:
            for measurement in asked:
                if _is_of(record, measurement):
                    by_machine.setdefault(_machine(record.spec["machine"]), {})[measurement.config_id] = record
        own = {_machine(m.machine) for m in asked}
        best = max(by_machine, key=lambda m: (m in own, _done(by_machine[m]), m), default=None)
        self.records: Mapping[str, RunRecord] = by_machine[best] if best is not None else {}
        self.machines = len(by_machine)

    def read(self, key: str) -> RunRecord | Hole:
        """A measurement's record, or why there is none."""
        if (reason := self.plan.measurements[key].unsupported) is not None:
            return Hole("unsupported", reason)
        record = self.records.get(key)
        if record is None or record.status == "partial":
            return Hole("missing", "not measured yet")
        if record.status == "failed":
            return Hole("failed", f"failed: {record.reason or 'no reason was recorded'}")
        return record

    def note(self, record: RunRecord) -> str:
        """What was measured, how often, and on which machine."""
        spec, found = record.spec, numbers(record)
        metric, config = str(spec["measures"]), Config.model_validate(spec["config"])
        other = f" Measured on {self.machines} machines; those of this one are shown." if self.machines > 1 else ""
        times = f"Median of {found['passes']:.0f} passes (lowest to highest), after one that does not count"
        videos = f"{found['videos']:.0f} videos of {config.data.dataset}, {_views(found, config)}"
        compared = "Not comparable with the paper's, which is of another machine."
        return (
            f"{WHAT[metric]}. {times}, over {videos}; float32, random weights. {_machine_words(spec['machine'])}"
            f" {compared}{other}"
        )


def _views(found: Mapping[str, float], config: Config) -> str:
    """``30 views each of 8 frames of 224 x 224 pixels, 32 views at once in each of 4 workers, 5 data processes``."""
    views = f"{found['views']:.0f} view{'s' if found['views'] > 1 else ''} each of {clip_words(config.data.clip)}"
    if "videos_per_second" not in found:
        return views
    several = f" in each of {config.recipe.workers} workers" if config.recipe.workers > 1 else ""
    processes = f"{found['data_processes']:.0f}" if found["data_processes"] else "no"
    return f"{views}, {found['batch']:.0f} views at once{several}, {processes} data processes"


def _machine_words(machine: Mapping[str, str]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("device", "machine"))
    device = "" if machine["machine"].startswith(machine["device"]) else f"{machine['device']}; "
    return f"Machine: {device}{machine['machine']}; {versions}."


def numbers(record: RunRecord) -> dict[str, float]:
    """What a measurement found (see :func:`retable.train.speed.measure`)."""
    return next(iter(record.evaluations.values()), {})


def median_of(record: RunRecord) -> dict[str, Any]:
    """A cell's one value: the median, with the lowest and the highest pass."""
    metric, found = str(record.spec["measures"]), numbers(record)
    ends = {"low": found[f"{metric}.low"], "high": found[f"{metric}.high"]}
    return {"seed": None, "value": found[metric], "run_id": record.run_id, **ends}


def _is_of(record: RunRecord, measurement: Measurement) -> bool:
    if measurement.fingerprint is not None:
        return record.config_id == measurement.config_id
    return "measures" in record.spec and record.spec["provisional_id"] == measurement.provisional_id


def _machine(found: Mapping[str, str] | None) -> str:
    return identity.canonical(dict(found or {}))


def _done(records: Mapping[str, RunRecord]) -> int:
    return sum(record.status == "done" for record in records.values())
