"""Files that nobody should trust, made where they are needed: no binaries in the repository."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import link, make_pipe

PHOTO = np.add.outer(np.arange(48), np.arange(64))[..., None] + np.arange(0, 120, 40)
PHOTO = (PHOTO + np.random.default_rng(0).integers(0, 30, PHOTO.shape)).astype(np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(pixels: np.ndarray, kind: str = "png", mode: str | None = None, **options) -> bytes:
    """A file of these pixels as Pillow writes it."""
    buffer = BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG made by hand: scan lines with their filter bytes, and more chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)) + more
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_idx(path: Path, values: np.ndarray) -> None:
    """A file as MNIST's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def _tiff(value: float, kind: type) -> bytes:
    """One pixel of a value among others, as large as the photograph."""
    pixels = np.zeros(PHOTO.shape[:2], kind)
    pixels[5, 7] = value
    return encoded(pixels, "tiff")


def _is(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


_PNG, _JPEG = encoded(PHOTO), encoded(PHOTO, "jpeg")
_UNKNOWN = "not a readable PNG, JPEG, BMP, WebP, TIFF or GIF image"

# What it is, its name among good images, how it is made, what is said of it.
BAD: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("an empty file", "b.png", _is(b""), _UNKNOWN),
    ("a signature alone", "b.png", _is(SIGNATURE), _UNKNOWN),
    ("half a PNG", "b.png", _is(_PNG[: len(_PNG) // 2]), "[Tt]runcated"),
    ("all but the end of a PNG", "b.png", _is(_PNG[:-40]), "[Tt]runcated"),
    ("half a JPEG", "b.jpg", _is(_JPEG[: len(_JPEG) // 2]), "[Tt]runcated"),
    ("one bit of a PNG's pixels flipped", "b.png", _is(_flipped(_PNG, len(_PNG) // 2)), "."),
    ("one bit of a PNG's header flipped", "b.png", _is(_flipped(_PNG, 18)), "."),
    ("a text renamed", "b.png", _is(b"not an image"), _UNKNOWN),
    ("a page that says 404", "b.jpg", _is(b"<html><h1>404</h1></html>"), _UNKNOWN),
    ("an icon named .png", "b.png", _is(encoded(PHOTO, "ico")), _UNKNOWN),
    ("a PostScript named .png", "b.png", _is(encoded(PHOTO, "eps")), _UNKNOWN),
    ("a float TIFF with NaN", "b.tif", _is(_tiff(np.nan, np.float32)), r"nan; a float .* \[0, 1\]"),
    ("a float TIFF with infinity", "b.tif", _is(_tiff(np.inf, np.float32)), "inf; a float image"),
    ("a float TIFF of gray levels", "b.tif", _is(_tiff(255, np.float32)), "a float image must lie"),
    ("integers beyond 16 bits", "b.tif", _is(_tiff(70000, np.int32)),
     r"70000; a 16-bit image must lie in \[0, 65535\]"),
    ("a bomb: 200 million pixels in 30 kB", "b.png", _is(png(20_000, 10_000, 1, 0, bytes(1 << 25))),
     "20000 × 10000 pixels, more than 178956970 allowed; --max-image-pixels"),
    ("a bomb: sides of two billion", "b.png", _is(png(2**31 - 1, 2**31 - 1, 8, 2, b"")), "pixels"),
    ("a bomb: a gibibyte of text", "b.png",
     _is(png(4, 4, 8, 0, bytes(20), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))))),
     "too large"),
    ("a dangling link", "b.png", partial(link, target="nowhere"), "dangling link; remove"),
    ("a link to itself", "b.png", partial(link, target="b.png"), "dangling link"),
    ("a named pipe", "b.png", make_pipe, "a pipe, device or socket, not a file"),
    ("a link to a device", "b.png", partial(link, target="/dev/zero"), "not a file"),
]  # fmt: skip

# What is read, and as what: the RGB of all its pixels on a background of (10, 20, 30).
_GREEN = np.full((6, 9, 3), (0, 255, 0), np.uint8)
_CLEAR = np.full((6, 9, 4), (255, 0, 0, 0), np.uint8)
_HALF = np.full((6, 9, 2), (0, 51), np.uint8)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
FINE: list[tuple[str, str, bytes, tuple[int, int, int]]] = [
    ("a JPEG named .png", "b.png", encoded(_GREEN, "bmp"), (0, 255, 0)),
    ("16 bits of gray", "b.png", encoded(np.full((6, 9), 32896, np.uint16)), (128,) * 3),
    ("16 bits of color", "b.png", png(1, 1, 16, 2, b"\0\x80\x80\0\0\xff\xff"), (128, 0, 255)),
    ("a float TIFF", "b.tif", encoded(np.full((6, 9), 0.2, np.float32), "tiff"), (51,) * 3),
    ("no opacity", "b.png", encoded(_CLEAR), (10, 20, 30)),
    ("gray of a fifth's opacity", "b.png", encoded(_HALF), (8, 16, 24)),
    ("a palette", "b.png", encoded(_GREEN, mode="P"), (0, 255, 0)),
    ("one bit", "b.png", encoded(_GREEN[..., 1] > 0), (255,) * 3),
    ("inks", "b.tif", encoded(_GREEN, "tiff", "CMYK"), (0, 255, 0)),
    ("a turned one", "b.tif", encoded(_GREEN, "tiff", exif=_EXIF), (0, 255, 0)),
]  # fmt: skip

# What is no image and does not count.
IGNORED: list[tuple[str, Callable[[Path], object]]] = [
    ("a dotfile", lambda folder: (folder / ".b.png").write_text("x")),
    ("a Mac's shadow", lambda folder: (folder / "._a.png").write_bytes(b"\0\5\26\7")),
    ("a hidden folder", lambda folder: _is(b"x")((_made(folder / ".cache")) / "b.png")),
    ("a directory named b.png", lambda folder: (folder / "b.png").mkdir()),
    ("a note", lambda folder: (folder / "README.txt").write_text("x")),
    ("a class without images", lambda folder: (folder / "empty").mkdir()),
]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
