"""Numbers → one static HTML page that a person reads in a minute: verdict first, then the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from gen.analysis.results import LatticeLine, Measurement

HEADINGS = ("channel", "fy", "fx", "period", "replica dB", "95 %", "p", "line grey", "95 %", "p",
            "excess dB", "95 %", "p", "trace", "p")  # fmt: skip


def line_cells(line: LatticeLine) -> list[str]:
    """One lattice line as text, a cell per heading; p-values are raw."""
    replica, grid, excess, trace = line.replica, line.line, line.excess, line.trace
    return [
        line.channel,
        *(f"{f:g}" for f in line.frequency),
        str(line.period),
        decibel(replica.db),
        f"{decibel(replica.low_db)} … {decibel(replica.high_db)}",
        f"{replica.p_value:.2g}",
        f"{grid.grey_levels:.3f}",
        f"{grid.low_grey_levels:.3f} … {grid.high_grey_levels:.3f}",
        f"{grid.p_value:.2g}",
        decibel(excess.db),
        f"{decibel(excess.low)} … {decibel(excess.high)}",
        f"{excess.p_value:.2g}",
        f"{trace.depth:.4f}",
        f"{trace.p_value:.2g}",
    ]


def decibel(value: float | None) -> str:
    """One decimal, or -∞ for no power."""
    return "-∞" if value is None else f"{value:.1f}"


def lines_table(measurement: Measurement) -> str:
    """Every lattice line of luma and of each channel as a text table."""
    rows = [HEADINGS, *map(line_cells, (*measurement.lines, *measurement.channel_lines))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def check_folder(folder: Path) -> None:
    """Raise ValueError unless a report may be written: a new or empty folder, or an older report."""


def write_report(
    measurement: Measurement,
    folder: Path,
    thumbnails: np.ndarray | None = None,
    title: str = "Checkerboards",
    command: str = "",
) -> Path:
    raise NotImplementedError
