"""Since when a run has its grid: the monitor's numbers over training."""

from __future__ import annotations

import math
from pathlib import Path

from gen.system.files import read_rows

_MONITOR = "checkerboard/"
Rows = list[dict[str, float]]


def read_history(run: Path) -> Rows:
    """Rows of a run's metrics.jsonl that hold the monitor's numbers; empty where there is none.

    Lines that are no rows are left out, as `read_rows` says.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        return []
    rows = [{n: v for n, v in row.items() if n != "warnings"} for row in read_rows(file)]
    return [row for row in rows if any(name.startswith(_MONITOR) for name in row)]


def monitored_periods(rows: Rows) -> list[int]:
    """Periods that the monitor could measure."""
    names = {name for row in rows for name in row}
    return [p for p in (2, 4, 8) if f"checkerboard/period{p}_detected" in names]


def describe_onset(rows: Rows) -> list[str]:
    """One sentence per period: from which snapshot on it was detected in all."""
    sentences = []
    for period in monitored_periods(rows):
        name = f"checkerboard/period{period}_detected"
        seen = [(int(row["step"]), row.get(name, 0.0)) for row in rows]
        steps = [step for step, found in seen if found]
        last_clean = max((step for step, found in seen if not found), default=-1)
        lasting = [step for step in steps if step > last_clean]
        if lasting:
            sentences.append(f"Period {period}: detected since step {lasting[0]}.")
        elif steps:
            sentences.append(f"Period {period}: detected at {len(steps)} of {len(seen)} snapshots.")
        else:
            sentences.append(f"Period {period}: never detected in {len(seen)} snapshots.")
    return sentences


def draw_history(rows: Rows) -> bytes:
    """PNG: level (dots: detected) and limit (dashed) per period, and the imbalance, by step."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from gen.analysis.report.figures import GRAY, PERIOD_COLORS, STYLE, to_png

    with rc_context(STYLE):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for period, color in zip(monitored_periods(rows), PERIOD_COLORS, strict=False):
            name = f"checkerboard/period{period}"
            level = [row.get(f"{name}_dbc", math.nan) for row in rows]
            steps = [row["step"] for row in rows]
            axes.plot(steps, level, color=color, label=f"period {period}")
            seen = [row for row in rows if row.get(f"{name}_detected") and f"{name}_dbc" in row]
            dots = [row["step"] for row in seen], [row[f"{name}_dbc"] for row in seen]
            axes.plot(*dots, "o", color=color, ms=4)
            limit = [row.get(f"{name}_limit_dbc", math.nan) for row in rows]
            axes.plot(steps, limit, "--", color=color, lw=0.8)
        imbalance = [row.get("checkerboard/imbalance_db", math.nan) for row in rows]
        axes.plot([r["step"] for r in rows], imbalance, ":", color=GRAY, label="imbalance (dB)")
        axes.set(xlabel="training step", ylabel="level (dBc)")
        axes.legend(loc="best")
        return to_png(figure, 150)
