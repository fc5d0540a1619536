"""Per-video scores of an evaluation, the metrics made of them, and their file. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per video: ``labels`` int64 ``(N,)``, ``probs`` float32 ``(N, K)``, and the names of the K classes."""

    videos: tuple[str, ...]
    labels: NDArray[np.int64]
    probs: NDArray[np.float32]
    classes: tuple[str, ...]

    def to_parquet(self, where: str | Path | IO[bytes]) -> None:
        """Columns ``video``, ``label``, ``probs`` (list of float); class names are JSON in the schema's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = self.probs.shape[1]
        offsets = np.arange(0, (len(self.videos) + 1) * count, count, dtype=np.int32)
        probs = pa.ListArray.from_arrays(offsets, pa.array(self.probs.reshape(-1), pa.float32()))
        columns = {
            "video": pa.array(self.videos, pa.string()),
            "label": pa.array(self.labels, pa.int64()),
            "probs": probs,
        }
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.classes, ensure_ascii=False)})
        pq.write_table(table, where)

    @classmethod
    def from_parquet(cls, where: str | Path | IO[bytes]) -> Scores:
        """What :meth:`to_parquet` wrote."""
        import pyarrow.parquet as pq

        table: Any = pq.read_table(where)
        classes = tuple(json.loads(table.schema.metadata[b"classes"]))
        flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(
            videos=tuple(table["video"].to_pylist()),
            labels=table["label"].to_numpy().astype(np.int64),
            probs=flat.astype(np.float32).reshape(table.num_rows, len(classes)),
            classes=classes,
        )


def ranks(scores: Scores) -> NDArray[np.int64]:
    """How many classes stand before the true one, ``(N,)``; of equal probabilities the lower class number is first."""
    true = np.take_along_axis(scores.probs, scores.labels[:, None], axis=1)
    earlier = np.arange(scores.probs.shape[1]) < scores.labels[:, None]
    before: NDArray[np.bool_] = (scores.probs > true) | ((scores.probs == true) & earlier)
    counts: NDArray[np.int64] = np.count_nonzero(before, axis=1)
    return counts


def metrics(scores: Scores) -> dict[str, float]:
    """``top1``, ``top5`` (only with more than 5 classes) and ``mean_class``, in percent, and the count ``videos``.

    ``mean_class`` is the mean over the classes that have videos of the share of each class's videos that is right.

    Raises:
        ValueError: there are no videos.
    """
    if not scores.videos:
        raise ValueError("there are no scores: the evaluated subset has no videos")
    before = ranks(scores)
    right = before == 0
    totals = np.bincount(scores.labels)
    shares = np.bincount(scores.labels, weights=right)[totals > 0] / totals[totals > 0]
    top5 = {"top5": _percent(before < 5)} if scores.probs.shape[1] > 5 else {}
    return {
        "top1": _percent(right),
        **top5,
        "mean_class": 100.0 * float(shares.mean()),
        "videos": float(len(scores.videos)),
    }


def confusion(scores: Scores) -> NDArray[np.int64]:
    """Counts ``(K, K)``: row = true class, column = predicted class."""
    count = scores.probs.shape[1]
    cells = scores.labels * count + scores.probs.argmax(axis=1)
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def _percent(hits: NDArray[np.bool_]) -> float:
    return 100.0 * int(hits.sum()) / hits.size
