"""From estimates to a `Measurement`: one family of tests, levels and limits, comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gen.analysis.measure.arrays import collect_arrays
from gen.analysis.measure.difference import compare
from gen.analysis.measure.estimate import Amplitude, Estimates, LogRatio, estimate
from gen.analysis.measure.lattice import minimum_size
from gen.analysis.measure.results import (
    SIGNIFICANT,
    Excess,
    LatticeLine,
    Line,
    Measurement,
    Period,
    Replica,
    Trace,
)
from gen.analysis.measure.statistics import (
    DB_PER_NEPER,
    decibels,
    detectable,
    holm,
    interval,
    t_quantile,
)
from gen.analysis.measure.sums import TRACES

if TYPE_CHECKING:
    from gen.analysis.measure.meter import Meter

Values = NDArray[np.float64]
MIN_IMAGES = 3
NO_SIGNAL = "hardly any image varies by a hundredth of a grey level"


@dataclass(frozen=True)
class Table:
    """Everything about one crop in arrays over (channel with signal, line)."""

    estimates: Estimates
    channels: list[int]  # rows of the estimates that carry signal
    names: list[str]
    raw: dict[str, Values]  # statistic -> raw p
    adjusted: dict[str, Values]  # statistic -> Holm-corrected p
    tests: int
    limits: dict[str, Values]  # replica, line: |θ|² (C, L) found with 90 % power


def conclude(meter: Meter, reference: Meter | None) -> Measurement:
    """Build the measurement of a meter, with its reference's and their difference where given."""
    why = _undefined(meter)
    tables = [] if why else _tables(meter)
    periods = {p: Period(undefined=why or _too_small(p, meter)) for p in meter.periods}
    for table in tables:
        if not table.channels:
            periods |= {line[0]: Period(undefined=NO_SIGNAL) for line in table.estimates.lines}
    lines: dict[int, list[LatticeLine]] = {p: [] for p in meter.periods}
    if not why:
        for table in (t for t in tables if t.channels):
            for period in {line[0] for line in table.estimates.lines}:
                periods[period] = _period(table, period)
            for item in _lattice_lines(table):
                lines[item.period].append(item)
    ordered = [item for p in meter.periods for item in lines[p]]
    other = None if reference is None else conclude(reference, None)
    difference = None
    if reference is not None and not why and not _undefined(reference):
        theirs = [table.estimates for table in _tables(reference)]
        difference = compare([t.estimates for t in tables], theirs, periods, other.periods)
    channels, height, width = meter.shape
    first = "luma" if channels > 1 else "0"
    return Measurement(
        images=meter.images,
        size=(height, width),
        channels=channels,
        noise_floor=_rounding_floor(tables) if meter.whole_levels and not why else None,
        periods=periods,
        lines=tuple(item for item in ordered if item.channel == first),
        channel_lines=tuple(item for item in ordered if item.channel != first),
        without_signal=meter.flat,
        duplicates=meter.images - meter.nonfinite - distinct(meter),
        reference=other,
        difference=difference,
        arrays=None if why else collect_arrays(meter),
    )


def distinct(meter: Meter) -> int:
    """Number of different images, told apart by their fingerprints."""
    return len({mark.tobytes() for part in meter.fingerprints for mark in part.numpy()})


def _undefined(meter: Meter) -> str | None:
    if meter.nonfinite:
        return f"{meter.nonfinite} of {meter.images} images hold NaN or infinity"
    if meter.flat == meter.images:
        return "every image is constant: there is no signal to measure"
    if meter.images - meter.flat < MIN_IMAGES:
        return f"only {meter.images - meter.flat} images carry signal; it takes {MIN_IMAGES}"
    if distinct(meter) < MIN_IMAGES:
        return f"only {distinct(meter)} different images among {meter.images}"
    return None


def _too_small(period: int, meter: Meter) -> str:
    side = minimum_size(period)
    height, width = meter.shape[1:]
    return f"period {period} needs images of at least {side}×{side}, these are {height}×{width}"


def _tables(meter: Meter) -> list[Table]:
    """Estimate every crop and correct all p-values of the report as one family."""
    found = [(crop, estimate(crop)) for crop in meter.crops]
    tables = []
    for _, e in found:
        rows = [i for i, n in enumerate(e.counted) if n >= MIN_IMAGES]
        count = len(e.counted)
        names = ["0"] if count == 1 else ["luma", *map(str, range(count - 1))]
        raw = {
            "replica": e.replica.p_value[rows],
            "line": e.line.p_value[rows],
            "excess": e.excess.p_value[rows],
            "trace": _trace_p(e)[rows],
        }
        tables.append((e, rows, [names[i] for i in rows], raw))
    joined = [p.ravel() for *_, raw in tables for p in raw.values()]
    corrected = holm(np.concatenate(joined)) if joined else np.zeros(0)
    start, out = 0, []
    for e, rows, names, raw in tables:
        adjusted = {}
        for name, p in raw.items():
            adjusted[name] = corrected[start : start + p.size].reshape(p.shape)
            start += p.size
        limits = {
            "replica": _limit(e.replica, len(corrected)),
            "line": _limit(e.line, len(corrected)),
        }
        out.append(Table(e, rows, names, raw, adjusted, len(corrected), limits))
    return out


def _trace_p(e: Estimates) -> Values:
    """p of the clearest of the three variation maps, Bonferroni-corrected for the choice."""
    return np.minimum(3 * np.min([t.p_value for t in e.trace], axis=0), 1.0)


def _noise(a: Amplitude) -> Values:
    """What the estimator reads without a line: the larger of sandwich and neighbors."""
    return np.maximum(a.variance, a.around)


def _limit(a: Amplitude, tests: int) -> Values:
    """|θ|² (C, L) that both tests of an amplitude find with 90 % power after Bonferroni."""
    limit = detectable(a.variance, a.c, a.test_df, tests, SIGNIFICANT)
    around = detectable(a.around, a.c, np.maximum(a.around_df, 1e-3), tests, SIGNIFICANT)
    return np.maximum(limit, np.where(a.around_df > 0, around, 0))


def _period(table: Table, period: int) -> Period:
    """Level, limit and verdict of one exact period.

    Once lines are detected, they alone make up the level: the noise of the others, mostly that of
    the axes, would hide it. Without a detection all lines are summed.
    """
    e = table.estimates
    lines = [i for i, line in enumerate(e.lines) if line[0] == period]
    own = {name: float(p[:, lines].min()) for name, p in table.adjusted.items()}
    p_value = min(own["replica"], own["line"])
    detected = p_value < SIGNIFICANT
    # Energy is averaged over channels; luma is a signed sum of them and stays out.
    rows = table.channels if len(e.counted) == 1 else [i for i in table.channels if i > 0]
    energy, spread, limits = {}, 0.0, []
    for name, a, share in (
        ("replica", e.replica, np.ones(len(rows))),
        ("line", e.line, 1 / e.ac_power[rows]),
    ):
        spoken = (table.adjusted[name].min(0)[lines] < SIGNIFICANT) | (not detected)
        factor = share[:, None] * a.c[lines] * spoken
        noise, power = (v[np.ix_(rows, lines)] for v in (_noise(a), a.power))
        energy[name] = float((factor * (power - noise)).sum(1).mean())
        theta = np.maximum(power - noise, 0)
        variance = factor**2 * (2 * noise**2 + 4 * theta * noise) / a.c[lines]
        spread += float(np.sqrt(variance.sum(1)).mean()) ** 2
        limit = table.limits[name][np.ix_(rows, lines)]
        limits.append((share[:, None] * a.c[lines] * limit).mean(0))
    level = energy["replica"] + energy["line"]
    first = table.channels[0]
    return Period(
        level_dbc=decibels(level),
        level_upper_dbc=decibels(max(level, 0) + 1.645 * math.sqrt(spread)),
        p_value=p_value,
        detected=detected,
        detection_limit_dbc=decibels(float(np.max(limits))),
        replica_dbc=decibels(energy["replica"]),
        line_dbc=decibels(energy["line"]),
        excess_db=float(e.excess.value[first, lines].max()) * DB_PER_NEPER,
        excess_p_value=own["excess"],
        trace_depth=float(max(np.abs(t.value[first, lines]).max() for t in e.trace)),
        trace_p_value=own["trace"],
        found=tuple(name for name, p in own.items() if p < SIGNIFICANT),
    )


def _lattice_lines(table: Table) -> list[LatticeLine]:
    """All lines of one crop, channel after channel, as result values."""
    e = table.estimates
    pick = table.channels
    replica = _replica_columns(e.replica, pick, table)
    bounds = {
        "line": interval(e.line.power[pick], e.line.variance[pick], e.line.c, e.line.df[pick]),
        "limit": np.sqrt(e.line.c * table.limits["line"][pick]),
    }
    out = []
    for row, (channel, name) in enumerate(zip(pick, table.names, strict=True)):
        for i, (period, a, b) in enumerate(e.lines):
            amplitude, c = complex(e.line.value[channel, i]), math.sqrt(e.line.c[i])
            rms = c * abs(amplitude)
            line = Line(
                amplitude,
                rms,
                c * float(bounds["line"][0][row, i]),
                c * float(bounds["line"][1][row, i]),
                decibels(rms**2 / e.ac_power[channel]),
                float(table.raw["line"][row, i]),
                float(bounds["limit"][row, i]),
            )
            out.append(
                LatticeLine(
                    name,
                    (a / period, b / period),
                    period,
                    Replica(**{key: column[row][i] for key, column in replica.items()}),
                    line,
                    _excess(e.excess, channel, i, table.raw["excess"][row, i]),
                    _trace(e, channel, i, table.raw["trace"][row, i]),
                )
            )
    return out


def _replica_columns(a: Amplitude, pick: list[int], table: Table) -> dict[str, list]:
    low, high = interval(a.power[pick], a.variance[pick], a.c, a.df[pick])

    def each(values: Values) -> list[list[float | None]]:
        return [[decibels(float(v)) for v in row] for row in values]

    return {
        "gain": [[complex(v) for v in row] for row in a.value[pick]],
        "db": each(a.power[pick]),
        "low_db": each(low**2),
        "high_db": each(high**2),
        "p_value": table.raw["replica"].tolist(),
        "limit_db": each(table.limits["replica"][pick]),
        "covariance": [[tuple(map(tuple, m.tolist())) for m in row] for row in a.covariance[pick]],
    }


def _excess(r: LogRatio, channel: int, i: int, p_value: float) -> Excess:
    half = float(t_quantile(r.df[channel, 0]) * np.sqrt(r.variance[channel, i]))
    value = float(r.value[channel, i])
    return Excess(
        value * DB_PER_NEPER,
        (value - half) * DB_PER_NEPER,
        (value + half) * DB_PER_NEPER,
        float(p_value),
    )


def _trace(e: Estimates, channel: int, i: int, p_value: float) -> Trace:
    best = int(np.argmin([t.p_value[channel, i] for t in e.trace]))
    return Trace(float(abs(e.trace[best].value[channel, i])), TRACES[best], float(p_value))


def _rounding_floor(tables: list[Table]) -> float | None:
    """Level in dBc that rounding to whole grey levels (variance 1/12) leaves in a line of luma."""
    if not tables or not tables[0].channels:
        return None
    e = tables[0].estimates
    effective = e.line.df[0, 0] / e.line.c[0] + 1
    return decibels(e.white / 12 / effective / e.ac_power[0])
