"""Signals as a flag to be polled, so that work ends where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, to be looked at between steps; a second one kills."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        for other in previous:
            signal.signal(other, signal.SIG_DFL)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
