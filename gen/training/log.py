"""What a run leaves to be read: metrics.jsonl, TensorBoard events, sample sheets, progress."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gen.files import append, read_rows, write_atomically
from gen.images import make_grid, save_png

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def new_run_folder(parent: Path, name: str) -> Path:
    """Make and return `parent/NNNNN-name` with the next free number.

    Raises:
        FileExistsError: `parent` is a file.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(p.name[:5]) for p in parent.glob("[0-9][0-9][0-9][0-9][0-9]-*")]
    number = max(taken, default=-1) + 1
    while True:
        folder = parent / f"{number:05d}-{name}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another process took the number
            number += 1


def write_status(folder: Path, state: str, step: int, reason: str = "") -> None:
    """Write status.json: running, finished, interrupted or failed, as of a time and a saved step.

    A process that is killed cannot write its end, so `running` holds for the time it names;
    whether the process `pid` still runs on `host` is for the reader to see.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    status = {"state": state, "as_of": now, "step": step, "reason": reason}
    status |= {"pid": os.getpid(), "host": platform.node()}
    write_atomically(folder / "status.json", f"{json.dumps(status, indent=2)}\n".encode())


def _line(row: dict[str, Any]) -> bytes:
    return f"{json.dumps(row)}\n".encode()


class RunLog:
    """Writes into one run directory; of a run that is resumed, rows from `first_step` on go."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder = folder
        (folder / "samples").mkdir(exist_ok=True)
        self.rows = folder / "metrics.jsonl"
        if self.rows.exists():
            kept = [row for row in read_rows(self.rows) if row.get("step", 0) < first_step]
            write_atomically(self.rows, b"".join(map(_line, kept)))
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard hides what was written for this step and later before the run was resumed.
        self.events: SummaryWriter | None = SummaryWriter(folder, purge_step=first_step)

    def metrics(self, step: int, values: dict[str, float], warnings: Sequence[str] = ()) -> None:
        """Append one row and one event per value; warnings as `"warnings": [...]` and as text.

        Values that are not finite, which JSON cannot express, are left out.
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        row = {"step": step, **values, **({"warnings": list(warnings)} if warnings else {})}
        append(self.rows, _line(row))

        def add(events: SummaryWriter) -> None:
            for name, value in values.items():
                events.add_scalar(name, value, step)
            if warnings:
                events.add_text("warnings", "  \n".join(warnings), step)

        self._write_events(add)

    def pictures(self, name: str, images: Tensor, step: int) -> None:
        """Write a sheet of uint8 images (B, C, H, W) as samples/NAME-step-….png and as an event."""
        sheet = make_grid(images)
        save_png(self.folder / "samples" / f"{name}-step-{step:08d}.png", sheet)
        self._write_events(lambda events: events.add_image(name, sheet, step))

    def _write_events(self, add: Callable[[SummaryWriter], None]) -> None:
        """Add events and write them to disk; a run continues without them where that fails."""
        if not self.events:
            return
        try:
            add(self.events)
            self.events.flush()
        except OSError as error:
            text = f"Warning: {self.folder}: events cannot be written ({error.strerror})"
            print(f"{text}; the run continues without TensorBoard events", file=sys.stderr)
            self.close()

    def close(self) -> None:
        """Close the events; nothing is added to them any more."""
        if self.events:
            with contextlib.suppress(OSError):  # it tries once more to write what it could not
                self.events.close()
            self.events = None


class Progress:
    """A bar on a terminal; elsewhere a plain line every ten seconds; one at each snapshot."""

    def __init__(self, total: int, start: int, unit: str) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=total,
            initial=start,
            unit=unit,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        self.total, self.unit, self.printed = total, unit, time.monotonic()

    def advance(self) -> None:
        """One step further."""
        self.bar.update()

    def show(self, step: int, values: dict[str, float], lasting: bool = False) -> None:
        """The latest numbers beside the bar, or on a line of their own, where they are to last."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if lasting or (self.bar.disable and (now - self.printed >= 10 or step == self.total)):
            self.say(f"{self.unit} {step}/{self.total}  {text}".rstrip())
            self.printed = now

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


class Silence:
    """Log and progress of processes beside the first, which leave both to it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None
