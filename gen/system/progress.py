"""Progress on a terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta

from gen.system.text import printable


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
        self.total, self.start, self.unit = total, start, unit
        self.begun = self.printed = time.monotonic()

    def advance(self) -> None:
        """One step further."""
        self.bar.update()

    def show(self, step: int, values: dict[str, float], lasting: bool = False) -> None:
        """Show the latest numbers next to the bar, or on a line of their own if `lasting`."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if lasting or (self.bar.disable and (now - self.printed >= 10 or step == self.total)):
            left = (now - self.begun) / max(step - self.start, 1) * (self.total - step)
            when = f"  {timedelta(seconds=round(left))} left" if 0 < step < self.total else ""
            self.say(f"{self.unit} {step}/{self.total}{when}  {text}".rstrip())
            self.printed = now

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.bar.write(printable(line), file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


class NoOutput:
    """Log and progress of all processes but rank 0, which prints for all."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None
