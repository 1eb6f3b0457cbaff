"""`gen images`: measure what a path holds; print, write, judge."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

import click

from gen.commands.options import COLOR, LEVEL, SIZE, Command, Parsed, grouped, parse_periods
from gen.commands.output import check_file, own_command, say, write_json
from gen.system import distributed


def check_arguments(
    tile: tuple[int, int] | None, gap: int, json_file: str | None, report: Path | None
) -> None:
    """Fail before any work if tiles make no sense or there is nowhere to write to."""
    if tile is None and gap:
        raise click.UsageError("--gap lies between tiles; give their size with --tile")
    if tile and min(tile) < 1:
        raise click.UsageError(f"--tile is {tile[0]}x{tile[1]}, must be at least 1x1")
    check_file("--json", json_file)
    if report:
        from gen.analysis.report.html import check_folder

        try:
            check_folder(report)
        except ValueError as error:
            raise click.UsageError(f"--report {error}") from error


def measure_images(
    path: Path,
    reference: Path | None,
    periods: tuple[int, ...],
    channels: bool,
    fail_above: float | None,
    tile: tuple[int, int] | None,
    gap: int,
    max_images: int | None,
    num: int,
    inputs: Path | None,
    on_bad_image: str,
    background: tuple[int, int, int],
    max_image_pixels: int,
    workers: int,
    json_file: str | None,
    report: Path | None,
) -> None:
    """Measure, print, write, judge."""
    check_arguments(tile, gap, json_file, report)
    from gen.analysis.report.html import write_report
    from gen.analysis.report.summary import next_steps
    from gen.analysis.report.tables import lines_table
    from gen.commands.measuring import measure_path, periods_above
    from gen.data.stream import Selection, Sheet
    from gen.runs.formats import holds_network

    selection = Selection(
        sheet=Sheet(tile, gap) if tile else None,
        max_images=max_images,
        workers=workers,
        skip_bad=on_bad_image == "skip",
        background=background,
        max_pixels=max_image_pixels,
    )
    measurement, samples = measure_path(
        path, reference, periods, selection, num, inputs, pictures=report is not None
    )
    text = f"{measurement}\n\n{lines_table(measurement)}" if channels else measurement
    say(text, err=json_file == "-")
    first = distributed.rank() == 0
    if json_file and first:
        write_json(measurement.to_dict(), json_file)
    if report and first:
        title = f"Checkerboards in {path.resolve().name}"
        cut = ["--tile", "x".join(map(str, tile)), "--gap", str(gap)] if tile else []
        named = [shlex.quote(str(path))] if holds_network(path) else []
        steps = next_steps(measurement, shlex.join([str(path), *cut]), *named)
        page = write_report(measurement, report, samples, title, own_command(), steps=steps)
        say(f"Report: {page}")
    if fail_above is not None and (above := periods_above(measurement, fail_above)):
        say(f"Above {fail_above:g} dBc: {', '.join(above)}")
        sys.exit(3)


_option = partial(grouped, show_default=True)
_PATH, _COUNT, _SIZE = (
    click.Path(path_type=Path),
    click.IntRange(1, 10**9),
    click.IntRange(0, 65536),
)
_WHAT, _HOW, _OUT = "Images", "Measurement", "Output"
# fmt: off
ON_BAD_IMAGE = _option(_WHAT, "--on-bad-image", type=click.Choice(["error", "skip"]),
                       default="error", help="stop at an unreadable file, or leave it out")
OPTIONS = [
    _option(_HOW, "--reference", type=_PATH, metavar="PATH", help="real images to compare with"),
    _option(_HOW, "--periods", type=Parsed("LIST", parse_periods), default="2,4,8",
            help="periods in pixels"),
    _option(_HOW, "--channels", is_flag=True, help="print every lattice line of every channel"),
    _option(_HOW, "--fail-above", type=LEVEL, metavar="DBC",
            help="exit 3 if a detected level is above this"),
    _option(_WHAT, "--tile", type=SIZE, help="cut sample sheets into tiles, S or HxW pixels"),
    _option(_WHAT, "--gap", type=_SIZE, default=0, metavar="N", help="pixels around the tiles"),
    _option(_WHAT, "--max-images", type=_COUNT, metavar="N", help="take the first N, by name"),
    _option(_WHAT, "--num", type=_COUNT, default=1024, metavar="N", help="samples of a run"),
    _option(_WHAT, "--inputs", type=_PATH, metavar="PATH",
            help="images to show a segmenter, to measure its logit maps"
             "  [default: its validation images]"),
    ON_BAD_IMAGE,
    _option(_WHAT, "--background", type=COLOR, default="255,255,255",
            help="color under transparent pixels"),
    _option(_WHAT, "--max-image-pixels", type=click.IntRange(1, 2**40), default=178_956_970,
            metavar="N", help="larger files are bad images"),
    _option(_WHAT, "--workers", type=click.IntRange(0, 256), default=0, metavar="N",
            help="decoding threads; 0: one per processor, at most 8"),
    _option(_OUT, "--json", "json_file", metavar="FILE|-", help="write JSON; - is stdout"),
    _option(_OUT, "--report", type=_PATH, metavar="DIR", help="write an HTML page with pictures"),
]
# fmt: on
images = Command(
    "images",
    help="Measure a folder of images, one image, an .npy or .npz file, a sheet or a run.",
    callback=measure_images,
    params=[click.Argument(["path"], type=_PATH), *OPTIONS],
    examples="""
            gen images samples/ --reference photos/ --report report/
            gen images sheet.png --tile 32 --gap 2
            gen images runs/00000-dcgan-shapes --json - --fail-above -40
        """,
)
