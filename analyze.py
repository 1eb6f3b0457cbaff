"""Measure the checkerboards that upsampling leaves: level, interval, p-value, detection limit."""

from __future__ import annotations

import click

from gen.commands.calibrate import calibrate
from gen.commands.compare import compare
from gen.commands.images import images
from gen.commands.layer import layer
from gen.commands.model import model
from gen.commands.options import ChoiceGroup
from gen.commands.quality import quality
from gen.commands.repair import repair


@click.group(cls=ChoiceGroup, help=__doc__)
def main() -> None:
    """Hold one command per question."""


for command in (images, layer, model, repair, compare, calibrate, quality):
    main.add_command(command)

if __name__ == "__main__":
    main()
