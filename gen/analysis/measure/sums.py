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
is a cosine transform of a quarter of the plane, and of u·r_B the upper half says everything.

What belongs to one image is float32: its rounding, 1e-5 grey levels, is a thousandth of
`NOISE_FLOOR`. Sums over images are float64.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from gen.analysis.measure.lattice import Bin, lattice_lines, near_lattice, neighbors, to_bin
from gen.analysis.measure.spectrum import Spectrum, hann, magnitude, over_images
from gen.analysis.measure.tables import (
    baseband_bins,
    column_synthesis,
    cosines,
    excess_bins,
    fold_rows,
    half_cosines,
    lattice_fourier,
    pair_fourier,
    row_synthesis,
    tapped_bins,
    whitening_basis,
)

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
        near = near_lattice(periods, size, 2)
        self.neighbors = [neighbors(a, p, size, near) for p in periods for a in self.lines[p]]
        self._prepare()
        self.sums: dict[str, Tensor] = {}
        self.records: list[dict[str, Tensor]] = []

    def _prepare(self) -> None:
        height, width = self.size
        self.window = hann(height, width)
        self.window32 = self.window.float()
        means = self.window / self.window.sum(), torch.full(self.size, 1 / (height * width))
        self.moments = torch.stack(means, -1).flatten(0, 1).float()
        self.floor = NOISE_FLOOR**2 * float(self.window.square().sum())
        self.stencils = torch.from_numpy(np.stack([excess_bins(k, self.size) for k in self.bins]))
        basis, self.fit = (m.float() for m in whitening_basis(self.periods, self.size))
        half = basis.unflatten(-1, self.size)[..., : width // 2 + 1]
        self.negative_basis = torch.cat([half.flatten(1), torch.zeros(1, half[0].numel())])
        # An image's mean log noise power goes into the constant of ln v, less what it keeps.
        self.fit[:, 0] += (TEMPER - 1) * self.fit[:, 5]

        # W: its taps around DC, on the half plane, and around every line.
        transform = torch.fft.fft2(self.window).real
        transform[transform.abs() < 1e-9 * transform[0, 0]] = 0
        self.taps = transform.nonzero().numpy()
        self.tap_values = transform[tuple(self.taps.T)]
        self.half_taps = transform[:, : width // 2 + 1].flatten().nonzero()[:, 0]
        half_values = transform[:, : width // 2 + 1].flatten()[self.half_taps]
        self.half_values = half_values.to(torch.complex64)
        around = np.concatenate([self.bins, np.zeros((1, 2), int)])
        self.tapped, self.tapped_sign = tapped_bins(around, self.taps, self.size)
        self.tapped_sign[-len(self.taps) :] *= -1  # those around DC are needed as conjugates
        self.tapped_basis = self.negative_basis[:, self.tapped[: -len(self.taps)]]

        self.reach = {p: tuple((n - 1) // (2 * p) for n in self.size) for p in self.periods}
        tall, wide = np.max(list(self.reach.values()), 0).tolist()
        self.low_bins = baseband_bins(tall, wide, self.size)
        self.columns = {p: column_synthesis(reach[0], height) for p, reach in self.reach.items()}
        self.rows = {p: row_synthesis(reach[1], width) for p, reach in self.reach.items()}
        # u·r_B is even about the origin: its upper half, inner rows counted twice.
        self.cosines = [half_cosines(height).T.contiguous(), cosines(width).float()]
        self.folds = {p: fold_rows(p, height) for p in self.periods}
        self.fourier = {p: pair_fourier(p, own, width) for p, own in self.lines.items()}
        sides = [torch.hann_window(n, periodic=True) for n in self.size]
        self.repeat = math.lcm(*self.periods)
        self.trace_fold = torch.eye(self.repeat).repeat(1, height // self.repeat) * sides[0]
        fourier = lattice_fourier(self.lines, self.repeat, width)
        fourier = torch.cat([fourier, torch.ones(len(fourier), 1)], -1)
        self.trace_fourier = fourier * sides[1].repeat(self.repeat)[:, None]

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
        images = images - weighted[..., None, None]
        energy = torch.linalg.vector_norm(images.flatten(2), dim=-1).square()
        variance = energy / pixels - (plain - weighted).square()
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
        self.spectrum.add_power(power, counted)
        self._sum("noise", power, u.square())
        self._sum("mean", centered, u)
        record |= self._trace(images, counted)
        # The window-weighted mean returns as a multiple of W, relative to mid-grey: then A is the
        # grid at mid-grey, well conditioned, and g is what it was.
        bins = spectrum.flatten(2)
        offset = ((weighted - MID_GREY) * counted)[..., None] * self.half_values
        bins.index_add_(-1, self.half_taps, offset)
        near_dc = magnitude(bins.index_select(-1, self.half_taps))
        power.flatten(2).index_copy_(-1, self.half_taps, near_dc)
        record |= self._around(spectrum, weights, fitted, counted)
        record |= self._gain(spectrum, power, weights, counted)
        self.records.append(record)

    def whiten(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights 1/v of each image from its |X|² on the half plane; the fit behind them.

        Shapes (N, C, H, W//2+1) → (N, C, H, W//2+1) and (N, C, 6): the coefficients of ln v, less
        what `TEMPER` gives back, and the mean log noise power.
        """
        fitted = (power + self.floor).log_().flatten(2) @ self.fit
        return (fitted @ self.negative_basis).exp_().view(power.shape), fitted

    def _around(
        self, spectrum: Tensor, weights: Tensor, fitted: Tensor, counted: Tensor
    ) -> dict[str, Tensor]:
        """X and 1/v at the taps around the lines and X around DC, by image, for `_window_terms`.

        Summed over images: 1/v times 1 and times the conjugate taps of X (re, im), on the quarter
        plane.
        """
        near = (fitted @ self.tapped_basis).exp_() * counted[..., None]
        bins = view2(spectrum.flatten(2).index_select(-1, self.tapped))
        bins[..., 1] *= self.tapped_sign
        moved, own = bins[:, :, : near.shape[-1]], bins[:, :, near.shape[-1] :].flatten(2)
        rows = torch.cat([counted[..., None], own], -1).double().permute(1, 2, 0)
        quarter = weights[..., : self.size[0] // 2 + 1, :].transpose(0, 1).double()
        self._add("weights", (rows @ quarter.flatten(2)).unflatten(-1, quarter.shape[2:]))
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

    def _gain(
        self, spectrum: Tensor, power: Tensor, weights: Tensor, counted: Tensor
    ) -> dict[str, Tensor]:
        """Sum x̃·x_B and, beneath it in one map, the upper half of u·r_B; of every period.

        Returns their lattice coefficients by image, b₁ and M₁₁.
        """
        (height, width), planes, half = self.size, counted.numel(), self.size[0] // 2 + 1
        ones, white = torch.ones_like(counted), spectrum * weights
        self._sum("white", view2(white), ones)
        white = torch.fft.irfft(torch.fft.ifft(white.flatten(0, 1), dim=-2), n=width, dim=-1)
        quarter = weights.flatten(0, 1)[:, :half] @ self.cosines[1]
        u = torch.bmm(self.cosines[0].expand(planes, -1, -1), quarter)
        low = [
            values.flatten(2).index_select(-1, bins.flatten()).view(planes, *bins.shape)
            for values, bins in zip((view2(spectrum), power), self.low_bins, strict=True)
        ]
        b1, m11 = [], []
        for period in self.periods:
            wide = self.reach[period][1] + 1
            columns = torch.empty(planes, 2 * (height + half), wide)
            outs = columns[:, : 2 * height], columns[:, 2 * height :]
            for matrix, bins, out in zip(self.columns[period], low, outs, strict=True):
                matrix = matrix.expand(planes, -1, -1)
                torch.bmm(matrix, bins[:, : matrix.shape[-1], :wide], out=out)
            product = columns.view(planes, -1, 2 * wide) @ self.rows[period]
            product[:, :height] *= white
            product[:, height:] *= u
            self._sum(f"product/{period}", product.unflatten(0, counted.shape), ones)
            folded = torch.bmm(self.folds[period].expand(planes, -1, -1), product)
            folded = folded.view(*counted.shape, 2, -1)
            b1.append((folded[:, :, 0] @ self.fourier[period][0]).unflatten(-1, (2, -1)))
            m11.append(folded[:, :, 1] @ self.fourier[period][1])
        return {"b1": torch.cat(b1, -1), "m11": torch.cat(m11, -1)}

    def _trace(self, images: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Sum the variation maps; their share in it and lattice coefficients by image, windowed."""
        width = images.shape[-1]
        maps = images.new_empty(len(TRACES), *images.shape)
        dx, dy, dxy = maps.flatten(1)
        images = images.flatten()
        torch.sub(images[1:], images[:-1], out=dx[:-1])
        torch.sub(images[width:], images[:-width], out=dy[:-width])
        torch.sub(dx[width:], dx[:-width], out=dxy[:-width])
        maps.abs_()
        maps[0::2, ..., -1] = 0  # beyond the border lies the next row or image
        maps[1:, ..., -1, :] = 0
        flat = maps.flatten(0, 2)
        folded = torch.bmm(self.trace_fold.expand(len(flat), -1, -1), flat)
        depth = folded.view(*maps.shape[:3], -1) @ self.trace_fourier
        amount = depth[..., -1:]
        share = torch.where(amount > 1e-6, counted[..., None] / amount, 0.0)
        for name, one, weight in zip(TRACES, maps, share[..., 0], strict=True):
            self._sum(f"trace/{name}", one, weight)
        depth = (depth[..., :-1] * share).unflatten(-1, (2, -1))
        return {"share": share[..., 0].movedim(0, 2), "depth": depth.movedim(0, 2)}

    def reduce(self) -> Tensor:
        """Add up second moments of all that is recorded; returns luma's gains (N, lines)."""
        r = {
            name: torch.cat([record[name] for record in self.records]).double()
            for name in self.records[0]
        }
        self.records = []
        self._add("variance", (r["variance"] * r["counted"]).sum(0))
        self._add("excess", second_moments(r["excess"].unflatten(-1, self.stencils.shape)))
        u = r["weight"]
        self._add("weight", u.sum(0))
        line = r["moved"][:, :, :: len(self.taps)]  # the first tap is none
        z = line / self.window.sum() * u[..., None, None]
        self._add("line", second_moments(with_weight(z, u)))
        for i, name in enumerate(TRACES):
            one = (r["share"][..., i] > 0).double()
            self._add(f"depth/{name}", second_moments(with_weight(r["depth"][:, :, i].mT, one)))
        window = self._window_terms(r["near"], r["moved"], r["own"])
        terms = torch.cat([r["b1"].mT, r["m11"][..., None], window], -1)
        terms = torch.cat([terms[..., GAIN_ORDER], torch.ones_like(terms[..., :1])], -1)
        self._add("gain", second_moments(terms))
        return single_gain(terms[:, 0]).to(torch.complex64)

    def _sum(self, name: str, maps: Tensor, weights: Tensor) -> None:
        self._add(name, over_images(maps, weights))

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()

    def merge(self, other: CropSums) -> None:
        """Add the sums of another part of the set."""
        self.spectrum.merge(other.spectrum)
        for name, value in other.sums.items():
            self._add(name, value)


# b₁, M₁₁, b₂, M₁₂, M₂₂ as they are computed → b₁, b₂, M₁₁, M₁₂, M₂₂; complex ones as re, im.
GAIN_ORDER = [0, 1, 3, 4, 2, 5, 6, 7]


def view2(values: Tensor) -> Tensor:
    """Complex (…) as real (…, 2)."""
    return torch.view_as_real(values)


def noise_weight(counted: Tensor, level: Tensor) -> Tensor:
    """Weight u (N, C) of an image's line: its inverse noise power to the `TEMPER`."""
    return counted * torch.exp(-TEMPER * level)


def with_weight(values: Tensor, weight: Tensor) -> Tensor:
    """Real vectors (N, C, L, 3) from values (N, C, L, 2) and weights (N, C)."""
    column = weight[..., None, None].expand(*values.shape[:3], 1)
    return torch.cat([values, column], -1)


def second_moments(values: Tensor) -> Tensor:
    """Sum over images of outer products: (N, C, L, K) → (C, L, K, K)."""
    # Of nearly flat images the sandwich magnifies the rounding of these sums 10⁷ times: long ones
    # would miss 1e-9, sums of 32 do not.
    values = torch.nn.functional.pad(values, (0,) * 7 + (-len(values) % 32,))
    values = values.unflatten(0, (-1, 32))
    return torch.einsum("bnclk,bnclj->bclkj", values, values).sum(0)


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
