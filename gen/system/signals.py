"""Signals: a flag to be polled, or an interruption of the command, so that nothing is lost."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from gen.system import distributed

# SIGHUP: a terminal was closed. SIGUSR1, SIGUSR2: batch systems warn with these before they kill.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_ENDING = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
ECHO = 2.0  # seconds in which several processes may be sent one signal twice


class _Last:
    """When a signal was last answered, in whichever block."""

    time = -math.inf


@contextlib.contextmanager
def _answered(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Answer the first signal that asks to end; a second one kills. Ignored ones stay ignored.

    Of several processes none takes an echo for a second one: who ends a job often signals torchrun,
    which passes it on, and all processes as well. It may arrive after the block that answered.
    """
    answered = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal answered
        now = time.monotonic()
        if distributed.world_size() > 1 and now - _Last.time < ECHO:
            return
        _Last.time = now
        again, answered = answered, True
        if again or distributed.world_size() == 1:  # from here on the system ends the process
            for other in watched:
                signal.signal(other, signal.SIG_DFL)
        signal.raise_signal(number) if again else answer(number, frame)

    # `nohup` ignores SIGHUP; None is a handler that is not Python's.
    untouched = signal.SIG_IGN, None
    watched = [n for n in _ENDING if n in _ENDING[:2] or signal.getsignal(n) not in untouched]
    previous = {number: signal.signal(number, handle) for number in watched}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect signals that ask to end, to be looked at between steps; a second one kills."""
    caught: list[int] = []
    with _answered(lambda number, frame: caught.append(number)):
        yield caught


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let signals that ask to end raise KeyboardInterrupt(number); a second one kills."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            # Libraries catch everything around some of their imports, and continue half-imported.
            with contextlib.suppress(OSError):
                os.write(2, b"Interrupted.\n")
            os._exit(128 + number)
        raise KeyboardInterrupt(number)

    with _answered(interrupt):
        yield


def _importing(frame: FrameType | None) -> bool:
    while frame and "importlib" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


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
        _Last.time = -math.inf  # no echo
        signal.raise_signal(caught[0])
