"""From estimates to a `Measurement`: one family of tests, levels, limits, verdicts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .amplitude import Amplitude
from .difference import compare
from .estimates import MIN_CLUSTERS, Estimates, solve
from .lattice import CLASSES, minimum_size
from .level import Level, Part, level, severity
from .result import LOW_CONTRAST, Excess, Line, MeasuredLine, Measurement, Period, Replica, Trace
from .spectrum import radial_distance
from .statistics import (
    DB_PER_NEPER,
    SIGNIFICANT,
    TINY,
    Z_95,
    Z_POWER,
    Values,
    bounds,
    decibels,
    weighted_holm,
)
from .sums import State, flush

STATISTICS = ("replica", "line", "excess", "trace")
HIDDEN = "the images vary so much at its lines that they hide any pattern"
DEAD = "no part of any image varies enough: flat, clipped, or empty"


@dataclass
class Findings:
    """Estimates of one period, the p-values of its tests (C, L), and |θ|² of the limits (C, L).

    `weight` (C, 1) is the share of a line's test in the family, by plane. The limits are found with
    90 % power at that share of the level; they are infinite where no tile is alive.
    """

    estimates: Estimates
    weight: Values
    raw: dict[str, Values]
    adjusted: dict[str, Values]
    limits: dict[str, Values]


def conclude(state: State, reference: State | None = None) -> Measurement:
    """The measurement of a state, with its reference's and their difference where given."""
    measurement, found = _concluded(flush(state))
    if reference is None:
        return measurement
    other, theirs = _concluded(flush(reference))
    difference = None
    if found and theirs:
        estimates = ([f.estimates for f in each] for each in (found, theirs))
        difference = compare(*estimates, measurement.periods, other.periods)
        if measurement.pictures and other.pictures:
            profiles = measurement.pictures.profile(), other.pictures.profile()
            names = ("radial_db", "radial_low_db", "radial_high_db")
            radial = dict(zip(names, radial_distance(*profiles), strict=True))
            difference = dataclasses.replace(difference, **radial)
    return dataclasses.replace(measurement, reference=other, difference=difference)


def _concluded(state: State) -> tuple[Measurement, list[Findings]]:
    why = _undefined(state)
    found = [] if why else findings(state)
    periods = {p: Period(undefined=why or _too_small(p, state)) for p in state.periods}
    periods |= {f.estimates.period: _period(f) for f in found}
    channels = state.shape[0]
    names = ["0"] if channels == 1 else ["luma", *map(str, range(channels))]
    lines = [line for f in found for line in _lines(f, names)]
    blocks = state.by_block and state.by_block.clusters // max(state.summed, 1)
    several = len(state.sizes) > 1
    measurement = Measurement(
        images=state.images,
        size=state.plan.block if several else state.shape[1:],
        channels=channels,
        noise_floor=None if several or why else _rounding_floor(state),
        periods=periods,
        lines=tuple(line for line in lines if line.channel == names[0]),
        channel_lines=tuple(x for name in names[1:] for x in lines if x.channel == name),
        without_signal=state.flat,
        duplicates=state.summed - state.distinct,
        contrast=None if why else _contrast(state),
        blocks=blocks,
        sizes=state.sizes if several else (),
        pictures=state.pictures,
    )
    return measurement, found


def findings(state: State) -> list[Findings]:
    """Estimates of all periods, with p-values corrected as one family (§ 4).

    Weighted Holm: a quarter of the level for each statistic, equal parts for periods and for the
    lines within; luma takes half of a line's part, the channels share the other half.
    """
    found = []
    for e in solve(state):
        planes = len(e.contrast)
        share = np.full((planes, 1), 0.5 / max(planes - 1, 1))
        share[0] = 1.0 if planes == 1 else 0.5
        share /= len(STATISTICS) * len(state.plan.fits) * len(e.lines)
        raw = {name: getattr(e, name).p_value for name in STATISTICS}
        limits = {name: _limit(getattr(e, name), share) for name in ("replica", "line")}
        found.append(Findings(e, share, raw, {}, limits))
    every = [(f, name) for f in found for name in STATISTICS]
    joined = [f.raw[name].ravel() for f, name in every]
    weights = [np.broadcast_to(f.weight, f.raw[name].shape).ravel() for f, name in every]
    if every:
        corrected = weighted_holm(np.concatenate(joined), np.concatenate(weights))
        parts = np.split(corrected, np.cumsum([len(p) for p in joined])[:-1])
        for (f, name), part in zip(every, parts, strict=True):
            f.adjusted[name] = part.reshape(f.raw[name].shape)
    return found


def _limit(a: Amplitude, weight: Values) -> Values:
    """|θ|² (C, L) found with 90 % power at each line's share; ∞ where nothing is alive.

    A pattern adds to what the line reads without it. As far as placebos read more than twice what
    the spread over images explains, that is a fixed content that every such set holds: in the worst
    phase it cancels as much of the pattern. The rest is chance.
    """
    ratio = np.maximum(a.ratio()[0], 1)
    random, fixed = np.minimum(ratio, 2), np.maximum(1 - 2 / ratio, 0)
    content = np.sqrt(fixed) * np.minimum(np.sqrt(a.power), 2 * np.sqrt(a.noise))
    edge = np.sqrt(a.critical(SIGNIFICANT * weight))
    limit = (edge + content + Z_POWER * np.sqrt(random * a.variance / a.c)) ** 2
    return np.where(a.alive, limit, np.inf)


def _undefined(state: State) -> str | None:
    """Why nothing can be measured, or None."""
    if state.nonfinite:
        return f"{state.nonfinite} of {state.images} images hold NaN or infinity"
    signal = state.summed
    blocks = state.by_block.clusters / signal if state.by_block and signal else 1
    if not signal:
        return "every image is constant: there is no signal to measure"
    if signal * blocks < MIN_CLUSTERS:
        size = "×".join(map(str, state.shape[1:]))
        return (
            f"only {signal} image{'s' * (signal > 1)} with signal; it takes {MIN_CLUSTERS}, or one "
            f"that is larger than {size} and can be cut into blocks"
        )
    if state.distinct * blocks < MIN_CLUSTERS:
        return f"only {state.distinct} different images among {signal}"
    return None


def _too_small(period: int, state: State) -> str:
    side, (height, width) = minimum_size(period), state.block or state.shape[1:]
    what = "blocks" if state.block else "images"
    return f"period {period} needs {what} of at least {side}×{side}, these are {height}×{width}"


def _class_limits(f: Findings) -> dict[str, float | None]:
    """Limit in dBc of every class of lines of the first plane; None where it is 0 dBc or more."""
    e, out = f.estimates, {}
    power = np.maximum(f.limits["replica"][0] * e.spread[0], f.limits["line"][0]) * e.line.c
    for kind in CLASSES:
        own = [k for k, line in enumerate(e.lines) if line.kind == kind]
        if own:
            worst = float(power[own].max()) / max(e.contrast[0], TINY)
            out[kind] = decibels(worst) if worst < 1 else None
    return out


def _period(f: Findings) -> Period:
    """Level, limits and verdict of one period."""
    e, by_class = f.estimates, _class_limits(f)
    best = {name: float(p.min()) for name, p in f.adjusted.items()}
    p_value = min(best["replica"], best["line"])
    detected = p_value < SIGNIFICANT
    known = [v for v in by_class.values() if v is not None]
    if not e.line.alive.any() or not (detected or known):
        return Period(undefined=HIDDEN if e.line.alive.any() else DEAD)
    # Power is averaged over channels; luma is a signed sum of them.
    planes = [0] if len(e.contrast) == 1 else list(range(1, len(e.contrast)))
    found = _level(f, [k for k in planes if e.contrast[k] > 0] or [0])
    in_words = e.contrast[planes].mean() >= LOW_CONTRAST**2  # nothing is visible below
    dbc = decibels(found.total)
    return Period(
        level_dbc=dbc,
        level_low_dbc=decibels(found.low) if detected else None,
        level_upper_dbc=decibels(found.high),
        p_value=p_value,
        detected=detected,
        detection_limit_dbc=max(known) if len(known) == len(by_class) else None,
        best_limit_dbc=min(known, default=None),
        limits_dbc=by_class,
        severity=severity(dbc) if detected and dbc is not None and in_words else None,
        replica_dbc=decibels(found.replica),
        line_dbc=decibels(found.line),
        excess_db=float(e.excess.value[_clearest(f, "excess")]) * DB_PER_NEPER,
        excess_p_value=best["excess"],
        trace_depth=float(np.abs(e.trace.value[_clearest(f, "trace")])),
        trace_p_value=best["trace"],
        found=tuple(name for name, p in best.items() if p < SIGNIFICANT),
    )


def _clearest(f: Findings, name: str) -> tuple[int, int]:
    """Plane and line with the smallest p of a statistic."""
    p = f.raw[name] / f.weight
    return np.unravel_index(p.argmin(), p.shape)


def _level(f: Findings, planes: list[int]) -> Level:
    e, parts = f.estimates, []
    contrast, spread = e.contrast[planes, None], e.spread[planes, None]
    for name, weighted, even, share in (
        ("line", e.line, e.even_line, 1 / contrast),
        ("replica", e.replica, e.even_replica, spread / contrast),
    ):
        # Small images have no room for the even estimate's own placebos.
        own = even.ratio()[1] > 0
        noise = np.where(own, even.noise, even.variance * np.maximum(weighted.ratio()[0], 1))
        df = np.where(own, even.noise_df, np.minimum(even.df, weighted.noise_df))
        clearer = np.minimum(2 * np.minimum(f.raw[name], even.p_value), 1)  # Bonferroni
        values = (v[planes] for v in (even.power, noise, df))
        parts.append(Part(*values, c=even.c, share=share, p=clearer[planes]))
    return level(*parts)


def _lines(f: Findings, names: list[str]) -> list[MeasuredLine]:
    """All lines of one period as result values, plane by plane; planes without signal left out."""
    e, excess = f.estimates, _excess(f)
    replica, line = _amplitudes(f, "replica", 1.0), _amplitudes(f, "line", e.line.c)
    return [
        MeasuredLine(
            channel=name,
            frequency=each.frequency,
            period=e.period,
            kind=each.kind,
            alive=bool(e.line.alive[plane, k]),
            replica=_replica(*replica[plane][k]),
            line=_line(*line[plane][k], max(float(e.contrast[plane]), 1e-12)),
            excess=Excess(*excess[plane][k]),
            trace=Trace(float(abs(e.trace.value[plane, k])), float(f.raw["trace"][plane, k])),
        )
        for plane, name in enumerate(names)
        if not plane or e.line.alive[plane].any()
        for k, each in enumerate(e.lines)
    ]


def _amplitudes(f: Findings, name: str, scale) -> list[list[tuple]]:
    """By plane and line: value, power, its 95 % bounds and limit times `scale`, p, covariance."""
    a = getattr(f.estimates, name)
    powers = (a.power, *bounds(a.power, a.noise, a.c, a.noise_df), f.limits[name])
    columns = (a.value, *(scale * power for power in powers), f.raw[name])
    by_plane = zip(*(column.tolist() for column in columns), a.covariance.tolist(), strict=True)
    return [list(zip(*plane, strict=True)) for plane in by_plane]


def _replica(gain, power, low, high, limit, p, covariance) -> Replica:
    limit = decibels(limit) if math.isfinite(limit) else None
    ends = decibels(power), decibels(low), decibels(high)
    return Replica(gain, *ends, p, limit, tuple(map(tuple, covariance)))


def _line(amplitude, power, low, high, limit, p, covariance, contrast) -> Line:
    limit = math.sqrt(limit) if math.isfinite(limit) else None
    ends = (math.sqrt(v) for v in (power, low, high))
    dbc = decibels(power / contrast)
    return Line(amplitude, *ends, dbc, p, limit, tuple(map(tuple, covariance)))


def _excess(f: Findings) -> list[list[list[float]]]:
    """By plane and line: value and 95 % interval in dB, p."""
    e = f.estimates.excess
    half = Z_95 * np.sqrt(np.maximum(e.variance, e.spread))
    db = [np.clip(v * DB_PER_NEPER, -300, 300) for v in (e.value, e.value - half, e.value + half)]
    return np.stack([*db, f.raw["excess"]], -1).tolist()


def _contrast(state: State) -> float:
    """RMS deviation from an image's mean in gray levels, over channels."""
    variance = state.clusters.pixels[2] / state.clusters.clusters
    return math.sqrt(float(variance[0] if len(variance) == 1 else variance[1:].mean()))


def _rounding_floor(state: State) -> float | None:
    """Level in dBc that rounding to whole gray levels (variance 1/12) leaves in a line."""
    if not state.whole_levels:
        return None
    contrast = float(state.clusters.pixels[2, 0]) / state.clusters.clusters
    pixels = math.prod(state.shape[1:]) * state.summed
    return decibels(1 / 12 / pixels / contrast) if contrast > 0 else None
