"""Measure what a path holds: images, a sample sheet, or a run of this toolkit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gen.analysis.measure.meter import PERIODS, Meter
from gen.analysis.measure.result import Measurement
from gen.data.stream import ImageStream, Selection
from gen.inputs import open_images
from gen.system import distributed
from gen.system.errors import InputError
from gen.system.text import printable, shorten

THUMBNAILS = 24


def measure_path(
    path: Path | None,
    reference: Path | None = None,
    periods: Sequence[int] | None = PERIODS,
    selection: Selection | None = None,
    num: int = 1024,
    inputs: Path | None = None,
    pictures: bool = False,
    network: dict[str, Any] | None = None,
) -> tuple[Measurement, np.ndarray]:
    """Measure images of `path`, against those of `reference`, in constant memory.

    The reference is read as images of the same size and channels. What is left out is said in one
    line each on stderr, as is progress on a terminal. Of several processes each looks at a share of
    the images; all return what one would have found. `network` is as in `open_images`. With
    `periods` None, those that a network can leave join 2, 4, and 8.

    Returns:
        The measurement, with `pictures` if a report needs them, and the first images as thumbnails,
        uint8 (n, C, H, W).

    Raises:
        DataError, BadImage: As `open_stream`.
        MeasurementError: As `measure`.
    """
    selection = dataclasses.replace(selection or Selection(), part=distributed.own_slice)
    stream = open_images(path, selection, num, inputs, network)
    periods = periods or stream.periods or PERIODS
    label = path.resolve().name if path else "network"
    kept: list[np.ndarray] = [np.empty((0, *stream.shape), np.uint8)]
    pictures = pictures or reference is not None
    meter = _metered(_watched(stream, label, kept), Meter(periods, (0, 255), pictures))
    real = None
    if reference:
        channels, *size = stream.shape
        alike = dataclasses.replace(selection, size=tuple(size), channels=channels)
        images = _watched(open_images(reference, alike, num), "reference", [])
        real = _metered(images, Meter(periods, (0, 255), pictures))
    firsts = [part for parts in distributed.gather(kept) for part in parts]
    if distributed.rank():
        return distributed.broadcast(None)
    return distributed.broadcast((meter.compute(real), _thumbnails(firsts)))


def _metered(images: Iterator[np.ndarray], meter: Meter) -> Meter:
    """The meter after the images of all processes, on rank 0."""
    for batch in images:
        meter.update(batch)
    for other in distributed.gather(meter)[1:]:
        meter.merge(other)
    return meter


def _thumbnails(kept: list[np.ndarray]) -> np.ndarray:
    return np.rint(np.concatenate(kept)[:THUMBNAILS]).clip(0, 255).astype(np.uint8)


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
    for note in dict.fromkeys(chain.from_iterable(distributed.gather(stream.notes))):
        print(printable(f"{label}: {note}"), file=sys.stderr)


def periods_above(measurement: Measurement, limit: float) -> list[str]:
    """Detected periods whose level is above `limit` dBc, each in words.

    Raises:
        ValueError: No period could be measured, so that silence would mean nothing.
    """
    if all(period.undefined for period in measurement.periods.values()):
        raise InputError(
            f"no period could be measured, so nothing can be held against {limit:g} dBc"
        )
    return [
        f"period {number} at {period.level_dbc:.1f} dBc (p = {period.p_value:.2g})"
        for number, period in measurement.periods.items()
        if period.detected and period.level_dbc is not None and period.level_dbc > limit
    ]
