"""What one pass over images leaves behind: sums from which every statistic follows.

For each image i and channel, with the window w, X = FFT2(w·x) and the line α, the model of the
measurement is X(f+α) = g·X(f) + A·W(f) + e(f) on the baseband B, Var e(f) = v(f). Its normal
equations

    M = Σ_B [ |X|²/v, X*W/v ; W*X/v, |W|²/v ],     b = Σ_B [ X*Y/v ; W*Y/v ],     Y(f) = X(f+α),

are cross-correlations: with x̃ = IFFT(X/v), u = IFFT(1/v), x_B = IFFT(X on B), r_B = IFFT(|X|² on B)

    b₁ = FFT(x̃·x_B),   M₁₁ = FFT(u·r_B)

hold at every shift k at once, lattice or not. Summed over images before the FFT they give the gain
everywhere; folded modulo the period they give each image's own terms on the lattice. W has nine
bins ("taps"), so what involves it is a sum over nine shifts of X/v or 1/v.

The weights 1/v come from the image itself: ln v(f) is the least-squares fit of ln|X(f)|², away from
the lattice and from DC, by 1, ln r, its bend, and the two axis ridges. Five numbers fitted to
hundreds of bins hardly know any single one, so the estimate stays unbiased; nothing depends on
other images, so any split of the data gives the same sums. All five are even in f_y and in f_x: u
is a cosine transform of a quarter of the plane.

What belongs to one image is float32: its rounding, 1e-5 grey levels, is a thousandth of
`NOISE_FLOOR`. Sums over images are float64.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from gen.analysis.lattice import Bin, lattice_lines, near_lattice, neighbors, to_bin
from gen.analysis.matrices import (
    cosines,
    excess_bins,
    lattice_fourier,
    row_synthesis,
    tapped_bins,
    whitening_basis,
)
from gen.analysis.spectrum import Spectrum, hann, magnitude, over_images

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
        self.moments = torch.stack([self.window32, torch.ones(self.size)], -1).flatten(0, 1)
        # |∂| at the far border has no partner: differences are taken of the flattened image.
        self.trace_windows = self.window32.repeat(len(TRACES), 1, 1)
        self.trace_windows[0::2, :, -1] = 0
        self.trace_windows[1:, -1] = 0
        self.stencils = torch.from_numpy(np.stack([excess_bins(k, self.size) for k in self.bins]))
        basis, self.fit = (m.float() for m in whitening_basis(self.periods, self.size))
        half = basis.unflatten(-1, self.size)[..., : width // 2 + 1]
        self.negative_basis = half.flatten(1)
        self.cosines = [cosines(n).float() for n in self.size]

        # W: its taps around DC, on the half plane, and around every line.
        transform = torch.fft.fft2(self.window).real
        transform[transform.abs() < 1e-9 * transform[0, 0]] = 0
        self.taps = transform.nonzero().numpy()
        self.tap_values = transform[tuple(self.taps.T)]
        self.half_taps = transform[:, : width // 2 + 1].flatten().nonzero()[:, 0]
        self.half_values = transform[:, : width // 2 + 1].flatten()[self.half_taps].float()
        self.tapped, self.tapped_sign = tapped_bins(self.bins, self.taps, self.size)
        self.own_taps, self.own_sign = tapped_bins(np.zeros((1, 2), int), self.taps, self.size)
        self.spots, self.spots_sign = tapped_bins(self.bins, np.zeros((1, 2), int), self.size)
        self.tapped_basis = self.negative_basis[:, self.tapped]

        # The baseband's half plane of each period; rows folded modulo Q, the period of all lines.
        self.reach = {p: [(n - 1) // (2 * p) for n in self.size] for p in self.periods}
        rows = torch.fft.fftfreq(height, 1 / height).round().abs()[:, None]
        self.rows = {p: (rows <= reach[0]).float() for p, reach in self.reach.items()}
        self.synthesis = {p: row_synthesis(reach[1], width) for p, reach in self.reach.items()}
        self.repeat = math.lcm(*self.periods)
        self.fourier = {
            p: lattice_fourier({p: own}, self.repeat, width) for p, own in self.lines.items()
        }
        self.all_fourier = lattice_fourier(self.lines, self.repeat, width)

    def empty(self) -> CropSums:
        """Sums of nothing that share this one's tables: for another core."""
        other = copy.copy(self)
        other.spectrum, other.sums, other.records = self.spectrum.empty(), {}, []
        return other

    def add(self, images: Tensor) -> Tensor:
        """Add images (N, C, H, W) in grey levels; returns the gains (N, lines) of luma by image."""
        self.record(images)
        return self.reduce()

    def record(self, images: Tensor) -> None:
        """Do what needs all pixels of images (N, C, H, W); their coefficients wait for `reduce`.

        A channel of an image that is flat carries no signal and is left out.
        """
        images = images[..., : self.size[0], : self.size[1]].float()
        pixels = self.size[0] * self.size[1]
        weighted, plain = (images.flatten(2) @ self.moments).unbind(-1)
        mean = weighted / self.moments[:, 0].sum()
        images = images - mean[..., None, None]
        energy = torch.linalg.vector_norm(images.flatten(2), dim=-1).square()
        variance = energy / pixels - (plain / pixels - mean) ** 2
        counted = (variance > NOISE_FLOOR**2).float()
        if not counted.all():
            images *= counted[..., None, None]
        centered = self.window32 * images
        spectrum = torch.fft.rfft2(centered)
        power = magnitude(spectrum)
        weights, fitted = self.whiten(power)
        u = noise_weight(counted, fitted[..., 5])
        record = {"variance": variance, "counted": counted, "weight": u}
        record["excess"] = power.flatten(2).index_select(-1, self.stencils.flatten())
        record["line"] = view2(_select(spectrum, self.spots, self.spots_sign))
        self.spectrum.add_power(power, counted)
        self._sum("noise", over_images(power * u.square()[..., None, None]))
        self._sum("mean", over_images(centered.mul_(u[..., None, None])))
        record |= self._trace(images, counted)
        # The window-weighted mean returns as a multiple of W, relative to mid-grey: then A is the
        # grid at mid-grey, well conditioned, and g is what it was.
        bins = spectrum.flatten(2)
        offset = ((mean - MID_GREY) * counted)[..., None] * self.half_values
        bins.index_add_(-1, self.half_taps, offset.to(bins.dtype))
        near_dc = magnitude(bins.index_select(-1, self.half_taps))
        power.flatten(2).index_copy_(-1, self.half_taps, near_dc)
        record |= self._around(spectrum, weights, fitted, counted)
        record |= self._gain(spectrum, power, weights)
        self.records.append(record)

    def whiten(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights 1/v of each image from its |X|² on the half plane; the fit behind them.

        Shapes (N, C, H, W//2+1) → (N, C, H, W//2+1) and (N, C, 6): the coefficients of ln v, less
        what `TEMPER` gives back, and the mean log noise power.
        """
        floor = NOISE_FLOOR**2 * float(self.window.square().sum())
        fitted = (power + floor).log_().flatten(2) @ self.fit
        fitted[..., 0] += (TEMPER - 1) * fitted[..., 5]
        return (fitted[..., :5] @ self.negative_basis).exp_().view(power.shape), fitted

    def _around(
        self, spectrum: Tensor, weights: Tensor, fitted: Tensor, counted: Tensor
    ) -> dict[str, Tensor]:
        """X and 1/v at the taps around the lines and X around DC, by image, for `_window_terms`.

        Summed over images: 1/v times 1 and times the conjugate taps of X (re, im), on the quarter
        plane.
        """
        near = (fitted[..., :5] @ self.tapped_basis).exp_() * counted[..., None]
        moved = view2(_select(spectrum, self.tapped, self.tapped_sign))
        own = view2(_select(spectrum, self.own_taps, -self.own_sign)).flatten(2)
        rows = torch.cat([counted[..., None], own], -1).double().permute(1, 2, 0)
        quarter = weights[..., : self.size[0] // 2 + 1, :].transpose(0, 1).double()
        self._sum("weights", (rows @ quarter.flatten(2)).unflatten(-1, quarter.shape[2:]))
        return {"near": near, "moved": moved, "own": own}

    def _window_terms(self, near: Tensor, moved: Tensor, own: Tensor) -> Tensor:
        """b₂, M₁₂ (re, im) and M₂₂ (N, C, lines, 5) of every image, summed over the taps of W."""
        taps = len(self.taps)
        values = self.tap_values / (self.size[0] * self.size[1])
        near, moved = near.unflatten(2, (-1, taps)), moved.unflatten(2, (-1, taps))
        b2 = (moved * (near * values)[..., None]).sum(3)
        m12 = near @ (own.unflatten(2, (taps, 2)) * values[:, None])
        m22 = near @ (values * self.tap_values)
        return torch.cat([b2, m12, m22[..., None]], -1)

    def _gain(self, spectrum: Tensor, power: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Sum x̃·x_B and u·r_B of each period; their lattice coefficients by image, b₁ and M₁₁."""
        height, width = self.size
        white = spectrum * weights
        self._sum("white", over_images(view2(white)))
        pair = torch.empty(*power.shape[:2], 2, height, width)
        pair[:, :, 0] = torch.fft.irfft(torch.fft.ifft(white, dim=-2), n=width, dim=-1)
        quarter = weights[..., : height // 2 + 1, :]
        pair[:, :, 1] = self.cosines[0].T @ (quarter @ self.cosines[1])
        coefficients = []
        for period in self.periods:
            columns = slice(self.reach[period][1] + 1)
            low = torch.stack([spectrum[..., columns], power[..., columns] + 0j], 2)
            low = torch.fft.ifft(low.mul_(self.rows[period]), dim=-2)
            product = (view2(low).flatten(-2) @ self.synthesis[period]).mul_(pair)
            self._sum(f"product/{period}", over_images(product))
            coefficients.append(self._fold(product) @ self.fourier[period])
        b1, m11 = torch.cat([c.unflatten(-1, (2, -1)) for c in coefficients], -1).unbind(2)
        return {"b1": b1, "m11": m11[:, :, 0]}

    def _fold(self, images: Tensor) -> Tensor:
        """Sum rows modulo Q, the period of all lines: (…, H, W) → (…, Q·W)."""
        return images.unflatten(-2, (-1, self.repeat)).sum(-3).flatten(-2)

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
        maps = maps.movedim(0, 2).abs_().mul_(self.trace_windows)  # (N, C, maps, H, W)
        folded = self._fold(maps)
        amount = folded.sum(-1)
        share = torch.where(amount > 1e-6, counted[..., None] / amount.clamp(min=1e-6), 0.0)
        self._sum("trace", over_images(maps.mul_(share[..., None, None])))
        depth = (folded @ self.all_fourier) * share[..., None]
        return {"share": share, "depth": depth.unflatten(-1, (2, -1))}

    def reduce(self) -> Tensor:
        """Add up second moments of all that is recorded; returns luma's gains (N, lines)."""
        r = {
            name: torch.cat([record[name] for record in self.records]).double()
            for name in self.records[0]
        }
        self.records = []
        self._sum("variance", (r["variance"] * r["counted"]).sum(0))
        self._sum("excess", second_moments(r["excess"].unflatten(-1, self.stencils.shape)))
        u = r["weight"]
        self._sum("weight", u.sum(0))
        z = r["line"] / self.window.sum() * u[..., None, None]
        self._sum("line", second_moments(with_weight(z, u)))
        for i, name in enumerate(TRACES):
            one = (r["share"][..., i] > 0).double()
            self._sum(f"depth/{name}", second_moments(with_weight(r["depth"][:, :, i].mT, one)))
        window = self._window_terms(r["near"], r["moved"], r["own"])
        terms = torch.cat([r["b1"].mT, r["m11"][..., None], window], -1)
        terms = torch.cat([terms[..., GAIN_ORDER], torch.ones_like(terms[..., :1])], -1)
        self._sum("gain", second_moments(terms))
        return single_gain(terms[:, 0]).to(torch.complex64)

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


# b₁, M₁₁, b₂, M₁₂, M₂₂ as they are computed → b₁, b₂, M₁₁, M₁₂, M₂₂; complex ones as re, im.
GAIN_ORDER = [0, 1, 3, 4, 2, 5, 6, 7]


def view2(values: Tensor) -> Tensor:
    """Complex (…) as real (…, 2)."""
    return torch.view_as_real(values)


def _select(spectrum: Tensor, bins: Tensor, sign: Tensor) -> Tensor:
    """Bins of the full plane (N, C, K) from the half plane; `sign` is -1 where it is mirrored."""
    found = spectrum.flatten(2).index_select(-1, bins)
    torch.view_as_real(found)[..., 1] *= sign
    return found


def noise_weight(counted: Tensor, level: Tensor) -> Tensor:
    """Weight u (N, C) of an image's line: its inverse noise power to the `TEMPER`."""
    return counted * torch.exp(-TEMPER * level)


def with_weight(values: Tensor, weight: Tensor) -> Tensor:
    """Real vectors (N, C, L, 3) from values (N, C, L, 2) and weights (N, C)."""
    column = weight[..., None, None].expand(*values.shape[:3], 1)
    return torch.cat([values, column], -1)


def second_moments(values: Tensor) -> Tensor:
    """Sum over images of outer products: (N, C, L, K) → (C, L, K, K)."""
    return torch.einsum("nclk,nclj->clkj", values, values)


def single_gain(terms: Tensor) -> Tensor:
    """Gain of each image by itself: its own 2×2 normal equations (…, 9), solved."""
    b1, b2 = (
        torch.complex(terms[..., 0], terms[..., 1]),
        torch.complex(terms[..., 2], terms[..., 3]),
    )
    m12 = torch.complex(terms[..., 5], terms[..., 6])
    m11, m22 = terms[..., 4], terms[..., 7]
    determinant = (m11 * m22 - m12.abs().square()).clamp(min=1e-300)
    return (b1 * m22 - b2 * m12) / determinant
