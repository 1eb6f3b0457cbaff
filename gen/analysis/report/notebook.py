"""A measurement in a notebook: one small block of HTML, and a figure."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from gen.analysis.report import figures
from gen.analysis.report.summary import headline
from gen.analysis.report.tables import periods_table

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement

DPI = 80  # two pictures of it take 30 kB


class Drawing(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        return figures.to_png(self, DPI)


def plot(measurement: Measurement) -> Figure:
    """Levels, the pattern of the strongest period, and the spectrum where one was kept."""
    period = _shown(measurement)
    with_spectrum = measurement.pictures is not None and period is not None
    with rc_context(figures.STYLE):
        columns = 1 if period is None else 2 + with_spectrum
        figure = Drawing((4.8 * columns, 3.8), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        figures.plot_levels(axes[0], measurement)
        if period is not None:
            factor = figures.plot_pattern(axes[1], measurement, period)
            axes[1].set_title(f"pattern of period {period}, ×{factor}", fontsize=10.5)
        if with_spectrum:
            figures.plot_spectrum(axes[2], measurement, figures.spectrum_range(measurement))
    return figure


def to_html(measurement: Measurement) -> str:
    """Verdict, a row per period, and two pictures, in less than 60 kB."""
    period, pictures = _shown(measurement), ""
    if period is not None:
        with rc_context(figures.STYLE):
            pattern, factor = figures.draw_pattern(measurement, period, DPI)
            levels = figures.draw_levels(measurement, DPI)
        pictures = _image(levels, "Level of each period")
        pictures += _image(pattern, f"Pattern of period {period}, amplified {factor} times")
    head = html.escape(str(measurement).partition("\n")[0])
    return (
        f"<div><p><strong>{html.escape(headline(measurement))}</strong></p><p>{head}</p>"
        f"{periods_table(measurement).to_html()}{pictures}</div>"
    )


def _shown(measurement: Measurement) -> int | None:
    """The detected period of the highest level, else the first that was measured."""
    defined = figures.defined_periods(measurement)
    detected = [n for n in defined if measurement.periods[n].detected]
    return max(
        detected, key=lambda n: measurement.periods[n].level_dbc or -300.0, default=None
    ) or next(iter(defined), None)


def _image(png: bytes, title: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure style="display:inline-block;margin:0 1em 0 0"><figcaption>{title}</figcaption>'
        f'<img src="data:image/png;base64,{data}" alt="{title}"></figure>'
    )
