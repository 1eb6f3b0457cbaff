"""Image files inside .zip and .tar archives, read where they lie: nothing is ever unpacked."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from gen.system.errors import InputError
from gen.system.files import open_regular

SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
MAX_BYTES = 256 << 20  # of one member
# What both libraries raise; the last two of numbers that fit no file.
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, OverflowError, ValueError
)  # fmt: skip
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
    try:
        with open_regular(path) as file:
            found = _zip_members if file.read(2) == b"PK" else _tar_members
            file.seek(0)
            members = [
                Member(path, name, size, partial(read, path, *rest))
                for name, size, read, *rest in found(file)
            ]
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(_COMPRESSED) from error
    names = [_checked(member.name) for member in members]
    if len(names) > len(set(names)):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"holds two files named {twice}; rename one")
    hidden = (any(part.startswith((".", "__MACOSX")) for part in name.parts) for name in names)
    shown = [member for member, skip in zip(members, hidden, strict=True) if not skip]
    return sorted(shown, key=lambda member: member.name)


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.name:
        raise InputError("holds a file without a name; write it with one")
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise InputError(f"holds {name}, a name outside the archive; write it with relative names")
    return path


def _zip_members(file: BinaryIO) -> Iterator[tuple[Any, ...]]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    for info in members:
        if info.filename.endswith("/"):  # `is_dir` fails for a name of no characters
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"holds {info.filename}, a link or device; only files are read")
        if info.flag_bits & 1:
            raise InputError(f"holds {info.filename}, which is encrypted; decrypt it")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"holds {info.filename}, neither stored nor deflated; pack it so")
        yield info.filename, info.file_size, _read_zip, info


def _read_zip(path: Path, info: zipfile.ZipInfo) -> bytes:
    """Inflate one member, never to more than its size; `zipfile` would parse all names again."""
    with open_regular(path) as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
        file.seek(sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2)), os.SEEK_CUR)
        data = file.read(info.compress_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
    if zlib.crc32(data) != info.CRC:
        raise InputError("is damaged: its checksum differs")
    return data


def _tar_members(file: BinaryIO) -> Iterator[tuple[Any, ...]]:
    with tarfile.TarFile(fileobj=file) as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise InputError(f"holds {info.name}, a link or device; only files are read")
            yield info.name, info.size, _read_tar, info.offset_data, info.size


def _read_tar(path: Path, start: int, size: int) -> bytes:
    with open_regular(path) as file:
        file.seek(start)
        return file.read(size)
