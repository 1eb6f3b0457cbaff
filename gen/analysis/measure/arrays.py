"""What pictures need beyond the numbers: spectra, gains by image, the grid and its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gen.analysis.measure.lattice import degrees
from gen.analysis.measure.spectrum import RadialProfile, full_plane
from gen.analysis.measure.sums import CropSums

if TYPE_CHECKING:
    from gen.analysis.measure.meter import Meter

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """Bulky companions of a measurement, in grey levels; C' channels, luma first if more than one.

    Attributes:
        spectrum: (C', H, W) mean power in grey levels² per pixel, DC at (H//2, W//2), of images
            cropped to whole periods.
        radial: Radial profile of luma with the lattice left out; `radial_full` with it.
        gains: (N, lines) complex gain of each image by itself, luma, columns as
            `Measurement.lines`.
        mean_image: (C', H, W), not cropped.
        patterns: Per period the mean P×P pattern (C', P, P), mean-free: the fixed grid itself.
        places: Per period (H, W): RMS amplitude of the grid in the mean luma around each pixel.
    """

    spectrum: Values
    radial: RadialProfile
    radial_full: RadialProfile
    gains: NDArray[np.complex64]
    mean_image: Values
    patterns: dict[int, Values]
    places: dict[int, Values]


def collect_arrays(meter: Meter) -> Arrays | None:
    """Gather the arrays of a meter; None where no period was measurable."""
    if not meter.crops:
        return None
    first = meter.crops[0]
    count = max(meter.images - meter.nonfinite, 1)
    mean_image = meter.mean_image.numpy() / count
    order = [
        column
        for wanted in meter.periods
        for column, period in enumerate(
            p for c in meter.crops for p in c.periods for _ in c.lines[p]
        )
        if period == wanted
    ]
    owners = {p: crop for crop in meter.crops for p in crop.periods}
    return Arrays(
        spectrum=np.fft.fftshift(full_plane(first.spectrum.mean(), first.size[1]), axes=(-2, -1)),
        radial=first.spectrum.profile(0),
        radial_full=first.spectrum.profile(0, masked=False),
        gains=np.concatenate([part.numpy() for part in meter.gains])[:, order],
        mean_image=mean_image,
        patterns={p: _pattern(crop, p) for p, crop in owners.items()},
        places={p: _place(mean_image[0], p, crop) for p, crop in owners.items()},
    )


def _pattern(crop: CropSums, period: int) -> Values:
    """Fold the weighted mean image modulo the period: (C', P, P) grey levels around zero."""

    def fold(image: Values) -> Values:
        height, width = image.shape[-2:]
        shape = (*image.shape[:-2], height // period, period, width // period, period)
        return image.reshape(shape).sum((-4, -2))

    weight = np.maximum(crop.sums["weight"].numpy(), 1e-300)[:, None, None]
    pattern = fold(crop.sums["mean"].numpy()) / (weight * fold(crop.window.numpy()))
    return pattern - pattern.mean((-2, -1), keepdims=True)


def _place(mean: Values, period: int, crop: CropSums) -> Values:
    """Local RMS amplitude of the lines of `period` in an image, smoothed over about two periods.

    The image is continued by its mirror image: opposite borders that differ would read as a grid.
    """
    height, width = mean.shape
    mean = np.pad(mean - mean.mean(), ((0, height), (0, width)), mode="symmetric")
    fy, fx = np.fft.fftfreq(2 * height)[:, None], np.fft.fftfreq(2 * width)
    spectrum, energy = np.fft.fft2(mean), np.zeros_like(mean)
    for a, b in crop.lines[period]:
        shifted = ((fy - a / period + 0.5) % 1 - 0.5) ** 2 + (
            (fx - b / period + 0.5) % 1 - 0.5
        ) ** 2
        local = np.fft.ifft2(spectrum * np.exp(-2 * np.pi**2 * period**2 * shifted))
        energy += degrees((a, b), period) * np.abs(local) ** 2
    return np.sqrt(energy[:height, :width])
