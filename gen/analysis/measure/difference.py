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
    lines, p_values, weights = [], [], []
    for e, f in zip(mine, theirs, strict=True):
        if periods[e.period].undefined or others[e.period].undefined:
            continue
        parts = [e.replica.minus(f.replica), e.line.minus(f.line), e.excess.minus(f.excess)]
        tests = (parts[0].p_value, parts[1].p_value, parts[2].two_sided)
        p = np.stack([values[0] for values in tests], -1)
        replica, line, excess = (part.value[0] for part in parts)
        p_values.append(p)
        weights.append(np.full(p.shape, 1 / len(p)))
        lines += [
            LineDifference(
                frequency=own.frequency,
                period=own.period,
                gain=complex(replica[k]),
                replica_p_value=float(p[k, 0]),
                amplitude=complex(line[k]),
                line_p_value=float(p[k, 1]),
                excess_db=float(excess[k]) * DB_PER_NEPER,
                excess_p_value=float(p[k, 2]),
            )
            for k, own in enumerate(e.lines)
        ]
    if not lines:
        return Difference({}, ())
    adjusted = weighted_holm(np.concatenate(p_values).ravel(), np.concatenate(weights).ravel())
    adjusted = adjusted.reshape(-1, 3)
    result = {}
    for period in dict.fromkeys(line.period for line in lines):
        rows = [k for k, line in enumerate(lines) if line.period == period]
        level, other = periods[period].level_dbc, others[period].level_dbc
        result[period] = PeriodDifference(
            level_db=None if level is None or other is None else level - other,
            p_value=float(adjusted[rows].min()),
            in_reference=bool(others[period].found),
        )
    return Difference(result, tuple(lines))
