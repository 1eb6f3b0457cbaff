"""Images at their native size, streamed in batches for measuring: never resized, never cropped."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from gen.data.arrays import open_array
from gen.data.decode import (
    MAX_PIXELS,
    WHITE,
    BadImage,
    Color,
    DataError,
    Header,
    convert_channels,
    decode,
    describe_skipped,
    list_images,
    read_header,
)
from gen.system.errors import InputError

Size = tuple[int, int]
_Result = TypeVar("_Result")
_BATCH_VALUES = 2**22  # values of one batch: what is held at once, whatever the size of the set
_MAX_BATCH = 256


@dataclass
class ImageStream:
    """Batches of images of one shape, to be read once, in a fixed order.

    Attributes:
        shape: (C, H, W) of every image.
        count: Images to expect; fewer come where some turn out to be left out.
        batches: Gray levels (B, C, H, W): uint8, or float32 on [0, 255] where the source holds
            more than eight bits.
        notes: One line per kind of image left out; complete when the batches are used up.
        periods: Periods in pixels that a network which makes them can leave; empty for others.
    """

    shape: tuple[int, int, int]
    count: int
    batches: Iterable[np.ndarray]
    notes: list[str] = field(default_factory=list)
    periods: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """How sample sheets are cut: tiles of (H, W), the first at (gap, gap), `gap` pixels between."""

    tile: Size
    gap: int = 0

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Cut a sheet (H, W, C) into tiles (N, h, w, C), row by row; a lone tile stays whole.

        Raises:
            ValueError: The sheet's sides are no whole number of tiles and gaps.
        """
        if pixels.shape[:2] == self.tile:
            return pixels[None]
        height, width = self.tile
        tops, lefts = map(self._starts, pixels.shape[:2], self.tile)
        return np.stack([pixels[y : y + height, x : x + width] for y in tops for x in lefts])

    def count(self, size: Size) -> int:
        """Tiles in a sheet of `size`; raises ValueError as `cut` does."""
        if size == self.tile:
            return 1
        tops, lefts = map(self._starts, size, self.tile)
        return len(tops) * len(lefts)

    def _starts(self, side: int, tile: int) -> range:
        # A wrong size or gap would put every tile at another phase of the lattice: refuse to guess.
        number, rest = divmod(side, tile + self.gap)
        if not number or rest != self.gap:
            raise InputError(
                f"a side of {side} pixels is not made of tiles of {tile} with gaps of {self.gap}; "
                "give the sheet's own tile size and gap"
            )
        return range(self.gap, side - tile + 1, tile + self.gap)


@dataclass(frozen=True)
class Selection:
    """Which images of a source to take, and as what.

    Attributes:
        sheet: Cut every image into tiles; tiles of one flat color, empty cells, are left out.
        size: Take images of this (H, W), not of the most frequent size.
        channels: 1 or 3: read as gray or as RGB, whatever the source holds.
        max_images: Take the first so many images, in the order of their names.
        workers: Decoding threads; 0 is one per processor, at most eight.
        skip_bad: Count unreadable files in the notes instead of raising.
        background: Color under transparent pixels.
        max_pixels: Larger images are bad images.
        part: The number of images → those to read. The parts that several processes read are
            together what one would read, in the same order.
    """

    sheet: Sheet | None = None
    size: Size | None = None
    channels: int | None = None
    max_images: int | None = None
    workers: int = 0
    skip_bad: bool = False
    background: Color = WHITE
    max_pixels: int = MAX_PIXELS
    part: Callable[[int], slice] = slice  # all


def open_stream(path: Path, selection: Selection | None = None) -> ImageStream:
    """Open images for measuring: a folder (recursive), one image file, an .npy or .npz file.

    Of mixed sizes the most frequent is taken (the first met among equals) and the others are
    noted. If any image of that size is in color, all are read as RGB, else all as gray; alpha is
    composited on the background.

    Raises:
        DataError: The path is missing or holds no fitting images, or tiles do not fit.
        BadImage: A file cannot be read, unless these are skipped; also while streaming.
    """
    selection = selection or Selection()
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return _from_array(path, selection)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    paths = list_images(path) if path.is_dir() else [path]
    return _from_files(path, paths[: selection.max_images], selection)


def _from_array(path: Path, selection: Selection) -> ImageStream:
    array = open_array(path)
    low, high = array.value_range
    pixels, sheet = array.pixels[: selection.max_images], selection.sheet
    size = pixels.shape[1:3]
    if selection.size not in (None, sheet.tile if sheet else size):
        raise DataError(
            f"{path}: holds images of {_format_size(size)}, not of {_format_size(selection.size)}"
        )
    count = _count_tiles(path, size, sheet) * len(pixels)
    channels = selection.channels or (1 if pixels.shape[3] == 1 else 3)
    step = _batch_size(pixels[0].size)
    if not sheet:
        pixels = pixels[selection.part(count)]

    def parts() -> Generator[np.ndarray, None, None]:
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            if part.dtype != np.uint8:
                part = (part.astype(np.float32) - low) * np.float32(255 / (high - low))
            part = convert_channels(part, channels, selection.background)
            yield from (part,) if sheet is None else map(sheet.cut, part)

    return _stream(parts(), channels, sheet.tile if sheet else size, count, selection)


def _from_files(source: Path, paths: list[Path], selection: Selection) -> ImageStream:
    workers = selection.workers or min(os.cpu_count() or 1, 8)
    look = partial(read_header, max_pixels=selection.max_pixels)
    headers = list(_map_in_order(look, paths, workers, 64, selection.skip_bad))
    files = [found for found in headers if isinstance(found, Header)]
    bad = [found for found in headers if isinstance(found, str)]
    if not files:
        raise DataError(f"{source}: {describe_skipped(bad, len(paths))}")
    sheet = selection.sheet
    sizes, notes = Counter(file.size for file in files), []
    size = sheet.tile if sheet else selection.size or sizes.most_common(1)[0][0]
    if sheet:
        count = sum(_count_tiles(file.path, file.size, sheet) for file in files)
    else:
        files = [file for file in files if file.size == size]
        count = len(files)
        if not files:
            raise DataError(
                f"{source}: no image of {_format_size(size)}; it holds {_list_sizes(sizes)}"
            )
        if other := _list_sizes(sizes - Counter({size: count})):
            left = sizes.total() - count
            notes.append(
                f"{left} images of other sizes left out: {other}; measured: {_format_size(size)}"
            )
    channels = selection.channels or (3 if any(file.color for file in files) else 1)
    largest = max(file.size[0] * file.size[1] for file in files)
    if not sheet:
        part = selection.part(count)
        files, bad = files[part], [] if part.start else bad  # said by who reads the first part

    def parts() -> Generator[np.ndarray, None, None]:
        turned = 0
        read = partial(
            decode,
            channels=channels,
            background=selection.background,
            max_pixels=selection.max_pixels,
        )
        ahead = min(4 * workers, _batch_size(largest * channels))
        images = _map_in_order(read, [f.path for f in files], workers, ahead, selection.skip_bad)
        try:
            for pixels in images:
                if isinstance(pixels, str):
                    bad.append(pixels)
                elif sheet:
                    yield sheet.cut(pixels)
                elif pixels.shape[:2] == size:
                    yield pixels[None]
                else:  # rotated by an EXIF tag that comes after the pixels
                    turned += 1
        finally:
            notes.extend([describe_skipped(bad, len(paths))] if bad else [])
            notes.extend([f"{turned} images of another orientation left out"] if turned else [])

    return _stream(parts(), channels, size, count, selection, notes)


def _stream(
    parts: Generator[np.ndarray, None, None],
    channels: int,
    size: Size,
    count: int,
    selection: Selection,
    notes: list[str] | None = None,
) -> ImageStream:
    """Join parts (n, H, W, C) to batches; drop empty cells of sheets; stop at `max_images`.

    Only reading tells which tiles of sheets count, so sheets are parted here, and others before.
    """
    notes = [] if notes is None else notes
    limit = min(count, selection.max_images or count)
    wanted = selection.part(limit) if selection.sheet else slice(limit)
    begin, end = wanted.start or 0, wanted.stop
    batch_size = _batch_size(channels * size[0] * size[1])

    def batches() -> Iterator[np.ndarray]:
        held, number, seen, empty = [], 0, 0, 0
        with closing(parts):
            for part in parts:
                if selection.sheet:
                    flat = np.ptp(part, axis=(1, 2)).max(-1) == 0
                    part, empty = part[~flat], empty + int(flat.sum())
                seen, before = seen + len(part), seen
                part = part[max(0, begin - before) : end - before]
                held.append(part)
                number += len(part)
                if number >= batch_size:
                    yield np.concatenate(held).transpose(0, 3, 1, 2)
                    held, number = [], 0
                if seen >= end:
                    break
        if number:
            yield np.concatenate(held).transpose(0, 3, 1, 2)
        if empty and end == limit:
            notes.append(f"{empty} tiles of one flat color (empty cells) left out")

    return ImageStream((channels, *size), limit, batches(), notes)


def _map_in_order(
    function: Callable[[Path], _Result], paths: list[Path], workers: int, ahead: int, skip_bad: bool
) -> Iterator[_Result | str]:
    """Yield results of threads in the order of `paths`, few ahead; what is wrong with a bad image.

    Raises BadImage unless bad images are skipped.
    """

    def guarded(path: Path) -> _Result | str:
        try:
            return function(path)
        except BadImage as error:
            if skip_bad:
                return str(error)
            raise

    with ThreadPoolExecutor(workers, "decode") as pool:
        pending: deque = deque()
        for path in paths:
            pending.append(pool.submit(guarded, path))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _count_tiles(path: Path, size: Size, sheet: Sheet | None) -> int:
    try:
        return sheet.count(size) if sheet else 1
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _batch_size(values: int) -> int:
    return max(1, min(_MAX_BATCH, _BATCH_VALUES // values))


def _format_size(size: Size) -> str:
    return f"{size[0]}×{size[1]}"


def _list_sizes(sizes: Counter[Size]) -> str:
    """`3 of 20×24, 1 of 8×8, …`: the most frequent few."""
    parts = [f"{number} of {_format_size(size)}" for size, number in sizes.most_common(3)]
    return ", ".join([*parts, "…"] if len(sizes) > 3 else parts)
