"""Files and folders that are whole or not there, readers that never wait, a locked directory."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gen.system import distributed
from gen.system.errors import GenError
from gen.system.text import printable

_UNFINISHED = ".tmp"  # how the names of temporary files and folders end
_TEMPORARY = re.compile(r"\.(.*)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | _BINARY  # POSIX


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

    A symbolic link stays, and its target is replaced. A pipe or device is written into at the end.

    Raises:
        OSError: the directory is missing, read-only or full; the old file is untouched.
    """
    path = Path(path)
    with _named_failure(path):
        if _is_stream(path):
            buffer = io.BytesIO()
            yield buffer
            _write_into(path, buffer.getvalue())
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        if durable:
            remove_unfinished(target.parent, target.name)
        temporary, descriptor = _make_temporary(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                if os.name == "nt":  # which renames no open file
                    file.close()
                temporary.replace(target)  # before its lock goes with the descriptor
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_directory(target.parent)


def _is_stream(path: Path) -> bool:
    """Whether a path is a pipe, a device, or the file that stdout or stderr goes to."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(status, os.fstat(descriptor)):
                return True
    return not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode)


def _write_into(path: Path, data: bytes) -> None:
    if sys.stdout:
        sys.stdout.flush()  # what was printed before comes before
    with path.open("ab", buffering=0) as file:
        while data:
            data = data[file.write(data) :]


def _make_temporary(path: Path, folder: bool = False) -> tuple[Path, int]:
    """A locked temporary file or folder next to `path`, and the descriptor that holds its lock."""
    stem = path.name.encode(errors="surrogateescape")[:200].decode(errors="ignore")
    while True:
        made = path.with_name(f".{stem}.{secrets.token_hex(4)}{_UNFINISHED}")
        if folder:
            made.mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = os.open(made, flags | _BINARY, 0o666)
        if _lock(descriptor) and made.exists():  # no other process took it for that of a dead one
            return made, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well and else is not there.

    Raises:
        FileExistsError: the name is taken by a file, or by a folder that is not empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder.parent, folder.name)
    made, descriptor = _make_temporary(folder, folder=True)
    try:
        yield made
        made.rename(folder)
    except BaseException as error:
        shutil.rmtree(made)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, "exists; name a new folder", str(folder)) from error
        raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; as `atomic_file`, also in what it raises."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def write_all(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files of one folder; none takes its name before all are on the disk, the last first."""
    with contextlib.ExitStack() as stack:
        for name, data in contents.items():
            file = stack.enter_context(atomic_file(folder / name))
            file.write(data)
            file.flush()


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


def is_unfinished(path: Path) -> bool:
    """Whether a file or folder has the name of a temporary one."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders that killed processes left in a directory.

    Those in use are locked, and stay. With `name`, only those on the way to this name go.
    """
    with contextlib.suppress(OSError):
        found = [(entry, _TEMPORARY.fullmatch(entry.name)) for entry in os.scandir(folder)]
        for entry, match in found:
            if match and name in (None, match[1]):
                _remove_unlocked(entry)


def _remove_unlocked(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(entry, os.O_RDONLY | _AT_ONCE | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _lock(descriptor):
                path = Path(entry)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file or folder; False where another process holds it."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        pass
    return True


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a directory to this process; the system lets go of it however the process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    if os.name == "nt":  # which opens no folder
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            raise BlockingIOError(errno.EAGAIN, "another process is training here", str(folder))
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
