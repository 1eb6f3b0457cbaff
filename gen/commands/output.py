"""Where the commands write: checks before any work, JSON, and what is said."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.options import SCRIPTS
from gen.system import distributed
from gen.system.text import printable

if TYPE_CHECKING:
    from gen.inputs import LoadedNetwork


def say(text: object, err: bool = True) -> None:
    """Print to stderr, or stdout, what a terminal only shows; of several processes rank 0 does."""
    if distributed.rank() == 0:
        click.echo(printable(text, keep="\n"), err=err)


def own_command() -> str:
    """The command that was called, as it can be typed again."""
    script = Path(sys.argv[0]).name
    start = ["python", script] if script in SCRIPTS else ["gen"]
    return shlex.join([*start, *sys.argv[1:]])


def say_notes(opened: LoadedNetwork) -> None:
    """Print what there is to know about a network and its inputs, to stderr."""
    for note in opened.notes:
        say(note)


def provenance(paths: Sequence[object], source: dict[str, Any] | None = None) -> dict[str, Any]:
    """What every JSON says of itself: version, command, paths, images found and left out."""
    from gen import __version__

    plain = {"version": __version__, "command": own_command(), "paths": [str(p) for p in paths]}
    return plain | (source or {})


def check_file(
    flag: str, path: Path | str | None, suffixes: tuple[str, ...] = (), *, new: bool = False
) -> None:
    """Fail before any work unless `path` can be written; None and, of any ending, `-` can.

    Args:
        flag: the option, for the message.
        path: its value.
        suffixes: endings that are taken, in small letters; empty for any.
        new: refuse a file that is there.

    Raises:
        click.UsageError: a directory, in no directory, with another ending, or there already.
    """
    if path is None or (str(path) == "-" and not suffixes):
        return
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise click.UsageError(f"{flag} {path}: must end in {', '.join(suffixes)}")
    taken = path.exists() if new else path.is_dir()
    if taken or not path.absolute().parent.is_dir():
        kind = "a new file" if new else "a file"
        raise click.UsageError(f"{flag} {path}: must be {kind} in a directory that exists")


def write_json(plain: dict[str, Any], target: str, indent: int | None = 2) -> None:
    """Write to a file, whole or not at all, or to stdout for `-`; NaN is an error, not JSON."""
    from gen.system.files import write_atomically

    text = json.dumps(plain, indent=indent, allow_nan=False)
    if target == "-":
        click.echo(text)
    else:
        write_atomically(target, f"{text}\n".encode())
