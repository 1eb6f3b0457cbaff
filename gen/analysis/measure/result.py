"""What a measurement found: frozen values that print as a table and go to JSON and back.

Levels are in dBc: decibels relative to the mean spatial variance of an image, the "carrier". A
value that has no finite number (a level of no power, a lower bound that reaches zero) is `None`,
`null` in JSON. p-values of lines are raw; those of periods are corrected over the whole report.
`schema.json` in this folder is the JSON Schema of schema 2.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from .errors import MeasurementError
from .statistics import SIGNIFICANT

SCHEMA = 2
LOW_CONTRAST = 8.0  # gray levels; photographs have 30 to 70
Covariance = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Replica:
    """Gain of the copy of the image's own baseband at the line's frequency, eq. (4).

    `db` is 20·log10|gain| with its 95 % interval; `limit_db` is the gain that is found with 90 %
    power (None where no tile carries signal). `covariance` is that of (Re, Im).
    """

    gain: complex
    db: float | None
    low_db: float | None
    high_db: float | None
    p_value: float
    limit_db: float | None
    covariance: Covariance


@dataclass(frozen=True)
class Line:
    """Fixed pattern at mean brightness: the weighted mean of the tiles' coefficients, eq. (4).

    `amplitude` is the complex coefficient in gray levels, `gray_levels` the RMS amplitude of the
    real pattern with its 95 % interval, `dbc` its level; the limit is found with 90 % power.
    """

    amplitude: complex
    gray_levels: float
    low_gray_levels: float
    high_gray_levels: float
    dbc: float | None
    p_value: float
    limit_gray_levels: float | None
    covariance: Covariance = ((0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class Excess:
    """Incoherent power at the line over its surroundings in dB, with a 95 % interval."""

    db: float | None
    low: float | None
    high: float | None
    p_value: float


@dataclass(frozen=True)
class Trace:
    """Modulation depth (0 … 1) of the local variation of the pixels."""

    depth: float
    p_value: float


@dataclass(frozen=True)
class MeasuredLine:
    """All four statistics at one lattice line of one channel ("luma", "0", "1", …).

    `kind` is "corner", "interior" or "axis". Where no tile is `alive` the numbers mean nothing.
    """

    channel: str
    frequency: tuple[float, float]
    period: int
    replica: Replica
    line: Line
    excess: Excess
    trace: Trace
    kind: str = ""
    alive: bool = True


@dataclass(frozen=True)
class Period:
    """One exact period: level in dBc over all its lines, averaged over channels, and the verdict.

    `level_low_dbc` and `level_upper_dbc` are the level's 95 % interval, with all that could hide in
    any line. `p_value` is the smallest corrected p of replica and line; below 0.05 the period is
    `detected`, and `severity` is its level in words, unless the images have hardly any contrast.
    `limits_dbc` holds the level that is found with 90 % power at each class of lines ("corner",
    "interior", "axis"; None for 0 dBc and more), `detection_limit_dbc` the least and
    `best_limit_dbc` the most sensitive of them. `excess_db` and `trace_depth` are those of the line
    and channel with the smallest p. `found` names the statistics with a corrected p below 0.05;
    `undefined` says why nothing was measured.
    """

    level_dbc: float | None = None
    level_low_dbc: float | None = None
    level_upper_dbc: float | None = None
    p_value: float | None = None
    detected: bool = False
    detection_limit_dbc: float | None = None
    best_limit_dbc: float | None = None
    limits_dbc: dict[str, float | None] = field(default_factory=dict)
    severity: str | None = None
    replica_dbc: float | None = None
    line_dbc: float | None = None
    excess_db: float | None = None
    excess_p_value: float | None = None
    trace_depth: float | None = None
    trace_p_value: float | None = None
    found: tuple[str, ...] = ()
    undefined: str | None = None

    @property
    def reading_dbc(self) -> float | None:
        """The level, or the upper end of its interval where there is no level."""
        return self.level_upper_dbc if self.level_dbc is None else self.level_dbc

    @property
    def bound_dbc(self) -> float | None:
        """The reading where the period is detected, else the upper end of its interval."""
        return self.reading_dbc if self.detected else self.level_upper_dbc

    def below(self, dbc: float) -> bool:
        """Whether the measurement proves a level below `dbc`: upper bound and limit both are."""
        proof = (self.level_upper_dbc, self.detection_limit_dbc)
        return not self.undefined and all(value is not None and value < dbc for value in proof)


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
    """Change of a period's level, with a p-value corrected over the comparison.

    `in_reference`: the reference itself carries the period (JPEG: 8, demosaicing: 2).
    """

    level_db: float | None
    p_value: float
    in_reference: bool


@dataclass(frozen=True)
class Difference:
    """Two-sample comparison with the reference.

    `radial_db` is the RMS distance of the radial spectra in dB without the bins around lattice
    lines, with its 95 % interval; None where no spectra were kept.
    """

    periods: dict[int, PeriodDifference]
    lines: tuple[LineDifference, ...]
    radial_db: float | None = None
    radial_low_db: float | None = None
    radial_high_db: float | None = None


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`: verdict, level and limit per period, four statistics per line.

    `lines` holds luma, `channel_lines` the same lines of each channel (empty when there is only
    one). `noise_floor` is the level in dBc that 8-bit rounding alone leaves in one line, `None` for
    floats. `blocks` counts the blocks of an image where these, not images, are the clusters.
    `contrast` is the RMS deviation of pixels from their image's mean in gray levels, over channels:
    0 dBc. It is None where nothing was measured.
    Images of several sizes are measured in blocks: `size` is that of the blocks, and `sizes` holds
    height, width and number of the images of each size. It is empty where all have one size.
    """

    images: int
    size: tuple[int, int]
    channels: int
    noise_floor: float | None
    periods: dict[int, Period]
    lines: tuple[MeasuredLine, ...]
    channel_lines: tuple[MeasuredLine, ...] = ()
    without_signal: int = 0
    duplicates: int = 0
    blocks: int | None = None
    contrast: float | None = None
    sizes: tuple[tuple[int, int, int], ...] = ()
    reference: Measurement | None = None
    difference: Difference | None = None
    schema: int = SCHEMA
    pictures: Any = field(default=None, compare=False, repr=False)

    @property
    def detected(self) -> bool:
        """Whether any period was detected."""
        return any(period.detected for period in self.periods.values())

    def below(self, dbc: float) -> bool:
        """Whether every period is proven to be below `dbc`; False where one is undefined."""
        return all(period.below(dbc) for period in self.periods.values())

    @property
    def low_contrast(self) -> bool:
        """Whether the images vary so little that levels relative to it mislead."""
        return self.contrast is not None and self.contrast < LOW_CONTRAST

    def plot(self) -> Any:
        """A matplotlib Figure: levels, the strongest pattern, and the spectrum where kept."""
        return _report().plot(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _report().to_html(self)

    def __repr__(self) -> str:
        periods = "; ".join(f"period {n}: {_short(p)}" for n, p in self.periods.items())
        size = "×".join(map(str, self.size))
        return f"<Measurement of {self.images} images of {size}; {periods}>"

    def verdict(self, period: int) -> str:
        """Say in one plain sentence what was found at `period`."""
        return f"Period {period}: {_verdict(period, self.periods[period], self.difference)}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the pictures are left out."""
        return _plain(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Measurement:
        """Rebuild a measurement from `to_dict`, also of schema 1, whose values stay as they are.

        Raises:
            MeasurementError: The values are not a measurement, or of a later schema.
        """
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if schema not in (1, SCHEMA):
            raise MeasurementError(f"measurement has schema {schema!r}; supported are 1, {SCHEMA}")
        try:
            return _build(_renamed(plain) if schema == 1 else plain, cls)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise MeasurementError(f"not a measurement of schema {schema}: {error}") from None

    def __str__(self) -> str:
        size = "{}×{}".format(*self.size)
        of = f"{len(self.sizes)} sizes" if self.sizes else size
        rows = [f"{self.images} images of {of}, {self.channels} channel(s)"]
        if self.sizes:
            rows[0] += f", in blocks of {size}"
        else:
            rows[0] += f", each cut into {self.blocks} blocks" if self.blocks else ""
        rows[0] += f"; {self.without_signal} without signal (flat)" if self.without_signal else ""
        rows[0] += f"; {self.duplicates} duplicates" if self.duplicates else ""
        if self.schema == 1:
            rows.append("From version 0.1 (schema 1): levels and limits are of the first method")
        if self.noise_floor is not None:
            rows.append(f"8-bit rounding alone leaves {self.noise_floor:.1f} dBc in one line")
        if self.low_contrast:
            rows.append(f"Hardly any contrast ({self.contrast:.1f} gray levels): levels read high")
        rows.append(
            f"{'period':>6} {'level dBc':>10} {'95 %':>16} {'limit':>8} {'best':>8}"
            f" {'excess dB':>9} {'trace':>7} {'p':>9}  verdict"
        )
        rows += [_row(number, period) for number, period in self.periods.items()]
        return "\n".join([*rows, *map(self.verdict, self.periods)])


def _report() -> ModuleType:
    """What draws measurements: the one part that needs matplotlib, found when it is first used."""
    return import_module("..report.notebook", __package__)


def _short(period: Period) -> str:
    if period.undefined:
        return "undefined"
    if period.detected:
        return f"{_db(period.level_dbc)} dBc, detected"
    return f"not detected, limit {_db(period.detection_limit_dbc)} dBc"


def _row(number: int, period: Period) -> str:
    if period.undefined:
        return f"{number:>6} undefined: {period.undefined}"
    low = "" if period.level_low_dbc is None else f"{period.level_low_dbc:.1f}"
    between = f"{low} … {_db(period.level_upper_dbc)}"
    return (
        f"{number:>6} {_db(period.level_dbc, 'none'):>10} {between:>16}"
        f" {_db(period.detection_limit_dbc):>8} {_db(period.best_limit_dbc):>8}"
        f" {_db(period.excess_db):>9} {period.trace_depth:>7.4f}"
        f" {period.p_value:>9.2g}  {'DETECTED' if period.detected else 'not detected'}"
    )


def _db(value: float | None, none: str = "-") -> str:
    return none if value is None else f"{value:.1f}"


def _verdict(number: int, period: Period, difference: Difference | None) -> str:
    if period.undefined:
        return f"undefined: {period.undefined}"
    others = [name for name in period.found if name in ("excess", "trace")]
    aside = f"; {' and '.join(others)} found at this period" if others else ""
    if not period.detected:
        return f"not detected, {_limit_words(period)}{aside}"
    level = f"below {_db(period.level_upper_dbc)} dBc"
    if period.level_dbc is not None:
        words = f", {period.severity}" if period.severity else ""
        level = f"at {period.level_dbc:.1f} dBc{words}"
    change = difference.periods.get(number) if difference else None
    if change and change.in_reference:
        same = "differs from it" if change.p_value < SIGNIFICANT else "does not differ measurably"
        aside += "; the reference carries this period too, and the set "
        aside += f"{same} (p = {change.p_value:.2g})"
    return f"detected {level} (p = {period.p_value:.2g}){aside}"


def _limit_words(period: Period) -> str:
    """From which level on a pattern is found, by class of lines."""
    limits = {kind: v for kind, v in period.limits_dbc.items() if v is not None}
    if not limits:
        return f"below {_db(period.detection_limit_dbc)} dBc"
    text = ", ".join(f"{v:.1f} dBc ({kind})" for kind, v in limits.items())
    blind = [kind for kind, v in period.limits_dbc.items() if v is None]
    return f"limits {text}" + (f"; {' and '.join(blind)} lines cannot be judged" if blind else "")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name != "pictures"]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _build(value: Any, hint: Any) -> Any:
    """Rebuild a value of an annotated type from plain values; unknown keys are ignored."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return None if value is None else _build(value, parts[0])
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name != "pictures"]
        return kind(**{name: _build(value[name], hints[name]) for name in names if name in value})
    if kind is complex:
        return complex(*(_build(part, float) for part in value))
    if kind is dict:
        return {parts[0](k): _build(v, parts[1]) for k, v in value.items()}
    if kind is tuple and isinstance(value, (list, tuple)):
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_build(v, k) for v, k in zip(value, kinds, strict=True))
    fits = type(value) in ({int, float} if kind is float else {kind})
    if not fits or (kind in (int, float) and not abs(value) < (2**63 if kind is int else math.inf)):
        raise TypeError(f"{reprlib.repr(value)} is no {kind.__name__}")
    return value


def _renamed(plain: Any) -> Any:
    """Values of schema 1 under the names of schema 2."""
    if isinstance(plain, dict):
        return {key.replace("grey_levels", "gray_levels"): _renamed(v) for key, v in plain.items()}
    return [_renamed(v) for v in plain] if isinstance(plain, list) else plain
