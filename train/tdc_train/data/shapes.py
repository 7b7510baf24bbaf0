"""A generated set: 32x32 colour images of ten classes, each a shape with a texture, in clutter.

Class 2·s + t is shape s (disc, square, triangle, cross, ring) with texture t (stripes, checks). Place,
size, rotations, colours and contrast are drawn for each image, smaller shapes with textures lie behind,
and noise lies over all.

The same on every machine: PCG64's raw integers (which NumPy never changes), and only arithmetic that
IEEE 754 rounds exactly (no sine, exponential, or sum whose order is open).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32; the types of NumPy lose that in a quotient.
Array = NDArray[Any]

SIDE = 32
CLASSES = 10
SHAPES = 5
# An image depends on its block alone, so a larger set begins with the smaller one's images.
BLOCK = 500
DISTRACTORS = 4
# Shares of the full scale of brightness.
NOISE = 0.10
LEAST_CONTRAST = 0.25
RADII = (6.5, 11.5)
DISTRACTOR_RADII = (2.5, 5.0)


def generate(count: int, seed: int, split: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [count, 3, 32, 32] and their classes [count].

    Args:
        count: at least 1.
        seed: which set.
        split: which part of it; parts share no random numbers.
    """
    images, labels = [], []
    for block in range(-(-count // BLOCK)):
        draw = _Draw(np.random.PCG64(np.random.SeedSequence((seed, split, block))))
        pixels, classes = _block(draw)
        images.append(pixels)
        labels.append(classes)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


class _Draw:
    """Random numbers from raw 64-bit integers, little-endian on every machine."""

    def __init__(self, bits: np.random.PCG64) -> None:
        self._bits = bits

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        raw = self._bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
        unit = raw.astype(np.float32) * np.float32(2.0**-24)
        return (np.float32(low) + np.float32(high - low) * unit).reshape(shape)

    def below(self, limit: int, *shape: int) -> NDArray[np.int64]:
        raw = self._bits.random_raw(int(np.prod(shape))) % np.uint64(limit)
        return raw.astype(np.int64).reshape(shape)

    def bell(self, *shape: int) -> Array:
        """About normal, of variance 1: the sum of four bytes."""
        raw = self._bits.random_raw(int(np.prod(shape)) // 2).astype("<u8")
        lanes = raw.view(np.uint8).reshape(-1, 4)
        total = lanes[:, 0].astype(np.int32) + lanes[:, 1] + lanes[:, 2] + lanes[:, 3]
        return ((total - 510).astype(np.float32) / np.float32(147.8)).reshape(shape)

    def direction(self, *shape: int) -> tuple[Array, Array]:
        """Cosine and sine of an angle, from its half's tangent."""
        t = self.uniform(-1.0, 1.0, *shape)
        scale = np.float32(1) / (np.float32(1) + t * t)
        sign = np.where(self.below(2, *shape) == 0, np.float32(1), np.float32(-1))
        return sign * (np.float32(1) - t * t) * scale, sign * np.float32(2) * t * scale


@dataclass(frozen=True)
class _Look:
    """How `n` shapes are drawn: everything of shape [n, 1, 1] but the colours, [n, 3]."""

    shape: NDArray[np.int64]
    texture: NDArray[np.int64]
    row: Array
    column: Array
    radius: Array
    turn: tuple[Array, Array]
    grain: tuple[Array, Array]
    period: Array
    phase: Array
    light: Array
    dark: Array


def _look(
    draw: _Draw, classes: NDArray[np.int64], radii: tuple[float, float], room: float
) -> _Look:
    n = len(classes)
    middle = (SIDE - 1) / 2
    light = draw.uniform(0.0, 1.0, n, 3)
    # Of random sign and colour: which of the two is lighter means nothing.
    step = draw.uniform(LEAST_CONTRAST, 2 * LEAST_CONTRAST, n, 3)
    dark = light + np.where(light > 0.5, -step, step)
    return _Look(
        shape=classes // 2,
        texture=classes % 2,
        row=draw.uniform(middle - room, middle + room, n, 1, 1),
        column=draw.uniform(middle - room, middle + room, n, 1, 1),
        radius=draw.uniform(*radii, n, 1, 1),
        turn=draw.direction(n, 1, 1),
        grain=draw.direction(n, 1, 1),
        period=draw.uniform(4.0, 7.0, n, 1, 1),
        phase=draw.uniform(0.0, 1.0, n, 1, 1),
        light=light,
        dark=dark,
    )


def _block(draw: _Draw) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # A permutation of equal shares would need a sort; independent classes are nearly as balanced.
    classes = draw.below(CLASSES, BLOCK)
    image = _background(draw)
    for _ in range(DISTRACTORS):
        others = draw.below(CLASSES, BLOCK)
        _paint(image, _look(draw, others, DISTRACTOR_RADII, room=SIDE / 2))
    _paint(image, _look(draw, classes, RADII, room=5.0))
    image += np.float32(NOISE) * draw.bell(*image.shape)
    pixels = np.clip(image * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels, classes


def _background(draw: _Draw) -> Array:
    """A plane of colour that changes from side to side, [n, 3, 32, 32]."""
    base = draw.uniform(0.1, 0.9, BLOCK, 3, 1, 1)
    slope = draw.uniform(-0.4, 0.4, BLOCK, 3, 2, 1, 1)
    row, column = _grid()
    return (
        base
        + slope[:, :, 0] * (row / SIDE - np.float32(0.5))
        + slope[:, :, 1] * (column / SIDE - np.float32(0.5))
    )


def _grid() -> tuple[Array, Array]:
    line = np.arange(SIDE, dtype=np.float32)
    return line[None, :, None], line[None, None, :]


def _paint(image: Array, look: _Look) -> None:
    """Draw one shape into each image, in place."""
    row, column = _grid()
    y, x = row - look.row, column - look.column
    cosine, sine = look.turn
    inside = _inside(
        look.shape, (cosine * x + sine * y) / look.radius, (cosine * y - sine * x) / look.radius
    )
    cover = np.clip(inside * look.radius + np.float32(0.5), 0, 1)[:, None]
    cosine, sine = look.grain
    waves = [
        _wave((cosine * x + sine * y) / look.period + look.phase),
        _wave((cosine * y - sine * x) / look.period + look.phase),
    ]
    checks = (look.texture == 1)[:, None, None]
    tone = np.where(checks, waves[0] * waves[1], waves[0])[:, None]
    mix = np.float32(0.5) + np.float32(0.5) * tone
    light, dark = look.light[:, :, None, None], look.dark[:, :, None, None]
    image += cover * (dark + mix * (light - dark) - image)


def _wave(t: Array) -> Array:
    """A square wave of period 1 with soft edges, between -1 and 1."""
    triangle = np.float32(4) * np.abs(t - np.floor(t) - np.float32(0.5)) - np.float32(1)
    return np.clip(np.float32(2) * triangle, -1, 1)


def _inside(shape: NDArray[np.int64], u: Array, v: Array) -> Array:
    """How far a point is inside each one's shape (negative: outside), in radii; u, v likewise."""
    result = np.empty_like(u)
    for kind, distance in enumerate((_disc, _square, _triangle, _cross, _ring)):
        chosen = shape == kind
        result[chosen] = distance(u[chosen], v[chosen])
    return result


def _disc(u: Array, v: Array) -> Any:
    return np.float32(0.9) - np.sqrt(u * u + v * v)


def _square(u: Array, v: Array) -> Any:
    return np.float32(0.8) - np.maximum(np.abs(u), np.abs(v))


def _triangle(u: Array, v: Array) -> Any:
    slanted = np.float32(0.8660254) * np.abs(u) - np.float32(0.5) * v
    return np.float32(0.6) - np.maximum(v, slanted)


def _cross(u: Array, v: Array) -> Any:
    across = np.minimum(np.float32(1.0) - np.abs(u), np.float32(0.4) - np.abs(v))
    along = np.minimum(np.float32(1.0) - np.abs(v), np.float32(0.4) - np.abs(u))
    return np.maximum(across, along)


def _ring(u: Array, v: Array) -> Any:
    return np.float32(0.28) - np.abs(np.sqrt(u * u + v * v) - np.float32(0.72))
