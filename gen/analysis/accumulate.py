"""What one pass over images leaves behind: sums from which every statistic follows.

For each image i and channel, with the window w, X = FFT2(w·x) and the line α, the model of the
measurement is X(f+α) = g·X(f) + A·W(f) + e(f) on the baseband B, Var e(f) = v(f). Its normal
equations

    M = Σ_B [ |X|²/v, X*W/v ; W*X/v, |W|²/v ],     b = Σ_B [ X*Y/v ; W*Y/v ],     Y(f) = X(f+α),

are cross-correlations: with x̃ = IFFT(X/v), u = IFFT(1/v), x_B = IFFT(X on B), r_B = IFFT(|X|² on B)

    b₁ = FFT(x̃·x_B),  b₂ = FFT(x̃·w),  M₁₁ = FFT(u·r_B),  M₁₂ = FFT(u·IFFT(X·W)),  M₂₂ = FFT(u·r_w)

hold at every shift k at once, lattice or not. Summed over images before the FFT they give the gain
everywhere; folded modulo the period they give each image's own terms on the lattice.

The weights 1/v come from the image itself: ln v(f) is the least-squares fit of ln|X(f)|², away from
the lattice and from DC, by 1, ln r, its bend, and the two axis ridges. Five numbers fitted to
hundreds of bins hardly know any single one, so the estimate stays unbiased; nothing depends on
other images, so any split of the data gives the same sums.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gen.analysis.lattice import (
    Bin,
    baseband,
    lattice_lines,
    near_lattice,
    neighbors,
    signed_bins,
    to_bin,
)
from gen.analysis.spectrum import Spectrum, hann

MID_GREY = 127.5
# A hundredth of a grey level of white noise keeps the weight of a smooth image finite.
NOISE_FLOOR = 1e-2
# Exponent of an image's own noise power in its weight: 1 is the minimum of variance, 0 lets all
# images count alike; 3/4 gives away 5 % of precision and keeps a fifth more images effective
# (docs).
TEMPER = 0.75
# The spectrum below so many bins belongs to DC and its window leakage: the fit leaves it out.
FITTED = 4
DISTANCES = (2, 3, 4)
TRACES = ("|∂x|", "|∂y|", "|∂x∂y|")


def whitening_basis(periods: tuple[int, ...], size: Bin) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of the fit of ln v: to -ln v on the full plane, from ln|X|² on the half plane, mean.

    Shapes (5, H·W), (5, H·(W//2+1)), (H·(W//2+1),). The last two are zero at the bins that the fit
    must not see: nearer than `FITTED` bins to DC and within one bin of a lattice line.
    """
    ky, kx = np.meshgrid(*(abs(signed_bins(n)) for n in size), indexing="ij")
    radius = np.hypot(ky / size[0], kx / size[1])
    log_radius = np.log(np.maximum(radius, 1 / max(size)) * min(size) / FITTED)
    bend = np.maximum(log_radius, 0) ** 2  # towards DC, unseen by the fit, a power law continues
    ridges = 1 / (1 + kx**2), 1 / (1 + ky**2)
    basis = np.stack([np.ones_like(radius), log_radius, bend, *ridges])
    half = slice(size[1] // 2 + 1)
    seen = ((np.maximum(ky, kx) >= FITTED) & ~near_lattice(periods, size, 1))[:, half].ravel()
    inverse = np.zeros((5, seen.size))
    inverse[:, seen] = np.linalg.pinv(basis[..., half].reshape(5, -1)[:, seen]).T
    out = -basis.reshape(5, -1), inverse, seen / seen.sum()
    return tuple(torch.from_numpy(m) for m in out)


class CropSums:
    """Sums over images cropped to one size (H, W), for all periods that divide it.

    `sums` maps names to float64 tensors whose first axis is the channel (luma first where there is
    more than one); two halves of a set add up to the whole.
    """

    def __init__(self, channels: int, size: Bin, periods: tuple[int, ...]):
        self.size, self.periods, self.channels = size, periods, channels
        self.lines = {p: lattice_lines(p) for p in periods}
        self.bins = np.array([to_bin(a, p, size) for p in periods for a in self.lines[p]])
        self.spectrum = Spectrum(channels, size, periods)
        self.neighbors = [
            neighbors(line, p, size, near_lattice(periods, size, 2))
            for p in periods
            for line in self.lines[p]
        ]
        self._prepare()
        self.sums: dict[str, Tensor] = {}

    def _prepare(self) -> None:
        height, width = self.size
        self.window = hann(height, width)
        transform = torch.fft.fft2(self.window).real
        transform[transform.abs() < 1e-9 * transform[0, 0]] = 0
        self.transform = transform
        self.window_power = torch.fft.ifft2(transform**2).real
        self.negative_basis, self.inverse, self.seen = whitening_basis(self.periods, self.size)
        self.masks = [torch.from_numpy(baseband(p, self.size)) for p in self.periods]
        self.repeat = math.lcm(*self.periods)
        self.fourier = self._lattice_fourier()
        self.rows, self.columns = torch.from_numpy(self.bins % self.size).T
        self.stencils = torch.from_numpy(np.stack([excess_bins(k, self.size) for k in self.bins]))

    def _lattice_fourier(self) -> Tensor:
        """DFT matrix (Q·W, 2·lines) from rows folded modulo Q to all lines, re then im."""
        lines = [(a / p, b / p) for p in self.periods for a, b in self.lines[p]]
        fy, fx = torch.tensor(lines, dtype=torch.float64).T
        rows = torch.arange(self.repeat, dtype=torch.float64)[:, None, None]
        columns = torch.arange(self.size[1], dtype=torch.float64)[:, None]
        phase = -2 * math.pi * (rows * fy + columns * fx)
        return torch.cat([phase.cos(), phase.sin()], -1).flatten(0, 1)

    def on_lattice(self, image: Tensor) -> Tensor:
        """Complex DFT of (N, C, H, W) at all lines: fold the rows, then a small matrix."""
        n, c, height, width = image.shape
        folded = image.view(n, c, height // self.repeat, self.repeat * width).sum(2)
        re, im = (folded @ self.fourier).chunk(2, dim=-1)
        return torch.complex(re, im)

    def add(self, images: Tensor) -> Tensor:
        """Add images (N, C, H, W) in grey levels; returns the gains (N, lines) of luma by image.

        A channel of an image that is flat carries no signal and is left out.
        """
        images = images[..., : self.size[0], : self.size[1]].double()
        mean = total(images * self.window) / self.window.sum()
        images = images - mean[..., None, None]
        pixels = self.size[0] * self.size[1]
        variance = total(images.square()) / pixels - (total(images) / pixels) ** 2
        counted = (variance > NOISE_FLOOR**2).double()
        images = images * counted[..., None, None]
        centered = self.window * images
        spectrum = torch.fft.fft2(centered)
        power = magnitude(spectrum[..., : self.size[1] // 2 + 1])
        self.spectrum.add_power(power, counted)
        weights, level = self.whiten(power)
        self._sum("variance", (variance * counted).sum(0))
        self._add_line(centered, spectrum, power, counted * torch.exp(-TEMPER * level))
        self._sum("excess", second_moments(power.flatten(2)[..., self.stencils]))
        self._add_trace(images, counted)
        # The window-weighted mean returns as a multiple of W, relative to mid-grey: then A is the
        # grid at mid-grey, well conditioned, and g is what it was.
        offset = ((mean - MID_GREY) * counted)[..., None, None]
        spectrum = spectrum + offset * self.transform
        return self._add_gain(spectrum, weights * counted[..., None, None])

    def whiten(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights 1/v of each image from its |X|² (N, C, H, W//2+1), and its mean log noise power.

        Shapes (N, C, H, W) and (N, C).
        """
        floor = NOISE_FLOOR**2 * float(self.window.square().sum())
        logs = (power + floor).log().flatten(2)
        fitted = logs @ self.inverse.T
        level = logs @ self.seen
        fitted[..., 0] += (TEMPER - 1) * level
        weights = torch.exp(fitted @ self.negative_basis)
        return weights.view(*power.shape[:2], *self.size), level

    def _add_gain(self, spectrum: Tensor, weights: Tensor) -> Tensor:
        """Sum the normal equations; each inverse FFT brings back two real images at once.

        The two are scaled alike first, or the larger one's rounding would drown the smaller.
        """
        power = magnitude(spectrum)
        unit = power.amax((-2, -1), keepdim=True).sqrt().clamp(min=1)
        scale = weights[..., :1, :1] / self.transform[0, 0]
        whitened, smooth = both(spectrum * torch.complex(weights, scale * self.transform))
        spread = torch.fft.ifft2(weights).real
        shared = {
            "b2": whitened * self.window,
            "m12": spread * smooth / scale.clamp(min=1e-30),
            "m22": spread * self.window_power,
        }
        lattice = {name: self._add_product(name, value) for name, value in shared.items()}
        gains, first = [], 0
        for period, mask in zip(self.periods, self.masks, strict=True):
            own = slice(first, first := first + len(self.lines[period]))
            low, low_power = both(torch.complex(spectrum.real, spectrum.imag + power / unit) * mask)
            terms = {name: value[..., own] for name, value in lattice.items()}
            products = {
                "b1": whitened * low,
                "m11": spread * low_power * unit,
            }
            for name, value in products.items():
                terms[name] = self._add_product(f"{name}/{period}", value)[..., own]
            self._sum(f"gain/{period}", second_moments(gain_terms(terms)))
            gains.append(single_gain({name: value[:, 0] for name, value in terms.items()}))
        return torch.cat(gains, -1).to(torch.complex64)

    def _add_product(self, name: str, product: Tensor) -> Tensor:
        """Sum a product over images; returns its coefficients on the lattice by image."""
        self._sum(name, product.sum(0))
        return self.on_lattice(product)

    def _add_line(self, centered: Tensor, spectrum: Tensor, power: Tensor, weight: Tensor) -> None:
        """Weighted mean image, its noise Σu²|X|², second moments of (u·Re z, u·Im z, u)."""
        self._sum("noise", weighted_sum(weight**2, power))
        self._sum("weight", weight.sum(0))
        self._sum("mean", weighted_sum(weight, centered))
        z = spectrum[..., self.rows, self.columns].to(torch.complex128) / self.window.sum()
        u = weight[..., None]
        self._sum("line", second_moments(torch.stack([u * z.real, u * z.imag, u + 0 * z.real], -1)))

    def _add_trace(self, images: Tensor, counted: Tensor) -> None:
        """Mean windowed variation maps and second moments of their lattice coefficients."""
        dx, dy = torch.zeros_like(images), torch.zeros_like(images)
        torch.sub(images[..., 1:], images[..., :-1], out=dx[..., :-1])
        torch.sub(images[..., 1:, :], images[..., :-1, :], out=dy[..., :-1, :])
        dxy = torch.zeros_like(images)
        torch.sub(dx[..., 1:, :], dx[..., :-1, :], out=dxy[..., :-1, :])
        for name, values in zip(TRACES, (dx, dy, dxy), strict=True):
            windowed = values.abs_().mul_(self.window)
            amount = total(windowed)
            share = torch.where(amount > 1e-6, counted / amount.clamp(min=1e-6), 0.0)
            depth = self.on_lattice(windowed) * share[..., None]
            one = ((share > 0) + 0.0)[..., None].expand(depth.shape)
            self._sum(f"trace/{name}", weighted_sum(share, windowed))
            self._sum(
                f"depth/{name}", second_moments(torch.stack([depth.real, depth.imag, one], -1))
            )

    def _sum(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()

    def merge(self, other: CropSums) -> None:
        """Add the sums of another part of the set."""
        self.spectrum.merge(other.spectrum)
        for name, value in other.sums.items():
            self._sum(name, value)


def excess_bins(center: np.ndarray, size: Bin) -> np.ndarray:
    """Flat rfft2 bins (1 + 12) of a line and of its neighbours at distances 2, 3, 4 on both axes.

    A line on an axis has its neighbours on that axis alone, listed twice.
    """
    steps = [(0, 0)]
    for distance in DISTANCES:
        along_y, along_x = (distance, 0), (0, distance)
        if center[0] == 0:
            along_y = along_x
        elif center[1] == 0:
            along_x = along_y
        steps += [s for a, b in (along_y, along_x) for s in ((a, b), (-a, -b))]
    ky, kx = ((center + np.array(steps)) % size).T
    mirrored = kx > size[1] // 2
    ky, kx = np.where(mirrored, -ky % size[0], ky), np.where(mirrored, size[1] - kx, kx)
    return ky * (size[1] // 2 + 1) + kx


def total(images: Tensor) -> Tensor:
    """Sum over pixels in float64: (N, C, H, W) → (N, C)."""
    return images.flatten(2).sum(-1)


def magnitude(spectrum: Tensor) -> Tensor:
    """|X|² without the square root that `abs` would take."""
    return spectrum.real.square() + spectrum.imag.square()


def both(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse FFT of A + jB, where A and B are spectra of real images: these images."""
    pair = torch.fft.ifft2(spectrum)
    return pair.real, pair.imag


def weighted_sum(weight: Tensor, values: Tensor) -> Tensor:
    """Sum over images: weights (N, C), values (N, C, H, W) → (C, H, W), all float64."""
    n, c, *shape = values.shape
    flat = values.transpose(0, 1).reshape(c, n, -1)
    return (weight.T[:, None] @ flat).view(c, *shape)


def second_moments(values: Tensor) -> Tensor:
    """Sum over images of outer products: (N, C, L, K) → (C, L, K, K)."""
    n, c, lines, k = values.shape
    flat = values.permute(1, 2, 3, 0).reshape(c * lines, k, n)
    return (flat @ flat.mT).reshape(c, lines, k, k)


def gain_terms(t: dict[str, Tensor]) -> Tensor:
    """Real vector (…, 9) of one image's normal equations; the last entry is 1."""
    b1, b2, m11, m12, m22 = (t[name] for name in ("b1", "b2", "m11", "m12", "m22"))
    parts = [b1.real, b1.imag, b2.real, b2.imag, m11.real, m12.real, m12.imag, m22.real]
    return torch.stack([*parts, torch.ones_like(b1.real)], -1)


def single_gain(t: dict[str, Tensor]) -> Tensor:
    """Gain of each image by itself: its own 2×2 normal equations, solved."""
    m11, m12, m22 = t["m11"].real, t["m12"], t["m22"].real
    determinant = (m11 * m22 - m12.abs().square()).clamp(min=1e-300)
    return (t["b1"] * m22 - t["b2"] * m12) / determinant
