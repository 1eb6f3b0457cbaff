"""Measure the checkerboards that upsampling leaves: level, interval, p-value, detection limit."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from gen.commands.layer import layer
from gen.options import ChoiceGroup, Command, GroupedOption, Size


def periods_of(_ctx: Any, _param: Any, text: str) -> tuple[int, ...]:
    """`2,4,8` → (2, 4, 8)."""
    parts = text.split(",")
    periods = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    if len(periods) < len(parts) or min(periods) < 2 or len(set(periods)) < len(periods):
        raise click.BadParameter(f"{text!r}; write whole pixels, 2 or more, each once: 2,4,8")
    return periods


def finite(_ctx: Any, _param: Any, value: float | None) -> float | None:
    """Refuse nan and infinity, which click takes for floats."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a level in dBc, such as -40")
    return value


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


def measure_images(path: str, **given: Any) -> None:
    """Measure, print, write, judge."""
    tile, json_file, report = given["tile"], given["json_file"], given["report"]
    if tile is None and given["gap"]:
        raise click.UsageError("--gap lies between tiles; give their size with --tile")
    if tile and min(tile) < 1:
        raise click.UsageError(f"--tile is {tile[0]}x{tile[1]}, must be at least 1x1")
    check_targets(json_file, report)
    from gen.analysis.report import lines_table, write_report
    from gen.data.stream import Selection, Sheet
    from gen.files import write_atomically
    from gen.measuring import measure_path, periods_above

    selection = Selection(
        sheet=Sheet(tile, given["gap"]) if tile else None,
        max_images=given["max_images"],
        workers=given["workers"],
        skip_bad=given["on_bad_image"] == "skip",
    )
    measurement, thumbnails = measure_path(
        path, given["reference"], given["periods"], selection, given["num"]
    )
    text = f"{measurement}\n\n{lines_table(measurement)}" if given["channels"] else measurement
    click.echo(text, err=json_file == "-")
    plain = json.dumps(measurement.to_dict(), indent=2, allow_nan=False)
    if json_file == "-":
        click.echo(plain)
    elif json_file:
        write_atomically(json_file, f"{plain}\n".encode())
    if report:
        command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
        write_report(
            measurement, Path(report), thumbnails, f"Checkerboards in {path.name}", command
        )
        click.echo(f"Report: {Path(report) / 'index.html'}", err=True)
    limit = given["fail_above"]
    if limit is not None and (above := periods_above(measurement, limit)):
        click.echo(f"Above {limit:g} dBc: {', '.join(above)}", err=True)
        sys.exit(3)


def _option(group: str, *names: str, **settings: Any) -> GroupedOption:
    return GroupedOption(list(names), group=group, show_default=True, **settings)


_PATH, _COUNT = click.Path(path_type=Path), click.IntRange(1)
_WHAT, _HOW, _OUT = "Images", "Measurement", "Output"
# fmt: off
IMAGES_OPTIONS = [
    _option(_HOW, "--reference", type=_PATH, metavar="PATH", help="real images to compare with"),
    _option(_HOW, "--periods", callback=periods_of, default="2,4,8", help="periods in pixels"),
    _option(_HOW, "--channels", is_flag=True, help="print every lattice line of every channel"),
    _option(_HOW, "--fail-above", type=float, callback=finite, metavar="DBC",
            help="exit 3 if a detected level is above this"),
    _option(_WHAT, "--tile", type=Size(), help="cut sample sheets into tiles, S or HxW pixels"),
    _option(_WHAT, "--gap", type=click.IntRange(0), default=0, metavar="N",
            help="pixels around the tiles"),
    _option(_WHAT, "--max-images", type=_COUNT, metavar="N",
            help="take the first so many, by name"),
    _option(_WHAT, "--num", type=_COUNT, default=1024, metavar="N",
            help="samples to draw from a run"),
    _option(_WHAT, "--on-bad-image", type=click.Choice(["error", "skip"]), default="error",
            help="stop at an unreadable file, or leave it out"),
    _option(_WHAT, "--workers", type=click.IntRange(0), default=0, metavar="N",
            help="decoding threads; 0: one per processor, at most 8"),
    _option(_OUT, "--json", "json_file", metavar="FILE|-", help="write JSON; - is stdout"),
    _option(_OUT, "--report", metavar="DIR", help="write an HTML page with pictures"),
]
# fmt: on
main.add_command(
    Command(
        "images",
        help="Measure a folder of images, one image, an .npy or .npz file, a sheet or a run.",
        callback=measure_images,
        params=[click.Argument(["path"], type=_PATH), *IMAGES_OPTIONS],
        examples="""
            python analyze.py images samples/ --reference photos/ --report report/
            python analyze.py images sheet.png --tile 32 --gap 2
            python analyze.py images runs/00000-dcgan-shapes --json - --fail-above -40
        """,
    )
)

main.add_command(layer)

if __name__ == "__main__":
    main()
