"""`gen inspect`: what a file holds."""

from __future__ import annotations

from pathlib import Path

import click

from gen.commands.options import Command, key_option
from gen.commands.output import say


def print_description(path: Path, key: str | None) -> None:
    """Read safely, describe."""
    from gen.runs.describe import describe_file

    say(describe_file(path, key), err=False)


inspect = Command(
    "inspect",
    help="Say what a checkpoint, run directory or file of weights holds; runs no code of it.",
    callback=print_description,
    params=[
        click.Argument(["path"], type=click.Path(path_type=Path)),
        key_option("Options"),
    ],
    examples="""
        gen inspect runs/00000-dcgan-shapes
        gen inspect netG_epoch_24.pth
        gen inspect bundle.pth --key g_ema
    """,
)
