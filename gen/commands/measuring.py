"""Measure what a path holds: images, a sample sheet, or a run of this toolkit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from gen.analysis.measure.lattice import minimum_size
from gen.analysis.measure.meter import FEW, PERIODS, Meter, measure
from gen.analysis.measure.results import Measurement
from gen.data.stream import ImageStream, Selection, open_stream
from gen.inputs import open_images
from gen.system import distributed

THUMBNAILS = 24
CALIBRATED = (2, 4)  # periods
# Pattern, its line (fy, fx), mode, and depth: a share of brightness, or grey levels if additive.
GRIDS = (
    ("checkerboard", (0.5, 0.5), "multiplicative", 0.01),
    ("checkerboard", (0.5, 0.5), "multiplicative", 0.003),
    ("rows", (0.5, 0.0), "multiplicative", 0.01),
    ("cosine4", (0.0, 0.25), "multiplicative", 0.01),
    ("checkerboard", (0.5, 0.5), "additive", 0.25),
    ("rows", (0.5, 0.0), "additive", 0.5),
)


def measure_path(
    path: Path,
    reference: Path | None = None,
    periods: Sequence[int] = PERIODS,
    selection: Selection | None = None,
    num: int = 1024,
    inputs: Path | None = None,
) -> tuple[Measurement, np.ndarray]:
    """Measure images of `path`, against those of `reference`, in constant memory.

    The reference is read as images of the same size and channels. What is left out is said in one
    line each on stderr, as is progress on a terminal. Up to three images are cut into tiles. Of
    several processes each looks at a share of the images; all return what one would have found.

    Returns:
        The measurement, and the first images as thumbnails, uint8 (n, C, H, W).

    Raises:
        DataError, BadImage: As `open_stream`.
        ValueError: As `measure`.
    """
    selection = selection or Selection()
    shared = dataclasses.replace(selection, part=distributed.share)
    stream = open_images(path, shared, num, inputs)
    few = stream.count < FEW
    if few:  # no use in sharing them
        shared, stream = selection, open_images(path, selection, num, inputs)
    kept: list[np.ndarray] = [np.empty((0, *stream.shape), np.uint8)]
    images = _watched(stream, path.resolve().name, kept)
    real = None
    if reference:
        size = None if few else stream.shape[1:]
        alike = dataclasses.replace(shared, size=size, channels=stream.shape[0])
        real = _watched(open_images(reference, alike, num), "reference", [])
    if few:  # an array, not a stream, is what `measure` cuts into tiles
        array = np.concatenate([kept[0], *images])
        measurement = measure(array, periods, real, (0, 255))
        return measurement, _thumbnails(kept)
    meter = _metered(images, periods)
    other = _metered(real, periods) if real else None
    firsts = [part for parts in distributed.gather(kept) for part in parts]
    if distributed.rank():
        return distributed.broadcast(None)
    return distributed.broadcast((meter.compute(other), _thumbnails(firsts)))


def _metered(images: Iterator[np.ndarray], periods: Sequence[int]) -> Meter:
    """What all processes see of these images, on the first."""
    meter = Meter(periods, (0, 255))
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
    total = stream.count // distributed.world()
    with tqdm(total=total, unit="img", desc=label, disable=quiet) as progress:
        for batch in stream.batches:
            if missing := THUMBNAILS - sum(map(len, kept)):
                kept.append(batch[:missing])
            yield batch
            progress.update(len(batch))
    for note in dict.fromkeys(chain.from_iterable(distributed.gather(stream.notes))):
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


def calibration_rows(
    path: Path, side: int, count: int, sets: int, limit: int, skip_bad: bool
) -> Iterator[str]:
    """Yield the calibration table of a user's own images, row by row as it is computed.

    Luma of random crops is measured as it is, with known grids and under confounds: see
    `benchmarks.accuracy.calibrate` for what each number means.

    Args:
        path: Images without a grid, as `open_stream` takes them.
        side: Largest side of the crops in pixels; smaller images are used whole.
        count: Images in a set.
        sets: Sets behind every row.
        limit: Images to read.
        skip_bad: Leave unreadable files out, and say so on stderr.
    """
    from benchmarks.accuracy import calibrate

    stream = open_stream(path, Selection(channels=1, max_images=limit, skip_bad=skip_bad))
    size = tuple(min(side, length) for length in stream.shape[1:])
    if min(size) < minimum_size(max(CALIBRATED)):
        least = minimum_size(max(CALIBRATED))
        raise ValueError(
            f"crops are {size[0]}×{size[1]}; calibration needs {least}×{least} or more"
        )
    pixels = np.concatenate(list(stream.batches))
    for note in stream.notes:
        print(f"{path.resolve().name}: {note}", file=sys.stderr)
    draw = calibrate.crops(pixels, size)
    common = {"images": count, "sets": sets, "periods": CALIBRATED}
    yield f"Luma crops of {size[0]}×{size[1]} from {len(pixels)} images; {sets} sets of {count}"

    none = calibrate.null(draw, **common)
    yield "\nNo grid: sets in which anything is reported (nominal: 5 % or less)"
    rates = ("family_wise", "any"), ("verdict", "verdict"), ("excess", "excess"), ("trace", "trace")
    yield "  " + "  ".join(f"{name} {getattr(none, field):.3f}" for field, name in rates)
    yield "\nA known grid (coverage of the 95 % interval; AUC of its p-value; share of sets found)"
    yield "  pattern       mode            depth  bias dB  RMSE dB  coverage    AUC  found"
    for name, line, mode, depth in GRIDS:
        r = calibrate.injection(draw, name, line, depth, mode, **common)
        yield (
            f"  {name:<13} {mode:<14} {depth:>6g} {r.bias_db:>8.2f} {r.rmse_db:>8.2f}"
            f" {r.coverage:>9.2f} {r.auc:>6.3f} {r.found:>6.2f}"
        )
    yield "\nConfounds: AUC of the smallest p-value against plain sets (0.5: blind to it)"
    for name in calibrate.CONFOUNDS:
        yield f"  {name:<13} {calibrate.specificity(draw, name, **common):.3f}"
    yield "\nDetection limit: amplitude found in nine sets of ten, dB (of gain, or of a grey level)"
    for name, line, mode, _ in (GRIDS[0], GRIDS[4]):
        stated, needed = calibrate.detection_level(draw, name, line, mode, **common)
        yield f"  {name:<13} {mode:<14} stated {stated:>6.1f}  measured {needed:>6.1f}"
