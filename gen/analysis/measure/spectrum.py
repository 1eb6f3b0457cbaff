"""Mean spectrum, radial profile and mean image: for pictures and for the radial comparison only.

A spectrum is Σ|X(f)|² over images of the mean-removed image under a periodic Hann window, on the
rfft2 half plane (H, W//2+1). Dividing by images·Σw² gives power per pixel: white noise of variance
σ² has the flat spectrum σ².
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]
KEPT = 1024  # images that are shown one by one
DB_PER_NEPER = 10 / np.log(10)


@dataclass(frozen=True)
class RadialProfile:
    """Mean power over rings: `frequency` (R,) in cycles per pixel, `power` (R,) in gray levels².

    `covariance` (R, R) is that of ln power over draws of as many images.
    """

    frequency: Values
    power: Values
    covariance: Values

    @property
    def db(self) -> Values:
        """Power in dB re one gray level², floored at -200 dB."""
        return 10 * np.log10(np.maximum(self.power, 1e-20))

    def band(self) -> tuple[Values, Values]:
        """95 % band of `db`, ring by ring."""
        half = 1.96 * DB_PER_NEPER * np.sqrt(np.maximum(np.diag(self.covariance), 0))
        return self.db - half, self.db + half


@dataclass(frozen=True)
class Pictures:
    """Sums for pictures over images of one size; C' planes, luma first.

    Attributes:
        size: (H, W) in pixels.
        periods: Periods with lattice bins that the radial profile leaves out.
        count: Images.
        mean: (C', H, W), sum of the images in gray levels minus 127.5.
        power: (C', H, W//2+1), sum of |X(f)|².
        radial: (R, R), sum of products of the ring means of luma.
        first: Of every tiling the weighted sums (7, K, n) of luma of the first images.
    """

    size: tuple[int, int]
    periods: tuple[int, ...]
    count: int
    mean: Tensor
    power: Tensor
    radial: Tensor
    first: tuple[Tensor, ...] = ()

    def added(self, other: Pictures) -> Pictures:
        """Sums of both sets of images."""
        pairs = zip(self.first, other.first, strict=True)
        return Pictures(
            self.size,
            self.periods,
            self.count + other.count,
            self.mean + other.mean.to(self.mean.device),
            self.power + other.power.to(self.power.device),
            self.radial + other.radial.to(self.radial.device),
            tuple(torch.cat([a, b.to(a.device)], -1)[..., :KEPT] for a, b in pairs),
        )

    def spectrum(self) -> Values:
        """Mean power per pixel (C', H, W) in gray levels², DC at (H//2, W//2)."""
        half = (self.power / max(self.count, 1) / hann(*self.size).square().sum()).cpu().numpy()
        rows = -np.arange(half.shape[1]) % half.shape[1]
        mirror = half[:, rows][:, :, (self.size[1] - 1) // 2 : 0 : -1]
        return np.fft.fftshift(np.concatenate([half, mirror], axis=-1), axes=(-2, -1))

    def profile(self, masked: bool = True) -> RadialProfile:
        """Radial profile of luma; `masked=False` includes the bins around lattice lines.

        The covariance is that of the masked rings in both cases.
        """
        count = max(self.count, 1)
        power = self.power[0].flatten().cpu().numpy() / count
        rings, weights = ring_weights(self.size, self.periods)
        mean = np.bincount(rings, weights * power)
        second = self.radial.cpu().numpy() / count
        relative = second / np.maximum(np.outer(mean, mean), 1e-300) - 1
        if not masked:
            rings, weights = ring_weights(self.size, ())
            mean = np.bincount(rings, weights * power)
        energy = float(hann(*self.size).square().sum())
        radii = np.arange(len(mean)) / min(self.size)
        return RadialProfile(radii, mean / energy, relative / max(count - 1, 1))

    def mean_image(self) -> Values:
        """Mean image (C', H, W) in gray levels, 0 for black."""
        return (self.mean / max(self.count, 1)).cpu().numpy() + 127.5


def picture_sums(
    planes: Tensor, periods: tuple[int, ...], first: tuple[Tensor, ...] = ()
) -> Pictures:
    """Sums of planes (N, C', H, W) in gray levels minus 127.5."""
    size = tuple(planes.shape[2:])
    window = hann(*size).to(planes)
    mean = planes.flatten(2) @ window.flatten() / window.sum()
    spectra = torch.fft.rfft2((planes - mean[..., None, None]) * window)
    power = torch.view_as_real(spectra).square().sum(-1).flatten(2).double()
    rings, weights = ring_weights(size, periods)
    weighted = power[:, 0] * torch.from_numpy(weights).to(power)
    radial = power.new_zeros(len(planes), int(rings.max()) + 1)
    radial.index_add_(1, torch.from_numpy(rings).to(power.device), weighted)
    half = (planes.shape[1], size[0], size[1] // 2 + 1)
    return Pictures(
        size,
        periods,
        len(planes),
        planes.sum(0, dtype=torch.float64),
        power.sum(0).view(half),
        radial.mT @ radial,
        tuple(part[..., :KEPT] for part in first),
    )


def radial_distance(
    a: RadialProfile, b: RadialProfile, draws: int = 400
) -> tuple[float, float, float]:
    """RMS over rings of 10·log10(a/b) in dB, with a 95 % interval: (distance, low, high).

    DC is left out. The interval is a parametric bootstrap over images: ln power of both profiles is
    drawn from the normal law of its covariance (400 fixed draws) around the observed difference.
    """
    difference = (a.db - b.db)[1:]
    covariance = (a.covariance + b.covariance)[1:, 1:] * DB_PER_NEPER**2
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((draws, len(values)))
    noise = noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    drawn = np.sqrt(np.mean((difference + noise) ** 2, axis=1))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.sqrt(np.mean(difference**2))), float(low), float(high)


def hann(height: int, width: int) -> Tensor:
    """Periodic Hann window (H, W) in float64."""
    rows, columns = (torch.hann_window(n, dtype=torch.float64) for n in (height, width))
    return rows[:, None] * columns


@functools.lru_cache(maxsize=8)
def ring_weights(
    size: tuple[int, int], periods: tuple[int, ...]
) -> tuple[NDArray[np.int64], Values]:
    """Ring (bins,) of each flat rfft2 bin, and its weight in the ring's mean.

    Rings are 1/min(H, W) wide and centered on whole multiples of it. Bins within one of a lattice
    line weigh nothing, unless the whole ring consists of them.
    """
    height, width = size
    columns = np.arange(width // 2 + 1)
    fy = np.fft.fftfreq(height)[:, None]
    rings = np.rint(np.hypot(fy, columns / width) * min(size)).astype(np.int64)
    weight = np.full(rings.shape, 2.0)
    weight[:, (columns == 0) | (2 * columns == width)] = 1
    masked = np.zeros(size, dtype=bool)
    for period in periods:
        at = [
            (np.rint(np.arange(period) * n / period).astype(int)[:, None] + [-1, 0, 1]).ravel() % n
            for n in size
        ]
        masked[np.ix_(*at)] = True
    masked = masked[:, : len(columns)]
    masked[:2, :2] = masked[-1, :2] = False  # around DC
    left = np.bincount(rings.ravel(), (weight * ~masked).ravel(), rings.max() + 1)
    weight[masked & (left > 0)[rings]] = 0
    rings, weight = rings.ravel(), weight.ravel()
    return rings, weight / np.bincount(rings, weight)[rings]
