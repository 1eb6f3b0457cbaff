"""stdout and stderr that are closed, full, or read by nobody: none of that ends a command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class _Guarded:
    """A text stream that goes to the null device as soon as it raises one of `errors`."""

    def __init__(self, stream: TextIO, errors: tuple[type[OSError], ...]) -> None:
        self._stream, self._errors = stream, errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's own."""
        try:
            return self._stream.write(text)
        except self._errors:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except self._errors:
            self._discard()

    def _discard(self) -> None:
        """Send what is buffered, and all that comes, to the null device."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Let progress and messages be lost rather than end the command.

    Nobody may read stdout any more (`| head`); that it cannot be written otherwise, such as for a
    full disk, is an error, because results are printed there. stderr may fail in any way.
    """
    # Closed ones (`2>&-`) leave a number that the next file would get, and be printed into.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    out, err = (stream or Path(os.devnull).open("w") for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = _Guarded(out, (BrokenPipeError,)), _Guarded(err, (OSError,))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
