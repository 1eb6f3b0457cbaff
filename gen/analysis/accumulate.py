"""What one pass over images leaves behind: sums from which every statistic follows.

For each image i and channel, with the window w, X = FFT2(w·x) and the line α, the model of the
measurement is X(f+α) = g·X(f) + A·W(f) + e(f) on the baseband B, Var e(f) = v(f). Its normal
equations

    M = Σ_B [ |X|²/v, X*W/v ; W*X/v, |W|²/v ],     b = Σ_B [ X*Y/v ; W*Y/v ],     Y(f) = X(f+α),

are cross-correlations: with x̃ = IFFT(X/v), u = IFFT(1/v), x_B = IFFT(X on B), r_B = IFFT(|X|² on B)

    b₁ = FFT(x̃·x_B),  b₂ = FFT(x̃·w),  M₁₁ = FFT(u·r_B),  M₁₂ = FFT(u·IFFT(X·W)),  M₂₂ = FFT(u·r_w)

hold at every shift k at once, lattice or not. Summed over images before the FFT they give the gain
everywhere; folded modulo the period they give each image's own terms on the lattice. W has nine
bins, so what involves it is a small matrix product.

The weights 1/v come from the image itself: ln v(f) is the least-squares fit of ln|X(f)|², away from
the lattice and from DC, by 1, ln r, its bend, and the two axis ridges. Five numbers fitted to
hundreds of bins hardly know any single one, so the estimate stays unbiased; nothing depends on
other images, so any split of the data gives the same sums.

What belongs to one image is float32: its rounding, 1e-5 grey levels, is a thousandth of
`NOISE_FLOOR`. Sums over images are float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gen.analysis.lattice import Bin, baseband, lattice_lines, near_lattice, neighbors, to_bin
from gen.analysis.matrices import excess_bins, lattice_fourier, synthesis, whitening_basis
from gen.analysis.spectrum import Spectrum, hann

MID_GREY = 127.5
# A hundredth of a grey level of white noise keeps the weight of a smooth image finite.
NOISE_FLOOR = 1e-2
# Exponent of an image's own noise power in its weight: 1 is the minimum of variance, 0 lets all
# images count alike; 3/4 gives away 5 % of precision and keeps a fifth more images effective
# (docs).
TEMPER = 0.75
TRACES = ("|∂x|", "|∂y|", "|∂x∂y|")


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
        self.records: list[dict[str, Tensor]] = []

    def _prepare(self) -> None:
        height, width = self.size
        self.window = hann(height, width)
        self.window32 = self.window.float()
        # |∂| at the far border has no partner: differences are taken of the flattened image.
        self.trace_windows = self.window32.repeat(len(TRACES), 1, 1, 1, 1)
        self.trace_windows[0::2, ..., -1] = 0
        self.trace_windows[1:, ..., -1, :] = 0
        transform = torch.fft.fft2(self.window).real
        transform[transform.abs() < 1e-9 * transform[0, 0]] = 0
        self.window_power = torch.fft.ifft2(transform**2).real
        self.taps = transform.flatten().nonzero()[:, 0]
        self.tap_values = transform.flatten()[self.taps].float()
        self.synthesis = synthesis(self.window, self.taps)
        self.negative_basis, self.fit = (
            m.float() for m in whitening_basis(self.periods, self.size)
        )
        masks = [torch.from_numpy(baseband(p, self.size)) for p in self.periods]
        self.masks = [mask.float() for mask in masks]
        self.base = torch.stack(masks).any(0).flatten().nonzero()[:, 0]
        self.repeat = math.lcm(*self.periods)
        self.fourier = lattice_fourier(self.lines, self.repeat, width)
        pairs = torch.einsum("fl,st->fstl", self.fourier, torch.eye(2))
        self.pair_fourier = pairs.reshape(2 * len(self.fourier), -1)
        spots = torch.from_numpy(self.bins % self.size)
        self.spots = spots[:, 0] * width + spots[:, 1]
        moved = [transform.square().roll(tuple(k), (0, 1)).flatten() for k in self.bins]
        self.window_taps = torch.stack(moved, -1).float() / (height * width)
        self.stencils = torch.from_numpy(np.stack([excess_bins(k, self.size) for k in self.bins]))

    def _fold(self, images: Tensor) -> Tensor:
        """Sum rows modulo Q, the period of all lines: (…, H, W) or (…, H, W·2) → (…, Q·W·…)."""
        return images.unflatten(-2, (-1, self.repeat)).sum(-3).flatten(-2)

    def add(self, images: Tensor) -> Tensor:
        """Add images (N, C, H, W) in grey levels; returns the gains (N, lines) of luma by image."""
        self.record(images)
        return self.reduce()

    def record(self, images: Tensor) -> None:
        """Do what needs all pixels of images (N, C, H, W); their coefficients wait for `reduce`.

        A channel of an image that is flat carries no signal and is left out.
        """
        images = images[..., : self.size[0], : self.size[1]].float()
        mean = total(images * self.window32) / self.window32.sum()
        images = images - mean[..., None, None]
        pixels = self.size[0] * self.size[1]
        variance = total(images.square()) / pixels - (total(images) / pixels) ** 2
        counted = (variance > NOISE_FLOOR**2).float()
        images *= counted[..., None, None]
        centered = self.window32 * images
        spectrum = torch.fft.fft2(centered)
        bins = spectrum.flatten(2)
        power = magnitude(spectrum[..., : self.size[1] // 2 + 1])
        weights, level = self.whiten(power)
        weights *= counted[..., None, None]
        u = noise_weight(counted, level)
        record = {"variance": variance, "counted": counted, "weight": u}
        record["excess"] = power.flatten(2).index_select(-1, self.stencils.flatten())
        record["line"] = bins.index_select(-1, self.spots)
        wide = power.double()
        self.spectrum.add_power(wide, counted.double())
        self._sum("noise", (wide * u.double().square()[..., None, None]).sum(0))
        self._sum("mean", (centered * u[..., None, None]).sum(0, dtype=torch.float64))
        record |= self._trace(images, counted)
        # The window-weighted mean returns as a multiple of W, relative to mid-grey: then A is the
        # grid at mid-grey, well conditioned, and g is what it was.
        offset = ((mean - MID_GREY) * counted)[..., None] * self.tap_values
        bins.index_add_(-1, self.taps, offset.to(bins.dtype))
        record["m22"] = weights.flatten(2) @ self.window_taps
        record["gain"] = self._gain(spectrum, weights, level)
        self.records.append(record)

    def whiten(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights 1/v of each image from its |X|² (N, C, H, W//2+1), and its mean log noise power.

        Shapes (N, C, H, W) and (N, C).
        """
        floor = NOISE_FLOOR**2 * float(self.window.square().sum())
        logs = (power.float() + floor).log().flatten(2)
        fitted, level = (logs @ self.fit).split((5, 1), -1)
        fitted[..., :1] += (TEMPER - 1) * level
        weights = torch.exp(fitted @ self.negative_basis)
        return weights.view(*power.shape[:2], *self.size), level[..., 0]

    def _gain(self, spectrum: Tensor, weights: Tensor, level: Tensor) -> Tensor:
        """Sum the normal equations everywhere; their lattice coefficients by image.

        Shape (N, C, 1 + periods, 2, 2·lines): b₂ and M₁₂, then b₁ and M₁₁ of each period. An
        inverse FFT brings back two real images, as a pair re, im. The unit between the magnitudes
        of both keeps either from drowning in the other's rounding; it cancels in the products.
        """
        bins = spectrum.flatten(2)
        base = bins.index_select(-1, self.base)
        power = magnitude(base)
        unit = (power.amax(-1).sqrt() * torch.exp(level / 2)).clamp(min=1).sqrt()[..., None]
        low = torch.zeros_like(spectrum)
        packed = torch.complex(base.real, base.imag + power / unit)
        low.flatten(2).index_copy_(-1, self.base, packed)
        taps = bins.index_select(-1, self.taps) * (self.tap_values / unit)
        taps = torch.view_as_real(taps).flatten(2)
        smooth = torch.cat([torch.ones_like(taps[..., :1]), taps], -1) @ self.synthesis
        torch.view_as_real(bins)[..., 1] += unit
        pair = torch.fft.ifft2(spectrum.mul_(weights))  # IFFT(X/v), unit·IFFT(1/v)
        pair = torch.view_as_real(pair).flatten(3)
        products = [("b2", "m12", smooth.view(pair.shape))]
        for period, mask in zip(self.periods, self.masks, strict=True):
            other = torch.view_as_real(torch.fft.ifft2(low * mask)).flatten(3)
            products.append((f"b1/{period}", f"m11/{period}", other))
        coefficients = []
        for first, second, other in products:
            product = other.mul_(pair)
            both = product.sum(0, dtype=torch.float64)
            self._sum(first, both[..., 0::2])
            self._sum(second, both[..., 1::2])
            coefficients.append(self._fold(product) @ self.pair_fourier)
        self._sum("weights", weights.sum(0, dtype=torch.float64))
        return torch.stack(coefficients, 2).unflatten(-1, (2, -1))

    def _trace(self, images: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Sum the windowed variation maps; their share in it and lattice coefficients by image."""
        width = images.shape[-1]
        maps = images.new_empty(len(TRACES), *images.shape)
        dx, dy, dxy = maps.flatten(1)
        for source, step, out in (
            (images.flatten(), 1, dx),
            (images.flatten(), width, dy),
            (dx, width, dxy),
        ):
            torch.sub(source[step:], source[:-step], out=out[:-step])
            out[-step:] = 0
        maps = maps.abs_().mul_(self.trace_windows)
        amount = maps.flatten(3).sum(-1)
        share = torch.where(amount > 1e-6, counted / amount.clamp(min=1e-6), 0.0)
        maps *= share[..., None, None]
        for name, summed in zip(TRACES, maps.sum(1, dtype=torch.float64), strict=True):
            self._sum(f"trace/{name}", summed)
        depth = self._fold(maps) @ self.fourier
        return {"share": share.movedim(0, -1), "depth": depth.movedim(0, 2)}

    def reduce(self) -> Tensor:
        """Add up second moments of all that is recorded; returns luma's gains (N, lines)."""
        r = {}
        for name, first in self.records[0].items():
            wide = torch.promote_types(first.dtype, torch.float64)
            r[name] = torch.cat([record[name] for record in self.records]).to(wide)
        self.records = []
        self._sum("variance", (r["variance"] * r["counted"]).sum(0))
        self._sum("excess", second_moments(r["excess"].unflatten(-1, self.stencils.shape)))
        u = r["weight"]
        self._sum("weight", u.sum(0))
        z = r["line"] / self.window.sum() * u[..., None]
        self._sum("line", second_moments(with_weight(z, u)))
        for i, name in enumerate(TRACES):
            depth = torch.complex(*r["depth"][:, :, i].chunk(2, -1))
            one = (r["share"][..., i] > 0).double()
            self._sum(f"depth/{name}", second_moments(with_weight(depth, one)))
        terms = self._terms(r["gain"], r["m22"])
        self._sum("gain", second_moments(gain_terms(*terms)))
        return single_gain(*(term[:, 0] for term in terms)).to(torch.complex64)

    def _terms(self, gain: Tensor, m22: Tensor) -> tuple[Tensor, ...]:
        """b₁, b₂, M₁₁, M₁₂, M₂₂ (N, C, lines), b₁ and M₁₁ of each line from its own period."""
        values = torch.complex(*gain.chunk(2, -1))
        b2, m12 = values[:, :, 0].unbind(2)
        counts = [len(self.lines[p]) for p in self.periods]
        own = [part[:, :, i] for i, part in enumerate(values[:, :, 1:].split(counts, -1))]
        b1, m11 = torch.cat(own, -1).unbind(2)
        return b1, b2, m11.real, m12, m22

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


def total(images: Tensor) -> Tensor:
    """Sum over pixels: (N, C, H, W) → (N, C)."""
    return images.flatten(2).sum(-1)


def magnitude(spectrum: Tensor) -> Tensor:
    """|X|² without the square root that `abs` would take."""
    squares = torch.view_as_real(spectrum).square()
    return squares[..., 0] + squares[..., 1]


def noise_weight(counted: Tensor, level: Tensor) -> Tensor:
    """Weight u (N, C) of an image's line: its inverse noise power to the `TEMPER`."""
    return counted * torch.exp(-TEMPER * level)


def with_weight(values: Tensor, weight: Tensor) -> Tensor:
    """Complex (N, C, L) and weights (N, C) as real vectors (N, C, L, 3): re, im, weight."""
    return torch.stack([values.real, values.imag, weight[..., None].expand(values.shape)], -1)


def second_moments(values: Tensor) -> Tensor:
    """Sum over images of outer products: (N, C, L, K) → (C, L, K, K)."""
    n, c, lines, k = values.shape
    flat = values.permute(1, 2, 3, 0).reshape(c * lines, k, n)
    return (flat @ flat.mT).reshape(c, lines, k, k)


def gain_terms(b1: Tensor, b2: Tensor, m11: Tensor, m12: Tensor, m22: Tensor) -> Tensor:
    """Real vector (…, 9) of one image's normal equations; the last entry is 1."""
    parts = [b1.real, b1.imag, b2.real, b2.imag, m11, m12.real, m12.imag, m22]
    return torch.stack([*parts, torch.ones_like(m11)], -1)


def single_gain(b1: Tensor, b2: Tensor, m11: Tensor, m12: Tensor, m22: Tensor) -> Tensor:
    """Gain of each image by itself: its own 2×2 normal equations, solved."""
    determinant = (m11 * m22 - m12.abs().square()).clamp(min=1e-300)
    return (b1 * m22 - b2 * m12) / determinant
