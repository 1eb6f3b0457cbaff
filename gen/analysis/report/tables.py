"""Tables of a report: cells as text, and their HTML, which narrow screens show as cards."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from gen.system.text import printable

if TYPE_CHECKING:
    from gen.analysis.measure.result import MeasuredLine, Measurement

LINE_HEADINGS = (
    "channel", "(fy, fx)", "period",
    "replica dB", "95 %", "p", "line gray", "95 %", "p",
    "excess dB", "95 %", "p", "trace", "p",
)  # fmt: skip
PERIOD_HEADINGS = ("period", "level dBc", "95 %", "limit dBc", "p", "verdict")


@dataclass(frozen=True)
class Table:
    """Headings and rows of text. Columns from `words` on are aligned left."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int | None = None

    def to_html(self) -> str:
        """The table; every cell also names its column, for screens without room for columns."""
        head = "".join(
            f'<th scope="col"{self._side(n)}>{escape(name)}</th>'
            for n, name in enumerate(self.headings)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{self._body()}</tbody></table>"

    def _body(self) -> str:
        rows = []
        for row in self.rows:
            cells = (
                f'<td data-label="{escape(name)}"{self._side(n)}>{typeset(cell)}</td>'
                for n, (name, cell) in enumerate(zip(self.headings, row, strict=True))
            )
            rows.append(f"<tr>{''.join(cells)}</tr>")
        return "".join(rows)

    def _side(self, column: int) -> str:
        words = self.words is not None and column >= self.words
        return ' class="words"' if words else ""


def escape(text: str) -> str:
    """A text as a page shows it."""
    return html.escape(printable(text, keep="\n"))


def typeset(text: str) -> str:
    """Words of the terminal for the page: escaped, and with true minus signs before numbers."""
    return escape(re.sub(r"(?<![^ \[(])-(?=\d)", "−", text))


def periods_table(measurement: Measurement) -> Table:
    """One row per period: level, interval, limit, and the verdict in words."""
    rows = []
    for number, p in measurement.periods.items():
        if p.undefined:
            rows.append([str(number), "", "", "", "", f"undefined: {p.undefined}"])
            continue
        low = "" if p.level_low_dbc is None else number_of(p.level_low_dbc)
        words = f"detected, {p.severity}" if p.severity else "detected"
        rows.append(
            [
                str(number), number_of(p.level_dbc), f"{low} … {number_of(p.level_upper_dbc)}",
                number_of(p.detection_limit_dbc), f"{p.p_value:.2g}",
                words if p.detected else "not detected",
            ]
        )  # fmt: skip
    return Table(PERIOD_HEADINGS, rows, words=5)


def line_name(line: MeasuredLine) -> str:
    """Frequency (fy, fx) of a line in fractions of a cycle per pixel, such as (1/2, 0)."""
    parts = (str(Fraction(f).limit_denominator(line.period)) for f in line.frequency)
    return f"({', '.join(parts)})".replace("-", "−")


def line_cells(line: MeasuredLine) -> list[str]:
    """One lattice line as text, a cell per heading; p-values are raw."""
    replica, grid, excess, trace = line.replica, line.line, line.excess, line.trace
    return [
        line.channel, line_name(line), str(line.period),
        decibels_of(replica.db), f"{decibels_of(replica.low_db)} … {decibels_of(replica.high_db)}",
        f"{replica.p_value:.2g}",
        f"{grid.gray_levels:.3f}", f"{grid.low_gray_levels:.3f} … {grid.high_gray_levels:.3f}",
        f"{grid.p_value:.2g}",
        decibels_of(excess.db), f"{decibels_of(excess.low)} … {decibels_of(excess.high)}",
        f"{excess.p_value:.2g}", f"{trace.depth:.4f}", f"{trace.p_value:.2g}",
    ]  # fmt: skip


def lines_table(measurement: Measurement) -> str:
    """Every lattice line of luma and of each channel as a text table; p-values are raw."""
    rows = [LINE_HEADINGS, *map(line_cells, (*measurement.lines, *measurement.channel_lines))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([c.rjust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row) for row in padded)


def number_of(value: float | None, none: str = "-") -> str:
    """A number with one digit behind the point."""
    return none if value is None else f"{round(value, 1) + 0.0:.1f}"  # + 0.0: no negative zero


def decibels_of(value: float | None) -> str:
    """Decibels with a true minus sign; None is no power at all."""
    return number_of(value, "−∞").replace("-", "−")
