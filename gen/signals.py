"""Signals: a flag to be polled, or an interruption of the command, so that nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _answered(answer: Callable[[int], None]) -> Iterator[None]:
    """Answer the first SIGINT or SIGTERM; a second one kills."""

    def handle(number: int, frame: Any) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_DFL)
        answer(number)

    previous = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, to be looked at between steps; a second one kills."""
    caught: list[int] = []
    with _answered(caught.append):
        yield caught


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt(number); a second one kills."""

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt(number)

    with _answered(interrupt):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put a signal off until the block is done, such as one that writes files that belong together.

    Only the main thread is ever interrupted; on others nothing needs to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with caught_signals() as caught:
        yield
    if caught:
        signal.raise_signal(caught[0])
