"""Trace: periodic modulation of the local variation, as interpolation and block codecs leave it.

One map of local variation, √(|∂x∂y| + ¼) in gray levels, under one Hann tile as large as the block.
The depth of an image at a line is z/m, the map's coefficient over its mean; all images count alike.
Frequencies between the lines, on a grid twice or four times as fine, are the placebos.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .amplitude import Amplitude, Moments, Placebos, sandwich, trace_of
from .lattice import LatticeLine, lattice_lines
from .statistics import TINY
from .tiles import turned, waves

SOFT = 0.25  # gray levels added to a difference before its root


@dataclass
class TextureSums:
    """Sums of one texture: (1, Re depth, Im depth) of the lines; all products (C, grid²)."""

    depth: Moments
    products: Tensor


class Texture:
    """The transform of the variation map of blocks of one size, for lines that share a grid."""

    def __init__(self, size, lines: tuple[LatticeLine, ...], device, dtype):
        self.lines, self.periods = lines, {line.period for line in lines}
        longest = max(self.periods)
        self.grid = q = longest * (4 if min(size) >= 8 * longest else 2)
        self.rows, self.columns = (waves([0], n // q * q, n, q).to(device, dtype) for n in size)
        combine = torch.zeros(2, len(lines), q, q, dtype=dtype)
        for n, line in enumerate(lines):
            for part, y, x, sign in self.terms(*self.steps(line)):
                combine[part, n, y, x] += sign
        self.used = combine.view(-1, q * q).any(0).nonzero()[:, 0].to(device)
        self.combine = combine.view(-1, q * q).to(device)[:, self.used]

    def steps(self, line: LatticeLine) -> tuple[int, int]:
        """Frequency of a line in steps of 1/grid."""
        return line.a * self.grid // line.period, line.b * self.grid // line.period

    def terms(self, i: int, j: int) -> list[tuple[int, int, int, int]]:
        """Products that make the real (0) and imaginary (1) part: part, row, column, sign.

        Rows and columns are those of `waves`: cosines first, then minus sines.
        """
        q, half = self.grid, self.grid // 2
        i, j = ((k + half - 1) % q - half + 1 for k in (i, j))
        si, sj, y, x = (1 if i > 0 else -1), (1 if j > 0 else -1), abs(i), abs(j)
        rows, columns = 0 < y < half, 0 < x < half  # these waves have a sine
        out = [(0, y, x, 1)]
        out += [(1, half + y, x, si)] * rows + [(1, y, half + x, sj)] * columns
        return out + [(0, half + y, half + x, -si * sj)] * (rows and columns)

    def sums(self, x: Tensor, starts: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Of blocks (H, N, W): (1, Re depth, Im depth) of the lines (3, L, N), products (grid², N).

        `starts` are the places of an image's blocks. The phases of the lines refer to the image's
        origin, those of the products to the block's. Depths are 0 where the map does not vary.
        """
        q, n = self.grid, x.shape[1]
        y = (self.rows @ variation(x).view(len(x), -1)).view(q, n, -1)
        z = torch.bmm(self.columns.expand(q, -1, -1), y.mT).view(q * q, n)
        varies = z[0] > SOFT**0.5 + 1e-3
        z = z * (varies / z[0])
        depth = (self.combine @ z.index_select(0, self.used)).view(2, -1, n)
        if any(s % q for start in starts for s in start):
            k = torch.tensor([self.steps(line) for line in self.lines], dtype=torch.float64)
            at = torch.tensor(starts, dtype=torch.float64)
            phase = 2 * math.pi / q * ((k @ at.T) % q)
            depth = turned(depth, torch.stack([phase.cos(), -phase.sin()]).to(depth))
        return torch.cat([varies.expand(1, depth.shape[1], n), depth]), z


def textures(size, periods: tuple[int, ...], device, dtype) -> list[Texture]:
    """Textures that read all periods: a period shares that of a multiple."""
    groups: dict[int, list[int]] = {}
    for period in sorted(periods, reverse=True):
        longest = next((p for p in groups if p % period == 0), period)
        groups.setdefault(longest, []).append(period)
    lines = [tuple(x for p in sorted(own) for x in lattice_lines(p)) for own in groups.values()]
    return [Texture(size, own, device, dtype) for own in lines]


def variation(x: Tensor) -> Tensor:
    """√(|mixed difference| + ¼) of blocks (H, N, W); the window drops the first row and column."""
    flat, row = x.reshape(-1), x.shape[1] * x.shape[2]
    out = torch.empty_like(flat)
    along = flat[1:] - flat[:-1]
    torch.sub(along[row:], along[:-row], out=out[row + 1 :]).abs_().add_(SOFT).sqrt_()
    out[: row + 1] = 1
    return out


def solve_trace(texture: Texture, sums: TextureSums, period: int) -> Amplitude:
    """Depth of the periodic modulation, with the frequencies between the lines as placebos."""
    rows = [n for n, line in enumerate(texture.lines) if line.period == period]
    first, second, _ = sums.depth.arrays(rows)
    count = np.maximum(first[..., 0], 1e-12)
    depth = (first[..., 1] + 1j * first[..., 2]) / count
    scores = np.zeros((*depth.shape, 2, 3))
    for part, v in enumerate((depth.real, depth.imag)):
        scores[..., part, 0], scores[..., part, 1 + part] = -v / count, 1 / count
    n = np.maximum(count**2 / np.maximum(second[..., 0, 0], TINY), 1.01)
    covariance = sandwich(scores, second, n)
    index, factor = _placebo_terms(texture, period)
    values = (sums.products.cpu().numpy()[:, index] * factor).sum(-1) / count[..., None]
    expected = np.broadcast_to(trace_of(covariance)[..., None], values.shape)
    response = (factor != 0).any(-1) * 1.0
    worth = response.sum(-1)
    placebos = Placebos(values, expected, response, response > 2, worth, 0 * worth)
    c = np.array([float(texture.lines[k].degrees) for k in rows])
    alive = (first[..., 0] > 0) & (worth > 0)  # without placebos a shared picture would be found
    return Amplitude(depth, covariance, n, c, alive, placebos)


@functools.lru_cache(maxsize=64)
def _placebo_terms(texture: Texture, period: int):
    """Products (L, M, 4) and their factors that make the depth at the placebos of each line."""
    near = [_between(texture, line) for line in texture.lines if line.period == period]
    index = np.zeros((len(near), max(map(len, near)), 4), int)
    factor = np.zeros(index.shape, complex)
    for n, frequencies in enumerate(near):
        for m, frequency in enumerate(frequencies):
            for k, (part, y, x, sign) in enumerate(texture.terms(*frequency)):
                index[n, m, k], factor[n, m, k] = y * texture.grid + x, sign * (1j if part else 1)
    return index, factor


def _between(texture: Texture, line: LatticeLine) -> list[tuple[int, int]]:
    """Frequencies around a line that no other line reaches; those of an axis line are on it."""
    q, (y, x) = texture.grid, texture.steps(line)
    steps = q // max(texture.periods) - 1  # to the next line, exclusive
    rows = columns = range(-min(steps, 2), min(steps, 2) + 1)
    if line.kind == "axis":
        along = range(-steps, steps + 1)
        rows, columns = (along, [0]) if line.b == 0 else ([0], along)
    near = [(y + s, x + r) for s in rows for r in columns if s or r]
    one = dict.fromkeys(min((k[0] % q, k[1] % q), (-k[0] % q, -k[1] % q)) for k in near)
    # Next to zero is too much power; of a few placebos, those on both sides are needed.
    return [k for k in one if steps == 1 or max(min(v, q - v) for v in k) > 1]
