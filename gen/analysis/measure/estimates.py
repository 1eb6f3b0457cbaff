"""From sums to estimates: line and replica of eq. (4) with their placebos, excess, and trace."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .amplitude import Amplitude, Placebos, sandwich, trace_of
from .excess import Excess, clearer, solve_excess
from .lattice import LatticeLine
from .statistics import TINY, Values, kish
from .sums import Moments, State, TilingSums
from .tiles import Tiling, phases
from .trace import solve_trace

MIN_CLUSTERS = 3
ALIVE = 1e-9  # sum of weights; dead tiles add 3e-20 each
ALONE = 2.0  # effective number of clusters: so few fit themselves, and their variance is too small
SHIFTS_PER_VALUE = {"interior": 2.25, "axis": 1.5}  # neighboring shifts are correlated


@dataclass(frozen=True)
class Estimates:
    """Everything about the lines of one period; arrays (C, L), planes with luma first.

    `even_line` and `even_replica` are the estimates in which every tile counts alike: they describe
    whole images, where `line` and `replica` describe the quietest tiles. The even line is that at
    the mean brightness of all pixels. `excess` is the clearer one of weighted and even tiles.
    `contrast` (C,) is the mean over images of the variance of their pixels, `spread` (C,) the
    variance of the pixels of all images, in gray levels².
    """

    period: int
    lines: tuple[LatticeLine, ...]
    line: Amplitude
    replica: Amplitude
    even_line: Amplitude
    even_replica: Amplitude
    excess: Excess
    weighted_excess: Excess
    trace: Amplitude
    contrast: Values
    spread: Values


@dataclass(frozen=True)
class Fit:
    """Eq. (4) at some frequencies (C, K): weighted regression of z on the local brightness m.

    `a` is the value at m̄; `step` leads from there to the brightness that `a_covariance` is about.
    """

    U: Values
    mean: Values
    D: Values
    a: NDArray[np.complex128]
    g: NDArray[np.complex128]
    step: Values
    a_covariance: Values
    g_covariance: Values
    a_n: Values
    g_n: Values

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Where any tile is alive (C, K)."""
        return self.U > 10 * ALIVE


def solve(state: State) -> list[Estimates]:
    """Estimates of every measurable period of a state, in the order of its periods."""
    sums, found = state.clusters, []
    pixels = sums.pixels.cpu().numpy() / max(sums.clusters, 1)
    textures = list(zip(state.plan.textures, sums.textures, strict=True))
    # Blocks of one image are alike in their incoherent power, so of that images are the clusters
    # wherever there are enough.
    by_image = state.by_image if state.summed >= MIN_CLUSTERS else sums
    parts = zip(state.plan.tilings, sums.tilings, by_image.tilings, strict=True)
    for tiling, part, whole in parts:
        for period in tiling.periods:
            trace = next(solve_trace(t, s, period) for t, s in textures if period in t.periods)
            found.append(_solve_period(tiling, part, whole, period, state.plan.fits, pixels, trace))
    return sorted(found, key=lambda e: state.periods.index(e.period))


def fit(moments: Moments, brightness: Values | None = None) -> Fit:
    """Solve eq. (4) from seven terms, with variances clustered by image.

    The line is that at the weighted mean brightness m̄, or at a given `brightness` (C, 1).
    """
    first, second, share = moments.arrays()
    u, um, umm, ur, ui, mr, mi = np.moveaxis(first, -1, 0)
    U = np.maximum(u, ALIVE)
    mean = um / U
    D = np.maximum(umm - mean * um, ALIVE)
    a = (ur + 1j * ui) / U
    g = (mr + 1j * mi - mean * (ur + 1j * ui)) / D
    lever = np.stack([mean**2, -2 * mean, np.ones_like(mean)], -1)
    D_squares = np.einsum("cki,ckij,ckj->ck", lever, second[..., :3, :3], lever)
    a_n = np.maximum(share[0] ** 2 / np.maximum(share[1], TINY), 1.01)
    g_n = np.maximum(D**2 / np.maximum(D_squares, TINY), 1.01)
    s_a, s_g = scores(a, g, mean, U, D)
    step = np.zeros_like(mean) if brightness is None else brightness - mean
    a_covariance = sandwich(s_a + step[..., None, None] * s_g, second, a_n)
    return Fit(U, mean, D, a, g, step, a_covariance, sandwich(s_g, second, g_n), a_n, g_n)


def scores(a, g, mean, U, D) -> tuple[Values, Values]:
    """Matrices (C, K, 2, 7) that take the seven terms of a cluster to its scores (Re, Im).

    s_a = Σ u(z - a)/U and s_g = Σ u(m - m̄)(z - a - g(m - m̄))/D.
    """
    line, replica = np.zeros((2, *a.shape, 2, 7))
    for part, (va, vg) in enumerate(((a.real, g.real), (a.imag, g.imag))):
        line[..., part, 0], line[..., part, 3 + part] = -va / U, 1 / U
        replica[..., part, 5 + part], replica[..., part, 3 + part] = 1 / D, -mean / D
        replica[..., part, 0] = (mean * va - vg * mean**2) / D
        replica[..., part, 1] = (2 * vg * mean - va) / D
        replica[..., part, 2] = -vg / D
    return line, replica


def _solve_period(
    tiling: Tiling, sums: TilingSums, by_image: TilingSums, period: int, measured, pixels: Values,
    trace: Amplitude,
) -> Estimates:  # fmt: skip
    rows = [n for n, line in enumerate(tiling.lines) if line.period == period]
    at = tiling.at.cpu().numpy()[rows]
    brightness, square, contrast = pixels
    found, even = fit(sums.weighted), fit(sums.even, brightness[:, None])
    alive = found.alive[:, at]
    free = _free(tiling, measured)
    ways = zip(tiling.axials, by_image.excess, by_image.powers, strict=True)
    fits = (found, by_image.weighted, at), (even, by_image.even, rows)
    excess = [
        solve_excess(axial, compared, power.cpu().numpy(), rows, *_at(*fitted), alive)
        for (axial, compared, power), fitted in zip(ways, fits, strict=False)  # sparse: one way
    ]
    return Estimates(
        period,
        tuple(tiling.lines[n] for n in rows),
        *_amplitudes(tiling, measured, found, sums.places, rows, at, free, alive),
        *_amplitudes(tiling, measured, even, sums.even_places, rows, rows, (), alive),
        functools.reduce(clearer, excess),
        excess[0],
        trace,
        contrast,
        square - brightness**2,
    )


def _at(fitted: Fit, terms: Moments, rows) -> tuple[tuple[Values, ...], Values]:
    """a, g, m̄ and the second moments at some frequencies."""
    fits = tuple(v[:, rows] for v in (fitted.a, fitted.g, fitted.mean))
    return fits, terms.second.cpu().numpy()[:, rows]


def _amplitudes(tiling, measured, found: Fit, places, rows, at, free, alive) -> list[Amplitude]:
    """Line and replica of some lines: `rows` of the tiling's lines, frequencies `at` of the fit.

    Their placebos are the shifts d and -d of the residuals z - a - g(m - m̄), then the frequencies
    `free` of lines.
    """
    turns = np.exp(-1j * phases(tiling.shifts / tiling.spans, tiling.origins)).T
    turns = np.concatenate([turns, turns.conj()], -1)
    s = np.moveaxis(places.cpu().numpy()[:, :, rows] @ turns, 1, 0)
    a, g, mean, step = (v[:, at, None] for v in (found.a, found.g, found.mean, found.step))
    z, zm = s[3] + 1j * s[4], s[5] + 1j * s[6]
    dm = s[1] - mean * s[0]
    replica = zm - mean * z - a * dm - g * (s[2] - 2 * mean * s[1] + mean**2 * s[0])
    replica = replica / found.D[:, at, None]
    line = (z - a * s[0] - g * dm) / found.U[:, at, None] + step * replica
    out, belonging = [], _belonging(tiling, tuple(rows), measured, tuple(free))
    c = np.array([float(tiling.lines[n].degrees) for n in rows])
    for theta, value, covariance, n in (
        (line, found.a + found.step * found.g, found.a_covariance, found.a_n),
        (replica, found.g, found.g_covariance, found.g_n),
    ):
        variance, shape = trace_of(covariance), (*theta.shape[:2], len(free))
        known = np.where(found.alive & (n > ALONE) & (variance > TINY), variance, np.inf)
        elsewhere = (np.broadcast_to(v[:, None, list(free)], shape) for v in (value, known))
        own = theta, np.broadcast_to(variance[:, at, None], theta.shape)
        pairs = zip(own, elsewhere, strict=True)
        placebos = Placebos(*(np.concatenate(pair, -1) for pair in pairs), *belonging)
        out.append(Amplitude(value[:, at], covariance[:, at], n[:, at], c, alive, placebos))
    return out


def _free(tiling: Tiling, measured: tuple[int, ...]) -> list[int]:
    """Grid frequencies that are no measured line; next to zero only those on an axis."""

    def is_line(i: int, j: int) -> bool:
        return any(i * p % tiling.grid == 0 == j * p % tiling.grid for p in measured)

    found = enumerate(tiling.frequencies[:-1])
    return [
        k for k, (i, j) in found if not is_line(i, j) and (0 in (i, j) or max(abs(i), abs(j)) > 1)
    ]


@functools.lru_cache(maxsize=64)
def _belonging(tiling: Tiling, rows, measured: tuple[int, ...], free: tuple[int, ...]):
    """Response, place on the axis, and worth of the placebos of some lines (see `Placebos`)."""
    grid = np.array(tiling.frequencies)[np.array(free, int)]
    shifts = len(tiling.shifts)
    response = np.zeros((len(rows), 2 * shifts + len(free)))
    on_axis = np.zeros(response.shape, bool)
    worth, axis_worth = np.zeros((2, len(rows)))
    for n, line in enumerate(tiling.lines[row] for row in rows):
        used = _clear(tiling, line, measured)
        used = np.concatenate([used, used & (line.degrees == 2)])
        near = _near(grid, np.array(tiling.steps(line)), tiling.grid)
        if used.any() or line.kind != "axis":
            # Next to zero is too much power. Without shifts, an axis line takes that too: every
            # other placebo has a higher frequency, and a blurred picture has less power there.
            near &= np.abs(grid).max(-1, initial=0) > 1
        response[n] = np.concatenate([used * np.tile(tiling.responses, 2), near])
        worth[n] = kish(response[n, : 2 * shifts]) / SHIFTS_PER_VALUE["interior"] + near.sum()
        if line.kind == "axis":
            across = 1 if line.b == 0 else 0
            zero = np.tile(tiling.shifts[:, across] == 0, 2), grid[:, across] == 0
            on_axis[n] = np.concatenate(zero) & (response[n] > 0)
            shifted = kish((response[n] * on_axis[n])[: 2 * shifts]) / SHIFTS_PER_VALUE["axis"]
            axis_worth[n] = max(shifted + (near & zero[1]).sum(), 1e-9)
    return response, on_axis, worth, axis_worth


def _clear(tiling: Tiling, line: LatticeLine, measured: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which shifts are placebos of a line: |d| ≤ 1/4P, and ±d two steps from other lines."""
    d = tiling.shifts / tiling.spans
    clear = (np.abs(d) * 4 * line.period <= 1).all(1)
    for p in measured:
        for sign in (1, -1):
            f = line.frequency + sign * d
            nearest = np.round(f * p) / p
            itself = (np.abs(nearest - line.frequency) < 1e-9).all(1)
            clear &= itself | ((np.abs(f - nearest) * tiling.spans).max(1) > 2 - 1e-9)
    return clear


def _near(frequencies, center, grid: int) -> NDArray[np.bool_]:
    """Which grid frequencies, or their conjugates, are one step or less around a line."""
    distances = [
        np.abs((frequencies - sign * center + grid // 2) % grid - grid // 2).max(-1, initial=0)
        for sign in (1, -1)
    ]
    return np.minimum(*distances) <= 1
