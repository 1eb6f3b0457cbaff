"""Two sets against each other: the difference of every line, with placebos of its own."""

from __future__ import annotations

import numpy as np

from .estimates import Estimates
from .result import Difference, LineDifference, Period, PeriodDifference
from .statistics import DB_PER_NEPER, weighted_holm


def compare(
    mine: list[Estimates],
    theirs: list[Estimates],
    periods: dict[int, Period],
    others: dict[int, Period],
) -> Difference:
    """Test the first plane at every line for a difference of line, replica and excess.

    A difference has the variance of both sets, and as placebos the differences of their placebos: a
    picture that both sets share cancels there as it does at the line. One family by weighted Holm,
    periods and statistics alike. Periods that either set leaves undefined are not compared.
    """
    lines, p_values, weights = [], [np.zeros((0, 3))], [np.zeros((0, 3))]
    for e, f in zip(mine, theirs, strict=True):
        if periods[e.period].undefined or others[e.period].undefined:
            continue
        replica, line = e.replica.minus(f.replica), e.line.minus(f.line)
        excess = e.weighted_excess.minus(f.weighted_excess)
        p = np.stack([replica.p_value[0], line.p_value[0], excess.two_sided[0]], -1)
        p_values.append(p)
        weights.append(np.full(p.shape, 1 / len(p)))
        lines += [
            LineDifference(
                frequency=own.frequency,
                period=own.period,
                gain=complex(replica.value[0, k]),
                replica_p_value=float(p[k, 0]),
                amplitude=complex(line.value[0, k]),
                line_p_value=float(p[k, 1]),
                excess_db=float(excess.value[0, k]) * DB_PER_NEPER,
                excess_p_value=float(p[k, 2]),
            )
            for k, own in enumerate(e.lines)
        ]
    adjusted = weighted_holm(np.concatenate(p_values).ravel(), np.concatenate(weights).ravel())
    smallest, result = adjusted.reshape(-1, 3).min(-1), {}
    for period in dict.fromkeys(line.period for line in lines):
        own = [p for p, line in zip(smallest, lines, strict=True) if line.period == period]
        level, other = periods[period].level_dbc, others[period].level_dbc
        change = None if level is None or other is None else level - other
        result[period] = PeriodDifference(change, float(min(own)), bool(others[period].found))
    return Difference(result, tuple(lines))
