"""Index lists and matrices that one pass over images multiplies with; all depend on size alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gen.analysis.measure.lattice import Bin, near_lattice, signed_bins

# The spectrum below so many bins belongs to DC and its window leakage: the fit leaves it out.
FITTED = 4
DISTANCES = (2, 3, 4)


def whitening_basis(periods: tuple[int, ...], size: Bin) -> tuple[Tensor, Tensor]:
    """Matrices of the fit of ln v: to -ln v on the full plane, and from ln|X|² on the half plane.

    Shapes (5, H·W) and (H·(W//2+1), 6), the last column being the mean. The second is zero at the
    bins that the fit must not see: nearer than `FITTED` bins to DC and within one bin of a lattice
    line.
    """
    ky, kx = np.meshgrid(*(abs(signed_bins(n)) for n in size), indexing="ij")
    radius = np.hypot(ky / size[0], kx / size[1])
    log_radius = np.log(np.maximum(radius, 1 / max(size)) * min(size) / FITTED)
    bend = np.maximum(log_radius, 0) ** 2  # towards DC, unseen by the fit, a power law continues
    ridges = 1 / (1 + kx**2), 1 / (1 + ky**2)
    basis = np.stack([np.ones_like(radius), log_radius, bend, *ridges])
    half = slice(size[1] // 2 + 1)
    seen = ((np.maximum(ky, kx) >= FITTED) & ~near_lattice(periods, size, 1))[:, half].ravel()
    fit = np.zeros((seen.size, 6))
    fit[seen, :5] = np.linalg.pinv(basis[..., half].reshape(5, -1)[:, seen])
    fit[:, 5] = seen / seen.sum()
    return torch.from_numpy(-basis.reshape(5, -1)), torch.from_numpy(fit)


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


def cosines(length: int) -> Tensor:
    """Inverse DFT (n//2+1, n) of a real even sequence, from its half."""
    bins = torch.arange(length // 2 + 1, dtype=torch.float64)[:, None]
    weight = torch.where((bins == 0) | (2 * bins == length), 1.0, 2.0) / length
    return weight * torch.cos(2 * math.pi * bins * torch.arange(length) / length)


def half_cosines(length: int) -> Tensor:
    """The first half of `cosines` (n//2+1, n//2+1), with what has an equal in the other twice."""
    half = length // 2 + 1
    matrix = cosines(length)[:, :half]
    matrix[:, 1 : (length + 1) // 2] *= 2
    return matrix.float()


def baseband_bins(tall: int, wide: int, size: Bin) -> tuple[Tensor, Tensor]:
    """Flat rfft2 bins of rows 0, 1, -1 … -tall and columns 0 … wide.

    Of the spectrum as real numbers, each row's re before its im, and of its power. A smaller
    baseband is the first rows and columns of this.
    """
    bins = _signed_rows(tall)[:, None] % size[0] * (size[1] // 2 + 1) + torch.arange(wide + 1)
    return torch.stack([2 * bins, 2 * bins + 1], 1).flatten(0, 1), bins


def _signed_rows(tall: int) -> Tensor:
    return torch.tensor([0, *(sign * k for k in range(1, tall + 1) for sign in (1, -1))])


def column_synthesis(tall: int, height: int) -> tuple[Tensor, Tensor]:
    """Inverse DFT of columns from the rows of `baseband_bins`: of complex ones, and of real ones.

    Shapes (2·H, 2·(2·tall+1)) and (2·(H//2+1), 2·tall+1), re and im of each row in turn; of real
    ones the upper half.
    """
    phase = 2 * math.pi / height * torch.arange(height)[:, None] * _signed_rows(tall).double()
    cos, sin = phase.cos() / height, phase.sin() / height
    both = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    both = both.flatten(2).flatten(0, 1).float()
    return both, both[: 2 * (height // 2 + 1), ::2].contiguous()


def row_synthesis(reach: int, width: int) -> Tensor:
    """Inverse DFT (2·(reach+1), W) of a real row from its bins 0 … reach: all re, then all im."""
    bins = torch.arange(reach + 1, dtype=torch.float64)[:, None]
    phase = 2 * math.pi * bins * torch.arange(width) / width
    weight = torch.where(bins == 0, 1.0, 2.0) / width
    return torch.cat([weight * phase.cos(), -weight * phase.sin()]).float()


def fold_rows(period: int, height: int) -> Tensor:
    """Matrix (2·P, H + H//2+1): sums modulo P of an image's rows and of a half's beneath it."""
    eye = torch.eye(period).repeat(1, -(-height // period))[:, :height]
    return torch.block_diag(eye, eye[:, : height // 2 + 1])


def pair_fourier(period: int, lines: tuple[Bin, ...], width: int) -> tuple[Tensor, Tensor]:
    """DFT of rows folded modulo P to lines, (P·W, 2·lines), re then im; and its re alone."""
    both = lattice_fourier({period: lines}, period, width)
    return both, both[:, : len(lines)].contiguous()


def tapped_bins(centers: np.ndarray, taps: np.ndarray, size: Bin) -> tuple[Tensor, Tensor]:
    """Flat rfft2 bins of all centers + taps (centers·taps,), and the sign of their imaginary part.

    A bin of the other half plane is read at its conjugate: sign -1.
    """
    ky, kx = ((centers[:, None] + taps) % size).reshape(-1, 2).T
    mirrored = kx > size[1] // 2
    ky, kx = np.where(mirrored, -ky % size[0], ky), np.where(mirrored, size[1] - kx, kx)
    sign = torch.from_numpy(np.where(mirrored, -1, 1)).float()
    return torch.from_numpy(ky * (size[1] // 2 + 1) + kx), sign


def lattice_fourier(lines: dict[int, tuple[Bin, ...]], repeat: int, width: int) -> Tensor:
    """DFT matrix (Q·W, 2·lines) from rows folded modulo Q to all lines, re then im."""
    frequencies = [(a / period, b / period) for period, own in lines.items() for a, b in own]
    fy, fx = torch.tensor(frequencies, dtype=torch.float64).T
    rows = torch.arange(repeat, dtype=torch.float64)[:, None, None]
    columns = torch.arange(width, dtype=torch.float64)[:, None]
    phase = -2 * math.pi * (rows * fy + columns * fx)
    return torch.cat([phase.cos(), phase.sin()], -1).flatten(0, 1).float()
