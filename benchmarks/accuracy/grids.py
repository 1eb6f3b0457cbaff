"""Grids to inject, and grid-free images to inject them in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float64]
Pattern = Callable[[int, int], NDArray[np.float64]]


def dead_leaves(generator: np.random.Generator, size: int = 256, disks: int = 600) -> Images:
    """One grid-free test image (1, size, size): occluding disks, with photographs' 1/f² spectrum.

    Radii follow r⁻³ between 2 px and a third of the side, edges are soft over one pixel, centers
    are real numbers, so nothing is tied to the pixel grid (Lee, Mumford, Huang 2001). A little
    noise stands for the sensor's.
    """
    image = np.full((size, size), 127.5)
    radii = 1 / np.sqrt(generator.uniform(9 / size**2, 0.25, disks))
    for radius in radii:
        y, x = generator.uniform(-radius, size + radius, 2)
        rows = slice(max(int(y - radius) - 1, 0), max(int(y + radius) + 3, 0))
        columns = slice(max(int(x - radius) - 1, 0), max(int(x + radius) + 3, 0))
        dy, dx = np.arange(size)[rows, None] - y, np.arange(size)[columns] - x
        cover = np.clip(radius - np.hypot(dy, dx) + 0.5, 0, 1)
        image[rows, columns] += cover * (generator.uniform(20, 235) - image[rows, columns])
    return (image + generator.normal(0, 1, image.shape))[None]


def overlap_pattern(kernel: int, stride: int) -> Pattern:
    """Overlap map of a transposed convolution of ones (interior), mean-free, largest value 1."""

    def pattern(height: int, width: int) -> NDArray[np.float64]:
        taps = np.bincount(np.arange(kernel) % stride, minlength=stride).astype(float)
        axes = (taps[np.arange(n) % stride] for n in (height, width))
        grid = np.multiply.outer(*axes)
        grid -= np.multiply.outer(taps, taps).mean()
        return grid / np.abs(grid).max()

    return pattern


PATTERNS: dict[str, Pattern] = {
    "checkerboard": lambda h, w: np.multiply.outer((-1.0) ** np.arange(h), (-1.0) ** np.arange(w)),
    "rows": lambda h, w: np.multiply.outer((-1.0) ** np.arange(h), np.ones(w)),
    "cosine4": lambda h, w: np.multiply.outer(np.ones(h), np.cos(np.pi / 2 * np.arange(w))),
    "overlap k3 s2": overlap_pattern(3, 2),
    "overlap k5 s2": overlap_pattern(5, 2),
    "overlap k5 s3": overlap_pattern(5, 3),
}


def coefficient(pattern: Pattern, line: tuple[float, float]) -> complex:
    """Fourier coefficient of a pattern at the frequency (fy, fx): the gain that depth 1 leaves."""
    grid = pattern(120, 120)
    y, x = np.arange(120)[:, None], np.arange(120)
    return complex((grid * np.exp(-2j * np.pi * (line[0] * y + line[1] * x))).mean())


def inject(
    images: Images, pattern: Pattern, depth: float, mode: str, generator: np.random.Generator
) -> Images:
    """Add a grid: `multiplicative` (share of brightness), `additive` or `sign-random` (gray)."""
    grid = depth * pattern(*images.shape[-2:])
    if mode == "multiplicative":
        return images * (1 + grid)
    if mode == "additive":
        return images + grid
    if mode == "sign-random":
        return images + grid * generator.choice([-1.0, 1.0], size=(len(images), 1, 1, 1))
    raise ValueError(f"mode {mode!r}: choose multiplicative, additive or sign-random")
