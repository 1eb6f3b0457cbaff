"""The pictures of a report: each takes a measurement and gives one PNG, readable on a phone.

Colors are those of Okabe & Ito (2008), which color-blind eyes distinguish too; maps use viridis and
cividis. What was measured is blue, the reference gray.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gen.analysis.measure.lattice import lattice_lines
from gen.system.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gen.analysis.measure.result import Measurement

Values = NDArray[np.float64]
BLUE, VERMILION, GREEN, GRAY, INK = "#0072B2", "#D55E00", "#009E73", "#9AA0A6", "#202124"
PERIOD_COLORS = ("#E69F00", "#CC79A7", "#56B4E9", "#F0E442")
SET_COLORS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", INK)
KEY = {"color": INK, "ms": 9, "mew": 1.6}  # signs of the key
DPI = 200
STYLE = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.add_subplot()


def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def defined_periods(measurement: Measurement) -> list[int]:
    """Periods that were measured."""
    return [n for n, period in measurement.periods.items() if not period.undefined]


def draw_levels(measurement: Measurement, dpi: int = DPI) -> bytes:
    """Level of each period in dBc with its 95 % interval and detection limit; reference in gray."""
    figure, axes = _figure(4.6, 1.25 + 0.55 * len(defined_periods(measurement)))
    plot_levels(axes, measurement)
    return to_png(figure, dpi)


def plot_levels(axes: Axes, measurement: Measurement) -> None:
    """`draw_levels` on axes that exist."""
    defined = defined_periods(measurement)
    sets = [(measurement, 0.0, None)]
    if measurement.reference:
        sets = [(measurement, 0.16, None), (measurement.reference, -0.16, GRAY)]
    lows, highs = [], []
    for shown, shift, color in sets:
        for row, number in enumerate(defined):
            period = shown.periods[number]
            if period.undefined:
                continue
            own = color or (VERMILION if period.detected else BLUE)
            low, level, high = period.level_low_dbc, period.level_dbc, period.level_upper_dbc
            limit = period.detection_limit_dbc
            y = len(defined) - 1 - row + shift
            lows += [v for v in (low, level, high, limit) if v is not None]
            highs += [v for v in (level, high, limit) if v is not None]
            if high is not None:
                axes.plot([-400 if low is None else low, high], [y, y], color=own, lw=2.4)
            if low is None:  # the interval has no lower end
                at_edge = {"transform": axes.get_yaxis_transform(), "clip_on": False}
                axes.plot(0, y, "<", color=own, ms=6, **at_edge)
            if level is not None:
                axes.plot(level, y, "o", color=own, ms=7)
            if limit is not None:
                axes.plot([limit, limit], [y - 0.2, y + 0.2], color=own, lw=1.6)
    if lows:
        axes.set_xlim(math.floor(min(lows) / 5) * 5 - 5, math.ceil(max(highs) / 5) * 5 + 5)
    axes.set_ylim(-0.6, len(defined) - 0.4)
    axes.set_yticks(range(len(defined)), [f"period {n}" for n in reversed(defined)])
    axes.set_xlabel("level (dBc)")
    axes.grid(axis="x", color="#E8EAED")
    axes.tick_params(axis="y", length=0, pad=9)
    signs = [
        axes.plot([], [], **KEY | {"marker": marker, "lw": width, "label": label})[0]
        for marker, width, label in (
            ("o", 0, "level"),
            ("", 2.4, "95 %"),
            ("|", 0, "limit: found 9 in 10 times"),
        )
    ]
    axes.legend(
        handles=signs, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1), columnspacing=1.4
    )


def spectrum_range(measurement: Measurement) -> tuple[float, float]:
    """Color limits in dB that measured and reference spectra share: 0.5 to 99.8 % of the bins."""
    shown = [m for m in (measurement, measurement.reference) if m is not None and m.pictures]
    values = np.concatenate([_spectrum_db(m).ravel() for m in shown])
    low, high = np.quantile(values, (0.005, 0.998))
    return float(low), float(max(high, low + 1))


def _spectrum_db(measurement: Measurement) -> Values:
    return 10 * np.log10(np.maximum(measurement.pictures.spectrum()[0], 1e-20))


def draw_spectrum(measurement: Measurement, limits: tuple[float, float]) -> bytes:
    """Mean power spectrum of luma in dB over (fx, fy) in cycles per pixel, the lattice circled."""
    figure, axes = _figure(4.6, 3.9)
    plot_spectrum(axes, measurement, limits)
    return to_png(figure)


def plot_spectrum(axes: Axes, measurement: Measurement, limits: tuple[float, float]) -> None:
    """`draw_spectrum` on axes that exist."""
    # Period continuation puts ±1/2 on both borders, so lines on the border are drawn whole.
    decibels = _spectrum_db(measurement)
    height, width = decibels.shape
    decibels[height // 2, width // 2] = np.nan  # the mean was removed
    decibels = np.pad(decibels, ((0, 1), (0, 1)), mode="wrap")
    fy, fx = (np.arange(n + 1) - n // 2 for n in (height, width))
    edges = [(f[0] - 0.5) / n for f, n in ((fx, width), (fy, height))]
    extent = (edges[0], (fx[-1] + 0.5) / width, (fy[-1] + 0.5) / height, edges[1])
    image = axes.imshow(
        decibels, cmap="viridis", vmin=limits[0], vmax=limits[1], extent=extent,
        interpolation="nearest", aspect="equal",
    )  # fmt: skip
    defined = defined_periods(measurement)
    for number, color in zip(defined, PERIOD_COLORS * len(defined), strict=False):
        places = {
            (sx * b / number, sy * a / number)
            for _, a, b in lattice_lines(number)
            for sy, sx in _copies(a, b, number)
        }
        x, y = zip(*sorted(places), strict=True)
        size = 110 if number <= 4 else 55
        axes.scatter(
            x, y, size, facecolors="none", edgecolors=color, linewidths=1.6,
            clip_on=False, zorder=3, label=f"period {number}",
        )  # fmt: skip
    axes.spines[:].set_visible(False)
    ticks = (-0.5, -0.25, 0, 0.25, 0.5)
    axes.set_xticks(ticks, ["−½", "−¼", "0", "¼", "½"])
    axes.set_yticks(ticks, ["−½", "−¼", "0", "¼", "½"])
    axes.set_xlabel("horizontal frequency (cycles/pixel)")
    axes.set_ylabel("vertical frequency (cycles/pixel)")
    if defined:
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=len(defined), handletextpad=0.2
        )
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75, pad=0.03)
    bar.set_label("mean power (dB re 1 gray level²)")
    bar.outline.set_visible(False)


def _copies(a: int, b: int, period: int) -> list[tuple[int, int]]:
    """Signs (sy, sx) under which a line is drawn: itself and its conjugate, on both borders."""
    rows = (1, -1) if 2 * abs(a) == period else (1,)
    columns = (1, -1) if 2 * abs(b) == period else (1,)
    return [(s * r, s * c) for s in (1, -1) for r in rows for c in columns]


def period_pattern(measurement: Measurement, period: int) -> Values:
    """The fixed pattern of a period in gray levels, (C, P, P) or (1, P, P) of luma: its lines' sum.

    Amplitudes are those that the tiles show best, so this is the pattern where it is clearest.
    """
    names = [str(k) for k in range(measurement.channels)] if measurement.channel_lines else [None]
    lines = measurement.channel_lines or measurement.lines
    pattern = np.zeros((len(names), period, period))
    at = np.arange(period)
    for line in lines:
        if line.period != period or not line.alive:
            continue
        plane = names.index(line.channel) if names[0] else 0
        fy, fx = line.frequency
        wave = np.exp(2j * np.pi * (fy * at[:, None] + fx * at))
        pairs = 1 if all(2 * f % 1 == 0 for f in line.frequency) else 2
        pattern[plane] += pairs * (line.line.amplitude * wave).real
    return pattern


def amplification(pattern: Values) -> int:
    """Whole power of two that lifts the pattern's peak to at most 100 gray levels."""
    peak = float(np.abs(pattern).max())
    return 2 ** max(0, math.floor(math.log2(100 / peak))) if peak > 1e-6 else 1


def draw_pattern(measurement: Measurement, period: int, dpi: int = DPI) -> tuple[bytes, int]:
    """The fixed grid of a period on mid-gray, amplified, two periods each way; and the factor."""
    figure, axes = _figure(4.6, 3.6)
    factor = plot_pattern(axes, measurement, period)
    return to_png(figure, dpi), factor


def plot_pattern(axes: Axes, measurement: Measurement, period: int) -> int:
    """`draw_pattern` on axes that exist."""
    pattern = period_pattern(measurement, period)[:3]
    pattern = pattern if len(pattern) == 3 else pattern[:1]
    factor = amplification(pattern)
    shown = np.clip(127.5 + factor * np.tile(pattern, (1, 2, 2)), 0, 255) / 255
    pixels = shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0]
    extent = (0, 2 * period, 2 * period, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    for at in (0, period, 2 * period):
        axes.axvline(at, color="white", lw=1)
        axes.axhline(at, color="white", lw=1)
    ticks = [0, period, 2 * period]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("pixels")
    axes.set_ylabel("pixels")
    return factor


def draw_radial(measurement: Measurement) -> bytes:
    """`plot_radial` of a measurement and its reference."""
    figure, axes = _figure(4.6, 3.4)
    shown = [(measurement, BLUE, "measured")]
    if measurement.reference and measurement.reference.pictures:
        shown.insert(0, (measurement.reference, GRAY, "reference"))
    plot_radial(axes, shown)
    return to_png(figure)


def draw_spectra(sets: Mapping[str, Measurement]) -> bytes:
    """Radial profiles of all sets over one another, and the mean spectrum of each on one scale."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(len(sets), 3)
    lines = -(-len(sets) // columns)
    ranges = [spectrum_range(measurement) for measurement in sets.values()]
    limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    with rc_context(STYLE):
        figure = Figure((4.6 * columns, 3.4 + 4.2 * lines), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=[3.4, 4.2 * lines])
        colors = SET_COLORS * (len(sets) // len(SET_COLORS) + 1)
        shown = [
            (measurement, color, shorten(label, 40))
            for (label, measurement), color in zip(sets.items(), colors, strict=False)
        ]
        plot_radial(top.subplots(), shown)
        grid = bottom.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid[len(sets) :]:
            axes.remove()
        for axes, (measurement, color, label) in zip(grid, shown, strict=False):
            plot_spectrum(axes, measurement, limits)
            axes.set_title(label, color=color, parse_math=False, pad=36)
        return to_png(figure, 100)


def draw_sets(measured: Mapping[str, Measurement]) -> bytes:
    """PNG: level and 95 % interval per set, or the limit of what was not detected, by period.

    Periods that are undefined in all sets are left out.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sets = [{p: v for p, v in m.periods.items() if not v.undefined} for m in measured.values()]
    periods = sorted({period for found in sets for period in found})
    colors = dict(zip(periods, PERIOD_COLORS * len(periods), strict=False))
    with rc_context(STYLE):
        figure = Figure((6, 1 + (0.35 + 0.18 * len(periods)) * len(sets)), layout="constrained")
        axes = figure.add_subplot()
        ends = []
        for row, (label, found) in enumerate(zip(measured, sets, strict=True)):
            axes.text(
                0.01, row - 0.3, shorten(label), transform=axes.get_yaxis_transform(), va="center",
                parse_math=False,
            )  # fmt: skip
            for period, value in found.items():
                y, color = row + 0.55 * periods.index(period) / len(periods), colors[period]
                low, level, high = value.level_low_dbc, value.level_dbc, value.level_upper_dbc
                if not value.detected:
                    ends.append(value.detection_limit_dbc)
                    if ends[-1] is not None:
                        axes.plot(ends[-1:], [y], "<", color=color, mfc="none", ms=7)
                    continue
                axes.plot([-400 if low is None else low, high], [y, y], color=color, lw=2.4)
                axes.plot(high if level is None else level, y, "o", color=color, ms=7)
                ends += [low, level, high]
        for period in periods:
            axes.plot([], [], "o", color=colors[period], label=f"period {period}")
        if ends := [end for end in ends if end is not None]:
            axes.set_xlim(min(ends) - 5, max(ends) + 5)
        axes.set(ylim=(len(sets) - 0.3, -0.6), yticks=[])
        axes.set_xlabel("level (dBc) and 95 % interval; open: not detected, below this limit")
        axes.grid(axis="x", color="#E8EAED")
        if periods:
            figure.legend(loc="outside upper center", ncols=len(periods), handletextpad=0.1)
        return to_png(figure, 150)


def plot_radial(axes: Axes, shown: Sequence[tuple[Measurement, str, str]]) -> None:
    """Mean power over rings in dB with its 95 % band, lattice left out (dashed: left in).

    Of each measurement with its color and label.
    """
    for m, color, label in shown:
        profile, full = m.pictures.profile(), m.pictures.profile(masked=False)
        low, high = profile.band()
        # DC holds only what the window's mean leaves: nothing to see.
        axes.fill_between(profile.frequency[1:], low[1:], high[1:], color=color, alpha=0.25, lw=0)
        axes.plot(profile.frequency[1:], profile.db[1:], color=color, lw=1.8, label=label)
        axes.plot(full.frequency[1:], full.db[1:], color=color, lw=1, ls=(0, (4, 2)))
    axes.axvline(0.5, color=GRAY, lw=0.8, ls=":")
    axes.set_xlim(0, math.sqrt(0.5))
    axes.set_xlabel("frequency (cycles/pixel)")
    axes.set_ylabel("mean power (dB re 1 gray level²)")
    axes.grid(color="#E8EAED")
    for text in axes.legend(loc="upper right").get_texts():
        text.set_parse_math(False)
