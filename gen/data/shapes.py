"""Procedural images with classes and masks: offline, exact, and free of any lattice line."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from gen.data.order import hash64
from gen.images import LUMA
from gen.system.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLASSES = ("circle", "square", "triangle")

# Distance from the center to the edges of each class, in radii, so that areas look alike.
_INRADIUS = np.array([1.0, 0.84, 0.72], np.float32)
_SIDES = (0, 4, 3)
_CHUNK = 256  # images at a time: the float planes of a chunk stay in the cache


def render(
    seed: int, indices: Sequence[int] | np.ndarray, size: tuple[int, int], channels: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw images of one bright shape on a dark gradient; image i is a function of (seed, i) alone.

    Shapes have a random class, center, radius, tilt and hue; edges are anti-aliased by the
    covered fraction of each pixel, and no position on a pixel lattice is preferred.

    Args:
        seed: integer ≥ 0.
        indices: B integers ≥ 0, in any order.
        size: (H, W) in pixels.
        channels: 1 (Rec. 601 luma), 3 (RGB) or 4 (RGB, and coverage by the shape as alpha).

    Returns:
        Images uint8 (B, C, H, W); labels int64 (B,), positions in `CLASSES`; masks uint8 (B, H, W),
        0 for background and 1 + label where a pixel is at least half covered.
    """
    if channels not in (1, 3, 4):
        raise InputError(f"channels is {channels}, must be 1, 3 or 4")
    indices = np.asarray(indices, np.int64)
    kinds = labels(seed, indices)
    images = np.empty((len(indices), channels, *size), np.uint8)
    masks = np.empty((len(indices), *size), np.uint8)
    for start in range(0, len(indices), _CHUNK):
        part = slice(start, start + _CHUNK)
        for label in range(len(CLASSES)):
            rows = start + np.flatnonzero(kinds[part] == label)
            images[rows], masks[rows] = _draw(seed, indices[rows], label, size, channels)
    return images, kinds, masks


def labels(seed: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Classes of images, int64 (B,): positions in `CLASSES`, without drawing them."""
    hashes = hash64(seed, 0, np.asarray(indices, np.int64))
    return (hashes % np.uint64(len(CLASSES))).astype(np.int64)


def _draw(
    seed: int, indices: np.ndarray, label: int, size: tuple[int, int], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, C, H, W) and masks (B, H, W) of one class."""
    height, width = size
    u = (_uniform(seed, stream, indices) for stream in count(1))

    # Pixel coordinates (B, H, 1) and (B, 1, W), relative to the center of the shape.
    y = np.arange(height, dtype=np.float32)[:, None] - _center(height, u)
    x = np.arange(width, dtype=np.float32) - _center(width, u)
    inradius = min(size) * (0.22 + 0.10 * next(u)) * _INRADIUS[label]
    tilt = np.pi / 2 + 0.6 * (next(u) - 0.5)  # ±17° about standing upright
    coverage = _coverage(y, x, inradius, tilt, _SIDES[label])

    # The background runs from one deep color to a neighboring one along a random direction; the
    # shape is light and about complementary.
    angle, hue = 2 * np.pi * next(u), next(u)
    ramp = y * (np.sin(angle) / height) + x * (np.cos(angle) / width)
    near, far = _color(hue, 0.22, 0.16), _color(hue + 0.25 * (next(u) - 0.5), 0.36, 0.20)
    front = _color(hue + 0.5 + 0.4 * (next(u) - 0.5), 0.72, 0.28 * (0.8 + 0.2 * next(u)))

    if channels == 1:
        near, far, front = (_luma(color) for color in (near, far, front))
    images = np.empty((len(indices), channels, *size), np.uint8)
    for plane in range(min(channels, 3)):
        middle, slope = (near[plane] + far[plane]) / 2, far[plane] - near[plane]
        back = ramp * slope + middle
        back += coverage * (front[plane] - back)
        images[:, plane] = np.clip(back * 255 + 0.5, 0, 255)
    if channels == 4:
        images[:, 3] = coverage * 255 + 0.5
    return images, (coverage >= 0.5) * np.uint8(1 + label)


def _center(size: int, u: Iterator[np.ndarray]) -> np.ndarray:
    """Coordinate of the centers: the middle plus three uniform numbers, each of one period's width.

    The density's spectrum sinc³ has triple zeros on the lattice, so positions prefer no phase, even
    when a window or the borders weigh them. The period is the largest power of two of which the
    axis holds six: larger ones are not measured in so small an image.
    """
    period = 1 << max(0, (size // 6).bit_length() - 1)
    return (size - 1) / 2 + period * (next(u) + next(u) + next(u) - 1.5)


def _coverage(
    y: np.ndarray, x: np.ndarray, inradius: np.ndarray, angle: np.ndarray, sides: int
) -> np.ndarray:
    """Fraction of each pixel (B, H, W) inside a regular polygon, or inside a circle for 0 sides.

    A straight edge at signed distance d covers clip(½ - d); at a corner the fractions multiply.
    """
    if not sides:
        return np.clip(inradius + 0.5 - np.sqrt(y * y + x * x), 0, 1)
    coverage = np.float32(1)
    for side in range(sides):
        normal = angle + 2 * np.pi * side / sides
        distance = y * np.sin(normal) + x * np.cos(normal) - inradius
        coverage = coverage * np.clip(0.5 - distance, 0, 1)
    return coverage


def _uniform(seed: int, stream: int, indices: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), float32 (B, 1, 1): 24 bits, exact in float32."""
    bits = hash64(seed, stream, indices) >> np.uint64(40)
    return (bits.astype(np.float32) * np.float32(2**-24))[:, None, None]


def _color(hue: np.ndarray, light: float, chroma: float | np.ndarray) -> list[np.ndarray]:
    """RGB planes light + chroma·cos(2π(hue - k/3)): even lightness, so contrast holds in gray."""
    return [light + chroma * np.cos(2 * np.pi * (hue - k / 3)) for k in range(3)]


def _luma(rgb: list[np.ndarray]) -> list[np.ndarray]:
    return [LUMA[0] * rgb[0] + LUMA[1] * rgb[1] + LUMA[2] * rgb[2]]
