"""Measure the checkerboards that upsampling leaves: a level with its interval, p-value and limit."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.options import ChoiceGroup, Command, GroupedOption, Size

if TYPE_CHECKING:
    from gen.analysis.results import Measurement


class Periods(click.ParamType):
    """`2,4,8` → (2, 4, 8)."""

    name = "PERIODS"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Parse, or fail with the form."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        periods = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
        if len(periods) < len(parts) or min(periods) < 2 or len(set(periods)) < len(periods):
            self.fail(
                f"{value!r}; write periods in pixels, 2 or more, each once: 2,4,8", param, ctx
            )
        return periods


class Level(click.ParamType):
    """A finite level in dBc."""

    name = "DBC"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Parse, or fail for what is no finite number."""
        try:
            if math.isfinite(level := float(value)):
                return level
        except ValueError:
            pass
        self.fail(f"{value!r} is not a level in dBc, such as -40", param, ctx)


@click.group(cls=ChoiceGroup, help=__doc__)
def main() -> None:
    """Hold one command per question."""


def check_targets(json_file: str | None, report: str | None) -> None:
    """Fail before any work if there is nowhere to write to."""
    if json_file and json_file != "-":
        target = Path(json_file).absolute()
        if target.is_dir() or not target.parent.is_dir():
            raise click.UsageError(f"--json {json_file}: must be a file in a directory that exists")
    if report:
        from gen.analysis.report import check_folder

        try:
            check_folder(Path(report))
        except ValueError as error:
            raise click.UsageError(f"--report {error}") from error


def judge(measurement: Measurement, limit: float) -> None:
    """Exit 3 if a detected period lies above `limit` dBc."""
    periods = measurement.periods
    if all(period.undefined for period in periods.values()):
        raise click.ClickException("--fail-above has nothing to judge: every period is undefined")
    above = [
        f"period {number} at {period.level_dbc:.1f} dBc (p = {period.p_value:.2g})"
        for number, period in periods.items()
        if period.detected and period.level_dbc is not None and period.level_dbc > limit
    ]
    if above:
        click.echo(f"Above {limit:g} dBc: {', '.join(above)}", err=True)
        sys.exit(3)


def images(
    path: str,
    reference: str | None,
    periods: tuple[int, ...],
    tile: tuple[int, int] | None,
    gap: int,
    channels: bool,
    json_file: str | None,
    report: str | None,
    fail_above: float | None,
    max_images: int | None,
    num: int,
    workers: int,
    on_bad_image: str,
) -> None:
    """Measure, print, write, judge."""
    if tile is None and gap:
        raise click.UsageError("--gap lies between tiles; give their size with --tile")
    if tile and min(tile) < 1:
        raise click.UsageError(f"--tile is {tile[0]}x{tile[1]}, must be at least 1x1")
    check_targets(json_file, report)
    from gen.analysis.report import lines_table, write_report
    from gen.data.stream import Selection, Sheet
    from gen.files import write_atomically
    from gen.measuring import measure_path

    sheet = Sheet(tile, gap) if tile else None
    selection = Selection(
        sheet, max_images=max_images, workers=workers, skip_bad=on_bad_image == "skip"
    )
    measurement, thumbnails = measure_path(
        Path(path), Path(reference) if reference else None, periods, selection, num
    )
    text = str(measurement) + (f"\n\n{lines_table(measurement)}" if channels else "")
    click.echo(text, err=json_file == "-")
    plain = json.dumps(measurement.to_dict(), indent=2, allow_nan=False)
    if json_file == "-":
        click.echo(plain)
    elif json_file:
        write_atomically(json_file, f"{plain}\n".encode())
    if report:
        command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
        write_report(measurement, Path(report), thumbnails, f"Checkerboards in {path}", command)
        click.echo(f"Report: {Path(report) / 'index.html'}", err=True)
    if fail_above is not None:
        judge(measurement, fail_above)


def _option(*names: str, group: str = "Measurement", **settings: Any) -> GroupedOption:
    return GroupedOption(list(names), group=group, **settings)


main.add_command(
    Command(
        "images",
        help="Measure a folder of images, one image, an .npy/.npz file, a sheet or a run.",
        callback=images,
        params=[
            click.Argument(["path"]),
            _option("--reference", metavar="PATH", help="real images to compare with"),
            _option(
                "--periods", type=Periods(), default="2,4,8", help="in pixels  [default: 2,4,8]"
            ),
            _option("--channels", is_flag=True, help="print every lattice line of every channel"),
            _option(
                "--fail-above", type=Level(), help="exit 3 if a detected period is above this level"
            ),
            _option(
                "--tile",
                type=Size(),
                group="Images",
                help="cut sample sheets into tiles of this size",
            ),
            _option(
                "--gap",
                type=click.IntRange(0),
                default=0,
                group="Images",
                help="pixels around the tiles of a sheet  [default: 0]",
            ),
            _option(
                "--max-images",
                type=click.IntRange(1),
                group="Images",
                help="take the first N by name  [default: all]",
            ),
            _option(
                "--num",
                type=click.IntRange(1),
                default=1024,
                group="Images",
                help="samples to draw from a run, seeds 0 up  [default: 1024]",
            ),
            _option(
                "--on-bad-image",
                type=click.Choice(["error", "skip"]),
                default="error",
                group="Images",
                help="stop at unreadable files, or count them  [default: error]",
            ),
            _option(
                "--workers",
                type=click.IntRange(0),
                default=0,
                group="Images",
                help="decoding threads; 0: one per processor  [default: 0]",
            ),
            _option(
                "--json",
                "json_file",
                metavar="FILE|-",
                group="Output",
                help="write the measurement as JSON; - is stdout",
            ),
            _option(
                "--report",
                metavar="DIR",
                group="Output",
                help="write a static HTML page with pictures",
            ),
        ],
        examples="""
            python analyze.py images samples/ --reference photos/ --report report/
            python analyze.py images sheet.png --tile 32 --gap 2
            python analyze.py images runs/00000-dcgan-shapes --json - --fail-above -40
        """,
    )
)

if __name__ == "__main__":
    main()
