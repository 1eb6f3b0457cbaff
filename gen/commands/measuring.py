"""Measure what a path holds: images, a sample sheet, or a run of this toolkit."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen.analysis.measure.meter import PERIODS, Meter
from gen.analysis.measure.result import Measurement
from gen.analysis.measure.sums import least_block
from gen.data.stream import ImageStream, Selection
from gen.inputs import open_images
from gen.system import distributed
from gen.system.text import printable, shorten

THUMBNAILS = 24


class Looked(NamedTuple):
    """What was measured: the result, the first images as uint8 (n, C, H, W), and their source."""

    measurement: Measurement
    samples: np.ndarray
    source: dict[str, Any]  # "found": images in the source, "left_out": [{"count", "reason"}]


def measure_path(
    paths: Path | Sequence[Path] | None,
    reference: Path | None = None,
    periods: Sequence[int] | None = PERIODS,
    selection: Selection | None = None,
    num: int = 1024,
    inputs: Path | None = None,
    pictures: bool = False,
    network: dict[str, Any] | None = None,
    key: str | None = None,
) -> Looked:
    """Measure images of paths, against those of `reference`, in constant memory.

    Images of several sizes are measured in blocks of one size. The reference is read as images of
    the same size and channels. What is left out is said in one line each on stderr, as is progress
    on a terminal. Of several processes each looks at a share of the images; all return what one
    would have found. `pictures` are what a report needs; `network` and `key` are as in
    `open_images`. With `periods` None, those that a network can leave join 2, 4, and 8.

    Raises:
        DataError, BadImage: As `open_stream`.
        MeasurementError: As `measure`.
    """
    paths = [paths] if isinstance(paths, Path) else [*(paths or ())]
    selection = dataclasses.replace(
        selection or Selection(),
        part=distributed.own_slice,
        lattice=math.lcm(*(periods or PERIODS)),
        most=least_block(periods or PERIODS),
    )
    stream = open_images(paths, selection, num, inputs, network, key)
    periods = periods or stream.periods() or PERIODS
    channels, *size = stream.shape
    pictures = pictures or reference is not None
    block = tuple(size) if stream.several else None
    kept: list[np.ndarray] = [np.empty((0, *stream.shape), np.uint8)]
    label = ", ".join(path.resolve().name for path in paths) or "network"
    images = _watched(stream, label, kept)
    meter = _metered(images, Meter(periods, (0, 255), pictures, block=block))
    real = None
    if reference:
        one_size = None if block or selection.crop else tuple(size)
        alike = dataclasses.replace(selection, channels=channels, block=block, size=one_size)
        images = _watched(open_images([reference], alike, num, key=key), "reference", [])
        real = _metered(images, Meter(periods, (0, 255), pictures, block=block))
    firsts = [part for parts in distributed.gather(kept) for part in parts]
    source = _source(stream)
    if distributed.rank():
        return distributed.broadcast(None)
    return distributed.broadcast(Looked(meter.compute(real), _thumbnails(firsts), source))


def _source(stream: ImageStream) -> dict[str, Any]:
    """How many images there were, and which were not measured, over all processes."""
    counts: dict[str, int] = {}
    for each in chain.from_iterable(distributed.gather(stream.left_out)):
        counts[each.reason] = counts.get(each.reason, 0) + each.count
    left_out = [{"count": count, "reason": reason} for reason, count in counts.items()]
    return {"found": stream.found, "left_out": left_out}


def _metered(images: Iterator[np.ndarray], meter: Meter) -> Meter:
    """The meter after the images of all processes, on rank 0."""
    for batch in images:
        meter.update(batch)
    for other in distributed.gather(meter)[1:]:
        meter.merge(other)
    return meter


def _thumbnails(kept: list[np.ndarray]) -> np.ndarray:
    """The first images, those of several sizes from their top left corners."""
    height, width = kept[0].shape[2:]
    shown = np.concatenate([batch[..., :height, :width] for batch in kept])
    return np.rint(shown[:THUMBNAILS]).clip(0, 255).astype(np.uint8)


def _watched(stream: ImageStream, label: str, kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of a stream under a progress bar; the first images are kept."""
    from tqdm import tqdm

    quiet = True if distributed.rank() else None
    total = stream.count // distributed.world_size()
    with tqdm(total=total, unit="img", desc=shorten(label), disable=quiet) as progress:
        for batch in stream.batches:
            if missing := THUMBNAILS - sum(map(len, kept)):
                kept.append(batch[:missing])
            yield batch
            progress.update(len(batch))
    for note in dict.fromkeys(chain.from_iterable(distributed.gather(stream.said()))):
        print(printable(f"{shorten(label)}: {note}"), file=sys.stderr)
