from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retable.train.scores import Scores, confusion, metrics, ranks


def scores_of(probs: list[list[float]], labels: list[int]) -> Scores:
    names = tuple(f"class {k}" for k in range(len(probs[0])))
    videos = tuple(f"{i}.avi" for i in range(len(labels)))
    return Scores(videos, np.array(labels), np.array(probs, np.float32), names)


@st.composite
def any_scores(draw: st.DrawFn) -> Scores:
    videos, classes = draw(st.integers(1, 12)), draw(st.integers(2, 9))
    # few distinct values: ties are common
    probs = draw(hnp.arrays(np.float32, (videos, classes), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5])))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=videos, max_size=videos))
    return scores_of(probs.tolist(), labels)


def test_metrics_of_an_example_worked_by_hand() -> None:
    example = scores_of(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]],
        [0, 0, 0, 2],
    )
    # class 0: 2 of 3 right, class 2: 1 of 1, class 1 has no video
    found = metrics(example)
    assert found == {"top1": 75.0, "mean_class": pytest.approx(100 * (2 / 3 + 1) / 2), "videos": 4.0}
    assert confusion(example).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_top5_counts_the_five_most_probable_of_more_than_five_classes() -> None:
    row = [0.3, 0.25, 0.2, 0.1, 0.08, 0.07]
    assert metrics(scores_of([row, row], [4, 5]))["top5"] == 50.0
    assert "top5" not in metrics(scores_of([row[:5]], [4]))


def test_of_equal_probabilities_the_lower_class_is_first() -> None:
    tied = [0.25, 0.25, 0.25, 0.25]
    assert ranks(scores_of([tied] * 4, [0, 1, 2, 3])).tolist() == [0, 1, 2, 3]


def test_no_videos_is_an_error() -> None:
    with pytest.raises(ValueError, match="no videos"):
        metrics(Scores((), np.zeros(0, np.int64), np.zeros((0, 3), np.float32), ("a", "b", "c")))


@given(any_scores())
def test_metrics_agree_with_each_other(scores: Scores) -> None:
    found, table = metrics(scores), confusion(scores)
    assert found.get("top5", 100.0) >= found["top1"]
    assert found["top1"] == pytest.approx(100 * table.trace() / len(scores.videos))
    rows = table.sum(axis=1)
    shares = table.diagonal()[rows > 0] / rows[rows > 0]
    assert found["mean_class"] == pytest.approx(100 * shares.mean())


@given(any_scores(), st.integers(0, 1000))
def test_the_order_of_videos_changes_no_metric(scores: Scores, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(scores.videos))
    videos = tuple(scores.videos[i] for i in order)
    shuffled = Scores(videos, scores.labels[order], scores.probs[order], scores.classes)
    assert metrics(shuffled) == pytest.approx(metrics(scores))
    assert np.array_equal(confusion(shuffled), confusion(scores))


@settings(deadline=None)
@given(any_scores())
def test_parquet_gives_back_what_it_took(scores: Scores) -> None:
    buffer = io.BytesIO()
    scores.to_parquet(buffer)
    buffer.seek(0)
    back = Scores.from_parquet(buffer)
    assert (back.videos, back.classes) == (scores.videos, scores.classes)
    assert np.array_equal(back.labels, scores.labels)
    assert np.array_equal(back.probs, scores.probs)
    assert back.labels.dtype == np.int64
    assert back.probs.dtype == np.float32


def test_other_programs_find_plain_columns_and_the_class_names() -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    scores_of([[0.25, 0.75]], [1]).to_parquet(buffer)
    buffer.seek(0)
    table = pq.read_table(buffer)
    assert table.to_pylist() == [{"video": "0.avi", "label": 1, "probs": [0.25, 0.75]}]
    assert table.schema.metadata[b"classes"] == b'["class 0", "class 1"]'
