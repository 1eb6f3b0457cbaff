"""`analyze.py compare`: runs, folders of images and measurements side by side."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gen.commands.images import ON_BAD_IMAGE
from gen.commands.output import check_file
from gen.options import Command, GroupedOption

if TYPE_CHECKING:
    from gen.analysis.results import Measurement, Period


def compare_sets(paths: tuple[Path, ...], num: int, on_bad_image: str, plot: Path | None) -> None:
    """Measure or read each, print one table, draw one picture."""
    check_file("--plot", plot, (".png",))
    skip = on_bad_image == "skip"
    measured = {label: _measurement(path, num, skip) for label, path in _labels(paths).items()}
    click.echo(table(measured))
    if plot:
        from gen.files import write_atomically

        write_atomically(plot, draw(measured))


def _labels(paths: tuple[Path, ...]) -> dict[str, Path]:
    """The shortest ends of the paths that tell them apart."""
    length = 1
    while len({p.parts[-length:] for p in paths}) < len(paths) and length < 64:
        length += 1
    return {"/".join(p.parts[-length:]): p for p in paths}


def _measurement(path: Path, num: int, skip_bad: bool) -> Measurement:
    from gen.analysis.results import Measurement

    if path.suffix != ".json":
        from gen.data.stream import Selection
        from gen.measuring import measure_path

        return measure_path(path, selection=Selection(skip_bad=skip_bad), num=num)[0]
    try:
        plain = json.loads(path.read_text())
        return Measurement.from_dict(plain.get("measurement", plain))
    except (ValueError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def cell(period: Period | None) -> str:
    """Level with *, or the limit it is below."""
    if period is None or period.undefined:
        return "undefined"
    level = period.level_dbc if period.level_dbc is not None else period.level_upper_dbc
    shown = level if period.detected else period.detection_limit_dbc
    number = "-" if shown is None else f"{shown:.1f}"
    return f"{number} *" if period.detected else f"< {number}"


def table(measured: dict[str, Measurement]) -> str:
    """One row per set, one column per period."""
    periods = sorted({p for m in measured.values() for p in m.periods})
    width = max(len(label) for label in measured) + 2
    names = "".join(f"{f'period {p}':>13}" for p in periods)
    rows = [f"{'':<{width}}{'images':>8}{'size':>9}{names}"]
    for label, m in measured.items():
        cells = "".join(f"{cell(m.periods.get(p)):>13}" for p in periods)
        rows.append(f"{label:<{width}}{m.images:>8}{'x'.join(map(str, m.size)):>9}{cells}")
    return "\n".join([*rows, "* detected, level in dBc; < not detected, below this limit in dBc"])


def draw(measured: dict[str, Measurement]) -> bytes:
    """PNG: level per set (dot: detected, open: limit of what was not), one color per period."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from gen.analysis.figures import PERIOD_COLORS, STYLE

    periods = sorted({p for m in measured.values() for p in m.periods})
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 1.2 + 0.45 * len(measured)), layout="constrained")
        axes = figure.add_subplot()
        for index, (period, color) in enumerate(zip(periods, PERIOD_COLORS, strict=False)):
            axes.plot([], [], "o", color=color, label=f"period {period}")
            for row, m in enumerate(measured.values()):
                found = m.periods.get(period)
                if found is None or found.undefined:
                    continue
                y = row + 0.15 * (index - (len(periods) - 1) / 2)
                shown = found.level_dbc if found.detected else found.detection_limit_dbc
                if shown is not None:
                    style = "o" if found.detected else "<"
                    axes.plot(shown, y, style, color=color, mfc=color if found.detected else "none")
        axes.set_yticks(range(len(measured)), list(measured))
        axes.invert_yaxis()
        axes.set_xlabel("level (dBc); open: not detected, below this limit")
        axes.legend(loc="best")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


compare = Command(
    "compare",
    help="Measure runs, folders or JSON files and show them side by side.",
    callback=compare_sets,
    params=[
        click.Argument(["paths"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        GroupedOption(["--num"], type=click.IntRange(1, 10**9), default=1024, show_default=True,
                      metavar="N", group="Images", help="samples to draw from a run"),
        ON_BAD_IMAGE,
        GroupedOption(["--plot"], type=click.Path(path_type=Path), metavar="FILE.png",
                      group="Output", help="draw the table"),
    ],
    examples="""
        python analyze.py compare runs/00000-dcgan-shapes runs/00001-dcgan-shapes photos/
        python analyze.py compare before.json after.json --plot change.png
    """,
)  # fmt: skip
