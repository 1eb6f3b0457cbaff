"""What a run leaves to be read: metrics.jsonl, TensorBoard events, sample sheets, progress."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gen.images import make_grid, save_png
from gen.system.files import append, read_rows, write_atomically
from gen.system.text import markdown, printable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def _line(row: dict[str, Any]) -> bytes:
    return f"{json.dumps(row)}\n".encode()


def _silence_writer() -> None:
    """Suppress the traceback of TensorBoard's thread, whose error the next event raises again."""
    hook = threading.excepthook
    if hook.__module__ == __name__:
        return

    def quiet(ended: threading.ExceptHookArgs) -> None:
        if not type(ended.thread).__module__.startswith("tensorboard."):
            hook(ended)

    threading.excepthook = quiet


class RunLog:
    """Writes into one run directory; of a run that is resumed, rows from `first_step` on go."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder = folder
        (folder / "samples").mkdir(exist_ok=True)
        self.rows = folder / "metrics.jsonl"
        if self.rows.exists():
            kept = [row for row in read_rows(self.rows) if row["step"] < first_step]
            write_atomically(self.rows, b"".join(map(_line, kept)))
        from torch.utils.tensorboard import SummaryWriter

        _silence_writer()
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
                events.add_scalar(printable(name), value, step)
            if warnings:
                events.add_text("warnings", "  \n".join(map(markdown, warnings)), step)

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
            text += "; the run continues without TensorBoard events"
            print(printable(text), file=sys.stderr)
            self.events = None

    def close(self) -> None:
        """Close the events; nothing is added to them any more."""
        self._write_events(lambda events: events.close())
        self.events = None
