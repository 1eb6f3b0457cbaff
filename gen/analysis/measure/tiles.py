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
    every tile weighs 1; `powers` (L, 1 + A, N) are `AxialShifts.power` of each of the tiling's
    `axials`. `places` and `even_places` (7, L, C, tiles), float64, are summed over the blocks of
    each plane instead, by the tile's place in its block.
    """

    weighted: Tensor
    even: Tensor
    powers: list[Tensor]
    places: Tensor
    even_places: Tensor


class AxialShifts:
    """Shifts d (A, 2) along the axes, in cycles per pixel, with which the excess compares d = 0.

    `used` are the origins by axis of the tiles that count. An axis line is compared with shifts on
    its axis (`own`, (L, A)). `responses` (A,) as eq. (5).
    """

    def __init__(self, shifts, origins, used, even, side, lines, device, dtype):
        self.even = even
        self.own = np.array(
            [[(line.a != 0 or y == 0) and (line.b != 0 or x == 0) for y, x in shifts]
             for line in lines]
        )  # fmt: skip
        self.responses = response(shifts, used, side)
        rows, columns = (np.isin(o, u) for o, u in zip(origins, used, strict=True))
        phase = phases(np.concatenate([np.zeros((1, 2)), shifts]), origins)
        turn = np.concatenate([np.cos(phase), -np.sin(phase)]) * np.outer(columns, rows).ravel()
        self.turn = torch.from_numpy(turn).to(device, dtype)
        use = self.own / self.responses / np.maximum(self.own.sum(1, keepdims=True), 1)
        self.beside = torch.from_numpy(use[..., None]).to(device, dtype)

    def power(self, re: Tensor, im: Tensor) -> Tensor:
        """|Σ z e^(-2πi d·o)|², the mean of d and -d, of values (L, tiles, N): (L, 1 + A, N)."""
        turn = self.turn.expand(len(re), -1, -1)
        real, imaginary = torch.bmm(turn, re), torch.bmm(turn, im)
        return torch.add(*real.square_().addcmul_(imaginary, imaginary).chunk(2, 1))

    def compared(self, power: Tensor) -> Tensor:
        """Power at d = 0, and the mean of |s_d|²/R over the shifts (2, L, N)."""
        return torch.stack([power[:, 0], (power[:, 1:] * self.beside).sum(1)])


class Tiling:
    """Tiles of one kind on blocks of one `size`: constant matrices, and the sums they make.

    `border` adds a tile at the far border even where it is less than half a hop away; `floor` is
    the white noise in gray levels that every tile is taken to have, eq. (3).
    """

    def __init__(self, size, side, hop, periods, border, floor, device, dtype):
        self.side, self.grid, self.periods = side, side // 2, periods
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
        self.run = slice(at[0], at[-1] + 1) if at == list(range(at[0], at[-1] + 1)) else None
        self._rim_tables(device, dtype)
        self.around = self._around().to(device, dtype)
        white = 2.25 / side**2  # |z|² of white noise of variance 1
        self.floor = torch.full((1, 1), floor**2 * white, device=device, dtype=dtype)
        self.dead = floor**2 * white + ALIVE**2
        self.spans = [o[-1] + side for o in self.origins]
        self._shifts()
        self.axials = self._axials(hop, border, device, dtype)

    def steps(self, line: LatticeLine) -> tuple[int, int]:
        """Frequency of a line in steps of 1/grid."""
        return line.a * self.grid // line.period, line.b * self.grid // line.period

    def index(self, i: int, j: int) -> int:
        """Index of a grid frequency or of its conjugate."""
        half = self.grid // 2
        wrapped = (
            tuple((sign * k + half - 1) % self.grid - half + 1 for k in (i, j)) for sign in (1, -1)
        )
        return next(self.place[k] for k in wrapped if k in self.place)

    def pick(self, values: Tensor) -> Tensor:
        """The lines among values (K, …)."""
        return values.index_select(0, self.at) if self.run is None else values[self.run]

    def _rim_tables(self, device, dtype) -> None:
        """Which products of `spectrum` are the frequencies with a real row or column wave."""
        half, rim = self.grid // 2, self.frequencies[: self.rim]
        sines = []
        for i, j in rim:
            row = (half + i) * self.grid + j if 0 < i < half else None
            sines.append(i * self.grid + half + j if 0 < j < half else row)
        self.rim_cosine = torch.tensor([i * self.grid + j for i, j in rim], device=device)
        self.rim_sine = torch.tensor([s or 0 for s in sines], device=device)
        complex_ = [[float(s is not None)] for s in sines]
        self.rim_complex = torch.tensor(complex_, device=device, dtype=dtype)

    def _around(self) -> Tensor:
        """Matrix (K, K) that averages |z|² over the grid frequencies around each one, eq. (2).

        The lines are even steps of the grid. Frequencies between them are placebos and leave even
        steps out where others are there: a pattern on a line would raise their noise and hide.
        """
        matrix = torch.zeros(self.count, self.count, dtype=torch.float64)
        lines = {self.index(*self.steps(line)) for line in self.lines}
        ring = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        for own, (i, j) in enumerate(self.frequencies[:-1]):
            # On an axis the noise is that of its ridge.
            steps = [(0, -1), (0, 1)] if i == 0 else [(-1, 0), (1, 0)] if j == 0 else ring
            one, two = ([(i + n * a, j + n * b) for a, b in steps] for n in (1, 2))
            between = [k for k in one if k[0] % 2 or k[1] % 2]
            for choice in [one] if own in lines else [between, two, one]:
                near = [n for n in (self.index(*k) for k in choice) if n not in (own, self.count)]
                if near:
                    break
            for n in near:
                matrix[own, n] += 1 / len(near)
        return matrix

    def _shifts(self) -> None:
        """Placebos (D, 2): steps of 1/span, one of each ±d, |d| ≤ 1/4P for the least P."""
        reach = [span // (4 * min(self.periods)) for span in self.spans]
        rows, columns = range(-reach[0], reach[0] + 1), range(reach[1] + 1)
        found = [(i, j) for i in rows for j in columns if max(abs(i), j) > 1 and (j or i > 0)]
        self.shifts = np.array(found, dtype=int).reshape(-1, 2)
        self.responses = response(self.shifts / self.spans, self.origins, self.side)

    def _axials(self, hop: int, dense: bool, device, dtype) -> list[AxialShifts]:
        """Shifts up to 1/side for weighted tiles, and where tiles are dense also for even ones.

        The sum of even tiles is zero at whole steps of 1/(tiles·hop), so a pattern does not reach
        the shifts that it is compared with; a last tile off the hop does not count there. Stripes
        of period 10 would alias through a hop of 5 to period 2.
        """
        regular = [[o for o in axis if o % hop == 0] for axis in self.origins]
        cycles, found = [len(axis) * hop for axis in regular], []
        kinds = [(False, 2, self.spans, self.origins), (True, 1, cycles, regular)]
        for even, first, spans, used in kinds[: 1 + dense]:
            rows, columns = (np.arange(first, max(first, n // self.side) + 1) / n for n in spans)
            shifts = np.array([(y, 0.0) for y in rows] + [(0.0, x) for x in columns])
            each = self.origins, used, even, self.side, self.lines
            found.append(AxialShifts(shifts, *each, device, dtype))
        return found

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
        flat, rim = z.view(q * q, -1), slice(self.rim)
        out[0, -1], out[1, -1] = flat[0], 0  # zero
        torch.index_select(flat, 0, self.rim_cosine, out=out[0, rim])
        torch.index_select(flat, 0, self.rim_sine, out=out[1, rim]).mul_(self.rim_complex)
        return out if turns is None else turned(out, turns)

    def sums(self, x: Tensor, planes: int, starts: list[tuple[int, int]]) -> TileSums:
        """Sums over the tiles of blocks (H, N, W), those of eq. (4) and those of the placebos.

        `starts` are the places of an image's blocks.
        """
        n, k, lines = x.shape[1], self.count, len(self.lines)
        z = self.spectrum(x, self.turns(starts))
        m, (re, im) = z[0, k], z[:, :k]
        root = torch.addmm(self.floor, self.around, (re * re).addcmul_(im, im))  # v, eq. (2)
        torch.nn.functional.threshold_(root, self.dead, 1e26).rsqrt_()
        u = root.sqrt().mul_(root)  # eq. (3): v^(-3/4), and 3e-20 for dead tiles
        weighted = x.new_empty(TERMS, k, n)
        places = x.new_empty(TERMS, lines, planes, len(m) // n, dtype=torch.float64)
        own = self.pick(re), self.pick(im)
        even = self._even(m, *own, n, planes)
        tiles = [v.view(lines, -1, n) for v in own]
        even_powers = [axial.power(*tiles) for axial in self.axials[1:]]

        def put(term: int, values: Tensor) -> Tensor:
            values = values.view(k, -1, n)
            torch.sum(values, 1, out=weighted[term])
            chosen = self.pick(values)
            places[term] = _place_sums(chosen, planes)
            return chosen

        put(0, u)
        power = self.axials[0].power(put(3, re.mul_(u)), put(4, im.mul_(u)))
        put(5, re.mul_(m))
        put(6, im.mul_(m))
        put(1, u.mul_(m))
        put(2, u.mul_(m))
        return TileSums(weighted, even[0], [power, *even_powers], places, even[1])

    def _even(self, m, re, im, n: int, planes: int) -> tuple[Tensor, Tensor]:
        """The same sums of the lines where every tile weighs 1: by block, and by place."""
        sums = m.new_empty(TERMS, len(self.lines), n)
        places = m.new_empty(TERMS, len(self.lines), planes, len(m) // n, dtype=torch.float64)
        for term, values in enumerate((torch.ones_like(m), m, m * m, re, im, re * m, im * m)):
            values = values.view(-1, len(m) // n, n)
            sums[term] = values.sum(1)
            places[term] = _place_sums(values, planes)
        return sums, places


def _place_sums(values: Tensor, planes: int) -> Tensor:
    """Sums of values (L, tiles, N) over the blocks of each plane in float64 (L, C, tiles)."""
    return values.unflatten(2, (planes, -1)).transpose(1, 2).sum(-1, dtype=torch.float64)


def turned(z: Tensor, turns: Tensor) -> Tensor:
    """Complex values (2, K, …·blocks) times the phases (2, K, blocks) of the blocks."""
    re, im = z.unflatten(-1, (-1, turns.shape[-1]))
    cos, sin = turns[:, :, None]
    return torch.stack([re * cos - im * sin, re * sin + im * cos]).flatten(2)


def response(d: NDArray[np.float64], origins: list[list[int]], side: int) -> NDArray[np.float64]:
    """R(d) of shifts (D, 2), eq. (5): what white noise leaves there, relative to d = 0."""
    rows, columns = (_response(axis, o, side) for axis, o in zip(d.T, origins, strict=True))
    return rows * columns


def phases(d: NDArray[np.float64], origins: list[list[int]]) -> NDArray[np.float64]:
    """2πd·o of shifts (D, 2) over the tiles (D, tx·ty)."""
    y, x = map(np.array, origins)
    dy, dx = 2 * np.pi * d.T[..., None, None]
    return (dy * y + dx * x[:, None]).reshape(len(d), len(y) * len(x))


def _response(d: NDArray[np.float64], origins: list[int], side: int) -> NDArray[np.float64]:
    """R(d) of one axis, eq. (5)."""
    o = np.array(origins)
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)
    overlap = np.correlate(w, w, "full")[side - 1 :]
    lags = np.abs(o[:, None] - o)
    c = np.where(lags < side, overlap[np.minimum(lags, side - 1)], 0.0)
    e = np.exp(-2j * np.pi * np.outer(d, o))
    return np.einsum("dt,tu,du->d", e, c, e.conj()).real / c.sum()


def tilings(size: tuple[int, int], periods: tuple[int, ...], floor, device, dtype) -> list[Tiling]:
    """Tilings that read all periods of blocks of this size.

    Tiles have four periods and a hop of two periods less one. On large blocks periods 4 and 8 share
    tiles of 16 pixels where these leave room for placebos, and those of period 2 have a hop of 5.
    """
    large = min(size) >= LARGE
    shared = tuple(p for p in periods if p in SHARED and min(size) >= max(LARGE, 8 * p))
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
    found = torch.cat([phase.cos(), -phase.sin()[1 : grid // 2]])
    return (found[:, None] * windows).flatten(0, 1)


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
