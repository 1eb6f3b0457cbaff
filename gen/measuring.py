"""Measure what a path holds: images, a sample sheet, or a run of this toolkit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gen.analysis.checkerboard import FEW, PERIODS, measure
from gen.analysis.results import Measurement
from gen.data.decode import DataError
from gen.data.stream import ImageStream, Selection, open_stream

THUMBNAILS = 24


def open_images(path: Path, selection: Selection, num: int) -> ImageStream:
    """Images of a path, or `num` samples drawn on the fly where it is a run or a checkpoint."""
    if path.suffix != ".pt" and not (path / "checkpoints").is_dir():
        return open_stream(path, selection)
    if selection.sheet:
        raise DataError(f"{path}: a run draws whole samples; leave the tile size out")
    from gen.sampling import load, sample_batches, sample_images

    decoder = load(path)
    seeds = range(min(num, selection.max_images or num))
    shape = tuple(sample_images(decoder, [0]).shape[1:])
    return ImageStream(shape, len(seeds), (b.numpy() for b in sample_batches(decoder, seeds)))


def measure_path(
    path: Path,
    reference: Path | None = None,
    periods: Sequence[int] = PERIODS,
    selection: Selection | None = None,
    num: int = 1024,
) -> tuple[Measurement, np.ndarray]:
    """Measure images of `path`, against those of `reference`, in constant memory.

    The reference is read as images of the same size and channels. What is left out is said in one
    line each on stderr, as is progress on a terminal. Up to three images are cut into tiles.

    Returns:
        The measurement, and the first images as thumbnails, uint8 (n, C, H, W).

    Raises:
        DataError, BadImage: As `open_stream`.
        ValueError: As `measure`.
    """
    selection = selection or Selection()
    kept: list[np.ndarray] = []
    stream = open_images(path, selection, num)
    images: Any = _watched(stream, path.name, kept)
    few = stream.count < FEW
    if few:  # an array, not a stream, is what `measure` cuts into tiles
        images = np.concatenate([np.empty((0, *stream.shape), np.uint8), *images])
    real = None
    if reference:
        size = None if few else stream.shape[1:]
        alike = dataclasses.replace(selection, size=size, channels=stream.shape[0])
        real = _watched(open_images(reference, alike, num), "reference", [])
    measurement = measure(images, periods, real, (0, 255))
    return measurement, np.rint(np.concatenate(kept)).clip(0, 255).astype(np.uint8)


def _watched(stream: ImageStream, label: str, kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of a stream under a progress bar; the first images are kept."""
    from tqdm import tqdm

    with tqdm(total=stream.count, unit="img", desc=label, disable=None) as progress:
        for batch in stream.batches:
            if missing := THUMBNAILS - sum(map(len, kept)):
                kept.append(batch[:missing])
            yield batch
            progress.update(len(batch))
    for note in stream.notes:
        print(f"{label}: {note}", file=sys.stderr)


def periods_above(measurement: Measurement, limit: float) -> list[str]:
    """Detected periods whose level is above `limit` dBc, each in words.

    Raises:
        ValueError: No period could be measured, so that silence would mean nothing.
    """
    if all(period.undefined for period in measurement.periods.values()):
        raise ValueError(
            f"no period could be measured, so nothing can be held against {limit:g} dBc"
        )
    return [
        f"period {number} at {period.level_dbc:.1f} dBc (p = {period.p_value:.2g})"
        for number, period in measurement.periods.items()
        if period.detected and period.level_dbc is not None and period.level_dbc > limit
    ]
