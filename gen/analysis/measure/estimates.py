"""From sums to amplitudes: line, replica and trace with variances, placebos and p-values.

Every estimate is tested twice and the larger p counts: against the spread over images, and against
placebos, the same estimator at frequencies where no lattice line can be. The placebos keep aligned
sets (faces, digits, watermarks: their mean image is not flat) from false alarms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .excess import Excess, solve_excess
from .lattice import LatticeLine
from .statistics import TINY, critical, f_test, kish, welch_df
from .sums import Moments, State, Sums, TextureSums, TilingSums
from .tiles import Tiling
from .trace import Texture

Values = NDArray[np.float64]
ALIVE = 1e-9  # sum of weights; dead tiles add 1e-20 each
SHIFTS_PER_VALUE = {"interior": 2.25, "axis": 1.5}  # neighboring shifts are correlated
AXIS_PRIOR = 2.0  # an axis has few placebos: so many more are presumed


@dataclass(frozen=True)
class Placebos:
    """The estimator where no line can be: values (C, L, M) and the variance expected of each.

    `response` (L, M) is the share of white noise that is left there, R(d) of eq. (5); 0 where a
    placebo does not belong to a line. `on_axis` (L, M) marks those on the axis of an axis line.
    `worth` (L,) and `axis_worth` (L,) count the independent values.
    """

    value: NDArray[np.complex128]
    variance: Values
    response: Values
    on_axis: NDArray[np.bool_]
    worth: Values
    axis_worth: Values

    def ratio(self) -> tuple[Values, Values]:
        """r and its degrees of freedom (C, L): mean |θ_d|²/V over what white noise leaves, § 3."""
        power = np.abs(self.value) ** 2 / np.maximum(self.variance, TINY)

        def mean(share: Values) -> Values:
            total = np.maximum(share.sum(-1), TINY)
            return (power * (share > 0)).sum(-1) / total

        on_axis = self.on_axis.any(-1) | (self.axis_worth > 0)
        everywhere, axis = mean(self.response), mean(self.response * self.on_axis)
        ratio = np.where(on_axis, np.maximum(everywhere, axis), everywhere)
        count = np.where(on_axis, np.minimum(self.axis_worth + AXIS_PRIOR, self.worth), self.worth)
        return np.where(self.worth > 0, ratio, 1.0), 2 * np.broadcast_to(count, ratio.shape)

    def pick(self, columns: list[int]) -> Placebos:
        """The placebos of some lines."""
        by_line = (self.response, self.on_axis, self.worth, self.axis_worth)
        value, variance = self.value[:, columns], self.variance[:, columns]
        return Placebos(value, variance, *(v[columns] for v in by_line))


@dataclass(frozen=True)
class Amplitude:
    """Estimate θ̂ (C, L) by plane and line, with its errors.

    Attributes:
        value: Complex amplitude in gray levels (line), gain (replica), or depth (trace).
        covariance: (C, L, 2, 2) of (Re, Im), clustered by image.
        n: Effective number of clusters.
        c: (L,) degrees of freedom of an amplitude, 1 or 2.
        alive: Whether any tile carries signal around the line; if not, the rest means nothing.
        placebos: None where the estimate has none of its own.
    """

    value: NDArray[np.complex128]
    covariance: Values
    n: Values
    c: Values
    alive: NDArray[np.bool_]
    placebos: Placebos | None = None

    @property
    def variance(self) -> Values:
        """V = E|θ̂ - θ|²."""
        return np.maximum(np.trace(self.covariance, axis1=-2, axis2=-1), TINY)

    @property
    def power(self) -> Values:
        """|θ̂|², not debiased."""
        return np.abs(self.value) ** 2

    @property
    def df(self) -> Values:
        """Degrees of freedom of V."""
        return self.c * (self.n - 1)

    def ratio(self) -> tuple[Values, Values]:
        """Placebo ratio r and its degrees of freedom (C, L)."""
        if self.placebos is None:
            return np.ones(self.value.shape), np.zeros(self.value.shape)
        return self.placebos.ratio()

    @property
    def noise(self) -> Values:
        """V·max(1, r)."""
        return self.variance * np.maximum(self.ratio()[0], 1)

    @property
    def noise_df(self) -> Values:
        """Degrees of freedom of the noise."""
        ratio, df = self.ratio()
        return np.where(ratio > 1, np.minimum(self.df, np.maximum(df, 1)), self.df)

    @property
    def p_value(self) -> Values:
        """The larger p of the test by images and the test by placebos; 1 where nothing is alive."""
        ratio, df = self.ratio()
        p = f_test(self.power, self.variance, self.c, self.df)
        by_placebos = f_test(self.power, self.variance * ratio, self.c, df)
        return np.where(self.alive, np.where(df > 0, np.maximum(p, by_placebos), p), 1.0)

    def critical(self, p: Values | float) -> Values:
        """|θ̂|² that both tests find at raw `p`."""
        ratio, df = self.ratio()
        by_images = critical(self.variance, self.c, self.df, p)
        by_placebos = critical(self.variance * ratio, self.c, df, p)
        return np.where(df > 0, np.maximum(by_images, by_placebos), by_images)

    def pick(self, columns: list[int]) -> Amplitude:
        """The estimate of some lines."""
        return Amplitude(
            self.value[:, columns],
            self.covariance[:, columns],
            self.n[:, columns],
            self.c[columns],
            self.alive[:, columns],
            None if self.placebos is None else self.placebos.pick(columns),
        )

    def minus(self, other: Amplitude) -> Amplitude:
        """The difference of two independent sets; its placebos are differences as well."""
        placebos, (a, b) = None, (self.placebos, other.placebos)
        if a is not None and b is not None:
            value, variance = a.value - b.value, a.variance + b.variance
            placebos = Placebos(value, variance, a.response, a.on_axis, a.worth, a.axis_worth)
        df = welch_df(self.variance, self.df, other.variance, other.df)
        return Amplitude(
            self.value - other.value,
            self.covariance + other.covariance,
            df / self.c + 1,
            self.c,
            self.alive & other.alive,
            placebos,
        )


@dataclass(frozen=True)
class Estimates:
    """Everything about the lines of one tiling, planes first.

    `even_line` and `even_replica` are the estimates in which every tile counts alike: they describe
    whole images, where `line` and `replica` describe the quietest tiles. The even line is that at
    the mean brightness of all pixels. `contrast` (C,) is the mean over images of the variance of
    their pixels, `spread` (C,) the variance of the pixels of all images, in gray levels².
    """

    lines: tuple[LatticeLine, ...]
    line: Amplitude
    replica: Amplitude
    even_line: Amplitude
    even_replica: Amplitude
    excess: Excess
    contrast: Values
    spread: Values

    def of(self, period: int) -> Estimates:
        """The lines of one period."""
        columns = [k for k, line in enumerate(self.lines) if line.period == period]
        parts = (self.line, self.replica, self.even_line, self.even_replica, self.excess)
        lines = tuple(self.lines[k] for k in columns)
        return Estimates(lines, *(part.pick(columns) for part in parts), self.contrast, self.spread)


@dataclass(frozen=True)
class Fit:
    """Eq. (4) at every frequency (C, K): weighted regression of z on the local brightness m.

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


def solve(state: State) -> list[Estimates]:
    """Estimates of all tilings of a state."""
    sums = clusters(state)
    pixels = _numpy(sums.pixels) / max(sums.clusters, 1)
    return [
        _solve_tiling(tiling, part, state.measurable, pixels)
        for tiling, part in zip(state.plan.tilings, sums.tilings, strict=True)
    ]


def solve_traces(state: State) -> list[tuple[tuple[LatticeLine, ...], Amplitude]]:
    """Trace amplitudes of all textures of a state, with their lines."""
    parts = zip(state.plan.textures, clusters(state).textures, strict=True)
    return [(texture.lines, _solve_texture(texture, part)) for texture, part in parts]


def clusters(state: State) -> Sums:
    """Sums by image, or by block of three images or fewer."""
    return state.by_image if state.by_block is None else state.by_block


def fit(moments: Moments, brightness: Values | None = None) -> Fit:
    """Solve eq. (4) from seven terms, with variances clustered by image (§ 2, Variance).

    The line is that at the weighted mean brightness m̄, or at a given `brightness` (C, 1).
    """
    first, second, share = (_numpy(v) for v in (moments.first, moments.second, moments.kish))
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
    s_a = s_a + step[..., None, None] * s_g
    a_covariance, g_covariance = (
        s @ second @ np.swapaxes(s, -1, -2) * (n / (n - 1))[..., None, None]
        for s, n in ((s_a, a_n), (s_g, g_n))
    )
    return Fit(U, mean, D, a, g, step, a_covariance, g_covariance, a_n, g_n)


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


def _solve_tiling(
    tiling: Tiling, sums: TilingSums, measured: tuple[int, ...], pixels: Values
) -> Estimates:
    brightness, square, contrast = pixels
    at, every = tiling.at.cpu().numpy(), np.arange(len(tiling.lines))
    found, even = fit(sums.weighted), fit(sums.even, brightness[:, None])
    alive = found.U[:, at] > 10 * ALIVE
    free = _free(tiling, measured)
    none = np.zeros(0, int)
    return Estimates(
        tiling.lines,
        *_amplitudes(tiling, measured, found, sums.places, at, free, alive),
        *_amplitudes(tiling, measured, even, sums.even_places, every, none, alive),
        solve_excess(tiling, sums, found, alive),
        contrast,
        square - brightness**2,
    )


def _amplitudes(tiling, measured, found: Fit, places, at, free, alive) -> list[Amplitude]:
    """Line and replica of the frequencies `at`, with their placebos."""
    turns = np.exp(-1j * tiling.phases(tiling.shifts)).T
    s = np.moveaxis(_numpy(places) @ np.concatenate([turns, turns.conj()], -1), 1, 0)
    a, g, mean, step = (v[:, at, None] for v in (found.a, found.g, found.mean, found.step))
    z, zm = s[3] + 1j * s[4], s[5] + 1j * s[6]
    dm = s[1] - mean * s[0]
    replica = zm - mean * z - a * dm - g * (s[2] - 2 * mean * s[1] + mean**2 * s[0])
    replica = replica / found.D[:, at, None]
    line = (z - a * s[0] - g * dm) / found.U[:, at, None] + step * replica
    out, c = [], np.array([float(line.degrees) for line in tiling.lines])
    for theta, value, covariance, n in (
        (line, found.a + found.step * found.g, found.a_covariance, found.a_n),
        (replica, found.g, found.g_covariance, found.g_n),
    ):
        placebos = _placebos(tiling, measured, theta, value, covariance, at, free)
        out.append(Amplitude(value[:, at], covariance[:, at], n[:, at], c, alive, placebos))
    return out


def _free(tiling: Tiling, measured: tuple[int, ...]) -> NDArray[np.int64]:
    """Grid frequencies that are no line of a measured period and not next to zero."""

    def is_line(i: int, j: int) -> bool:
        return any(i * p % tiling.grid == 0 == j * p % tiling.grid for p in measured)

    found = enumerate(tiling.frequencies[:-1])
    return np.array(
        [k for k, (i, j) in found if not is_line(i, j) and max(abs(i), abs(j)) > 1], dtype=int
    )


def _placebos(tiling: Tiling, measured, theta, value, covariance, at, free) -> Placebos:
    """Placebos of one estimate: shifts d and -d of the residuals, then free grid frequencies."""
    variance = np.maximum(np.trace(covariance, axis1=-2, axis2=-1), TINY)
    shape = (*theta.shape[:2], len(free))
    own = np.broadcast_to(variance[:, at, None], theta.shape)
    expected = np.broadcast_to(variance[:, None, free], shape)
    return Placebos(
        np.concatenate([theta, np.broadcast_to(value[:, None, free], shape)], -1),
        np.concatenate([own, expected], -1),
        *_belonging(tiling, measured, tuple(free)),
    )


@functools.lru_cache(maxsize=64)
def _belonging(tiling: Tiling, measured: tuple[int, ...], free: tuple[int, ...]):
    """Response, place on the axis, and worth of the placebos of every line (see `Placebos`)."""
    grid = np.array(tiling.frequencies)
    free = np.array(free, int)
    lines, shifts = len(tiling.lines), len(tiling.shifts)
    response = np.zeros((lines, 2 * shifts + len(free)))
    on_axis = np.zeros(response.shape, bool)
    worth, axis_worth = np.zeros((2, lines))
    for n, line in enumerate(tiling.lines):
        used = _clear(tiling, line, measured)
        used = np.concatenate([used, used & (line.degrees == 2)])
        near = _near(grid[free], np.array(tiling.steps(line)), tiling.grid)
        response[n] = np.concatenate([used * np.tile(tiling.responses, 2), near])
        worth[n] = kish(response[n, : 2 * shifts]) / SHIFTS_PER_VALUE["interior"] + near.sum()
        if line.kind == "axis":
            across = 1 if line.b == 0 else 0
            zero = np.tile(tiling.shifts[:, across] == 0, 2), grid[free, across] == 0
            on_axis[n] = np.concatenate(zero) & (response[n] > 0)
            shifted = kish((response[n] * on_axis[n])[: 2 * shifts]) / SHIFTS_PER_VALUE["axis"]
            axis_worth[n] = max(shifted + (near & zero[1]).sum(), 1e-9)
    return response, on_axis, worth, axis_worth


def _clear(tiling: Tiling, line: LatticeLine, measured: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which shifts are placebos of a line: |d| ≤ 1/4P, and ±d two steps from other lines."""
    d = tiling.shifts / tiling.spans
    near = (np.abs(d) * 4 * line.period <= 1).all(1)
    for p in measured:
        for sign in (1, -1):
            f = line.frequency + sign * d
            away = np.abs(f - np.round(f * p) / p) * tiling.spans  # from the lattice of p
            away[(np.abs(np.round(f * p) / p - line.frequency) < 1e-9).all(1)] = (
                2  # the line itself
            )
            near &= away.max(1) > 2 - 1e-9
    return near


def _near(frequencies, center, grid: int) -> NDArray[np.bool_]:
    """Which grid frequencies, or their conjugates, are one step or less around a line."""
    distances = [
        np.abs((frequencies - sign * center + grid // 2) % grid - grid // 2).max(-1, initial=0)
        for sign in (1, -1)
    ]
    return np.minimum(*distances) <= 1


def _solve_texture(texture: Texture, sums: TextureSums) -> Amplitude:
    """Depth of the periodic modulation, with the frequencies between the lines as placebos."""
    first, second = _numpy(sums.depth.first), _numpy(sums.depth.second)
    count = np.maximum(first[..., 0], 1e-12)
    depth = (first[..., 1] + 1j * first[..., 2]) / count
    J = np.zeros((*depth.shape, 2, 3))
    for part, v in enumerate((depth.real, depth.imag)):
        J[..., part, 0], J[..., part, 1 + part] = -v / count, 1 / count
    n = np.maximum(count**2 / np.maximum(second[..., 0, 0], TINY), 1.01)
    covariance = J @ second @ np.swapaxes(J, -1, -2) * (n / (n - 1))[..., None, None]
    near = [_between(texture, line) for line in texture.lines]
    most = max(map(len, near))
    values = np.zeros((*depth.shape, most), complex)
    response = np.zeros((len(near), most))
    for i, found in enumerate(near):
        for k, (y, x) in enumerate(found):
            values[:, i, k] = _numpy(texture.depth_at(sums.products.T, y, x)) / count[:, i]
            response[i, k] = 1
    variance = np.maximum(np.trace(covariance, axis1=-2, axis2=-1), TINY)
    expected = np.broadcast_to(variance[..., None], values.shape)
    worth, none = response.sum(-1), np.zeros(len(near))
    placebos = Placebos(values, expected, response, response > 2, worth, none)
    c = np.array([float(line.degrees) for line in texture.lines])
    return Amplitude(depth, covariance, n, c, first[..., 0] > 0, placebos)


def _between(texture: Texture, line: LatticeLine) -> list[tuple[int, int]]:
    """Frequencies around a line that no other line reaches; those of an axis line are on it."""
    q = texture.grid
    steps = q // max(other.period for other in texture.lines) - 1  # to the next line, exclusive
    y, x = texture.steps(line)
    along = [s for s in range(-steps, steps + 1) if s]
    if line.b == 0:
        near = [(y + s, 0) for s in along]
    elif line.a == 0:
        near = [(0, x + s) for s in along]
    else:
        span = range(-min(steps, 2), min(steps, 2) + 1)
        near = [(y + s, x + r) for s in span for r in span if s or r]
    one = dict.fromkeys(min((k[0] % q, k[1] % q), (-k[0] % q, -k[1] % q)) for k in near)
    return [k for k in one if max(min(v, q - v) for v in k) > 1]  # not next to zero


def _numpy(tensor) -> NDArray:
    return tensor.cpu().numpy()
