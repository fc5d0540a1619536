"""Which frames make a clip: pure functions of the number of frames, the clip settings and a random generator.

A video with fewer frames than a clip repeats some of its frames (segments) or its last one; indices never run backwards
and never leave the video.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retable.data.config import Clip

Indices = NDArray[np.int64]
"""``(T,)`` frame numbers, non-decreasing, in ``[0, n_frames)``."""


def train_clip(n_frames: int, clip: Clip, rng: np.random.Generator) -> Indices:
    """One random clip, drawn as ``clip.sampling`` says.

    random_step: a step of 1 to ``max_step``, as far as the video has room, then a place.
    interval: likewise, but a step of at least 2 where there is room (STIDF).
    segments: one frame from each of ``frames`` equal segments; N x k of them are k from each of N longer ones.
    window: a place for a window of ``frames`` x ``stride`` frames, of which every ``stride``-th is taken.
    """
    _check(n_frames)
    if clip.sampling == "segments":
        places = (np.arange(clip.frames) + rng.random(clip.frames)) * n_frames / clip.frames
        return np.minimum(places.astype(np.int64), n_frames - 1)
    step, taken = clip.stride, clip.frames * clip.stride
    if clip.sampling != "window":
        longest = largest_step(n_frames, clip)
        shortest = min(2, longest) if clip.sampling == "interval" else 1
        step = int(rng.integers(shortest, longest + 1))
        taken = _taken(clip.frames, step)
    start = int(rng.integers(0, max(0, n_frames - taken) + 1))
    return _every(n_frames, clip.frames, start, step)


def test_clips(n_frames: int, clip: Clip, clips: int) -> list[Indices]:
    """``clips`` fixed clips; no randomness.

    random_step, window: of the largest step that fits, or of the stride; one in the middle, several evenly from the
    first to the last place. segments: of each segment the middle frame, for several clips the middles of its ``clips``
    equal parts. interval: every t-th frame, t being the T-th part of the video rounded down (STIDF's equations 13 and
    14); several clips begin at the ends of the ``clips`` equal parts of the first t frames.
    """
    _check(n_frames)
    if clip.sampling == "segments":
        parts = np.arange(clip.frames)[None] * clips + np.arange(clips)[:, None]  # of frames x clips equal ones
        return list((2 * parts + 1) * n_frames // (2 * clips * clip.frames))
    if clip.sampling == "interval":
        step = max(1, n_frames // clip.frames)
        starts = [max(0, (i + 1) * step // clips - 1) for i in range(clips)]
        return [_every(n_frames, clip.frames, start, step) for start in starts]
    step, taken = clip.stride, clip.frames * clip.stride
    if clip.sampling == "random_step":
        step = largest_step(n_frames, clip)
        taken = _taken(clip.frames, step)
    room = max(0, n_frames - taken)
    starts = [room // 2] if clips == 1 else [round(room * i / (clips - 1)) for i in range(clips)]
    return [_every(n_frames, clip.frames, start, step) for start in starts]


def largest_step(n_frames: int, clip: Clip) -> int:
    """The largest temporal step, at most ``max_step``, at which the clip fits in the video; at least 1."""
    if clip.frames == 1:
        return 1
    return min(clip.max_step, max(1, (n_frames - 1) // (clip.frames - 1)))


def flow_stacks(indices: Indices, n_frames: int, fields: int, *, centred: bool) -> NDArray[np.int64]:
    """Which flow fields go with each sampled frame, ``(T, fields)``: consecutive ones.

    Field t is the motion from frame t to t + 1, so that a video has one field less than frames. A stack begins at its
    frame, or with ``centred`` has as many fields before it as after it; at both ends of a video the outermost field
    is repeated. A video of one frame has no field: all are -1.
    """
    first = indices[:, None] - (fields // 2 if centred else 0)
    return np.asarray(np.minimum(np.maximum(first + np.arange(fields), 0), n_frames - 2))


def _taken(frames: int, step: int) -> int:
    """From the first to the last frame of a clip, both included."""
    return (frames - 1) * step + 1


def _every(n_frames: int, frames: int, start: int, step: int) -> Indices:
    return np.minimum(start + step * np.arange(frames, dtype=np.int64), n_frames - 1)


def _check(n_frames: int) -> None:
    if n_frames < 1:
        raise ValueError(f"a video needs at least one frame but has {n_frames}")
