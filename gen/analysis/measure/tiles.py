"""Tiles: small windowed transforms of a block of pixels, and their sums, eqs. (1) to (3).

A tile has `side` pixels under a periodic Hann window of sum 1, and the frequency grid k/`grid` with
grid = side/2. From one grid frequency to the next the window's transform is exactly zero, so a
pattern never leaks from its line to the frequencies around it. Tiles start every `hop` pixels, with
a hop coprime to the grid: edges then meet the lattice at all phases alike.

Arrays keep images last: (H, N, W) → (grid·ty, N, W) → (grid, grid, tx·ty·N) are two matrix products
that leave long contiguous runs. N counts blocks: planes × images × blocks of an image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .lattice import LatticeLine, lattice_lines

FLOOR = 0.3  # gray levels of white noise added to every tile: rounding to 8 bits makes 0.29
ALIVE = 1e-3  # gray levels: a tile with less around a line is clipped or empty
LARGE = 48  # pixels: larger blocks have so many tiles that some can be left out
SHARED = (4, 8)  # periods that one tiling reads on large blocks
TERMS = 7  # u, um, um², Re uz, Im uz, Re uzm, Im uzm


class TileSums(NamedTuple):
    """Sums over the tiles of each block; N blocks last, seven terms first (see `TERMS`).

    `weighted` (7, K, N) at all K grid frequencies but zero; `even` (7, L, N) of the lines, where
    every tile weighs 1; `pairs` (L, A, N), the mean of |Σ uz e^(-2πi d·o)|² at d and -d for the A
    shifts along the axes. `places` and `even_places` (7, L, C, tiles), float64, are summed over the
    blocks of each plane instead, by the tile's place in its block.
    """

    weighted: Tensor
    even: Tensor
    pairs: Tensor
    places: Tensor
    even_places: Tensor


class Tiling:
    """Tiles of one kind on blocks of one size: constant matrices, and the sums they make.

    Args:
        size: Sides (H, W) of a block in pixels.
        side: Side of a tile in pixels, a multiple of four.
        hop: Pixels between the starts of neighboring tiles.
        periods: Periods that the tiling reads; each divides `grid`.
        border: Add a tile at the far border even where it is less than half a hop away.
        floor: White noise in gray levels that every tile is taken to have, eq. (3).
    """

    def __init__(
        self,
        size: tuple[int, int],
        side: int,
        hop: int,
        periods: tuple[int, ...],
        border: bool,
        floor: float = FLOOR,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.size, self.side, self.hop, self.grid, self.periods = (
            size,
            side,
            hop,
            side // 2,
            periods,
        )
        self.origins = [_origins(n, side, hop, border) for n in size]
        self.rows, self.columns = (
            waves(o, side, n, self.grid).to(device, dtype)
            for o, n in zip(self.origins, size, strict=True)
        )
        lines = [line for p in periods for line in lattice_lines(p)]
        self.frequencies, self.rim = _half_plane(self.grid, {self.steps(line) for line in lines})
        self.place = {k: n for n, k in enumerate(self.frequencies)}
        self.count = len(self.frequencies) - 1  # zero is last
        self.lines = tuple(sorted(lines, key=lambda line: self.index(*self.steps(line))))
        at = [self.index(*self.steps(line)) for line in self.lines]
        self.at = torch.tensor(at, device=device)
        self.chosen = slice(at[0], at[-1] + 1) if at == list(range(at[0], at[-1] + 1)) else None
        self._rim_tables(device, dtype)
        self.around = self._around().to(device, dtype)
        white = 2.25 / side**2  # |z|² of white noise of variance 1
        self.floor = torch.full((1, 1), floor**2 * white, device=device, dtype=dtype)
        self.dead = floor**2 * white + ALIVE**2
        self.spans = [o[-1] + side for o in self.origins]
        self.shifts = self._shifts()
        self.responses = self.response(self.shifts)
        self.axial = self._axial()
        self.axial_responses = self.response(self.axial)
        self.turn = self._turn().to(device, dtype)

    def steps(self, line: LatticeLine) -> tuple[int, int]:
        """Frequency of a line in steps of 1/grid."""
        return line.a * self.grid // line.period, line.b * self.grid // line.period

    def index(self, i: int, j: int) -> int:
        """Index of a grid frequency or of its conjugate."""
        half = self.grid // 2
        for sign in (1, -1):
            wrapped = tuple((sign * k + half - 1) % self.grid - half + 1 for k in (i, j))
            if wrapped in self.place:
                return self.place[wrapped]
        raise KeyError((i, j))

    def pick(self, values: Tensor) -> Tensor:
        """The lines among values (K, …)."""
        return values.index_select(0, self.at) if self.chosen is None else values[self.chosen]

    def _rim_tables(self, device: str | torch.device, dtype: torch.dtype) -> None:
        """Which products of `spectrum` are the frequencies with a real row or column wave."""
        half, rim = self.grid // 2, self.frequencies[: self.rim]
        sines = [
            i * self.grid + half + j if 0 < j < half else
            (half + i) * self.grid + j if 0 < i < half else None
            for i, j in rim
        ]  # fmt: skip
        self.rim_cosine = torch.tensor([i * self.grid + j for i, j in rim], device=device)
        self.rim_sine = torch.tensor([s or 0 for s in sines], device=device)
        complex_ = [[float(s is not None)] for s in sines]
        self.rim_complex = torch.tensor(complex_, device=device, dtype=dtype)

    def _around(self) -> Tensor:
        """Matrix (K, K) that averages |z|² over the grid frequencies around each one, eq. (2)."""
        matrix = torch.zeros(self.count, self.count, dtype=torch.float64)
        ring = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        for row, (i, j) in zip(matrix, self.frequencies[: self.count], strict=True):
            # On an axis the noise is that of its ridge.
            steps = [(0, -1), (0, 1)] if i == 0 else [(-1, 0), (1, 0)] if j == 0 else ring
            near = [n for n in (self.index(i + a, j + b) for a, b in steps) if n < self.count]
            for n in near:
                row[n] += 1 / len(near)
        return matrix

    def _shifts(self) -> NDArray[np.int64]:
        """Placebo shifts (D, 2) in steps of 1/span, one of each ±d: |d| ≤ 1/4P of the least P."""
        reach = [span // (4 * min(self.periods)) for span in self.spans]
        rows, columns = range(-reach[0], reach[0] + 1), range(reach[1] + 1)
        found = [(i, j) for i in rows for j in columns if max(abs(i), j) > 1 and (j or i > 0)]
        return np.array(found, dtype=int).reshape(-1, 2)

    def _axial(self) -> NDArray[np.int64]:
        """Shifts (A, 2) along the axes, which the excess compares with."""
        rows, columns = (range(2, max(2, span // self.side) + 1) for span in self.spans)
        return np.array([(i, 0) for i in rows] + [(0, j) for j in columns])

    def response(self, shifts: NDArray[np.int64]) -> NDArray[np.float64]:
        """R(d) of shifts (D, 2), eq. (5): what white noise leaves there, relative to d = 0."""
        by_axis = zip(shifts.T, self.spans, self.origins, strict=True)
        parts = [_response(d / n, o, self.side) for d, n, o in by_axis]
        return parts[0] * parts[1]

    def phases(self, shifts: NDArray[np.int64]) -> NDArray[np.float64]:
        """2πd·o of shifts (D, 2) over the tiles (D, tx·ty)."""
        y, x = map(np.array, self.origins)
        dy, dx = (2 * np.pi * shifts / self.spans).T[..., None, None]
        return (dy * y + dx * x[:, None]).reshape(len(shifts), len(y) * len(x))

    def _turn(self) -> Tensor:
        """cos 2πd·o and -sin 2πd·o of the axial shifts over the tiles (2A, tx·ty)."""
        phase = torch.from_numpy(self.phases(self.axial))
        return torch.cat([phase.cos(), -phase.sin()])

    def turns(self, starts: list[tuple[int, int]]) -> Tensor | None:
        """Phases (2, K + 1, blocks) that refer blocks at `starts` to the origin of the image."""
        if all(s % self.grid == 0 for start in starts for s in start):
            return None
        k, at = (torch.tensor(v, dtype=torch.float64) for v in (self.frequencies, starts))
        phase = 2 * math.pi / self.grid * ((k @ at.T) % self.grid)
        return torch.stack([phase.cos(), -phase.sin()]).to(self.rows)

    def spectrum(self, x: Tensor, turns: Tensor | None = None) -> Tensor:
        """Local spectra of blocks (H, N, W), eq. (1): (2, K + 1, tx·ty·N), real and imaginary part.

        `turns` are the phases of the blocks of one image, which vary fastest in N.
        """
        q, half = self.grid, self.grid // 2
        y = (self.rows @ x.reshape(len(x), -1)).view(q, -1, x.shape[2])
        z = torch.bmm(self.columns.view(1, -1, x.shape[2]).expand(q, -1, -1), y.mT).view(q, q, -1)
        cos, sin = slice(1, half), slice(half + 1, q)
        cc, ss, sc, cs = z[cos, cos], z[sin, sin], z[sin, cos], z[cos, sin]
        out = z.new_empty(2, len(self.frequencies), z.shape[2])
        re, im = (part[self.rim : -1].view(2, half - 1, half - 1, -1) for part in out)
        torch.sub(cc, ss, out=re[0])
        torch.add(sc, cs, out=im[0])
        torch.add(cc, ss, out=re[1])
        torch.sub(cs, sc, out=im[1])
        flat = z.view(q * q, -1)
        cosine, sine = self.rim_cosine, self.rim_sine
        out[0, -1], out[1, -1] = flat[0], 0  # zero
        torch.index_select(flat, 0, cosine, out=out[0, : self.rim])
        torch.index_select(flat, 0, sine, out=out[1, : self.rim]).mul_(self.rim_complex)
        if turns is not None:
            re, im = out.view(2, len(self.frequencies), -1, turns.shape[-1])
            cos, sin = turns[:, :, None]
            return torch.stack([re * cos - im * sin, re * sin + im * cos]).flatten(2)
        return out

    def sums(self, x: Tensor, planes: int = 1, turns: Tensor | None = None) -> TileSums:
        """Sums over the tiles of blocks (H, N, W), those of eq. (4) and those of the placebos."""
        n, k, lines = x.shape[1], self.count, len(self.lines)
        z = self.spectrum(x, turns)
        m, (re, im) = z[0, k], z[:, :k]
        root = torch.addmm(self.floor, self.around, (re * re).addcmul_(im, im))  # v, eq. (2)
        torch.nn.functional.threshold_(root, self.dead, 1e26).rsqrt_()
        u = root.sqrt().mul_(root)  # eq. (3): v^(-3/4), and 3e-20 for dead tiles
        weighted = x.new_empty(TERMS, k, n)
        places = x.new_empty(TERMS, lines, planes, len(m) // n, dtype=torch.float64)
        even = self._even(m, re, im, n, planes)

        def put(term: int, values: Tensor) -> Tensor:
            values = values.view(k, -1, n)
            torch.sum(values, 1, out=weighted[term])
            chosen = self.pick(values)
            _sum_places(chosen, planes, places[term])
            return chosen

        put(0, u)
        turned = self.turn.expand(lines, -1, -1)
        power = torch.bmm(turned, put(3, re.mul_(u))), torch.bmm(turned, put(4, im.mul_(u)))
        power = power[0].square_().addcmul_(power[1], power[1])
        put(5, re.mul_(m))
        put(6, im.mul_(m))
        put(1, u.mul_(m))
        put(2, u.mul_(m))
        axial = len(self.axial)
        pairs = power[:, :axial] + power[:, axial:]
        return TileSums(weighted, even[0], pairs, places, even[1])

    def _even(self, m, re, im, n: int, planes: int) -> tuple[Tensor, Tensor]:
        """The same sums of the lines where every tile weighs 1: by block, and by place."""
        sums = m.new_empty(TERMS, len(self.lines), n)
        places = m.new_empty(TERMS, len(self.lines), planes, len(m) // n, dtype=torch.float64)
        re, im = self.pick(re), self.pick(im)
        for term, values in ((0, torch.ones_like(m)), (1, m), (2, m * m)):
            values = values.view(1, -1, n)
            sums[term] = values.sum(1)
            places[term] = _sum_places(values, planes, places.new_empty(1, *places.shape[2:]))
        for term, values in ((3, re), (4, im), (5, re * m), (6, im * m)):
            values = values.view(len(self.lines), -1, n)
            torch.sum(values, 1, out=sums[term])
            _sum_places(values, planes, places[term])
        return sums, places


def _sum_places(values: Tensor, planes: int, out: Tensor) -> Tensor:
    """Sum values (L, tiles, N) over the blocks of each plane in float64: (L, C, tiles)."""
    by_plane = values.unflatten(2, (planes, -1)).transpose(1, 2)
    return torch.sum(by_plane, -1, dtype=torch.float64, out=out)


def _response(d: NDArray[np.float64], origins: list[int], side: int) -> NDArray[np.float64]:
    """R(d) of one axis, eq. (5): white noise at a shift d over that at none."""
    o = np.array(origins)
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)
    overlap = np.correlate(w, w, "full")[side - 1 :]
    lags = np.abs(o[:, None] - o)
    c = np.where(lags < side, overlap[np.minimum(lags, side - 1)], 0.0)
    e = np.exp(-2j * np.pi * np.outer(d, o))
    return np.einsum("dt,tu,du->d", e, c, e.conj()).real / c.sum()


def tilings(
    size: tuple[int, int],
    periods: tuple[int, ...],
    floor: float = FLOOR,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Tiling]:
    """Tilings that read all periods of blocks of this size.

    Tiles have four periods and a hop of two periods less one. On large blocks periods 4 and 8 share
    tiles of 16 pixels, and those of period 2 have a hop of 5.
    """
    large = min(size) >= LARGE
    shared = tuple(p for p in periods if p in SHARED) if large else ()
    kinds = [(16, 7, shared, False)] if shared else []
    for p in periods:
        if p not in shared:
            sparse = large and p == 2
            kinds.append((4 * p, 5 if sparse else 2 * p - 1, (p,), not sparse))
    return [Tiling(size, *kind, floor, device, dtype) for kind in kinds]


def _origins(n: int, side: int, hop: int, border: bool) -> list[int]:
    origins = list(range(0, n - side + 1, hop))
    left = n - side - origins[-1]
    return [*origins, n - side] if left > (0 if border else hop // 2) else origins


def waves(origins: list[int], side: int, n: int, grid: int) -> Tensor:
    """Rows cos 0 … half, -sin 1 … half - 1 of 2πk·n/grid, each under every window (grid·t, n)."""
    windows = torch.zeros(len(origins), n, dtype=torch.float64)
    for row, at in zip(windows, origins, strict=True):
        row[at : at + side] = torch.hann_window(side, dtype=torch.float64) * 2 / side
    turns = torch.arange(grid // 2 + 1)[:, None] * torch.arange(n) % grid
    phase = 2 * math.pi / grid * turns.double()
    waves = torch.cat([phase.cos(), -phase.sin()[1 : grid // 2]])
    return (waves[:, None] * windows).flatten(0, 1)


def _half_plane(grid: int, lines: set[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Grid frequencies, one of each conjugate pair, zero last, and how many are on the rim.

    The rim, where a row or column wave is real, comes first, and its lines last: as a rule the
    lines are a contiguous run.
    """
    half = grid // 2
    inner = [(s * i, j) for s in (1, -1) for i in range(1, half) for j in range(1, half)]
    rim = [(i, j) for i in (0, half) for j in range(half, 0, -1)]
    rim += [(i, j) for j in (0, half) for i in range(half, 0, -1)]
    rim = sorted(dict.fromkeys(rim), key=lambda k: k in lines)
    return [*rim, *inner, (0, 0)], len(rim)
