"""Makes one MLflow experiment hold the given entries, changing only what differs.

Every MLflow run carries a key and a hash of its files: what is complete is left alone, what was interrupted is
finished, what changed is updated in place. The client is given; mlflow is not imported here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retable.track import confusion
from retable.track.entries import CONTENT, CURVES, KEY, KIND, NOTE, REASON, Dataset, Entry, digest, in_table

BATCH = 800  # metrics a call: MLflow takes 1000 items, of these 100 params and 100 tags


@dataclass
class Published:
    """What a publish did. The links of :mod:`retable.track.view` need the experiment and the profile's name."""

    experiment_id: str
    profile: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0


def found_runs(client: Any, experiment_id: str, search: str = "") -> Iterator[Any]:
    """Every active MLflow run of an experiment that fits, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment_id], search, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@dataclass
class Writer:
    """Writes entries into one experiment, one after the other."""

    client: Any
    entities: Any
    done: Published
    whole: bool
    existing: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for run in found_runs(self.client, self.done.experiment_id):
            key = run.data.tags.get(KEY)
            if key in self.existing:  # two publishers at once: keep the complete one
                keep, drop = self.existing[key], run
                if CONTENT not in keep.data.tags:
                    keep, drop = drop, keep
                self.existing[key] = keep
                self._delete(drop)
            elif key is not None:
                self.existing[key] = run

    def write(self, entry: Entry) -> None:
        """Create the entry's run, bring it up to date, or leave it alone."""
        run = self.existing.get(entry.key)
        if run is not None and self._contradicts(entry, run):
            self._delete(run)
            run = None
        if run is None:
            run = self._create(entry)
            self._update(entry, run)
            self.done.created += 1
        elif self._update(entry, run):
            self.done.updated += 1
        else:
            self.done.unchanged += 1

    def prune(self, keys: set[str], tables: Sequence[str]) -> None:
        """Remove rows that the tables no longer have; take runs that they no longer ask for out of their views."""
        if not self.whole:
            return
        shown = {in_table(self.done.profile, table) for table in tables}
        for key, run in self.existing.items():
            if key in keys:
                continue
            tags = run.data.tags
            if tags[KIND] != "run" and tags["retable.profile"] == self.done.profile and tags["retable.table"] in tables:
                self._delete(run)
            for tag in shown & set(tags):
                self.client.delete_tag(run.info.run_id, tag)

    def _create(self, entry: Entry) -> Any:
        start = int((time.time() - entry.seconds) * 1000)
        tags = {KEY: entry.key, **entry.tags, **entry.first}
        return self.client.create_run(self.done.experiment_id, start_time=start, tags=tags, run_name=entry.name)

    def _contradicts(self, entry: Entry, run: Any) -> bool:
        """Whether the run holds what cannot be changed in place: other params, other curves, metrics now gone."""
        old = run.data.params
        if any(old.get(name, value) != value for name, value in entry.params.items()):
            return True
        length, _, hashed = run.data.tags.get(CURVES, "").partition(":")
        if length and _hash_of(entry, int(length)) != hashed:
            return True
        return entry.tags[KIND] == "row" and not set(run.data.metrics) <= set(entry.finals)

    def _update(self, entry: Entry, run: Any) -> bool:
        """Write what differs. The hash of the files comes last: without it the next publish writes all of it again."""
        written = run.data.tags.get(CONTENT, "")
        stale = written != _content(entry) and written != f"{entry.content}+"
        batch = self._differences(entry, run)
        status = run.info.status != entry.status or stale
        if stale:
            self._write_files(entry, run.info.run_id)
        if stale and entry.dataset:
            self._write_dataset(entry.dataset, run.info.run_id)
        for tag in self._outdated(entry, run.data.tags):
            self.client.delete_tag(run.info.run_id, tag)
        if status:
            self._write_status(entry, run)
        if stale:
            batch["tags"].append(self.entities.RunTag(CONTENT, _content(entry)))
        self._write_batch(run.info.run_id, **batch)
        return stale or status or any(batch.values())

    def _differences(self, entry: Entry, run: Any) -> dict[str, list[Any]]:
        tags, metrics = run.data.tags, run.data.metrics
        first = entry.first if self.whole or "retable.order" not in tags else {}
        wanted = {**entry.tags, **first}
        start, now = run.info.start_time, int(time.time() * 1000)
        fresh = [p for p in entry.curves if p.step >= int(tags.get(CURVES, "0:").partition(":")[0])]
        new = self.entities
        points = [new.Metric(p.metric, p.value, start + int(p.after * 1000), p.step) for p in fresh]
        points += [new.Metric(k, v, now, 0) for k, v in entry.finals.items() if metrics.get(k) != v]
        if fresh:
            length = 1 + max(p.step for p in fresh)
            wanted[CURVES] = f"{length}:{_hash_of(entry, length)}"
        return {
            "metrics": points,
            "params": [new.Param(k, v) for k, v in entry.params.items() if k not in run.data.params],
            "tags": [new.RunTag(k, v) for k, v in wanted.items() if tags.get(k) != v],
        }

    def _outdated(self, entry: Entry, tags: Mapping[str, str]) -> set[str]:
        """The reason of a failure that has since been repaired (a note of the user's own is left alone)."""
        return {REASON, NOTE} & set(tags) if REASON in tags and REASON not in entry.tags else set()

    def _write_batch(self, run_id: str, *, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        """Metrics first: the tag that says how long the curves are must not stand before they do."""
        whole = len(metrics) - len(metrics) % BATCH
        for start in range(0, whole, BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        if metrics[whole:] or params or tags:
            self.client.log_batch(run_id, metrics=metrics[whole:], params=params, tags=tags)

    def _write_files(self, entry: Entry, run_id: str) -> None:
        files = {**entry.files, **(entry.more_files() if entry.more_files else {})}
        files |= confusion.files(files)
        with tempfile.TemporaryDirectory(prefix="retable-mlflow-") as folder:
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            if files:
                self.client.log_artifacts(run_id, folder)

    def _write_dataset(self, dataset: Dataset, run_id: str) -> None:
        context = self.entities.InputTag("mlflow.data.context", "train")
        entity = self.entities.Dataset(dataset.name, dataset.digest, "local", dataset.source)
        self.client.log_inputs(run_id, [self.entities.DatasetInput(entity, [context])])

    def _write_status(self, entry: Entry, run: Any) -> None:
        run_id = run.info.run_id
        if entry.status in ("FINISHED", "FAILED", "KILLED"):
            self.client.set_terminated(run_id, entry.status, run.info.start_time + int(entry.seconds * 1000))
        else:
            self.client.update_run(run_id, status=entry.status)

    def _delete(self, run: Any) -> None:
        self.client.delete_run(run.info.run_id)
        self.done.removed += 1


def _content(entry: Entry) -> str:
    """The hash of the entry's own files; ``+``: and further ones were written."""
    return f"{entry.content}{'+' if entry.more_files else ''}"


def _hash_of(entry: Entry, length: int) -> str:
    return digest([(p.metric, p.value, p.step) for p in entry.curves if p.step < length])
