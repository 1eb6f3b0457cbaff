"""Files that are whole or not there, readers that never wait, and a locked directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gen.system import distributed
from gen.system.errors import GenError
from gen.system.text import printable

_UNFINISHED = ".tmp"  # how the names of temporary files end
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # POSIX; Windows


class NotRegularError(GenError, OSError):
    """A pipe, device, socket or directory in the place of a file."""


def open_descriptor(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, or make one if `flags` say so; returns its descriptor.

    Opening a pipe waits for its other end, and opening a device can change it. What is opened is
    checked again, in case another process exchanges the file between the two looks.

    Raises:
        NotRegularError: something else is there.
        OSError: as `os.open`.
    """
    with contextlib.suppress(FileNotFoundError):
        _check_regular(Path(path).stat(), path)
    descriptor = os.open(path, flags | _AT_ONCE, 0o666)
    try:
        _check_regular(os.fstat(descriptor), path)
    except NotRegularError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, device or socket"
        raise NotRegularError(errno.EINVAL, f"{kind}, not a file", str(path))


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file to read bytes, without waiting; raises as `open_descriptor`."""
    return os.fdopen(open_descriptor(path), "rb")


def read_regular(path: Path | str) -> bytes:
    """The bytes of a regular file; raises as `open_descriptor`."""
    with open_regular(path) as file:
        return file.read()


@contextlib.contextmanager
def atomic_file(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well, and is gone otherwise.

    Temporary file in the same directory, fsync, rename, fsync of the directory: a crash at any
    moment leaves the old file or the new one. Without `durable`, for files of which there are many
    and whose reader checks them, both fsyncs are left to the caller: a crash of the process still
    leaves the old file or the new one, a crash of the machine perhaps a damaged one.

    Raises:
        OSError: the directory is missing, read-only or full; the old file is untouched.
    """
    path = Path(path)
    with _named_failure(path):
        descriptor, name = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            # mkstemp makes private files; give the permissions that open() would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_directory(path.parent)


def write_atomically(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; as `atomic_file`, also in what it raises."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def append(path: Path, data: bytes) -> None:
    """Add `data` to the end of a file, on the disk when this returns.

    Raises:
        OSError: the disk is full, or the file may not grow; it is as long as it was before.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with _named_failure(path), open(open_descriptor(path, flags), "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a log of metrics, one JSON object per line.

    A row has a whole `step` and else finite numbers, or texts in the list `warnings`. A line on
    stderr counts those that are none, such as a torn last one, as a crash leaves it.

    Raises:
        OSError: as `open_descriptor`.
    """
    lines = read_regular(path).split(b"\n")
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            rows.append(row)
        else:
            bad.append(number)
    if bad and not distributed.launch_rank():
        text = f"Warning: {path}: left out {len(bad)} lines that are no rows (first: line {bad[0]})"
        print(printable(text), file=sys.stderr)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    texts = row.get("warnings", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return False
    values = [value for name, value in row.items() if name != "warnings"]
    numbers = all(type(value) in (int, float) and abs(value) < 1e300 for value in values)
    return numbers and 0 <= row["step"] <= 10**9  # NaN is not below anything


@contextlib.contextmanager
def _named_failure(path: Path) -> Iterator[None]:
    """Say which file cannot be written; the system's errors often do not."""
    try:
        yield
    except OSError as error:
        if error.filename and _UNFINISHED not in str(error.filename):
            raise  # it names a file of its own
        text = f"cannot be written: {error.strerror or error}; what was saved before is intact"
        raise OSError(error.errno or errno.EIO, text, str(path)) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_atomically` left in a directory where a process was killed meanwhile."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a directory to this process; the system lets go of it however the process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "another process is training here", str(folder)
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _sync_directory(folder: Path) -> None:
    """Make a rename durable; a no-op where directories cannot be opened (Windows)."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
