from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retable.track.scores import Mismatch, Scores, average_precisions, confusion, fuse, metrics, per_class, ranks


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
    # ranked by class 0's score, its videos are 1st, 2nd and 4th; class 2's one video is 1st
    precision = ((1 + 1 + 3 / 4) / 3 + 1) / 2
    assert found == {
        "top1": 75.0,
        "mean_class": pytest.approx(100 * (2 / 3 + 1) / 2),
        "map": pytest.approx(100 * precision),
        "videos": 4.0,
    }
    assert confusion(example).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]
    first, second, third = per_class(example)
    assert (first.videos, first.right, first.taken_for) == (3, 2, example.classes[1])
    assert first.accuracy == pytest.approx(200 / 3)
    assert (second.videos, second.accuracy, second.average_precision, second.taken_for) == (0, None, None, None)
    assert (third.videos, third.right, third.accuracy, third.taken_for) == (1, 1, 100.0, None)
    known = [c.accuracy for c in per_class(example) if c.accuracy is not None]
    assert metrics(example)["mean_class"] == pytest.approx(sum(known) / len(known))


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


@st.composite
def multi_label(draw: st.DrawFn) -> Scores:
    """Videos with any number of labels; few distinct values, so that ties are common."""
    videos, classes = draw(st.integers(1, 12)), draw(st.integers(2, 7))
    values = st.sampled_from([0.0, 0.125, 0.25, 0.5]) if draw(st.booleans()) else st.floats(0, 1, width=32)
    probs = draw(hnp.arrays(np.float32, (videos, classes), elements=values))
    multi = draw(hnp.arrays(np.bool_, (videos, classes)))
    labels = np.where(multi.any(axis=1), multi.argmax(axis=1), -1)
    names = tuple(f"class {k}" for k in range(classes))
    return Scores(tuple(f"{i}.avi" for i in range(videos)), labels, probs, names, multi)


@given(multi_label())
def test_average_precision_is_scikit_learns(scores: Scores) -> None:
    from sklearn.metrics import average_precision_score

    assert scores.multi is not None
    found = average_precisions(scores)
    for k, positives in enumerate(scores.multi.T):
        if not positives.any():
            assert np.isnan(found[k])
        else:
            assert found[k] == pytest.approx(average_precision_score(positives, scores.probs[:, k]))
    if scores.multi.any():
        used = scores.multi.any(axis=0)
        whole = average_precision_score(scores.multi[:, used], scores.probs[:, used], average="macro")
        assert metrics(scores)["map"] == pytest.approx(100 * whole)


@given(multi_label())
def test_label_sets_survive_their_file(scores: Scores) -> None:
    buffer = io.BytesIO()
    scores.to_parquet(buffer)
    buffer.seek(0)
    back = Scores.from_parquet(buffer)
    assert np.array_equal(back.positives, scores.positives)
    assert np.array_equal(back.labels, scores.labels)


def test_a_video_of_several_labels_is_right_with_one_and_one_without_labels_counts_in_map_alone() -> None:
    probs = np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.9, 0.05, 0.05]], np.float32)
    multi = np.array([[True, True, False], [False, True, False], [False, False, False]])
    scores = Scores(("a", "b", "c"), np.array([0, 1, -1]), probs, ("x", "y", "z"), multi)
    found = metrics(scores)
    assert found["top1"] == 50.0
    assert found["mean_class"] == pytest.approx(100 * (1 + 1 / 2) / 2)
    assert found["map"] == pytest.approx(100 * (1 / 3 + 1) / 2)  # the unlabelled video is first in class x
    assert found["videos"] == 3
    assert confusion(scores).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_fusing_aligns_videos_by_id_and_divides_by_the_sum_of_weights() -> None:
    rgb = scores_of([[0.75, 0.25], [0.5, 0.5]], [0, 1])
    flow = Scores(("1.avi", "0.avi"), np.array([1, 0]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), rgb.classes)
    fused = fuse([rgb, flow], [1.0, 3.0])
    assert fused.videos == rgb.videos
    assert fused.probs.tolist() == [[0.5625, 0.4375], [0.3125, 0.6875]]
    assert fused.probs.dtype == np.float32


@given(any_scores())
def test_fusing_an_evaluation_with_itself_changes_nothing(scores: Scores) -> None:
    assert fuse([scores, scores], [0.5, 0.5]).probs.tolist() == scores.probs.tolist()


def test_other_videos_labels_or_classes_cannot_be_fused() -> None:
    one = scores_of([[0.5, 0.5], [0.5, 0.5]], [0, 1])
    fewer = scores_of([[0.5, 0.5]], [0])
    with pytest.raises(Mismatch, match=r"1 of 2 videos are not in the other, such as 1\.avi"):
        fuse([one, fewer], [0.5, 0.5])
    with pytest.raises(Mismatch, match=r"1 of 2 videos are not in the other, such as 1\.avi"):
        fuse([fewer, one], [0.5, 0.5])
    with pytest.raises(Mismatch, match=r"1 videos have other labels, such as 1\.avi"):
        fuse([one, scores_of([[0.5, 0.5], [0.5, 0.5]], [0, 0])], [0.5, 0.5])
    with pytest.raises(Mismatch, match="classes differ: 2 and 3"):
        fuse([one, scores_of([[0.5, 0.5, 0.0]] * 2, [0, 1])], [0.5, 0.5])
    with pytest.raises(ValueError, match="sum above 0"):
        fuse([one, one], [0.0, 0.0])
