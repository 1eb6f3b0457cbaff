"""Images in .npy and .npz files, memory-mapped where possible, never unpickled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gen.data.decode import DataError
from gen.system.errors import InputError
from gen.system.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

_RANGES = ((0, 1), (-1, 1), (0, 255))
_SLACK = 0.01  # of a range: values outside by so little are overshoot, and clipped
_BRIGHT = 16  # floats that never reach this gray level are not on [0, 255]
_CHUNK = 1 << 24  # values looked at in one go
_HEADERS = {  # of versions of .npy; (3, 0) is for structured types alone
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_CLASSES = 1 << 16  # more labels than that are no classes


@dataclass(frozen=True)
class ArrayImages:
    """Images of one file: pixels (N, H, W, C) as stored, the values of black and white, labels.

    `notes` say how the array was read: its axes where they are in doubt, and its scale.
    """

    pixels: np.ndarray
    value_range: tuple[int, int]
    labels: np.ndarray | None = None  # int64 (N,)
    notes: tuple[str, ...] = ()

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels as gray levels: uint8 as they are, others as float32 on [0, 255], clipped."""
        if pixels.dtype == np.uint8:
            return pixels
        low, high = self.value_range
        levels = (pixels.astype(np.float32) - low) * np.float32(255 / (high - low))
        return np.clip(levels, 0, 255, out=levels)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return images (B, H, W, C) as uint8."""
        return np.rint(self.scaled(np.asarray(self.pixels[indices]))).astype(np.uint8)


def is_array(path: Path) -> bool:
    """Whether a path is an .npy or .npz file."""
    return path.suffix.lower() in (".npy", ".npz") and path.is_file()


def open_array(path: Path) -> ArrayImages:
    """Open images stored as one array, as `array_images` reads it.

    An .npz holds the array as `images`, as `arr_0` or as its only one, and may hold integer
    `labels` (N,). Raises DataError for anything else.
    """
    try:
        if path.suffix.lower() == ".npy":
            images, labels = map_array(path), None
        else:
            with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
                images, labels = _members(archive)
    except Exception as error:  # damaged zip members and headers raise many kinds
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    return array_images(path, images, labels)


def array_images(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> ArrayImages:
    """Images of an array (N, H, W), (N, H, W, C) or (N, C, H, W), or one picture without N.

    The type is uint8, uint16, or float whose range over all images tells its scale: [0, 1], else
    [-1, 1], else [0, 255], each with a little overshoot. Raises DataError for anything else.
    """
    try:
        pixels, axes = _one_set(images)
        pixels = channels_last(pixels)
        labels = checked_labels(labels, len(pixels))
        value_range, scale = _value_range(pixels)
        return ArrayImages(pixels, value_range, labels, tuple(filter(None, (axes, scale))))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def map_array(path: Path) -> np.ndarray:
    """Map an .npy file that is a regular file; raises ValueError for objects, OSError."""
    with open_regular(path) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise InputError(f"is of version {version} of .npy, must be (1, 0) or (2, 0)")
        shape, fortran, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise InputError("holds Python objects, must be uint8 or float")
        order = "F" if fortran else "C"
        return np.memmap(file, dtype, "r", file.tell(), shape, order)


def _members(archive: np.lib.npyio.NpzFile) -> tuple[np.ndarray, np.ndarray | None]:
    names = [name for name in archive.files if name != "labels"]
    name = next((name for name in ("images", "arr_0") if name in names), None)
    if name is None:
        if len(names) != 1:
            raise InputError(f"holds arrays {', '.join(names) or 'none'}; call one `images`")
        name = names[0]
    labels = _member(archive, "labels") if "labels" in archive.files else None
    return _member(archive, name), labels


def _member(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array, inflated only if it fits: a megabyte of zip can hold a gigabyte."""
    sizes = [m.file_size for m in archive.zip.infolist() if m.filename.removesuffix(".npy") == name]
    if max(sizes) > (limit := _memory() // 2):
        raise InputError(
            f"{name} unpacks to {max(sizes):,} bytes, this machine's memory allows {limit:,}; "
            "save it as .npy, which is read in place"
        )
    array = archive[name]
    if not isinstance(array, np.ndarray):  # a member without the magic of .npy comes as bytes
        raise InputError(f"{name} is no array")
    return array


def _memory() -> int:
    """Bytes of memory of this machine; 8 GiB where the system does not say."""
    if not hasattr(os, "sysconf"):
        return 8 << 30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _one_set(images: np.ndarray) -> tuple[np.ndarray, str]:
    """A set of one where the array is a single picture, and the line that says so."""
    shape = images.shape
    if len(shape) == 2:
        return images[None], f"shape {shape} is read as one gray picture (H, W)"
    if len(shape) != 3:
        return images, ""
    first, last = shape[0] == 3, shape[2] in (1, 3, 4)
    if first and last:
        raise InputError(
            f"has shape {shape}: one picture or three? Store (N, H, W, C) or (N, C, H, W)"
        )
    if last:
        return images[None], f"shape {shape} is read as one picture (H, W, C)"
    if first:
        other = (*shape, 1)
        return images[None], (
            f"shape {shape} is read as one picture (C, H, W); store three gray ones as {other}"
        )
    return images, ""


def channels_last(images: np.ndarray) -> np.ndarray:
    """View a set of images as (N, H, W, C)."""
    shape = images.shape
    if 0 in shape:
        raise InputError(f"holds no images: its shape is {shape}")
    if len(shape) == 3:
        return images[..., None]
    first, last = (len(shape) == 4 and shape[axis] in (1, 3, 4) for axis in (1, 3))
    if first == last:
        raise InputError(
            f"has shape {shape}, must be (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 "
            "channels"
        )
    return images.transpose(0, 2, 3, 1) if first else images


def _value_range(images: np.ndarray) -> tuple[tuple[int, int], str]:
    """Values of black and white, and the line that says so."""
    dtype = images.dtype
    if dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        return (0, white), f"{dtype} is read as 0 (black) to {white} (white)"
    if dtype.kind != "f":
        raise InputError(f"holds {dtype}, must be uint8, uint16 or float")
    step = max(1, _CHUNK // max(1, images[0].size))
    parts = [images[start : start + step] for start in range(0, len(images), step)]
    low = float(np.min([part.min() for part in parts]))  # unlike min(), np.min keeps NaN
    high = float(np.max([part.max() for part in parts]))
    for black, white in _RANGES:
        slack = _SLACK * (white - black)
        dark = white == 255 and high < _BRIGHT
        if black - slack <= low and high <= white + slack and not dark:
            said = f"{dtype} is read as {black} (black) to {white} (white)"
            if low < black or high > white:
                said += f"; its values {low:.8g} … {high:.8g} are clipped"
            return (black, white), said
    raise InputError(
        f"holds values {low:g} … {high:g}, must be finite and in [0, 1], [-1, 1] or [0, 255]"
    )


def checked_labels(
    labels: np.ndarray | None, count: int, classes: int = _CLASSES
) -> np.ndarray | None:
    """Labels as int64 (count,); raises ValueError unless they are integers below `classes`."""
    if labels is None:
        return None
    whole = labels.shape == (count,) and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"labels must be {count} integers from 0 to {classes - 1}, one per image")
    return labels.astype(np.int64)
