"""Two sets against each other: the difference of every line, with its own p-value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.analysis.measure.estimate import Amplitude, Estimates, LogRatio
from gen.analysis.measure.results import Difference, LineDifference, Period, PeriodDifference
from gen.analysis.measure.spectrum import radial_distance
from gen.analysis.measure.statistics import DB_PER_NEPER, f_test, holm, welch_df

Values = NDArray[np.float64]


def compare(
    mine: list[Estimates],
    theirs: list[Estimates],
    periods: dict[int, Period],
    others: dict[int, Period],
) -> Difference:
    """Test luma (or the only channel) at every line for a difference, as one Holm family."""
    lines, raw = [], []
    for a, b in zip(mine, theirs, strict=True):
        p = {
            "replica": _two_sample(a.replica, b.replica),
            "line": _two_sample(a.line, b.line),
        }
        excess, p["excess"] = _excess_difference(a.excess, b.excess)
        for i, (period, row, column) in enumerate(a.lines):
            raw.append((period, [float(p[name][i]) for name in ("replica", "line", "excess")]))
            lines.append(
                LineDifference(
                    (row / period, column / period),
                    period,
                    complex(a.replica.value[0, i] - b.replica.value[0, i]),
                    raw[-1][1][0],
                    complex(a.line.value[0, i] - b.line.value[0, i]),
                    raw[-1][1][1],
                    float(excess[i]) * DB_PER_NEPER,
                    raw[-1][1][2],
                )
            )
    adjusted = holm(np.ravel([p for _, p in raw])).reshape(-1, 3) if raw else np.zeros((0, 3))
    result = {}
    for period in periods:
        rows = [k for k, (own, _) in enumerate(raw) if own == period]
        if rows:
            level, other = periods[period].level_dbc, others[period].level_dbc
            change = None if level is None or other is None else level - other
            in_reference = bool(others[period].found)
            result[period] = PeriodDifference(change, float(adjusted[rows].min()), in_reference)
    distance: tuple = (None, None, None)
    if mine:
        distance = radial_distance(mine[0].radial, theirs[0].radial)
    return Difference(result, tuple(lines), *distance)


def _two_sample(a: Amplitude, b: Amplitude) -> Values:
    """p of a difference of two amplitudes of luma, the larger of both tests."""
    power = np.abs(a.value[0] - b.value[0]) ** 2
    df = welch_df(a.variance[0], a.test_df[0], b.variance[0], b.test_df[0])
    sandwich = f_test(power, a.variance[0] + b.variance[0], a.c, df)
    around = f_test(power, a.around[0] + b.around[0], a.c, np.maximum(a.around_df, 1e-3))
    return np.where(a.around_df > 0, np.maximum(sandwich, around), sandwich)


def _excess_difference(a: LogRatio, b: LogRatio) -> tuple[Values, Values]:
    value, variance = a.value[0] - b.value[0], a.variance[0] + b.variance[0]
    df = welch_df(a.variance[0], a.df[0], b.variance[0], b.df[0])
    return value, f_test(value**2, variance, 1, df)
