"""Image files inside .zip and .tar archives, read where they lie: nothing is ever unpacked."""

from __future__ import annotations

import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from gen.system.errors import InputError
from gen.system.files import open_regular

SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
MAX_BYTES = 256 << 20  # of one member
_COMPRESSED = "is no .zip and no uncompressed .tar; unpack it, or write one of these"


@dataclass(frozen=True)
class Member:
    """A file in an archive; as text the path of the archive, then the name."""

    archive: Path
    name: str
    size: int
    read_bytes: Callable[[], bytes]

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def open(self) -> io.BytesIO:
        """The bytes as a file; raises ValueError for more than `MAX_BYTES` or too few."""
        if self.size > MAX_BYTES:
            raise InputError(f"unpacks to {self.size:,} bytes; at most {MAX_BYTES:,} are read")
        data = self.read_bytes()
        if len(data) != self.size:
            raise InputError(f"has {len(data):,} bytes of {self.size:,}; the archive is cut off")
        return io.BytesIO(data)


def is_archive(path: Path) -> bool:
    """Whether a path is a file whose name ends as archives do."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def list_members(path: Path) -> list[Member]:
    """Files in an archive, sorted by name; without those below names that start with a dot.

    Raises:
        ValueError: no archive that can be read; members that are links or devices, that are
            encrypted, that have names outside the archive, or of which two have one name.
    """
    file = open_regular(path)
    try:
        opened = _open_zip if zipfile.is_zipfile(file) else _open_tar
        members = [Member(path, *found) for found in opened(file)]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        file.close()
        raise InputError(_COMPRESSED) from error
    names = [_checked(member.name) for member in members]
    if len(names) > len(set(names)):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError(f"holds two files named {twice}; rename one")
    hidden = (any(part.startswith((".", "__MACOSX")) for part in name.parts) for name in names)
    shown = [member for member, skip in zip(members, hidden, strict=True) if not skip]
    return sorted(shown, key=lambda member: member.name)


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise InputError(f"holds {name}, a name outside the archive; write it with relative names")
    return path


def _open_zip(file: io.BufferedReader) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir():
            continue
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"holds {info.filename}, a link or device; only files are read")
        if info.flag_bits & 1:
            raise InputError(f"holds {info.filename}, which is encrypted; decrypt it")
        yield info.filename, info.file_size, partial(archive.read, info)


def _open_tar(file: io.BufferedReader) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    lock = threading.Lock()

    def read(start: int, size: int) -> bytes:
        with lock:
            file.seek(start)
            return file.read(size)

    file.seek(0)
    for info in tarfile.TarFile(fileobj=file):
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise InputError(f"holds {info.name}, a link or device; only files are read")
        yield info.name, info.size, partial(read, info.offset_data, info.size)
