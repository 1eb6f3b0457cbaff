"""Mean spectrum and radial profile of luma: for pictures and for the radial comparison only.

A spectrum is the mean of |X(f)|²/Σw² over images, of the mean-removed image under a periodic Hann
window: white noise of variance σ² has the flat spectrum σ².
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .statistics import DB_PER_NEPER, Values


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


@dataclass
class Pictures:
    """Sums over images of luma: |X(f)|² (H, W//2+1), and products of ring means (R, R)."""

    count: int
    power: Tensor
    radial: Tensor
    size: tuple[int, int]
    periods: tuple[int, ...]  # the radial profile leaves out the bins around their lines

    def spectrum(self) -> Values:
        """Mean power per pixel (1, H, W) in gray levels², DC at (H//2, W//2)."""
        half = (self.power / self.count / hann(*self.size).square().sum()).cpu().numpy()
        rows = -np.arange(len(half)) % len(half)
        mirror = half[rows][:, (self.size[1] - 1) // 2 : 0 : -1]
        return np.fft.fftshift(np.concatenate([half, mirror], axis=-1))[None]

    def profile(self, masked: bool = True) -> RadialProfile:
        """Radial profile; `masked=False` includes the bins around lattice lines.

        The covariance is that of the masked rings in both cases.
        """
        power = self.power.flatten().cpu().numpy() / self.count
        mean, full = (
            np.bincount(rings, weights * power)
            for rings, weights in (ring_weights(self.size, p) for p in (self.periods, ()))
        )
        second = self.radial.cpu().numpy() / self.count
        relative = second / np.maximum(np.outer(mean, mean), 1e-300) - 1
        shown = (mean if masked else full) / float(hann(*self.size).square().sum())
        return RadialProfile(
            np.arange(len(mean)) / min(self.size), shown, relative / max(self.count - 1, 1)
        )


def picture_sums(luma: Tensor, periods: tuple[int, ...]) -> Pictures:
    """Sums of luma (N, B, H, W) in gray levels: N images, each the mean over its B blocks."""
    size = tuple(luma.shape[2:])
    window = hann(*size).to(luma)
    mean = luma.flatten(2) @ window.flatten() / window.sum()
    spectra = torch.fft.rfft2((luma - mean[..., None, None]) * window)
    power = torch.view_as_real(spectra).square().sum(-1).double().mean(1)
    rings, weights = ring_weights(size, periods)
    radial = power.new_zeros(len(luma), int(rings.max()) + 1)
    weighted = power.flatten(1) * torch.from_numpy(weights).to(power)
    radial.index_add_(1, torch.from_numpy(rings).to(power.device), weighted)
    return Pictures(len(luma), power.sum(0), radial.mT @ radial, size, periods)


def radial_distance(a: RadialProfile, b: RadialProfile) -> tuple[float, float, float]:
    """RMS over rings of 10·log10(a/b) in dB, with a 95 % interval: (distance, low, high).

    DC is left out. The interval is a parametric bootstrap over images: ln power of both profiles is
    drawn from the normal law of its covariance (400 fixed draws) around the observed difference.
    """
    difference = (a.db - b.db)[1:]
    covariance = (a.covariance + b.covariance)[1:, 1:] * DB_PER_NEPER**2
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((400, len(values)))
    noise = noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    low, high = np.quantile(np.sqrt(np.mean((difference + noise) ** 2, axis=1)), (0.025, 0.975))
    return float(np.sqrt(np.mean(difference**2))), float(low), float(high)


def hann(height: int, width: int) -> Tensor:
    """Periodic Hann window (H, W) in float64."""
    rows, columns = (torch.hann_window(n, dtype=torch.float64) for n in (height, width))
    return rows[:, None] * columns


@functools.lru_cache(maxsize=8)
def ring_weights(size: tuple[int, int], periods: tuple[int, ...]) -> tuple[NDArray, Values]:
    """Ring (bins,) of each flat rfft2 bin, and its weight in the ring's mean.

    Rings are 1/min(H, W) wide and centered on whole multiples of it. Bins within one of a lattice
    line weigh nothing, unless the whole ring consists of them.
    """
    columns = np.arange(size[1] // 2 + 1)
    fy = np.fft.fftfreq(size[0])[:, None]
    rings = np.rint(np.hypot(fy, columns / size[1]) * min(size)).astype(np.int64)
    weight = np.full(rings.shape, 2.0)
    weight[:, (columns == 0) | (2 * columns == size[1])] = 1
    masked = np.zeros(size, dtype=bool)
    for p in periods:
        at = [np.rint(np.arange(p) * n / p).astype(int)[:, None] + [-1, 0, 1] for n in size]
        masked[np.ix_(*(a.ravel() % n for a, n in zip(at, size, strict=True)))] = True
    masked = masked[:, : len(columns)]
    masked[:2, :2] = masked[-1, :2] = False  # around DC
    left = np.bincount(rings.ravel(), (weight * ~masked).ravel(), rings.max() + 1)
    weight[masked & (left > 0)[rings]] = 0
    rings, weight = rings.ravel(), weight.ravel()
    return rings, weight / np.bincount(rings, weight)[rings]
