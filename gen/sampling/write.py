"""The one loop of sampling: draw what is missing, hand it on, stop where nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen.system import distributed
from gen.system.progress import NoOutput, Progress
from gen.system.signals import caught_signals

from .samples import Samples
from .targets import Add, Folder, Shape, animation, array, sheet


class Interrupted(Exception):
    """A signal arrived. The current image was finished; incomplete files were not written."""

    def __init__(self, signal: int, done: int, count: int) -> None:
        super().__init__(f"Stopped at image {done} of {count}")
        self.signal = signal


@dataclass(frozen=True)
class Targets:
    """Where images go; any of them together.

    Attributes:
        grid: one sheet, .png or .jpg.
        gif: one animation, of `fps` frames per second.
        npy: one array (N, H, W, C).
        outdir: a folder of one file per image, of type `format`: png, jpg or npy.
    """

    grid: Path | None = None
    gif: Path | None = None
    npy: Path | None = None
    outdir: Path | None = None
    format: str = "png"
    fps: int = 20

    def files(self, samples: Samples, shape: Shape) -> Iterator[AbstractContextManager[Add]]:
        """Yield the writers of the single files."""
        if self.grid:
            yield sheet(self.grid, samples.count, shape, samples.columns)
        if self.gif:
            yield animation(self.gif, samples.count, shape, self.fps)
        if self.npy:
            yield array(self.npy, samples.count, shape)

    def __str__(self) -> str:
        paths = (self.grid, self.gif, self.npy, self.outdir)
        return ", ".join(str(path) for path in paths if path)


def write_images(
    samples: Samples, targets: Targets, record: dict[str, Any], batch_size: int
) -> str:
    """Draw the images of `samples` that are not there yet, at most `batch_size` held at once.

    Of several processes each draws a share and writes its files of a folder; single files are
    written by the first, to which the others hand their images.

    Args:
        samples: what is drawn.
        targets: where it goes.
        record: what the images are functions of; a folder made with another record is refused.
        batch_size: images drawn between two looks at the targets.

    Returns:
        What was done, in one line.

    Raises:
        Interrupted: SIGINT or SIGTERM came.
        FolderError: the folder holds something else.
        ValueError: too many images for one picture.
    """
    shape = tuple(samples.draw([0]).shape[1:])
    mine = range(samples.count)[distributed.own_slice(samples.count)]
    first, folder = distributed.rank() == 0, None
    with (
        caught_signals() as caught,
        closing(Progress(len(mine), 0, "image") if first else NoOutput()) as progress,
        ExitStack() as stack,
    ):
        indices: Iterable[int] = _watched(mine, progress, caught)
        whole = bool(targets.grid or targets.gif or targets.npy)  # these need every image
        files = targets.files(samples, shape) if first else ()
        adds = [stack.enter_context(file) for file in files]
        if targets.outdir:
            with distributed.rank_zero_first():
                folder = Folder(targets.outdir, record, samples.name, targets.format, shape)
            if whole:
                adds.append(lambda index, image: folder.holds(index) or folder.add(index, image))
            else:
                indices = (index for index in indices if not folder.holds(index))
                adds.append(folder.add)
        if folder:
            # One batch is encoded and written while the next is drawn, on the cores that are left:
            # drawing on all of them is a quarter slower in the end.
            threads = torch.get_num_threads()
            stack.callback(torch.set_num_threads, threads)
            torch.set_num_threads(max(1, threads - 1))
        pool, writing, done = stack.enter_context(ThreadPoolExecutor(1)), None, 0
        for part, images in _in_step(draw_batches(samples, indices, batch_size), whole, caught):
            if writing:
                done += writing.result()
            writing = pool.submit(_write, adds, part, images, caught)
        if writing:
            done += writing.result()
        if folder:
            folder.flush()
            done += 0 if whole else folder.there
        done = distributed.broadcast(sum(distributed.gather(done)))
        number = distributed.largest(caught[0] if caught else 0)
        if number and done < samples.count:
            raise Interrupted(number, done, samples.count)
    height, width = shape[1:]
    note = ""
    if folder:
        folder.there = sum(distributed.gather(folder.there))
        folder.redrawn = sum(distributed.gather(folder.redrawn))
        note = folder.finish() if first else ""
    return f"{samples.count} images of {height}x{width} → {targets}{note}"


def draw_batches(
    samples: Samples, indices: Iterable[int], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices and their images (≤ batch_size, C, H, W), in order."""
    rest = iter(indices)
    while part := list(islice(rest, batch_size)):
        yield part, samples.draw(part)


def _write(adds: list[Add], indices: list[int], images: Tensor, caught: list[int]) -> int:
    """Hand images on until a signal comes; returns how many."""
    for done, (index, image) in enumerate(zip(indices, images, strict=True)):
        if caught:
            return done
        for add in adds:
            add(index, image)
    return len(indices)


def _in_step(
    batches: Iterator[tuple[list[int], Tensor]], collect: bool, caught: list[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the batches that this process writes; all stop as soon as one is told to.

    With `collect` the first process writes the batches of all, and the others none.
    """
    while True:
        batch = next(batches, None)
        if distributed.largest(2 if caught else int(batch is not None)) != 1:
            return  # one was told to stop, or none has more
        yield from filter(None, distributed.gather(batch) if collect else [batch])


def _watched(mine: range, progress: Progress, caught: list[int]) -> Iterator[int]:
    """Yield indices until a signal comes, showing how far it is."""
    for done, index in enumerate(mine):
        if caught:
            return
        progress.show(done, {})
        progress.advance()
        yield index
