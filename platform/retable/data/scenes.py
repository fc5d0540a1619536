"""The pictures of the generated ``motions`` videos: a target that acts, on a moving textured background.

The two classes of a pair share their scenes. For five pairs the second class is the first one's frames in reverse
order, so both hold the very same set of single frames and only order tells them apart; every nuisance (shake, drift,
distractors, where in the video the action lies) is drawn from a distribution that reversal does not change. The swing
pair repeats one path at two speeds; its phase is uniform, so one frame says nothing about the speed.

Array arithmetic is +, -, *, /, abs, min and max only, all exactly rounded, and angles go through ``math``: the pixels
do not depend on the CPU's vector units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retable.data.variants import PAIRS, Variant

Image = NDArray[np.float32]
"""``(H, W, 3)`` float32 RGB, 0..255."""

_MARGIN = 40  # texture beyond the frame on every side, for drift and shake, pixels


@dataclass(frozen=True)
class Pose:
    """The target at one moment, pixels and radians. ``glow`` in [0, 1] mixes its colours with white."""

    x: float
    y: float
    scale: float = 1.0
    angle: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Body:
    """A two-coloured box or disc: half-axes in pixels, the colour changes at the middle of the long axis."""

    half_length: float
    half_width: float
    front: tuple[float, float, float]
    back: tuple[float, float, float]
    boxy: bool


@dataclass(frozen=True)
class Scene:
    """What clips of one group share: background and the looks of target and distractors."""

    texture: Image
    target: Body
    distractors: tuple[Body, ...]


@dataclass(frozen=True)
class Film:
    """A rendered video: uint8 ``(N, H, W, 3)``; the action fills frames ``start`` to ``end`` (exclusive)."""

    frames: NDArray[np.uint8]
    start: int
    end: int


def scene(spec: Variant, group: int) -> Scene:
    """The scene of ``group`` (1-based), the same for all classes."""
    rng = np.random.default_rng([spec.seed, group])
    texture = _texture(spec, rng)
    distractors = tuple(replace(_body(rng, 3.0, 4.5), front=_colour(rng)) for _ in range(2))
    return Scene(texture, _body(rng, 11.0, 13.0), distractors)


def video_seed(spec: Variant, name: str, group: int, clip: int) -> int:
    """The seed of one video: the same for both classes of a pair, so that they film the same events."""
    pair = next(i for i, names in enumerate(PAIRS) if name in names)
    return int(np.random.SeedSequence([spec.seed, pair, group, clip]).generate_state(1)[0])


def film(spec: Variant, name: str, group: int, clip: int) -> Film:
    """Render one video of class ``name``."""
    place = scene(spec, group)
    rng = np.random.default_rng(video_seed(spec, name, group, clip))
    n = int(rng.integers(spec.frames[0], spec.frames[1] + 1))
    pair = next(names for names in PAIRS if name in names)
    path, start, end = _PROGRAMS[pair](spec, rng, n, pair.index(name))
    frames = _render(spec, place, rng, [path(t) for t in range(n)])
    if pair.index(name) == 1 and pair not in _OWN_TIME:
        return Film(np.ascontiguousarray(frames[::-1]), n - end, n - start)
    return Film(frames, start, end)


Path = Callable[[int], Pose]
_Program = Callable[[Variant, np.random.Generator, int, int], tuple[Path, int, int]]


def _move(dx: float, dy: float, reach: tuple[float, float]) -> _Program:
    def program(spec: Variant, rng: np.random.Generator, n: int, member: int) -> tuple[Path, int, int]:
        del member
        (start, end), home = _action(rng, n, 16, 24), _home(spec, rng, 0.06)
        span = rng.uniform(*reach)

        def path(t: int) -> Pose:
            s = span * (_progress(t, start, end) - 0.5)
            return replace(home, x=home.x + dx * s, y=home.y + dy * s)

        return path, start, end

    return program


def _grow(spec: Variant, rng: np.random.Generator, n: int, member: int) -> tuple[Path, int, int]:
    del member
    (start, end), home = _action(rng, n, 16, 24), _home(spec, rng, 0.1)
    small, large = rng.uniform(0.5, 0.7), rng.uniform(1.5, 1.8)
    return lambda t: replace(home, scale=small + (large - small) * _progress(t, start, end)), start, end


def _turn(spec: Variant, rng: np.random.Generator, n: int, member: int) -> tuple[Path, int, int]:
    del member
    (start, end), home = _action(rng, n, 20, 28), _home(spec, rng, 0.1)
    whole = math.radians(rng.uniform(5.0, 7.5)) * (end - start)  # y points down: growing angles turn clockwise
    return lambda t: replace(home, angle=home.angle + whole * (_progress(t, start, end) - 0.5)), start, end


def _two_events(spec: Variant, rng: np.random.Generator, n: int, member: int) -> tuple[Path, int, int]:
    """A flash and, a long while later, a hop. Each event is its own mirror image in time."""
    del member
    (start, end), home = _action(rng, n, 26, 32), _home(spec, rng, 0.1)
    height, width = rng.uniform(16.0, 20.0), 11.0
    first, second = start + width / 2, end - 1 - width / 2

    def path(t: int) -> Pose:
        glow, hop = (max(0.0, 1.0 - (2.0 * (t - at) / width) ** 2) for at in (first, second))
        return replace(home, y=home.y - height * hop, glow=0.85 * glow)

    return path, start, end


def _swing(spec: Variant, rng: np.random.Generator, n: int, member: int) -> tuple[Path, int, int]:
    (start, end), home = _action(rng, n, 30, 36), _home(spec, rng, 0.06)
    reach, way, phase = rng.uniform(12.0, 15.0), rng.uniform(0.0, 2 * math.pi), rng.uniform(0.0, 2 * math.pi)
    period = rng.uniform(54.0, 66.0) / (3.0 if member == 1 else 1.0)

    def path(t: int) -> Pose:
        s = reach * math.sin(phase + 2 * math.pi * (end - start) / period * _progress(t, start, end))
        return replace(home, x=home.x + s * math.cos(way), y=home.y + s * math.sin(way))

    return path, start, end


_PROGRAMS: dict[tuple[str, str], _Program] = dict(
    zip(PAIRS, (_move(-1, 0, (34, 46)), _move(0, -1, (26, 34)), _grow, _turn, _two_events, _swing), strict=True)
)
_OWN_TIME = {PAIRS[5]}
"""Pairs whose second class is not the first one reversed."""


def _progress(t: int, start: int, end: int) -> float:
    """0 before the action, 1 after it, linear between; reversal in time maps it to 1 minus itself."""
    return min(1.0, max(0.0, (t - start) / (end - 1 - start)))


def _action(rng: np.random.Generator, n: int, shortest: int, longest: int) -> tuple[int, int]:
    """First frame and end of the action; all places in the video that leave two still frames are equally likely."""
    length = int(rng.integers(shortest, longest + 1))
    start = int(rng.integers(2, n - length - 1))
    return start, start + length


def _home(spec: Variant, rng: np.random.Generator, spread: float) -> Pose:
    """The middle of the action: near the frame's middle, with any orientation."""
    x, y = (spec_side * (0.5 + rng.uniform(-spread, spread)) for spec_side in (spec.width, spec.height))
    return Pose(x, y, scale=rng.uniform(0.9, 1.1), angle=rng.uniform(0.0, 2 * math.pi))


def _render(spec: Variant, place: Scene, rng: np.random.Generator, poses: list[Pose]) -> NDArray[np.uint8]:
    shake_x, shake_y = _shake(rng), _shake(rng)
    drift_x, drift_y = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)
    wander = [_wander(spec, rng) for _ in place.distractors]
    frames = np.empty((len(poses), spec.height, spec.width, 3), np.uint8)
    for t, pose in enumerate(poses):
        sx, sy, middle = shake_x(t), shake_y(t), t - (len(poses) - 1) / 2
        image = _window(place.texture, _MARGIN + sx + drift_x * middle, _MARGIN + sy + drift_y * middle, spec)
        for body, course in zip(place.distractors, wander, strict=True):
            x, y, angle = course(middle)
            _draw(image, body, Pose(x - sx, y - sy, angle=angle))
        _draw(image, place.target, replace(pose, x=pose.x - sx, y=pose.y - sy))
        frames[t] = np.minimum(np.maximum(image, 0), 255) + np.float32(0.5)
    return frames


def _shake(rng: np.random.Generator) -> Callable[[float], float]:
    """A hand-held camera: two slow waves of random phase, in all up to 1.2 pixels."""
    waves = [(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.45), rng.uniform(0, 2 * math.pi)) for _ in range(2)]
    return lambda t: sum(size * math.sin(speed * t + phase) for size, speed, phase in waves)


def _wander(spec: Variant, rng: np.random.Generator) -> Callable[[float], tuple[float, float, float]]:
    """A distractor's straight way through the frame, turning slowly, in any direction."""
    x, y = rng.uniform(0.1, 0.9) * spec.width, rng.uniform(0.1, 0.9) * spec.height
    vx, vy, spin, angle = (rng.uniform(-a, a) for a in (0.8, 0.6, 0.12, math.pi))
    return lambda middle: (x + vx * middle, y + vy * middle, angle + spin * middle)


def _window(texture: Image, left: float, top: float, spec: Variant) -> Image:
    """The frame-sized window of the texture at a sub-pixel place, bilinear."""
    x, y = math.floor(left), math.floor(top)
    fx, fy = np.float32(left - x), np.float32(top - y)
    rows = texture[y : y + spec.height + 1, x : x + spec.width + 1]
    rows = rows[:-1] + (rows[1:] - rows[:-1]) * fy
    return np.asarray(rows[:, :-1] + (rows[:, 1:] - rows[:, :-1]) * fx)


def _draw(image: Image, body: Body, pose: Pose) -> None:
    """Paint the body into the image, in place, with edges one pixel soft."""
    height, width = image.shape[:2]
    a, b = body.half_length * pose.scale, body.half_width * pose.scale
    reach = math.hypot(a, b) + 2
    x0, x1 = max(0, math.floor(pose.x - reach)), min(width, math.ceil(pose.x + reach) + 1)
    y0, y1 = max(0, math.floor(pose.y - reach)), min(height, math.ceil(pose.y + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    cos, sin = np.float32(math.cos(pose.angle)), np.float32(math.sin(pose.angle))
    dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(pose.x))[None, :]
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(pose.y))[:, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    u, v = along / np.float32(a), across / np.float32(b)
    outside = np.maximum(np.abs(u), np.abs(v)) if body.boxy else (u * u + v * v + np.float32(1)) / np.float32(2)
    mask = np.minimum(np.maximum((np.float32(1) - outside) * np.float32(b) + np.float32(0.5), 0), 1)[..., None]
    front = np.minimum(np.maximum(along / np.float32(2) + np.float32(0.5), 0), 1)[..., None]
    colours = [np.asarray(c, np.float32) for c in (body.front, body.back)]
    paint = colours[1] + (colours[0] - colours[1]) * front
    paint = paint + (np.float32(255) - paint) * np.float32(pose.glow)
    image[y0:y1, x0:x1] += (paint - image[y0:y1, x0:x1]) * mask


def _body(rng: np.random.Generator, smallest: float, largest: float) -> Body:
    half = rng.uniform(smallest, largest)
    return Body(
        half_length=half,
        half_width=half * rng.uniform(0.55, 0.8),
        front=_colour(rng, 170.0, 255.0),
        back=_colour(rng, 0.0, 70.0),
        boxy=bool(rng.random() < 0.5),
    )


def _colour(rng: np.random.Generator, low: float = 80.0, high: float = 160.0) -> tuple[float, float, float]:
    r, g, b = rng.uniform(low, high, 3).tolist()
    return r, g, b


def _texture(spec: Variant, rng: np.random.Generator) -> Image:
    """Random blobs of three sizes around one colour, larger than the frame by the margin on every side."""
    height, width = spec.height + 2 * _MARGIN, spec.width + 2 * _MARGIN
    image = np.zeros((height, width, 3), np.float32) + np.asarray(_colour(rng), np.float32)
    for cell, strength in ((32, 30.0), (12, 20.0), (5, 10.0)):
        grid = rng.uniform(-strength, strength, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        image += _enlarge(grid, cell, height, width)
    return image


def _enlarge(grid: Image, cell: int, height: int, width: int) -> Image:
    y, x = np.arange(height) // cell, np.arange(width) // cell
    fy = ((np.arange(height) % cell).astype(np.float32) / np.float32(cell))[:, None, None]
    fx = ((np.arange(width) % cell).astype(np.float32) / np.float32(cell))[None, :, None]
    rows = grid[y] + (grid[y + 1] - grid[y]) * fy
    return np.asarray(rows[:, x] + (rows[:, x + 1] - rows[:, x]) * fx)
