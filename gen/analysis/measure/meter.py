"""Measure the periodic artifacts of upsampling: `measure` for a set, `Meter` for a stream.

    >>> print(measure(images))                       # uint8 (N, C, H, W)
    >>> print(measure(images, value_range=(-1, 1)))  # floats state their range

The method, its sources and how to read the numbers: docs/measurement.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.analysis.measure.conclude import conclude
from gen.analysis.measure.errors import MeasurementError
from gen.analysis.measure.lattice import minimum_size
from gen.analysis.measure.results import Measurement
from gen.analysis.measure.spectrum import over_images
from gen.analysis.measure.sums import CropSums
from gen.analysis.measure.threads import chunk_length, over_cores

PERIODS = (2, 4, 8)
# ITU-R BT.601 weights of red, green, blue; other channel counts take the plain mean as luma.
LUMA = (0.299, 0.587, 0.114)
FEW = 4
TILE = 64
# So many chunks are reduced together: many small operations would cost as much as the transforms.
GROUP = 8


class Meter:
    """Accumulate images in any batches; `compute` gives the measurement of all of them.

    The result does not depend on the split into batches, and `merge` of two meters equals one meter
    that saw both sets (to rounding, 1e-9). Kept per image: 16 bytes and, of luma, 8 bytes per line.

    Args:
        periods: Periods in pixels, integers ≥ 2; each reports the lines of exactly that period.
        value_range: Values of black and white, e.g. (-1, 1). Default for uint8: (0, 255); floats
            must state it. Values outside are measured as they are.
    """

    def __init__(
        self, periods: Sequence[int] = PERIODS, value_range: tuple[float, float] | None = None
    ):
        self.periods = _checked_periods(periods)
        self.value_range = value_range
        self.images = self.nonfinite = self.flat = 0
        self.shape: tuple[int, int, int] | None = None
        self.whole_levels = True
        self.crops: list[CropSums] = []
        self.fingerprints: list[Tensor] = []
        self.gains: list[Tensor] = []
        self.mean_image: Tensor | None = None

    def update(self, images: Tensor | np.ndarray) -> None:
        """Add images (N, C, H, W), uint8 or float; all batches must share C, H and W.

        Raises:
            ValueError: For another shape or type, or floats without a stated range.
        """
        batch = torch.as_tensor(images)
        self._check(batch)
        if not len(batch):
            return
        step = chunk_length(batch.shape[1:])
        workers = torch.get_num_threads()
        chunks = -(-len(batch) // step)
        groups = batch.split(step * min(GROUP, -(-chunks // workers)))
        parts = [self.crops, *([c.empty() for c in self.crops] for _ in range(workers - 1))]
        for seen in over_cores(self._add_group, parts, groups):
            self._note(*seen)
        for part in parts[1 : len(groups)]:
            for mine, theirs in zip(self.crops, part, strict=True):
                mine.merge(theirs)

    def _check(self, batch: Tensor) -> None:
        if batch.ndim != 4:
            raise MeasurementError(
                f"images have shape {tuple(batch.shape)}; they must be (N, C, H, W): "
                "add the missing axis, e.g. images[:, None] for grey images"
            )
        if batch.dtype != torch.uint8 and not batch.is_floating_point():
            raise MeasurementError(f"images are {batch.dtype}; they must be uint8 or float")
        if self.value_range is None and batch.dtype != torch.uint8:
            raise MeasurementError(
                "float images need value_range=(black, white), e.g. (0, 1) or (-1, 1): "
                "it cannot be told from the values"
            )
        low, high = self.value_range or (0, 255)
        if not low < high:
            raise MeasurementError(f"value_range is ({low}, {high}); it must be (black, white)")
        shape = tuple(batch.shape[1:])
        if self.shape is None and len(batch):
            self._start(shape)
        elif len(batch) and shape != self.shape:
            raise MeasurementError(
                f"images have shape {shape} after {self.shape}: one meter takes one size; "
                "group the images by size (never resize them: that is what is measured)"
            )

    def _start(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        # Freeing one block of 24 MiB, never touched, raises the limits above which glibc hands
        # memory back after every operation: a quarter less time.
        torch.empty(24 * 2**20, dtype=torch.uint8)
        channels, height, width = shape
        groups: dict[tuple[int, int], list[int]] = {}
        for period in self.periods:
            if min(height, width) >= minimum_size(period):
                size = (height - height % period, width - width % period)
                groups.setdefault(size, []).append(period)
        planes = channels + (channels > 1)
        self.crops = [CropSums(planes, size, tuple(group)) for size, group in groups.items()]

    def _grey_levels(self, chunk: Tensor, step: int) -> Tensor:
        """Planes (step, C', H, W) in grey levels, luma first, empty images behind the chunk.

        Float32 transforms and matrix products round by the shape of the batch; of one shape they
        round an image alike wherever it stands, so that any split of the data gives equal sums.
        """
        low, high = self.value_range or (0, 255)
        if chunk.dtype != torch.uint8:
            self.whole_levels = False
        if (low, high) != (0, 255):
            chunk = chunk if chunk.dtype == torch.float64 else chunk.float()
            chunk = (chunk - low) * (255 / (high - low))
        channels = chunk.shape[1]
        planes = torch.empty(step, channels + (channels > 1), *chunk.shape[2:])
        planes[: len(chunk), -channels:] = chunk
        planes[len(chunk) :] = 0
        if channels > 1:
            weights = LUMA if channels == 3 else [1 / channels] * channels
            planes[:, 0] = sum(w * planes[:, c] for c, w in enumerate(weights, 1))
        return planes

    def _add_group(self, crops: list[CropSums], group: Tensor) -> tuple[Tensor, ...]:
        """Add images to some sums; returns what `_note` takes."""
        step = chunk_length(group.shape[1:])
        seen = [_add(crops, self._grey_levels(c, step)) for c in group.split(step)]
        marks, finite, varies, summed = (list(part) for part in zip(*seen, strict=True))
        gains = torch.cat([crop.reduce() for crop in crops], -1) if crops else None
        finite, marks = torch.cat(finite)[: len(group)], torch.cat(marks)[: len(group)]
        return (
            len(group),
            int((~finite).sum()),
            int((finite & ~torch.cat(varies)[: len(group)]).sum()),
            marks[finite],
            None if gains is None else gains[: len(group)][finite],
            sum(summed),
        )

    def _note(
        self,
        images: int,
        nonfinite: int,
        flat: int,
        marks: Tensor,
        gains: Tensor | None,
        summed: Tensor,
    ) -> None:
        self.images += images
        self.nonfinite += nonfinite
        self.flat += flat
        self.fingerprints.append(marks)
        if gains is not None:
            self.gains.append(gains)
        self.mean_image = summed if self.mean_image is None else self.mean_image + summed

    def merge(self, other: Meter) -> None:
        """Add everything another meter has seen; it must have the same periods and image size."""
        if other.periods != self.periods or other.value_range != self.value_range:
            raise MeasurementError(
                f"meters differ: periods {self.periods} and {other.periods}, value ranges "
                f"{self.value_range} and {other.value_range}"
            )
        if other.shape is None:
            return
        if self.shape is None:
            self._start(other.shape)
            self.mean_image = torch.zeros_like(other.mean_image)
        elif self.shape != other.shape:
            raise MeasurementError(f"meters hold images of {self.shape} and {other.shape}")
        self.images += other.images
        self.nonfinite += other.nonfinite
        self.flat += other.flat
        self.whole_levels &= other.whole_levels
        self.mean_image = self.mean_image + other.mean_image
        self.fingerprints += other.fingerprints
        self.gains += other.gains
        for mine, theirs in zip(self.crops, other.crops, strict=True):
            mine.merge(theirs)

    def compute(self, reference: Meter | None = None) -> Measurement:
        """Conclude from everything seen so far, compared with a reference meter where given.

        Raises:
            ValueError: Without any image, or for a reference of another size or channel count.
        """
        if self.shape is None:
            raise MeasurementError("no images to measure: the set is empty")
        if reference is not None and (reference.shape, reference.periods) != (
            self.shape,
            self.periods,
        ):
            raise MeasurementError(
                f"the reference holds images of {reference.shape}, the set {self.shape} "
                "(C, H, W): compare images of the same size and channels, with equal periods"
            )
        return conclude(self, reference)


def measure(
    images: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
    periods: Sequence[int] = PERIODS,
    reference: Tensor | np.ndarray | Iterable[Any] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Measurement:
    """Measure the lattice artifacts of a set of images: verdict, level in dBc and limit per period.

    Args:
        images: (N, C, H, W), uint8 or float, or an iterable of such batches. Fewer than four images
            are cut into tiles whose sides are multiples of all periods.
        periods: Periods in pixels, integers ≥ 2.
        reference: Real images of the same size; everything is measured on them as well, and the
            difference is tested.
        value_range: Values of black and white; uint8 defaults to (0, 255), floats must state it.

    Raises:
        ValueError: For wrong shapes, types, ranges or an empty set. What is merely undefined
            (constant images, NaN, one pixel) comes back as `undefined` in the periods.
    """
    periods = _checked_periods(periods)
    images, tile = _tiled(images, periods)
    meter = Meter(periods, value_range)
    for batch in _batches(images):
        meter.update(batch)
    other = None
    if reference is not None:
        if tile:
            reference = torch.cat(
                [cut_tiles(torch.as_tensor(b), tile) for b in _batches(reference)]
            )
        other = Meter(periods, value_range)
        for batch in _batches(reference):
            other.update(batch)
    measurement = meter.compute(other)
    if tile:
        measurement = dataclasses.replace(measurement, tile=tile)
    return measurement


def _add(crops: list[CropSums], planes: Tensor) -> tuple[Tensor, ...]:
    """Add images to some sums; those that are not finite count as empty.

    Returns the fingerprint of each, whether it is finite, whether it varies, and their sum.
    """
    marks = fingerprints(planes)
    finite = marks.sum(1).isfinite()
    if not finite.all():
        planes[~finite] = 0
    pixels = planes.flatten(2)
    varies = torch.linalg.vector_norm(pixels - pixels[..., :1], dim=-1).amax(1) > 0
    for crop in crops:
        crop.record(planes)
    return marks, finite, varies, over_images(planes, torch.ones(planes.shape[:2]))


def fingerprints(planes: Tensor) -> Tensor:
    """Four random projections of each image (N, C, H, W) → (N, 4): equal for equal images."""
    return planes.flatten(1) @ _directions(planes[0].numel())


@functools.lru_cache(maxsize=4)
def _directions(pixels: int) -> Tensor:
    return torch.randn(pixels, 4, generator=torch.Generator().manual_seed(0))


def _batches(images: Any) -> Iterable[Any]:
    return [images] if isinstance(images, (Tensor, np.ndarray)) else images


def _checked_periods(periods: Sequence[int]) -> tuple[int, ...]:
    for period in periods:
        if not isinstance(period, int) or period < 2:
            raise MeasurementError(
                f"period {period!r}: periods are whole numbers of pixels, 2 or more"
            )
    if not periods or len(set(periods)) < len(periods):
        raise MeasurementError(f"periods {tuple(periods)}: name at least one, each once")
    return tuple(periods)


def _tiled(images: Any, periods: tuple[int, ...]) -> tuple[Any, tuple[int, int] | None]:
    """Cut up to three images into tiles; leave larger sets, streams and tiny images as they are."""
    if not isinstance(images, (Tensor, np.ndarray)) or images.ndim != 4 or len(images) >= FEW:
        return images, None
    side = tile_side(periods)
    if len(images) * (images.shape[2] // side) * (images.shape[3] // side) < FEW:
        return images, None
    return cut_tiles(torch.as_tensor(images), (side, side)), (side, side)


def tile_side(periods: Sequence[int]) -> int:
    """Side of square tiles: a multiple of all periods, large enough for each, 64 or more."""
    step = math.lcm(*periods)
    side = max(TILE, max(map(minimum_size, periods)))
    return -(-side // step) * step


def cut_tiles(images: Tensor, tile: tuple[int, int]) -> Tensor:
    """Cut images (N, C, H, W) into whole tiles (N·tiles, C, h, w) from the top left."""
    channels = images.shape[1]
    tiles = images.unfold(2, tile[0], tile[0]).unfold(3, tile[1], tile[1])
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, *tile)
