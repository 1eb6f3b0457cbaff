"""Images at their native size, streamed in batches for measuring: never resized."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from gen.data.arrays import ArrayImages, is_array, open_array
from gen.data.decode import (
    MAX_PIXELS,
    WHITE,
    BadImage,
    Color,
    DataError,
    Header,
    ImageFile,
    convert_channels,
    decode_frames,
    list_files,
    read_headers,
)
from gen.system.errors import InputError

Size = tuple[int, int]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_BATCH_VALUES = 2**22  # values of one batch: what is held at once, whatever the size of the set
_MAX_BATCH = 256
_TASK_VALUES, _MAX_TASK = 2**18, 32  # values and files of one task of a decoding thread
# Pixels: threads that decode smaller images mostly wait for Python's lock, so one is faster.
_SMALL = 2**16


@dataclass(frozen=True)
class LeftOut:
    """So many images of the source that were not taken, and why."""

    count: int
    reason: str


@dataclass
class ImageStream:
    """Batches of images, to be read once, in a fixed order.

    Attributes:
        shape: (C, H, W) of every image, or of the blocks that all of them can be cut into.
        count: Images to expect; fewer come where some turn out to be left out.
        batches: Gray levels (B, C, H, W): uint8, or float32 on [0, 255] where the source holds
            more than eight bits.
        found: Images in the source; `count` unless it says more.
        left_out: Images that are not taken; complete when the batches are used up.
        notes: What else is to be said, such as the scale taken; one line each.
        several: The images have several sizes, each batch one of them.
        periods: Finds the periods in pixels that a network which makes them can leave, which takes
            a pass of it; none for others.
    """

    shape: tuple[int, int, int]
    count: int
    batches: Iterable[np.ndarray]
    found: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    several: bool = False
    periods: Callable[[], tuple[int, ...]] = tuple

    def __post_init__(self) -> None:
        self.found = self.found or self.count

    def said(self) -> list[str]:
        """The notes, and one line per kind of image left out."""
        return [*self.notes, *(_describe(each, self.found) for each in self.left_out)]


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
        crop: Take the middle (H, W) of every image that is large enough, instead of those of one
            size, at an offset of whole multiples of `lattice` pixels.
        most: Take images of several sizes if they are cut into blocks of at most this side.
        block: Take all images that can be cut into blocks of this (H, W).
        channels: 1 or 3: read as gray or as RGB, whatever the source holds.
        max_images: Take the first so many images, in the order of their names.
        workers: Decoding threads; 0 is one per processor, at most eight. For images of fewer than
            256×256 pixels, which more threads slow down, it is one.
        skip_bad: Count unreadable files in the notes instead of raising.
        background: Color under transparent pixels.
        max_pixels: Larger images are bad images.
        part: The number of images → those to read. The parts that several processes read are
            together what one would read, in the same order.
    """

    sheet: Sheet | None = None
    size: Size | None = None
    crop: Size | None = None
    lattice: int = 1
    most: int | None = None
    block: Size | None = None
    channels: int | None = None
    max_images: int | None = None
    workers: int = 0
    skip_bad: bool = False
    background: Color = WHITE
    max_pixels: int = MAX_PIXELS
    part: Callable[[int], slice] = slice  # all


def open_stream(paths: Path | Sequence[Path], selection: Selection | None = None) -> ImageStream:
    """Open images for measuring: folders (recursive), archives, image files, or one array file.

    Every page of a TIFF and every frame of an animation is an image. Of mixed sizes the most
    frequent is taken (the first met among equals) unless the selection says how to take all; the
    others are left out. If any image taken is in color, all are read as RGB, else all as gray;
    alpha is composited on the background.

    Raises:
        DataError: A path is missing or holds no fitting images, or tiles do not fit.
        BadImage: A file cannot be read, unless these are skipped; also while streaming.
    """
    selection = selection or Selection()
    paths = [paths] if isinstance(paths, Path) else [*paths]
    arrays = [path for path in paths if is_array(path)]
    if arrays and len(paths) > 1:
        raise DataError(f"{arrays[0]}: an array file is measured alone; leave other paths out")
    if arrays:
        return stream_array(arrays[0], open_array(arrays[0]), selection)
    files = [file for path in paths for file in list_files(path)]
    return _from_files(", ".join(map(str, paths)), files, selection)


def stream_array(path: Path, array: ArrayImages, selection: Selection) -> ImageStream:
    """Stream the images of an array; `path` is for messages. Raises DataError as `open_stream`."""
    pixels, sheet = array.pixels[: selection.max_images], selection.sheet
    held = size = pixels.shape[1:3]
    if selection.crop and min(np.subtract(size, selection.crop)) >= 0:
        size = selection.crop
    wanted = sheet.tile if sheet else size
    if (selection.size or selection.crop or wanted) != wanted:
        asked = _format_size(selection.size or selection.crop)
        raise DataError(f"{path}: holds images of {_format_size(size)}, not of {asked}")
    if selection.block and min(np.subtract(size, selection.block)) < 0:
        asked = _format_size(selection.block)
        raise DataError(f"{path}: holds images of {_format_size(size)}, smaller than {asked}")
    count = _count_tiles(path, size, sheet) * len(pixels)
    channels = selection.channels or (1 if pixels.shape[3] in (1, 2) else 3)
    step = _batch_size(pixels[0].size)
    if not sheet:
        pixels = pixels[selection.part(count)]
    if size != held:
        pixels = _crop(pixels, size, selection.lattice)

    def parts() -> Generator[np.ndarray, None, None]:
        for start in range(0, len(pixels), step):
            part = array.scaled(pixels[start : start + step])
            part = convert_channels(part, channels, selection.background)
            yield from (part,) if sheet is None else map(sheet.cut, part)

    shape = (channels, *(selection.block or wanted))
    stream = ImageStream(shape, count, (), count, notes=[*array.notes])
    stream.several = selection.block is not None
    return _batched(stream, parts(), selection)


def _from_files(source: str, paths: list[ImageFile], selection: Selection) -> ImageStream:
    look = partial(read_headers, max_pixels=selection.max_pixels)
    files, bad = [], []
    tasks = [paths[i : i + _MAX_TASK] for i in range(0, len(paths), _MAX_TASK)]
    workers = selection.workers or 1
    for found in _map_in_rounds(_guarded(look, selection.skip_bad), tasks, workers, 2 * workers):
        files += found.good
        bad += found.bad
        if selection.max_images and len(files) >= selection.max_images:
            break
    files = files[: selection.max_images]
    stream = ImageStream((1, 1, 1), 0, (), len(files) + len(bad))
    if not files:
        raise DataError(f"{source}: {_describe(_unreadable(bad), stream.found)}")
    files, size = _choose(source, files, selection, stream)
    channels = selection.channels or (3 if any(file.color for file in files) else 1)
    stream.shape = (channels, *size)
    stream.count = len(files)
    if selection.sheet:
        tiles = sum(_count_tiles(f.path, f.size, selection.sheet) for f in files)
        stream.count = stream.found = tiles
    else:
        part = selection.part(len(files))
        files = files[part]
        if part.start:  # said by who reads the first part
            stream.left_out.clear()
            bad.clear()
    parts = _decoded(files, channels, selection, stream.left_out, bad)
    return _batched(stream, parts, selection)


def _choose(
    source: str, files: list[Header], selection: Selection, stream: ImageStream
) -> tuple[list[Header], Size]:
    """The images to take, size by size, and their size, or that of their blocks.

    The rest is counted in `left_out`.
    """
    sizes = Counter(file.size for file in files)
    if selection.sheet:
        return files, selection.sheet.tile
    block = selection.block
    if selection.most and not (selection.crop or selection.size) and len(sizes) > 1:
        most = selection.most
        capped = Counter((min(h, most), min(w, most)) for h, w in (f.size for f in files))
        block = block or capped.most_common(1)[0][0]
    least = block or selection.crop
    if least:
        taken = [s for s in sizes if s[0] >= least[0] and s[1] >= least[1]]
        size, why = least, f"smaller than {_format_size(least)}"
    else:
        size = selection.size or sizes.most_common(1)[0][0]
        taken, why = [size] if size in sizes else [], f"of other sizes than {_format_size(size)}"
    if not taken:
        word = "an image of" if not least else "an image of at least"
        raise DataError(f"{source}: holds {_list_sizes(sizes)}, not {word} {_format_size(size)}")
    other = Counter({s: n for s, n in sizes.items() if s not in taken})
    if other:
        stream.left_out.append(LeftOut(other.total(), f"{why}: {_list_sizes(other)}"))
    if block and len(taken) == 1 and selection.block is None:
        size, block = taken[0], None
    stream.several = block is not None
    order = {s: n for n, s in enumerate(taken)}
    taken_files = [file for file in files if file.size in order]
    return sorted(taken_files, key=lambda file: order[file.size] if block else 0), size


def _crop(pixels: np.ndarray, size: Size, lattice: int) -> np.ndarray:
    """The middle (h, w) of pixels (…, H, W, C), at a multiple of `lattice`."""
    tops = (
        (n - m) // 2 // lattice * lattice for n, m in zip(pixels.shape[-3:-1], size, strict=True)
    )
    (y, x), (h, w) = tops, size
    return pixels[..., y : y + h, x : x + w, :]


def _decoded(
    files: list[Header],
    channels: int,
    selection: Selection,
    left_out: list[LeftOut],
    bad: list[str],
) -> Generator[np.ndarray, None, None]:
    """Parts (n, H, W, C) of one size in the order of the files.

    At the end `left_out` says what could not be taken, with the `bad` files known before.
    """
    turned, sheet = 0, selection.sheet
    options = {"background": selection.background, "max_pixels": selection.max_pixels}

    def read(frames: list[Header]) -> list[np.ndarray]:
        first, last = frames[0], frames[-1]
        wanted = range(first.frame, last.frame + 1)
        found = decode_frames(first.path, wanted, channels=channels, **options)
        sized = [p for p, f in zip(found, frames, strict=True) if sheet or p.shape[:2] == f.size]
        if selection.crop:
            sized = [_crop(pixels, selection.crop, selection.lattice) for pixels in sized]
        return sized

    tasks = list(_tasks(files, channels))
    try:
        height, width = files[0].size
        fastest = 1 if height * width < _SMALL else min(os.cpu_count() or 1, 8)
        workers = selection.workers or fastest
        batch = -(-_batch_size(height * width * channels) // sum(map(len, tasks[0])))
        results = _map_in_rounds(
            _guarded(read, selection.skip_bad), tasks, workers, max(batch, workers)
        )
        for task, found in zip(tasks, results, strict=True):
            bad += found.bad
            # Images can be rotated by an EXIF tag that comes after the pixels.
            turned += sum(map(len, task)) - len(found.bad) - len(found.good)
            if sheet:
                yield from map(sheet.cut, found.good)
                continue
            for _, same in groupby(found.good, key=np.shape):
                yield np.stack([*same])
    finally:
        if bad:
            left_out.append(_unreadable(bad))
        if turned:
            left_out.append(LeftOut(turned, "of another orientation"))


def _tasks(files: list[Header], channels: int) -> Iterator[list[list[Header]]]:
    """Work for one thread at a time: some files, each with its frames, of about equal effort."""
    task, values = [], 0
    for file in files:
        size = file.size[0] * file.size[1] * channels
        if task and (values + size > _TASK_VALUES or len(task) == min(_MAX_TASK, _MAX_BATCH)):
            yield task
            task, values = [], 0
        values += size
        last = task[-1][-1] if task else None
        if last and last.path is file.path and file.frame == last.frame + 1:
            task[-1].append(file)
        else:
            task.append([file])
    yield task


def _batched(
    stream: ImageStream, parts: Generator[np.ndarray, None, None], selection: Selection
) -> ImageStream:
    """Join parts (n, H, W, C) to batches; drop empty cells of sheets; stop at `max_images`.

    Only reading tells which tiles of sheets count, so sheets are parted here, and others before.
    """
    stream.count = limit = min(stream.count, selection.max_images or stream.count)
    wanted = selection.part(limit) if selection.sheet else slice(limit)
    begin, end = wanted.start or 0, wanted.stop
    left_out = stream.left_out  # the stream itself would hold its own generator alive

    def batches() -> Iterator[np.ndarray]:
        held, number, seen, empty = [], 0, 0, 0
        with closing(parts):
            for part in parts:
                if selection.sheet:
                    flat = np.ptp(part, axis=(1, 2)).max(-1) == 0
                    part, empty = part[~flat], empty + int(flat.sum())
                seen, before = seen + len(part), seen
                part = part[max(0, begin - before) : end - before]
                if held and held[0].shape[1:] != part.shape[1:]:
                    yield np.concatenate(held).transpose(0, 3, 1, 2)
                    held, number = [], 0
                held.append(part)
                number += len(part)
                if number >= _batch_size(part[0].size if len(part) else 1):
                    yield np.concatenate(held).transpose(0, 3, 1, 2)
                    held, number = [], 0
                if seen >= end:
                    break
        if number:
            yield np.concatenate(held).transpose(0, 3, 1, 2)
        if empty and end == limit:
            left_out.append(LeftOut(empty, "tiles of one flat color (empty cells)"))

    stream.batches = batches()
    return stream


@dataclass
class _Found:
    """What the good items of a task gave, and one line per bad one."""

    good: list
    bad: list[str]


def _guarded(function: Callable[[_Item], list], skip_bad: bool) -> Callable[[list[_Item]], _Found]:
    """Work through a task; raises BadImage unless bad images are skipped."""

    def work(task: list[_Item]) -> _Found:
        found = _Found([], [])
        for item in task:
            try:
                found.good += function(item)
            except BadImage as error:
                if not skip_bad:
                    raise
                found.bad.append(str(error))
        return found

    return work


def _map_in_rounds(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, size: int
) -> Iterator[_Result]:
    """Yield results in the order of `items`, `size` at a time by threads.

    The threads rest while results are used. Measuring uses all cores, and threads that run Python
    during it slow both (docs/performance.md).
    """
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers, "decode") as pool:
        for start in range(0, len(items), size):
            yield from list(pool.map(function, items[start : start + size]))


def _unreadable(bad: list[str]) -> LeftOut:
    return LeftOut(len(bad), f"unreadable; the first: {bad[0]}")


def _describe(left_out: LeftOut, found: int) -> str:
    return f"{left_out.count} of {found} images left out: {left_out.reason}"


def _count_tiles(path: ImageFile, size: Size, sheet: Sheet | None) -> int:
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
