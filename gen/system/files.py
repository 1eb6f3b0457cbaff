"""Files that are either whole or not there, and a directory that one process writes into."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_UNFINISHED = ".tmp"  # how the names of temporary files end


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
    with _named_failure(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a file with one per line; a torn line, as a crash leaves it, is none."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


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
