"""`analyze.py calibrate`: check the measurement on images of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gen.commands.images import ON_BAD_IMAGE
from gen.commands.options import Command, GroupedOption


def print_table(
    path: Path, size: int, images: int, sets: int, max_images: int, on_bad_image: str
) -> None:
    """Print the table row by row: it takes minutes."""
    from gen.commands.measuring import calibration_rows

    for row in calibration_rows(path, size, images, sets, max_images, on_bad_image == "skip"):
        click.echo(row)


def _count(name: str, least: int, default: int, help: str) -> Any:
    kind = click.IntRange(least, 10**6)
    return GroupedOption(
        [name], type=kind, default=default, show_default=True, metavar="N", help=help
    )


calibrate = Command(
    "calibrate",
    help="Check the measurement on images of your own: known grids in, numbers out.",
    callback=print_table,
    params=[
        click.Argument(["path"], type=click.Path(path_type=Path)),
        _count("--size", 1, 64, "largest side of the crops in pixels"),
        _count("--images", 4, 32, "images in a set"),
        _count("--sets", 2, 40, "sets behind every row"),
        _count("--max-images", 1, 1000, "images to read"),
        ON_BAD_IMAGE,
    ],
    examples="python analyze.py calibrate photos/",
)
