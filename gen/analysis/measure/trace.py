"""Trace: periodic modulation of the local variation, as interpolation and block codecs leave it.

One map of local variation, √(|∂x∂y| + ¼) in gray levels, under one Hann tile as large as the block.
The depth of an image at a line is z/m, the map's coefficient over its mean; all images count alike.
Frequencies between the lines, on a grid twice or four times as fine, are the placebos.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .lattice import LatticeLine, lattice_lines
from .tiles import waves

SOFT = 0.25  # gray levels added to a difference before its root


class TraceSums(NamedTuple):
    """Of each block: (1, Re depth, Im depth) of the lines (3, L, N); all depths (grid², N)."""

    depth: Tensor
    products: Tensor


class Texture:
    """The transform of the variation map of blocks of one size, for lines that share a grid."""

    def __init__(
        self,
        size: tuple[int, int],
        lines: tuple[LatticeLine, ...],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        longest = max(line.period for line in lines)
        self.lines = lines
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
        if rows:
            out.append((1, half + y, x, si))
        if columns:
            out.append((1, y, half + x, sj))
        if rows and columns:
            out.append((0, half + y, half + x, -si * sj))
        return out

    def depth_at(self, products: Tensor, i: int, j: int) -> Tensor:
        """Depth at a grid frequency from sums (grid², C) of `products`: complex (C,)."""
        square = products.view(self.grid, self.grid, -1)
        return sum(
            square[y, x] * (sign * (1j if part else 1)) for part, y, x, sign in self.terms(i, j)
        )

    def sums(self, x: Tensor, starts: list[tuple[int, int]]) -> TraceSums:
        """Depths of blocks (H, N, W), N blocks last; 0 where the map does not vary.

        `starts` are the places of an image's blocks. The phases of the lines refer to the image's
        origin, those of the products to the block's.
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
            phase = 2 * math.pi / q * ((k @ at.T) % q)[:, None]
            cos, sin = phase.cos().to(depth), -phase.sin().to(depth)
            re, im = depth.unflatten(-1, (-1, len(starts)))
            depth = torch.stack([re * cos - im * sin, re * sin + im * cos]).flatten(2)
        return TraceSums(torch.cat([varies.expand(1, depth.shape[1], n), depth]), z)


def textures(size: tuple[int, int], periods: tuple[int, ...], **where) -> list[Texture]:
    """Textures that read all periods: a period shares that of a multiple."""

    groups: dict[int, list[int]] = {}
    for period in sorted(periods, reverse=True):
        longest = next((p for p in groups if p % period == 0), period)
        groups.setdefault(longest, []).append(period)
    lines = [tuple(x for p in sorted(own) for x in lattice_lines(p)) for own in groups.values()]
    return [Texture(size, own, **where) for own in lines]


def variation(x: Tensor) -> Tensor:
    """√(|mixed difference| + ¼) of blocks (H, N, W); the window drops the first row and column."""
    flat, row = x.reshape(-1), x.shape[1] * x.shape[2]
    out = torch.empty_like(flat)
    along = flat[1:] - flat[:-1]
    mixed = out[row + 1 :]
    torch.sub(along[row:], along[:-row], out=mixed).abs_().add_(SOFT).sqrt_()
    out[: row + 1] = 1
    return out
