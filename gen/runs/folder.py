"""The folder of a run: its number and its status."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from pathlib import Path

from gen.system.files import write_atomically
from gen.system.text import shorten


def make_run_folder(parent: Path, name: str) -> Path:
    """Make and return `parent/NNNNN-name` with the next free number; long names are shortened.

    Raises:
        FileExistsError: `parent` is a file.
    """
    name = shorten(name, 60).replace("\\", "_")  # of at most 255 bytes, and all of it printable
    parent.mkdir(parents=True, exist_ok=True)
    number = max(map(run_number, parent.iterdir()), default=-1) + 1
    while True:
        folder = parent / f"{number:05d}-{name}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another process took the number
            number += 1


def run_number(folder: Path) -> int:
    """The number that the name of a run begins with, of five digits or more; -1 for no run."""
    match = re.match(r"(\d{5,18})-", folder.name, re.ASCII)
    return int(match[1]) if match else -1


def write_status(folder: Path, state: str, step: int, reason: str = "") -> None:
    """Write status.json: running, finished, interrupted or failed, as of a time and a saved step.

    A process that is killed cannot write its end, so `running` holds for the time it names;
    whether the process `pid` still runs on `host` is for the reader to see.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    status = {"state": state, "as_of": now, "step": step, "reason": reason}
    status |= {"pid": os.getpid(), "host": platform.node()}
    write_atomically(folder / "status.json", f"{json.dumps(status, indent=2)}\n".encode())
