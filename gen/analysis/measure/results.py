"""What a measurement found: frozen values that print as a table and go to JSON and back.

Levels are in dBc: decibels relative to the mean spatial variance of an image, the "carrier". A
value that has no finite number (a level whose debiased power is negative, a lower bound that
reaches zero) is `None`, `null` in JSON. p-values of lines are raw; those of periods are
Holm-corrected over the whole report. docs/measurement.md documents every key.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from gen.analysis.measure.errors import MeasurementError

SCHEMA = 1
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Replica:
    """Gain of the copy of the image's own baseband that stands at the line's frequency.

    `db` is 20·log10|gain|; `low_db` and `high_db` bound it at 95 %, `limit_db` is the gain that
    would be found with 90 % power. `covariance` is that of (Re gain, Im gain): [[rr, ri], [ri,
    ii]].
    """

    gain: complex
    db: float | None
    low_db: float | None
    high_db: float | None
    p_value: float
    limit_db: float | None
    covariance: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Fixed grid at mean brightness: coherent mean of one Fourier bin over images.

    `amplitude` is the complex coefficient in grey levels, `grey_levels` the RMS amplitude of the
    real pattern with its 95 % interval, `dbc` its level; `limit_grey_levels` would be found with
    90 % power.
    """

    amplitude: complex
    grey_levels: float
    low_grey_levels: float
    high_grey_levels: float
    dbc: float | None
    p_value: float
    limit_grey_levels: float


@dataclass(frozen=True)
class Excess:
    """Incoherent power at the line over its surroundings in dB, with a 95 % interval."""

    db: float | None
    low: float | None
    high: float | None
    p_value: float


@dataclass(frozen=True)
class Trace:
    """Modulation depth (0 … 1) of the local variation |∂x|, |∂y| or |∂x∂y| (`of`: the clearest)."""

    depth: float
    of: str
    p_value: float


@dataclass(frozen=True)
class LatticeLine:
    """All four statistics at one lattice frequency of one channel ("luma", "0", "1", …)."""

    channel: str
    frequency: tuple[float, float]
    period: int
    replica: Replica
    line: Line
    excess: Excess
    trace: Trace


@dataclass(frozen=True)
class Period:
    """One exact period: level in dBc over all its lines, averaged over channels, and the verdict.

    `detected` speaks of replica and line, the two that make up the level; `found` names every
    statistic whose Holm-corrected p is below 0.05. `detection_limit_dbc` is the level at which even
    the least sensitive line of this period would be found with 90 % power.
    """

    level_dbc: float | None = None
    level_upper_dbc: float | None = None
    p_value: float | None = None
    detected: bool = False
    detection_limit_dbc: float | None = None
    replica_dbc: float | None = None
    line_dbc: float | None = None
    excess_db: float | None = None
    excess_p_value: float | None = None
    trace_depth: float | None = None
    trace_p_value: float | None = None
    found: tuple[str, ...] = ()
    undefined: str | None = None


@dataclass(frozen=True)
class LineDifference:
    """Measured minus reference at one line of luma, with two-sample p-values (raw)."""

    frequency: tuple[float, float]
    period: int
    gain: complex
    replica_p_value: float
    amplitude: complex
    line_p_value: float
    excess_db: float | None
    excess_p_value: float


@dataclass(frozen=True)
class PeriodDifference:
    """Change of a period's level against the reference.

    `p_value` is Holm-corrected over all lines and statistics of the comparison; `in_reference` says
    that the reference itself carries the period (JPEG: 8, demosaicing: 2).
    """

    level_db: float | None
    p_value: float
    in_reference: bool


@dataclass(frozen=True)
class Difference:
    """Two-sample comparison with the reference.

    `radial_db` is the RMS distance of the radial spectra in dB. The lattice's bins are left out of
    them, so that grid and tail stay separate findings.
    """

    periods: dict[int, PeriodDifference]
    lines: tuple[LineDifference, ...]
    radial_db: float | None
    radial_low_db: float | None
    radial_high_db: float | None


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`: verdict, level and limit per period, four statistics per line.

    `lines` holds luma, `channel_lines` the same lines of each channel (empty when there is only
    one). `noise_floor` is the level in dBc that 8-bit rounding alone leaves in one line, `None` for
    floats.
    """

    images: int
    size: tuple[int, int]
    channels: int
    noise_floor: float | None
    periods: dict[int, Period]
    lines: tuple[LatticeLine, ...]
    channel_lines: tuple[LatticeLine, ...] = ()
    without_signal: int = 0
    duplicates: int = 0
    tile: tuple[int, int] | None = None
    reference: Measurement | None = None
    difference: Difference | None = None
    arrays: Any = field(default=None, compare=False, repr=False)

    @property
    def detected(self) -> bool:
        """Whether any period was detected."""
        return any(period.detected for period in self.periods.values())

    def verdict(self, period: int) -> str:
        """Say in one plain sentence what was found at `period`."""
        return _verdict(period, self.periods[period], self.difference)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON (schema 1); bulky arrays stay behind."""
        keys = {"arrays": None, "difference": None, "reference": None}
        plain = {"schema": SCHEMA} | {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in keys
        }
        plain["reference"] = None if self.reference is None else self.reference.to_dict()
        plain["difference"] = _plain(self.difference)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Measurement:
        """Rebuild a measurement from `to_dict`; raises ValueError for another schema."""
        if plain.get("schema") != SCHEMA:
            raise MeasurementError(
                f"measurement has schema {plain.get('schema')!r}; this version reads {SCHEMA}"
            )
        values = dict(plain)
        del values["schema"]
        try:
            if values["reference"] is not None:
                values["reference"] = cls.from_dict(values["reference"])
            return _build(cls, values)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise MeasurementError(f"not a measurement of schema {SCHEMA}: {error}") from None

    def __str__(self) -> str:
        height, width = self.size
        head = f"{self.images} images of {height}×{width}, {self.channels} channel(s)"
        if self.tile:
            head += f", cut into tiles of {self.tile[0]}×{self.tile[1]}"
        if self.without_signal:
            head += f"; {self.without_signal} without signal (flat) left out"
        if self.duplicates:
            head += f"; {self.duplicates} duplicates"
        rows = [head]
        if self.noise_floor is not None:
            rows.append(f"8-bit rounding alone leaves {self.noise_floor:.1f} dBc in one line")
        rows.append(
            f"{'period':>6} {'level dBc':>10} {'upper':>8} {'limit':>8} {'replica':>8} {'line':>8}"
            f" {'excess dB':>9} {'trace':>7} {'p':>9}  verdict"
        )
        rows += [_row(number, period) for number, period in self.periods.items()]
        rows += [self.verdict(number) for number in self.periods]
        return "\n".join(rows)


def _row(number: int, period: Period) -> str:
    if period.undefined:
        return f"{number:>6} undefined: {period.undefined}"
    level = "none" if period.level_dbc is None else f"{period.level_dbc:.1f}"
    return (
        f"{number:>6} {level:>10} {_db(period.level_upper_dbc):>8}"
        f" {_db(period.detection_limit_dbc):>8} {_db(period.replica_dbc):>8}"
        f" {_db(period.line_dbc):>8} {_db(period.excess_db):>9} {period.trace_depth:>7.4f}"
        f" {period.p_value:>9.2g}  {'DETECTED' if period.detected else 'not detected'}"
    )


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _verdict(number: int, period: Period, difference: Difference | None) -> str:
    name = f"Period {number}"
    if period.undefined:
        return f"{name}: undefined: {period.undefined}."
    others = [name for name in period.found if name in ("excess", "trace")]
    aside = f"; {' and '.join(others)} at this period found as well" if others else ""
    if not period.detected:
        aside = f"; but {' and '.join(others)} found at this period" if others else ""
        return f"{name}: not detected, below {_db(period.detection_limit_dbc)} dBc{aside}."
    level = (
        f"at {period.level_dbc:.1f} dBc"
        if period.level_dbc is not None
        else f"below {_db(period.level_upper_dbc)} dBc"
    )
    if difference and difference.periods[number].in_reference:
        p = difference.periods[number].p_value
        same = "differs from" if p < SIGNIFICANT else "is not told apart from"
        aside += f"; the reference carries this period too, and the level {same} it (p = {p:.2g})"
    return f"{name}: detected {level} (p = {period.p_value:.2g}){aside}."


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, complex):
        return [_plain(value.real), _plain(value.imag)]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise MeasurementError(f"a result is {value}: a measurement holds finite numbers or null")
    return value


def _build(cls: type, values: dict[str, Any]) -> Any:
    """Fill a dataclass from plain values of its fields' types; keys it does not know are ignored.

    Raises:
        TypeError, KeyError, AttributeError, ValueError: a value of another type, or none.
    """
    names = {f.name for f in dataclasses.fields(cls)} - {"arrays"}
    given = {k: _rebuild(k, v) for k, v in values.items() if k in names}
    hints = get_type_hints(cls)
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise TypeError(f"{name} is {reprlib.repr(value)}")
    return cls(**given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that annotates its field; whole numbers pass for floats."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return any(_fits(value, part) for part in parts)
    if kind in (int, float):
        return type(value) in {int, kind} and not abs(value) > 2**1023
    if not isinstance(value, kind):
        return False
    if kind is dict:
        return all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if kind is tuple:
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    return True


_NESTED = {"replica": Replica, "line": Line, "excess": Excess, "trace": Trace}
_COMPLEX = {"gain", "amplitude"}
_TUPLES = {"size", "tile", "frequency", "found"}


def _rebuild(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in _NESTED:
        return _build(_NESTED[key], value)
    if key in _COMPLEX:
        return complex(*value)
    if key in _TUPLES:
        return tuple(value)
    if key == "covariance":
        return tuple(tuple(row) for row in value)
    if key == "difference":
        return _build(Difference, value)
    if key == "periods":
        kind = Period if value and "undefined" in next(iter(value.values())) else PeriodDifference
        return {int(number): _build(kind, item) for number, item in value.items()}
    if key in ("lines", "channel_lines"):
        return tuple(_build(LatticeLine if "replica" in v else LineDifference, v) for v in value)
    return value
