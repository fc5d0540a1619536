"""The truth about runs: one folder per run in a folder or bucket, of objects that are put as a whole.

``runs/<id>/spec.json`` says what it is; ``attempts/<n>/claim.json`` who trains it (``beat.json`` beside it is the
heartbeat); then ``epochs/<epoch>.<attempt>.json``, ``ckpt/<last|best>.<attempt>.pt``, ``scores/<view>.parquet`` and
``.json``. ``result.json``, written last, is the only meaning of *finished* (done or failed). Heartbeat, checkpoints and
``log.txt`` are written over, everything else is written once.
"""

from __future__ import annotations

import errno
import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from retable.track.objects import Folder, open_objects
from retable.track.records import RunRecord
from retable.track.scores import Scores


class StorageError(OSError):
    """The storage cannot be read or written; the message names the place and the way out."""

    def __str__(self) -> str:
        return str(self.args[-1])


class Storage:
    """A storage folder or bucket prefix: ``./.retable``, ``s3://bucket/prefix``; see :mod:`retable.track.objects`.

    Raises:
        StorageError: no store can be kept there.
    """

    def __init__(self, root: str | Path):
        try:
            self.objects = open_objects(str(root))
        except ValueError as error:
            raise StorageError(errno.EINVAL, str(error)) from error
        except OSError as error:
            raise StorageError(
                error.errno or errno.EIO, f"storage {root} cannot be opened: {error.strerror}"
            ) from error
        self.local = isinstance(self.objects, Folder)
        self.root, self.url = self.objects.root, self.objects.url

    def path(self, name: str) -> str:
        """The absolute place of an object such as ``runs/<id>/spec.json``."""
        return f"{self.root}/{name}"

    def check(self) -> None:
        """Find out by writing whether it serves: it can be written, and it creates names exclusively.

        Raises:
            StorageError: it cannot be written, or it takes a second claim on what is claimed already.
        """
        name = f"probes/{uuid4().hex}"
        self.put_new(name, b"1")
        second = self.put_new(name, b"2")
        self.delete(name)
        if second:
            raise StorageError(
                errno.ENOTSUP,
                f"{self.url} puts a new object over one that is there (it ignores If-None-Match), so two drivers could"
                " train the same run: choose another --storage",
            )

    def exists(self, name: str) -> bool:
        with self._readable(name):
            return self.objects.exists(name)

    def get(self, name: str) -> bytes | None:
        """An object's bytes, or None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        with self._readable(name):
            return self.objects.get(name)

    def get_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object, or None where there is none.

        Raises:
            StorageError: it is damaged. Objects are put whole, so something else than retable did that.
        """
        data = self.get(name)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self._damaged(name, str(error)) from error
        if not isinstance(value, dict):
            raise self._damaged(name, "not a JSON object")
        return value

    def put(self, name: str, data: bytes) -> None:
        """Write an object as a whole: readers see the old one or the new one, never a part.

        Raises:
            StorageError: no space, or not writable.
        """
        _storable(name)
        try:
            self.objects.put(name, data)
        except OSError as error:
            raise self._explained(name, error) from error

    def put_new(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one already; False if there is. Atomic against other writers.

        Raises:
            StorageError: no space, or not writable.
        """
        _storable(name)
        try:
            return self.objects.put_new(name, data)
        except OSError as error:
            raise self._explained(name, error) from error

    def put_json(self, name: str, value: Any) -> None:
        self.put(name, dump(value))

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        try:
            self.objects.delete(name)
        except OSError as error:
            raise self._explained(name, error) from error

    def names(self, folder: str) -> list[str]:
        """Names of the objects and folders in ``folder``, sorted; none if there is no such folder.

        Objects that are still being written, or whose writer died, begin with a dot and are left out.
        """
        with self._readable(folder):
            return sorted(n for n in self.objects.names(folder) if not n.startswith("."))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object below ``folder``, leftovers of writes too, by name relative to the storage."""
        with self._readable(folder):
            return self.objects.sizes(folder)

    def run_ids(self) -> list[str]:
        """Ids of every run that storage knows."""
        return self.names("runs")

    def records(self) -> dict[str, RunRecord]:
        """Everything recorded, by run id."""
        found = (self.record(run_id) for run_id in self.run_ids())
        return {record.run_id: record for record in found if record is not None}

    def record(self, run_id: str) -> RunRecord | None:
        """What is known of a run; None if nothing has been recorded."""
        spec = self.get_json(f"runs/{run_id}/spec.json")
        if spec is None:
            return None
        result = self.get_json(f"runs/{run_id}/result.json")
        attempts = len(self.names(f"runs/{run_id}/attempts"))
        epochs = tuple(self.epochs(run_id))
        if result is None:
            return RunRecord(spec, "partial", epochs=epochs, attempts=attempts)
        scores = partial(self.scores, run_id)
        return RunRecord(
            spec,
            result["status"],
            result.get("reason"),
            epochs,
            self._evaluations(run_id),
            result.get("cost", {}),
            result.get("environment", {}),
            attempts,
            scores,
        )

    def scores(self, run_id: str, view: str) -> Scores | None:
        """A run's per-video scores under a view (its key); None if there are none.

        Raises:
            StorageError: they are damaged.
        """
        name = f"runs/{run_id}/scores/{view}.parquet"
        data = self.get(name)
        if data is None:
            return None
        try:
            return Scores.from_parquet(io.BytesIO(data))
        except (ValueError, KeyError) as error:  # pyarrow's errors of reading are ValueErrors
            raise self._damaged(name, str(error)) from error

    def epochs(self, run_id: str) -> Iterator[dict[str, float]]:
        """Each finished epoch's metrics, in order; the first attempt to finish an epoch is the one that counts."""
        first: dict[int, tuple[int, str]] = {}
        for name in self.names(f"runs/{run_id}/epochs"):
            named = re.fullmatch(r"(\d+)\.(\d+)\.json", name)
            if named is None:
                continue
            epoch, attempt = int(named[1]), int(named[2])
            if epoch not in first or attempt < first[epoch][0]:
                first[epoch] = (attempt, name)
        for epoch in sorted(first):
            metrics = self.get_json(f"runs/{run_id}/epochs/{first[epoch][1]}")
            if metrics is not None:
                yield metrics

    def checkpoints(self, run_id: str, kind: str = "last") -> list[str]:
        """Names of the run's checkpoints of a kind (``last`` or ``best``), newest attempt first."""
        names = (re.fullmatch(rf"{kind}\.(\d+)\.pt", n) for n in self.names(f"runs/{run_id}/ckpt"))
        newest_first = sorted((n for n in names if n is not None), key=lambda n: -int(n[1]))
        return [f"runs/{run_id}/ckpt/{n[0]}" for n in newest_first]

    def _evaluations(self, run_id: str) -> dict[str, dict[str, float]]:
        folder = f"runs/{run_id}/scores"
        found = {}
        for name in self.names(folder):
            if name.endswith(".json"):
                metrics = self.get_json(f"{folder}/{name}")
                if metrics is not None:
                    found[name.removesuffix(".json")] = metrics
        return found

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(error.errno or errno.EIO, f"cannot read {self.path(name)}: {error.strerror}") from error

    def _damaged(self, name: str, why: str) -> StorageError:
        way_out = "put it back from a copy, or delete it and run the same command again"
        return StorageError(errno.EIO, f"{self.path(name)} is damaged ({why}); {way_out}")

    def _explained(self, name: str, error: OSError) -> StorageError:
        place = self.path(name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = "free some (retable gc shows what can go) and run the same command again; nothing is lost"
            return StorageError(errno.ENOSPC, f"no space left for {place}; {way_out}")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StorageError(error.errno, f"{place} is not writable; choose another --storage")
        return StorageError(error.errno or errno.EIO, f"cannot write {place}: {error.strerror or error}")


def _storable(name: str) -> None:
    """Runs whose dataset was not at hand have provisional ids: what they would store could never be found again."""
    if name.startswith("runs/~"):
        raise ValueError(f"provisional ids are never stored: {name}")


def dump(value: Any) -> bytes:
    """JSON bytes of plain data, readable by people, exact for floats."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def now() -> str:
    """The time for people to read, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
