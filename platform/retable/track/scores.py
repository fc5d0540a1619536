"""Per-video scores of an evaluation, the metrics made of them, their fusion, and their file. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per video: ``labels`` int64 ``(N,)``, ``probs`` float32 ``(N, K)``, and the names of the K classes.

    ``multi``: bool ``(N, K)``, the labels of videos that may carry several or none (``labels`` is then the first of
    them, -1 for none); None where every video has exactly one.
    """

    videos: tuple[str, ...]
    labels: NDArray[np.int64]
    probs: NDArray[np.float32]
    classes: tuple[str, ...]
    multi: NDArray[np.bool_] | None = None

    @property
    def positives(self) -> NDArray[np.bool_]:
        """``(N, K)``: whether a video carries a label, however many there are."""
        if self.multi is not None:
            return self.multi
        found: NDArray[np.bool_] = self.labels[:, None] == np.arange(self.probs.shape[1])
        return found

    def to_parquet(self, where: str | Path | IO[bytes]) -> None:
        """Columns ``video``, ``label``, ``probs`` (list of float) and, with ``multi``, ``labels`` (list of class
        numbers); class names are JSON in the schema's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = self.probs.shape[1]
        offsets = np.arange(0, (len(self.videos) + 1) * count, count, dtype=np.int32)
        columns = {
            "video": pa.array(self.videos, pa.string()),
            "label": pa.array(self.labels, pa.int64()),
            "probs": pa.ListArray.from_arrays(offsets, pa.array(self.probs.reshape(-1), pa.float32())),
        }
        if self.multi is not None:
            columns["labels"] = pa.array([np.flatnonzero(row) for row in self.multi], pa.list_(pa.int64()))
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.classes, ensure_ascii=False)})
        pq.write_table(table, where)

    @classmethod
    def from_parquet(cls, where: str | Path | IO[bytes]) -> Scores:
        """What :meth:`to_parquet` wrote."""
        import pyarrow.parquet as pq

        table: Any = pq.read_table(where)
        classes = tuple(json.loads(table.schema.metadata[b"classes"]))
        flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        sets = table["labels"].to_pylist() if "labels" in table.column_names else None
        return cls(
            videos=tuple(table["video"].to_pylist()),
            labels=table["label"].to_numpy().astype(np.int64),
            probs=flat.astype(np.float32).reshape(table.num_rows, len(classes)),
            classes=classes,
            multi=None if sets is None else multi_hot(sets, len(classes)),
        )


class Mismatch(ValueError):
    """Scores that cannot be fused: of other videos, labels or classes. The message names the first difference."""


def multi_hot(sets: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    """Label sets as bool ``(N, K)``."""
    found = np.zeros((len(sets), classes), np.bool_)
    for row, labels in zip(found, sets, strict=True):
        row[list(labels)] = True
    return found


def fuse(parts: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The weighted mean of several evaluations' probabilities, video by video, in the order of the first.

    Videos are aligned by id, whatever their order. The sum is taken in float64 and kept in float32, like one
    evaluation's own.

    Raises:
        Mismatch: the parts are of different videos, labels or classes.
        ValueError: the weights do not have a positive sum.
    """
    total = float(sum(weights))
    if not total > 0:
        raise ValueError(f"the weights of a fusion need a sum above 0, but are {list(weights)}")
    first = parts[0]
    mean = np.zeros(first.probs.shape)
    for part, weight in zip(parts, weights, strict=True):
        mean += weight / total * part.probs[_aligned(first, part)].astype(np.float64)
    return Scores(first.videos, first.labels, mean.astype(np.float32), first.classes, first.multi)


def _aligned(first: Scores, other: Scores) -> NDArray[np.int64]:
    """The rows of ``other`` that hold the videos of ``first``."""
    if first.classes != other.classes:
        raise Mismatch(f"their classes differ: {len(first.classes)} and {len(other.classes)}, or other names")
    for here, there in ((first, other), (other, first)):
        missing = sorted(set(here.videos) - set(there.videos))
        if missing:
            raise Mismatch(f"{len(missing)} of {len(here.videos)} videos are not in the other, such as {missing[0]}")
    where = {video: row for row, video in enumerate(other.videos)}
    rows = np.array([where[video] for video in first.videos], np.int64)
    wrong = np.flatnonzero((first.positives != other.positives[rows]).any(axis=1))
    if wrong.size:
        raise Mismatch(f"{wrong.size} videos have other labels, such as {first.videos[wrong[0]]}")
    return rows


def ranks(scores: Scores) -> NDArray[np.int64]:
    """How many classes stand before the true one (of several, the best placed), ``(N,)``; K where there is none.

    Of equal probabilities the lower class number is first.
    """
    probs, positives = scores.probs, scores.positives
    order = np.argsort(-probs, axis=1, kind="stable")
    hit = np.take_along_axis(positives, order, axis=1)
    before: NDArray[np.int64] = np.where(hit.any(axis=1), hit.argmax(axis=1), probs.shape[1])
    return before


def metrics(scores: Scores) -> dict[str, float]:
    """``top1``, ``top5`` (only with more than 5 classes), ``mean_class`` and ``map``, in percent, and ``videos``.

    A video of several labels is right where one of them is predicted; videos without a label count in ``map`` alone,
    as negatives of every class. ``mean_class`` is the mean over the classes that have videos of the share of each
    class's videos that is right. ``map``: :func:`average_precisions`, meaned over the same classes.

    Raises:
        ValueError: there are no videos, or none has a label.
    """
    if not scores.videos:
        raise ValueError("there are no scores: the evaluated subset has no videos")
    positives = scores.positives
    labelled = positives.any(axis=1)
    if not labelled.any():
        raise ValueError(f"none of the {len(scores.videos)} evaluated videos has a label")
    before = ranks(scores)[labelled]
    right = before == 0
    totals = positives.sum(axis=0)
    shares = right.astype(np.float64) @ positives[labelled] / np.maximum(totals, 1)
    top5 = {"top5": _percent(before < 5)} if scores.probs.shape[1] > 5 else {}
    return {
        "top1": _percent(right),
        **top5,
        "mean_class": 100.0 * float(shares[totals > 0].mean()),
        "map": 100.0 * float(np.nanmean(average_precisions(scores))),
        "videos": float(len(scores.videos)),
    }


def average_precisions(scores: Scores) -> NDArray[np.float64]:
    """Average precision of every class, ``(K,)`` in [0, 1]; NaN for a class that no video has.

    The videos are ranked by a class's score; the precision is meaned over the ranks of its videos, without
    interpolation (THUMOS14's definition). Videos of equal score share the last of their ranks, so that the value does
    not depend on the order in which videos are listed.
    """
    positives = scores.positives
    found = np.full(positives.shape[1], np.nan)
    for k in np.flatnonzero(positives.any(axis=0)):
        order = np.argsort(-scores.probs[:, k], kind="stable")
        ranked, hits = scores.probs[order, k], positives[order, k]
        rank = np.searchsorted(-ranked, -ranked[hits], side="right")  # of the last video with this score, from 1
        found[k] = float(np.mean(np.cumsum(hits)[rank - 1] / rank))
    return found


@dataclass(frozen=True)
class OfClass:
    """How one class was recognised: its videos, how many of them were right, both rates in percent (None without
    videos), and which other class its videos were taken for most often."""

    name: str
    videos: int
    right: int
    accuracy: float | None
    average_precision: float | None
    taken_for: str | None


def per_class(scores: Scores) -> list[OfClass]:
    """Every class by itself; ``metrics`` has their means. Right is a video whose best class is among its labels."""
    positives, before, precisions = scores.positives, ranks(scores), average_precisions(scores)
    wrong = confusion(scores)
    np.fill_diagonal(wrong, 0)
    found = []
    for k, name in enumerate(scores.classes):
        videos, right = int(positives[:, k].sum()), int((positives[:, k] & (before == 0)).sum())
        known = videos > 0
        other = scores.classes[int(wrong[k].argmax())] if right < videos else None
        accuracy, precision = 100.0 * right / max(videos, 1), 100.0 * float(precisions[k])
        found.append(OfClass(name, videos, right, accuracy if known else None, precision if known else None, other))
    return found


def confusion(scores: Scores) -> NDArray[np.int64]:
    """Counts ``(K, K)``: row = true class, column = predicted class; a video of several labels counts in each row."""
    count = scores.probs.shape[1]
    videos, true = np.nonzero(scores.positives)
    cells = true * count + scores.probs.argmax(axis=1)[videos]
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def _percent(hits: NDArray[np.bool_]) -> float:
    return 100.0 * int(hits.sum()) / hits.size
