"""Windowed power spectra and radial profiles, as sums that can be merged.

A spectrum is Σ|X(f)|² over images of the mean-removed image under a periodic Hann window, on the
rfft2 half plane (H, W//2+1). Dividing by images·Σw² gives power per pixel: white noise of variance
σ² has the flat spectrum σ².
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.analysis.measure.lattice import near_lattice, signed_bins
from gen.analysis.measure.threads import chunk_length, over_cores


def hann(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Periodic Hann window (H, W), outer product of 0.5 - 0.5·cos(2πn/N)."""
    sides = [torch.hann_window(n, periodic=True, dtype=dtype) for n in (height, width)]
    return sides[0][:, None] * sides[1]


def radial_rings(size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ring number of each rfft2 bin (H, W//2+1) and the rings' radii in cycles per pixel.

    Rings are 1/min(H, W) wide and centered on whole multiples of it, so DC has a ring of its own
    and the corners, out to |f| = 0.707, are kept.
    """
    short = min(size)
    fy, fx = signed_bins(size[0]) / size[0], np.arange(size[1] // 2 + 1) / size[1]
    rings = np.rint(np.hypot(fy[:, None], fx) * short).astype(np.int64)
    return rings, np.arange(rings.max() + 1) / short


def conjugate_weight(width: int) -> NDArray[np.float64]:
    """How many bins of the full plane each column (W//2+1) of the half plane stands for: 1 or 2."""
    weight = np.full(width // 2 + 1, 2.0)
    weight[0] = 1
    if width % 2 == 0:
        weight[-1] = 1
    return weight


def ring_weights(
    size: tuple[int, int], mask_periods: tuple[int, ...] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ring (bins,) of each flat rfft2 bin, and its weight in the ring's mean.

    Bins within one of a lattice line weigh nothing, unless the whole ring is made of them.
    """
    rings, radii = radial_rings(size)
    weight = np.broadcast_to(conjugate_weight(size[1]), rings.shape).copy()
    if mask_periods:
        masked = near_lattice(mask_periods, size, 1)[:, : size[1] // 2 + 1]
        masked[:2, :2] = False
        masked[-1, :2] = False
        left = np.bincount(rings.ravel(), (weight * ~masked).ravel(), len(radii))
        weight[masked & (left > 0)[rings]] = 0
    rings, weight = rings.ravel(), weight.ravel()
    return rings, weight / np.bincount(rings, weight)[rings]


def full_plane(half: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Extend an even spectrum from the rfft2 half plane (C, H, W//2+1) to (C, H, W)."""
    rows = -np.arange(half.shape[1]) % half.shape[1]
    mirror = half[:, rows][:, :, (width - 1) // 2 : 0 : -1]
    return np.concatenate([half, mirror], axis=-1)


@dataclass(frozen=True)
class RadialProfile:
    """Mean power over rings: `frequency` (R,) in cycles per pixel, `power` (R,) in grey levels².

    `covariance` (R, R) is that of ln power over draws of as many images.
    """

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @property
    def db(self) -> NDArray[np.float64]:
        """Power in dB re one grey level², floored at -200 dB."""
        return 10 * np.log10(np.maximum(self.power, 1e-20))

    def band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """95 % band of `db`, ring by ring."""
        half = 1.96 * 10 / np.log(10) * np.sqrt(np.maximum(np.diag(self.covariance), 0))
        return self.db - half, self.db + half


def radial_distance(
    a: RadialProfile, b: RadialProfile, draws: int = 400
) -> tuple[float, float, float]:
    """RMS over rings of 10·log10(a/b) in dB, with a 95 % interval: (distance, low, high).

    DC is left out. The interval is a parametric bootstrap over images: ln power of both profiles is
    drawn from the normal law of its covariance (400 fixed draws) around the observed difference.
    """
    difference = (a.db - b.db)[1:]
    covariance = (a.covariance + b.covariance)[1:, 1:] * (10 / np.log(10)) ** 2
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((draws, len(values)))
    noise = noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    drawn = np.sqrt(np.mean((difference + noise) ** 2, axis=1))
    # Noise adds to every draw what it has already added to the observation: take it off again.
    distance = float(np.sqrt(np.mean(difference**2)))
    drawn = drawn - np.median(drawn) + distance
    low, high = np.quantile(drawn, (0.025, 0.975))
    return distance, max(float(low), 0.0), float(high)


def magnitude(spectrum: Tensor) -> Tensor:
    """|X|² without the square root that `abs` would take."""
    squares = torch.view_as_real(spectrum).square()
    return squares[..., 0] + squares[..., 1]


def over_images(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of maps (N, C, …) over images in float64; weights (N, C)."""
    # numpy converts by parts that stay in the cache, where torch would convert everything first.
    total = torch.empty(maps.shape[1:], dtype=torch.float64)
    for channel, out in enumerate(total.flatten(1).numpy()):
        weight, values = weights[:, channel].double().numpy(), maps[:, channel].flatten(1).numpy()
        np.einsum("n,nk->k", weight, values, out=out)
    return total


class Spectrum:
    """Streaming mean power spectrum and radial profile of images (N, C, H, W) of one size.

    The sums of two halves add up to those of the whole (`merge`). With `mask_periods` the lattice's
    bins, one bin around included, are left out of the radial profile.
    """

    def __init__(self, channels: int, size: tuple[int, int], mask_periods: tuple[int, ...] = ()):
        self.size, self.mask_periods = size, mask_periods
        self.window = hann(*size)
        self.window32 = self.window.float()
        rings, weights = ring_weights(size, mask_periods)
        self.rings = torch.from_numpy(rings)
        self.ring_weights = torch.from_numpy(weights)
        radii = int(rings.max()) + 1
        self.sums = {
            "count": torch.zeros(channels, dtype=torch.float64),
            "power": torch.zeros(channels, size[0], size[1] // 2 + 1, dtype=torch.float64),
            "radial": torch.zeros(channels, radii, radii, dtype=torch.float64),
        }

    def empty(self) -> Spectrum:
        """A spectrum of nothing that shares this one's tables: for another core."""
        other = copy.copy(self)
        other.sums = {name: torch.zeros_like(value) for name, value in self.sums.items()}
        return other

    def update(self, images: Tensor) -> None:
        """Add images (N, C, H, W), on every core; each loses its window-weighted mean first."""
        groups = images.split(chunk_length(images.shape[1:]))
        parts = [self, *(self.empty() for _ in range(torch.get_num_threads() - 1))]
        over_cores(Spectrum._add, parts, groups)
        for part in parts[1:]:
            self.merge(part)

    def _add(self, images: Tensor) -> None:
        images = images.float()
        mean = images.flatten(2) @ self.window32.flatten() / self.window32.sum()
        centered = (images - mean[..., None, None]).mul_(self.window32)
        squares = torch.view_as_real(torch.fft.rfft2(centered)).square_()
        self.add_power(squares[..., 0] + squares[..., 1], torch.ones(images.shape[:2]))

    def add_power(self, power: Tensor, counted: Tensor) -> None:
        """Add |X|² (N, C, H, W//2+1), float32.

        `counted` (N, C) is 1, or 0 for an image that is left out; it has no power.
        """
        by_channel = power.flatten(2).transpose(0, 1).double()  # (C, N, bins)
        self.sums["count"] += counted.sum(0)
        total = self.sums["power"].view(len(by_channel), 1, -1)
        total.baddbmm_(counted.T[:, None].double(), by_channel)
        by_channel *= self.ring_weights
        radial = by_channel.new_zeros(*by_channel.shape[:2], self.sums["radial"].shape[1])
        radial.index_add_(2, self.rings, by_channel)
        self.sums["radial"].baddbmm_(radial.mT, radial)

    def merge(self, other: Spectrum) -> None:
        """Add the sums of another spectrum of the same size."""
        for name, value in other.sums.items():
            self.sums[name] += value

    def mean(self) -> NDArray[np.float64]:
        """Mean power per pixel (C, H, W//2+1) in squared units of the images."""
        count = self.sums["count"].clamp(min=1)[:, None, None]
        return (self.sums["power"] / count / self.window.square().sum()).numpy()

    def profile(self, channel: int, masked: bool = True) -> RadialProfile:
        """Radial profile of one channel, with the covariance of its logarithm.

        `masked=False` puts the lattice's bins back; the covariance stays that of the masked rings.
        """
        count = max(float(self.sums["count"][channel]), 1.0)
        energy = float(self.window.square().sum())
        power = self.sums["power"][channel].flatten().numpy() / count

        def ringed(periods: tuple[int, ...]) -> NDArray[np.float64]:
            rings, weights = ring_weights(self.size, periods)
            return np.bincount(rings, weights * power)

        masked_mean = ringed(self.mask_periods)
        mean = masked_mean if masked else ringed(())
        second = self.sums["radial"][channel].numpy() / count
        relative = second / np.maximum(np.outer(masked_mean, masked_mean), 1e-300) - 1
        return RadialProfile(
            radial_rings(self.size)[1], mean / energy, relative / max(count - 1, 1.0)
        )
