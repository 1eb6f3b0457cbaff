"""What a run leaves to be read: metrics.jsonl, TensorBoard events, sample sheets, progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from gen.files import write_atomically
from gen.images import make_grid, save_png


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


class RunLog:
    """Writes into one run directory; rows past `start_step` (of a run that was resumed) go."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        (folder / "samples").mkdir(exist_ok=True)
        rows = folder / "metrics.jsonl"
        if rows.exists():
            kept = [r for r in rows.read_text().splitlines() if json.loads(r)["step"] <= start_step]
            write_atomically(rows, "".join(row + "\n" for row in kept).encode())
        self.rows = rows.open("a")
        self.events = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)

    def metrics(self, step: int, values: dict[str, float], warnings: Sequence[str] = ()) -> None:
        """Append one row and one event per value; warnings as `"warnings": [...]` and as text."""
        row = {"step": step, **values, **({"warnings": list(warnings)} if warnings else {})}
        self.rows.write(json.dumps(row) + "\n")
        self.rows.flush()
        for name, value in values.items():
            self.events.add_scalar(name, value, step)
        if warnings:
            self.events.add_text("warnings", "  \n".join(warnings), step)

    def pictures(self, name: str, images: Tensor, step: int) -> None:
        """Write a sheet of uint8 images (B, C, H, W) as samples/NAME-step-….png and as an event."""
        sheet = make_grid(images)
        save_png(self.folder / "samples" / f"{name}-step-{step:08d}.png", sheet)
        self.events.add_image(name, sheet, step)
        self.events.flush()

    def close(self) -> None:
        """Flush and close."""
        self.rows.close()
        self.events.close()


class Progress:
    """A bar on a terminal; elsewhere a plain line every ten seconds and at the end."""

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

    def show(self, step: int, values: dict[str, float]) -> None:
        """The latest numbers beside the bar, or on a line of their own."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if self.bar.disable and (now - self.printed >= 10 or step == self.total):
            line = f"{self.unit} {step}/{self.total}  {text}".rstrip()
            print(line, file=sys.stderr, flush=True)
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
