"""Where images go: a sheet, a GIF, one array, or a folder that can be continued.

Each is a context that gives `add(index, image)`, image uint8 (C, H, W). A file appears when its
context ends well, whole, and not at all otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.images import encode, encode_gif, make_grid
from gen.system.errors import GenError, InputError
from gen.system.files import atomic_file, open_regular, read_regular, write_atomically

Add = Callable[[int, Tensor], None]
Shape = tuple[int, int, int]  # C, H, W

MAX_PIXELS = 1 << 26  # of a sheet or GIF, which are held in memory and which viewers must open
JPEG_SIDE = 65_500  # pixels
GAP = 2  # pixels around the tiles of a sheet
RECORD = "sampling.json"


class FolderError(GenError):
    """A folder of samples cannot be continued; one line that says why."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _empty(path: Path, count: int, shape: Shape) -> Tensor:
    """Room for `count` images; raises ValueError if they are too many for one picture."""
    height, width = shape[1:]
    if count * height * width > MAX_PIXELS:
        raise InputError(
            f"{path}: {count} images of {height}x{width} are more than the "
            f"{MAX_PIXELS // (height * width)} that one picture may hold; use --outdir or --npy"
        )
    return torch.empty((count, *shape), dtype=torch.uint8)


@contextmanager
def sheet(path: Path, count: int, shape: Shape, columns: int | None) -> Iterator[Add]:
    """All images on one sheet, PNG or JPEG by the suffix of `path`."""
    suffix, columns = path.suffix.lower(), columns or math.ceil(math.sqrt(count))
    encode(torch.zeros(shape, dtype=torch.uint8), suffix)  # what it cannot hold is found now
    width = columns * (shape[2] + GAP) + GAP
    if suffix != ".png" and width > JPEG_SIDE:
        raise InputError(f"{path}: {width} pixels wide, a JPEG ends at {JPEG_SIDE}; use .png")
    images = _empty(path, count, shape)
    yield images.__setitem__
    write_atomically(path, encode(make_grid(images, columns, GAP), suffix))


@contextmanager
def animation(path: Path, count: int, shape: Shape, frames_per_second: int) -> Iterator[Add]:
    """A GIF that loops forever."""
    encode_gif(torch.zeros((1, *shape), dtype=torch.uint8), frames_per_second)
    frames = _empty(path, count, shape)
    yield frames.__setitem__
    write_atomically(path, encode_gif(list(frames), frames_per_second))


@contextmanager
def array(path: Path, count: int, shape: Shape) -> Iterator[Add]:
    """One array (N, H, W, C), uint8, in constant memory: images may come in any order."""
    channels, height, width = shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, channels)}
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()

        def add(index: int, image: Tensor) -> None:
            file.seek(start + index * image.numel())
            file.write(image.permute(1, 2, 0).contiguous().numpy())

        yield add


class Folder:
    """One file per image; an interrupted folder is continued, any other is refused.

    `sampling.json`, written first, says what the images are functions of. With it and its name
    every file is settled, so any part of the folder may be drawn at any time, by any process.
    """

    def __init__(
        self,
        path: Path,
        record: dict[str, Any],
        name: Callable[[int], str],
        format: str,
        shape: Shape | None,
    ) -> None:
        """Make the folder, or take over one with the same record; shapes may differ where None.

        Raises:
            FolderError: it holds samples of something else, or other files.
        """
        self.path, self.name, self.suffix, self.shape = path, name, f".{format}", shape
        self.there = self.redrawn = 0
        if shape:
            encode(torch.zeros(shape, dtype=torch.uint8), self.suffix)
        path.mkdir(parents=True, exist_ok=True)
        file, record = path / RECORD, {**record, "format": format}
        if file.exists():
            if differences := _differences(file, record):
                raise FolderError(f"{path}: {differences}; name another folder")
            return
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise FolderError(f"{path}: holds files but no {RECORD}; name a new or empty folder")
        write_atomically(file, f"{json.dumps(record, indent=2)}\n".encode())

    def holds(self, index: int) -> bool:
        """Whether the image is there and whole; counts."""
        path = self.path / f"{self.name(index)}{self.suffix}"
        whole = _whole(path, self.shape)
        self.there += whole
        self.redrawn += not whole and path.exists()
        return whole

    def add(self, index: int, image: Tensor) -> None:
        """Write an image."""
        self.write(index, encode(image, self.suffix))

    def write(self, index: int, data: bytes) -> None:
        """Write an image that is encoded already; `flush` sees to it that it is on the disk."""
        path = self.path / f"{self.name(index)}{self.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data, durable=False)

    def flush(self) -> None:
        """Wait for the disk once: to do so for each image takes longer than to encode it.

        Where a machine goes down before, images that are damaged are found when the same command
        goes on.
        """
        if hasattr(os, "sync"):  # not on Windows
            os.sync()

    def finish(self) -> str:
        """Remove what killed processes left; returns what was found, in words.

        Only temporary files of images that are now there: others may be another process's own.
        """
        for left in self.path.rglob(f".*{self.suffix}.*"):
            if left.with_name(left.name[1:].rpartition(".")[0]).exists():
                left.unlink(missing_ok=True)
        notes = [f"{self.there} were there"] if self.there else []
        notes += [f"{self.redrawn} damaged ones were drawn again"] if self.redrawn else []
        return f" ({', '.join(notes)})" if notes else ""


def _differences(file: Path, record: dict[str, Any]) -> str:
    """What a stored record says that `record` does not, in words."""
    try:
        stored = json.loads(read_regular(file))
        keys = [key for key in {**record, **stored} if record.get(key) != stored.get(key)]
    except (ValueError, TypeError, RecursionError) as error:
        raise FolderError(f"{file}: damaged; name another folder") from error
    if "checkpoint" in keys:
        return "holds samples of another checkpoint"
    return ", ".join(f"made with {key} {stored.get(key)}, not {record.get(key)}" for key in keys)


def _whole(path: Path, shape: Shape | None) -> bool:
    """Whether a file is an undamaged image, of this shape if there is one."""
    from PIL import Image

    try:
        if path.suffix == ".npy":
            with open_regular(path) as file:
                pixels = np.load(file)
            return pixels.dtype == np.uint8 and pixels.shape == (*shape[1:], shape[0])
        with open_regular(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            if shape and (len(image.getbands()), *image.size[::-1]) != shape:
                return False
            image.load() if image.format == "JPEG" else image.verify()
        return True
    except Exception:  # decoders raise anything; whatever it is, the image is drawn again
        return False
