"""`gen images`: measure what a path holds; print, write, judge."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.gate import Gate, gate_options
from gen.commands.options import (
    COLOR,
    SIZE,
    Command,
    Parsed,
    grouped,
    key_option,
    parse_periods,
)
from gen.commands.output import check_file, own_command, provenance, say, write_json
from gen.system import distributed

if TYPE_CHECKING:
    from gen.commands.measuring import Looked


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
    paths: tuple[Path, ...],
    reference: Path | None,
    periods: tuple[int, ...],
    channels: bool,
    crop: tuple[int, int] | None,
    tile: tuple[int, int] | None,
    gap: int,
    max_images: int | None,
    num: int,
    inputs: Path | None,
    key: str | None,
    on_bad_image: str,
    background: tuple[int, int, int],
    max_image_pixels: int,
    workers: int,
    json_file: str | None,
    report: Path | None,
    **judged: Any,
) -> None:
    """Measure, print, write, judge; `judged` are the options of the gate."""
    check_arguments(tile, gap, json_file, report)
    gate = Gate.taken_from(judged)
    if crop and (tile or min(crop) < 1):
        raise click.UsageError("--crop takes a size of 1 or more, and no --tile")
    from gen.analysis.report.tables import lines_table
    from gen.commands.measuring import measure_path
    from gen.data.stream import Selection, Sheet

    selection = Selection(
        sheet=Sheet(tile, gap) if tile else None, crop=crop, max_images=max_images,
        workers=workers, skip_bad=on_bad_image == "skip", background=background,
        max_pixels=max_image_pixels,
    )  # fmt: skip
    options = {"pictures": report is not None, "key": key}
    looked = measure_path(paths, reference, periods, selection, num, inputs, **options)
    measurement, label = looked.measurement, ", ".join(path.resolve().name for path in paths)
    text = f"{measurement}\n\n{lines_table(measurement)}" if channels else measurement
    say(text, err=json_file == "-")
    if distributed.rank() == 0:
        if json_file:
            write_json(measurement.to_dict() | provenance(paths, looked.source), json_file)
        if report:
            cut = ["--tile", "x".join(map(str, tile)), "--gap", str(gap)] if tile else []
            cut += ["--crop", "x".join(map(str, crop))] if crop else []
            _write_page(report, looked, paths, cut, f"Checkerboards in {label}")
    gate.judge({label: measurement})


def _write_page(
    report: Path, looked: Looked, paths: tuple[Path, ...], cut: list[str], title: str
) -> None:
    """Write the report, whose next steps name these paths and how they were `cut`."""
    from gen.analysis.report.html import write_report
    from gen.analysis.report.summary import next_steps
    from gen.data.archives import is_archive
    from gen.runs.formats import holds_network

    runs = (path for path in paths if not is_archive(path) and holds_network(path))
    named = [shlex.quote(str(path)) for path in runs]
    measured = looked.measurement
    steps = next_steps(measured, shlex.join([*map(str, paths), *cut]), *named)
    page = write_report(measured, report, looked.samples, title, own_command(), steps=steps)
    say(f"Report: {page}")


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
    _option(_WHAT, "--crop", type=SIZE,
            help="take the middle S or HxW pixels of every image that is large enough"),
    _option(_WHAT, "--tile", type=SIZE, help="cut sample sheets into tiles, S or HxW pixels"),
    _option(_WHAT, "--gap", type=_SIZE, default=0, metavar="N", help="pixels around the tiles"),
    _option(_WHAT, "--max-images", type=_COUNT, metavar="N", help="take the first N, by name"),
    _option(_WHAT, "--num", type=_COUNT, default=1024, metavar="N", help="samples of a run"),
    key_option(_WHAT),
    _option(_WHAT, "--inputs", type=_PATH, metavar="PATH",
            help="images to show a segmenter, to measure its logit maps"
             "  [default: its validation images]"),
    ON_BAD_IMAGE,
    _option(_WHAT, "--background", type=COLOR, default="255,255,255",
            help="color under transparent pixels"),
    _option(_WHAT, "--max-image-pixels", type=click.IntRange(1, 2**40), default=178_956_970,
            metavar="N", help="larger files are bad images"),
    _option(_WHAT, "--workers", type=click.IntRange(0, 256), default=0, metavar="N",
            help="decoding threads; 0: one for small images, else one per processor (at most 8); "
                 "more hide a slow disk"),
    _option(_OUT, "--json", "json_file", metavar="FILE|-", help="write JSON; - is stdout"),
    _option(_OUT, "--report", type=_PATH, metavar="DIR", help="write an HTML page with pictures"),
    *gate_options(),
]
# fmt: on
images = Command(
    "images",
    help="Measure folders and archives of images, image files, an array file, a sheet or a run.",
    callback=measure_images,
    params=[click.Argument(["paths"], nargs=-1, required=True, type=_PATH), *OPTIONS],
    examples="""
            gen images samples/ --reference photos/ --report report/
            gen images sheet.png --tile 32 --gap 2
            gen images photos/ more.zip --crop 256
            gen images runs/00000-dcgan-shapes --json - --fail-above -40
        """,
)
