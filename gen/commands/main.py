"""The command `gen`, and `python analyze.py`, which offers those of its commands that measure."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

import gen
from gen.commands.options import ChoiceGroup

MEASURING = ("images", "model", "compare", "layer", "repair", "quality", "inspect")
COMMANDS = ("train", "sample", *MEASURING, "export", "demo")


class LazyGroup(ChoiceGroup):
    """Commands that are imported when they are called: each is `gen.commands.NAME:NAME`."""

    def __init__(self, *args: Any, names: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.names = names

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order in which one needs them."""
        return [*self.names]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command by its name."""
        if name not in self.names:
            return None
        return getattr(import_module(f"gen.commands.{name}"), name)


main = LazyGroup("gen", names=COMMANDS, help=gen.__doc__.partition("\n")[0])
click.version_option(gen.__version__, prog_name="gen")(main)
analyze = LazyGroup(
    "analyze",
    names=MEASURING,
    help="Measure the checkerboards that upsampling leaves: level, interval, p-value, limit.",
)
