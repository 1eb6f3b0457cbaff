"""Measure the periodic artifacts of upsampling: `measure` for a set, `Meter` for a stream.

>>> print(measure(images))                       # uint8 (N, C, H, W)
>>> print(measure(images, value_range=(-1, 1)))  # floats state their range
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import sums
from .conclude import conclude
from .errors import MeasurementError
from .estimates import Estimates, solve
from .result import Measurement
from .tiles import FLOOR

PERIODS = (2, 4, 8)
SMALL = 4  # an axis that is no longer can be that of channels
Images = Tensor | np.ndarray


class Meter:
    """Accumulate images in any batches; `compute` gives the measurement of all of them.

    The result does not depend on the split into batches, and `merge` of two meters equals one meter
    that saw both sets (to rounding, 1e-9). Eight bytes are kept of each image. Images stay on their
    device.

    Args:
        periods: Periods in pixels, integers ≥ 2; each reports the lines of exactly that period.
        value_range: Values of black and white, e.g. (-1, 1). Default for uint8: (0, 255); floats
            must state it. Values outside are measured as they are.
        pictures: Keep what pictures and the radial comparison need: mean spectrum and profile.
        block: Cut images into blocks of this (H, W), at most 64×64 as a rule, so that images of
            several sizes add up. By default all images have one size.
        floor: White noise in 255ths of the value range that every tile is taken to have; the
            default is that of rounding to 8 bits.
    """

    def __init__(
        self,
        periods: Sequence[int] = PERIODS,
        value_range: tuple[float, float] | None = None,
        pictures: bool = False,
        floor: float = FLOOR,
        block: tuple[int, int] | None = None,
    ):
        if value_range is not None and not value_range[0] < value_range[1]:
            raise MeasurementError(f"value_range is {value_range}; it must be (black, white)")
        self.state = sums.State(_checked_periods(periods), value_range, floor, pictures, block)
        self._merged = False

    @property
    def images(self) -> int:
        """Number of images seen."""
        return self.state.images

    def update(self, images: Images) -> None:
        """Add images (N, C, H, W); all share C, and without `block` H and W.

        (N, H, W, C), one picture (H, W), (H, W, C) or (C, H, W), and Pillow images are taken as
        well. uint16 is 0 (black) to 65535 (white) unless the meter has a range.

        Raises:
            MeasurementError: For another shape or type, or floats without a stated range.
        """
        batch = _as_batch(images)
        deep = batch.dtype == torch.uint16
        if deep:
            batch = batch.float() / (257 if self.state.value_range is None else 1)
        self._check(batch, deep)
        self.state = sums.update(self.state, batch.detach())

    def merge(self, other: Meter) -> None:
        """Add all that another meter has seen; it must have the same options and image shape."""
        for name in ("periods", "value_range", "floor", "block", "shape"):
            mine, theirs = getattr(self.state, name), getattr(other.state, name)
            if name == "shape" and self.state.block:
                mine, theirs = (shape and shape[0] for shape in (mine, theirs))
            if mine != theirs and not (name == "shape" and None in (mine, theirs)):
                raise MeasurementError(f"meters differ in {name}: {mine} and {theirs}")
        self.state = sums.merge(self.state, other.state)
        self._merged = True

    def compute(self, reference: Meter | None = None) -> Measurement:
        """Conclude from everything seen so far, compared with a reference meter where given.

        Of several processes (torch.distributed) it warns where no other meter was merged.

        Raises:
            MeasurementError: Without any image, or for a reference of another shape.
        """
        self._need_images()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._say_alone(torch.distributed.get_rank(), torch.distributed.get_world_size())
        if reference is None:
            return conclude(self.state)
        mine, theirs = (
            ((s.shape[0], *s.plan.block) if s.block else s.shape, s.periods, s.floor)
            for s in (self.state, reference.state)
        )
        if mine != theirs:
            raise MeasurementError(
                f"the reference holds images of {theirs[0]}, the set {mine[0]} (C, H, W): compare "
                "images of the same size and channels, with equal periods"
            )
        return conclude(self.state, reference.state)

    def estimates(self) -> list[Estimates]:
        """Complex amplitudes and gains of all lines with covariances, by period; luma first."""
        self._need_images()
        return solve(sums.flush(self.state))

    def _say_alone(self, rank: int, world: int) -> None:
        if world > 1 and not self._merged:
            warnings.warn(
                f"this measures the {self.images} images of process {rank} of {world} alone: merge "
                "the meters of all, or use gen.metrics.CheckerboardLevel, which does",
                stacklevel=3,
            )

    def _need_images(self) -> None:
        if self.state.shape is None:
            raise MeasurementError("no images to measure: the set is empty")

    def _check(self, batch: Tensor, scaled: bool = False) -> None:
        if batch.ndim != 4:
            raise MeasurementError(
                f"images have shape {tuple(batch.shape)}; they must be (N, C, H, W): "
                "add the missing axis, e.g. images[:, None] for gray images"
            )
        if batch.dtype != torch.uint8 and not batch.is_floating_point():
            raise MeasurementError(f"images are {batch.dtype}; they must be uint8, uint16 or float")
        if self.state.value_range is None and batch.dtype != torch.uint8 and not scaled:
            raise MeasurementError(
                "float images need value_range=(black, white), e.g. (0, 1) or (-1, 1): "
                "the values do not tell it"
            )
        shape = tuple(batch.shape[1:])
        if len(batch) and 0 in shape:
            raise MeasurementError(f"images have shape {shape}; no side can be 0")
        if len(batch) and (block := self.state.block):
            if shape[1] < block[0] or shape[2] < block[1]:
                raise MeasurementError(f"images have shape {shape}, smaller than blocks of {block}")
            shape = (shape[0], *self.state.shape[1:]) if self.state.shape else shape
        if len(batch) and self.state.shape not in (None, shape):
            raise MeasurementError(
                f"images have shape {shape} after {self.state.shape}: one meter takes one size; "
                "group the images by size (never resize them: that is what is measured)"
            )


def measure(
    images: Images | Iterable[Images],
    periods: Sequence[int] = PERIODS,
    reference: Images | Iterable[Any] | None = None,
    value_range: tuple[float, float] | None = None,
    pictures: bool = False,
) -> Measurement:
    """Measure the lattice artifacts of a set of images: verdict, level in dBc and limit per period.

    Args:
        images: What `Meter.update` takes, or an iterable of it, such as a list of Pillow images or
            the batches of a loader. A few large images
            (16 or fewer) are judged by their blocks.
        reference: Real images of the same size; they are measured too, and the difference of every
            line is tested.
        periods, value_range, pictures: As `Meter`; pictures are implied by a reference.

    Raises:
        MeasurementError: For wrong shapes, types, ranges or an empty set. What is undefined
            (constant images, NaN, one pixel) comes back as `undefined` in the periods.
    """
    pictures = pictures or reference is not None
    meters = []
    for each in (images, reference):
        if each is not None:
            meters.append(Meter(periods, value_range, pictures))
            meters[-1]._merged = True  # the caller gave the whole set
            one = isinstance(each, (Tensor, np.ndarray)) or hasattr(each, "getbands")
            for batch in [each] if one else each:
                meters[-1].update(batch)
    return meters[0].compute(*meters[1:])


def _as_batch(images: Any) -> Tensor:
    """A batch (N, C, H, W), one picture (H, W), (H, W, 3) or (3, H, W), or (N, H, W, C) as such.

    A Pillow image is gray or, in any mode with color, RGB.
    """
    if hasattr(images, "getbands"):
        gray = images.mode in ("1", "L", "LA", "F") or images.mode.startswith("I")
        deep = images.mode == "F" or images.mode.startswith("I")
        images = np.array(images if deep else images.convert("L" if gray else "RGB"))
    with warnings.catch_warnings():  # read-only arrays: nothing here writes to images
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        batch = torch.as_tensor(images)
    if batch.ndim == 2:
        return batch[None, None]
    if batch.ndim == 3 and batch.shape[2] in (1, 3) and min(batch.shape[:2]) > SMALL:
        return batch.permute(2, 0, 1)[None]
    if batch.ndim == 3 and batch.shape[0] in (1, 3):
        return batch[None]
    if batch.ndim == 4 and batch.shape[3] in (1, 3) and min(batch.shape[1:3]) > SMALL:
        return batch.permute(0, 3, 1, 2)
    return batch


def range_of_maps(maps: Tensor) -> tuple[float, float]:
    """A value range for feature maps: mean ± 4 standard deviations of the finite values.

    Maps have no black and white. In this range a standard deviation is 32 gray levels, as in
    photographs, so the floor of eq. (3) is one hundredth of it.
    """
    values = maps.detach().float()
    values = values[values.isfinite()]
    if not len(values):
        return 0.0, 1.0
    mean, spread = float(values.mean()), float(values.std(correction=0))
    spread = max(spread, 1e-6 * abs(mean), 1e-30)
    return mean - 4 * spread, mean + 4 * spread


def _checked_periods(periods: Sequence[int]) -> tuple[int, ...]:
    for period in periods:
        if not isinstance(period, int) or isinstance(period, bool) or period < 2:
            raise MeasurementError(
                f"period {period!r}: periods are whole numbers of pixels, 2 or more"
            )
    if not periods or len(set(periods)) < len(periods):
        raise MeasurementError(f"periods {tuple(periods)}: name at least one, each once")
    return tuple(periods)
