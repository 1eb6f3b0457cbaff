"""What a run leaves to be read: metrics.jsonl, TensorBoard events, sample sheets, progress."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gen.images import make_grid, save_png
from gen.system.files import append, read_rows, write_atomically


class Events:
    """TensorBoard events, written as they come.

    TensorBoard's own writer hands them to a thread, whose death on a full disk is found out later,
    if at all. A run does not depend on its events: where they cannot be written, one line on
    stderr says so, and it goes on without.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads the files of a directory in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{platform.node()}.{os.getpid()}"
        self.file: Any = (folder / name).open("wb")
        self.records = RecordWriter(self.file)
        self._write(Event(file_version="brain.Event:2"))
        # Of a run that is resumed, what was written for this step and those after it holds no more.
        log = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=log))

    def add(self, step: int, *summaries: Any) -> None:
        """Add summaries, as `torch.utils.tensorboard.summary` makes them."""
        from tensorboard.compat.proto.event_pb2 import Event

        for summary in summaries:
            self._write(Event(step=step, summary=summary))

    def _write(self, event: Any) -> None:
        if not self.file:
            return
        event.wall_time = time.time()
        try:
            self.records.write(event.SerializeToString())
            self.file.flush()
        except OSError as error:
            text = f"Warning: {self.file.name} cannot be written ({error.strerror})"
            print(f"{text}; the run goes on without TensorBoard events", file=sys.stderr)
            self.close()

    def close(self) -> None:
        """Close; nothing is written any more."""
        if self.file:
            with contextlib.suppress(OSError):  # it tries once more to write what it could not
                self.file.close()
            self.file = None


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
        self.events = Events(folder, first_step)

    def metrics(self, step: int, values: dict[str, float], warnings: Sequence[str] = ()) -> None:
        """Append one row and one event per value; warnings as `"warnings": [...]` and as text.

        Values that are not finite, which JSON has no words for, are left out.
        """
        from torch.utils.tensorboard import summary

        values = {name: value for name, value in values.items() if math.isfinite(value)}
        row = {"step": step, **values, **({"warnings": list(warnings)} if warnings else {})}
        append(self.rows, _line(row))
        self.events.add(step, *(summary.scalar(name, value) for name, value in values.items()))
        if warnings:
            self.events.add(step, summary.text("warnings", "  \n".join(warnings)))

    def pictures(self, name: str, images: Tensor, step: int) -> None:
        """Write a sheet of uint8 images (B, C, H, W) as samples/NAME-step-….png and as an event."""
        from torch.utils.tensorboard import summary

        sheet = make_grid(images)
        save_png(self.folder / "samples" / f"{name}-step-{step:08d}.png", sheet)
        self.events.add(step, summary.image(name, sheet, dataformats="CHW"))

    def close(self) -> None:
        """Close the events."""
        self.events.close()
