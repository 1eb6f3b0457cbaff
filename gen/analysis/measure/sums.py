"""Sums over images: `update` and `merge` of a `State` that keeps no image.

What belongs to one image is computed in float32, in chunks of one shape that begin at fixed image
numbers, so an image rounds alike however the set is split. Sums over images are float64. Images
with a side of 2 BLOCK or more are cut into blocks, which are summed by image; of three images or
fewer the blocks are kept apart as well, because they are then the clusters of the variance.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .lattice import minimum_size
from .moments import Moments, moments_of
from .spectrum import Pictures, picture_sums
from .threads import over_cores
from .tiles import FLOOR, Tiling, tilings
from .trace import Texture, TextureSums, textures

BLOCK = 64  # pixels: work stays linear in the number of pixels
STEP = 8  # blocks start at multiples
CHUNK = 2**19  # pixels of one chunk: few enough for the cache, many enough to spread overhead
ALIGNED = 64  # matrix products round alike in every column where these come in such numbers
GROUP = 256  # images whose second moments are added up together, at most four chunks
FEW = 3  # images: with more, images are the clusters
MID_GRAY = 127.5
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; other channel counts take the plain mean as luma


@dataclass
class TilingSums:
    """Sums of one tiling over clusters; see `TileSums` for the terms.

    `excess` has the terms |s_0|² and the mean of |s_d|²/R over axial shifts d; `pairs` (C, L, A) is
    the sum of |s_d|² by shift, the mean of both signs. `places` and `even_places` (C, 7, L, tiles)
    make the placebos.
    """

    weighted: Moments
    even: Moments
    excess: Moments
    pairs: Tensor
    places: Tensor
    even_places: Tensor


@dataclass
class Sums:
    """Everything that adds up over clusters.

    `pixels` (3, C) sums their mean, their mean square, and their variance, in gray levels.
    """

    clusters: int
    tilings: list[TilingSums]
    textures: list[TextureSums]
    pixels: Tensor


@dataclass(frozen=True)
class State:
    """What a meter knows: options, counts, sums, and the images that do not fill a chunk yet."""

    periods: tuple[int, ...]
    value_range: tuple[float, float] | None = None
    floor: float = FLOOR
    keep_pictures: bool = False
    dtype: torch.dtype = torch.float32
    shape: tuple[int, int, int] | None = None
    device: torch.device | None = None
    images: int = 0  # seen
    nonfinite: int = 0
    flat: int = 0
    summed: int = 0  # in the sums; the rest of those with signal is pending
    whole_levels: bool = True
    marks: tuple[Tensor, ...] = ()  # eight bytes of each image
    by_image: Sums | None = None
    by_block: Sums | None = None
    pictures: Pictures | None = None
    pending: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def plan(self) -> Plan:
        """Constant matrices for images of this shape."""
        return plan(self.shape, self.periods, self.floor, self.device, self.dtype)

    @property
    def measurable(self) -> tuple[int, ...]:
        """Periods that fit the images."""
        return tuple(p for p in self.periods if min(self.shape[1:]) >= minimum_size(p))

    @property
    def clusters(self) -> Sums:
        """Sums by image, or by block of three images or fewer."""
        return self.by_image if self.by_block is None else self.by_block

    @property
    def distinct(self) -> int:
        """Number of different images in the sums."""
        return len(torch.cat(self.marks).unique()) if self.marks else 0


class Plan:
    """How images of one shape are cut, and the matrices that transform their blocks."""

    def __init__(self, shape, periods, floor, device, dtype):
        channels, *size = shape
        self.planes = channels + (channels > 1)
        fits = tuple(p for p in periods if min(size) >= minimum_size(p))
        least = max([BLOCK, *map(minimum_size, fits)])
        least = -(-least // STEP) * STEP
        self.block = tuple(n if n < 2 * least else least for n in size)
        self.starts = [
            sorted({int(s) // STEP * STEP for s in torch.linspace(0, n - b, -(-n // b)).tolist()})
            for n, b in zip(size, self.block, strict=True)
        ]
        where = {"device": device, "dtype": dtype}
        self.tilings: list[Tiling] = tilings(self.block, fits, floor, **where) if fits else []
        self.textures: list[Texture] = textures(self.block, fits, **where) if fits else []
        self.blocks = len(self.starts[0]) * len(self.starts[1])
        row = self.planes * len(self.starts[1]) * self.block[0] * self.block[1]
        self.band = max(1, min(len(self.starts[0]), CHUNK // row))  # rows of blocks in one piece
        self.chunk = self._chunk(row * len(self.starts[0]))  # images
        self.group = self.chunk * (1 if self.chunk == 1 else max(1, min(4, GROUP // self.chunk)))
        self.beside = [self._beside(t).to(device, dtype) for t in self.tilings]

    def _chunk(self, pixels: int) -> int:
        """Images of one chunk, such that blocks come in multiples of ALIGNED, or one."""
        chunk, step = CHUNK // pixels, ALIGNED // math.gcd(ALIGNED, self.planes * self.blocks)
        chunk = max(chunk // step, 1) * step
        return chunk if chunk * pixels <= 4 * CHUNK else 1

    @staticmethod
    def _beside(tiling: Tiling) -> Tensor:
        """Weights (L, A, 1) of |s_d|² in the excess: shifts along both axes, or a line's own."""
        use = torch.from_numpy(own_shifts(tiling)).double()
        weights = use / use.sum(1, keepdim=True) / torch.from_numpy(tiling.axial_responses)
        return weights[..., None]


def own_shifts(tiling: Tiling) -> NDArray[np.bool_]:
    """Which axial shifts a line is compared with (L, A): an axis line with those on its axis."""
    return np.array([
        [bool((line.a or not i) and (line.b or not j)) for i, j in tiling.axial]
        for line in tiling.lines
    ])  # fmt: skip


@functools.lru_cache(maxsize=16)
def plan(shape, periods, floor, device, dtype) -> Plan:
    """The plan of these options; equal options share one."""
    return Plan(shape, periods, floor, device, dtype)


def update(state: State, images: Tensor) -> State:
    """The state after some more images (N, C, H, W), uint8 or float.

    Images that are constant or hold NaN or infinity are counted and left out of the sums.
    """
    if not len(images):
        return state
    if state.shape is None:
        # Freeing a block of 24 MiB, never touched, raises the limits above which glibc returns
        # memory after every operation: a quarter less time.
        torch.empty(24 * 2**20, dtype=torch.uint8)
        state = dataclasses.replace(state, shape=tuple(images.shape[1:]), device=images.device)
    images = images.to(state.device)
    low, high = images.flatten(2).amin(-1), images.flatten(2).amax(-1)
    finite = (low.isfinite() & high.isfinite()).all(1)
    varies = finite & (low != high).any(1)
    good, usable = int(finite.sum()), int(varies.sum())
    state = dataclasses.replace(
        state,
        images=state.images + len(images),
        nonfinite=state.nonfinite + len(images) - good,
        flat=state.flat + good - usable,
        whole_levels=state.whole_levels and images.dtype == torch.uint8,
    )
    if usable < len(images):
        images = images[varies]
    return _queue(state, images)


def _queue(state: State, images: Tensor) -> State:
    """Add whole groups of images to the sums; the rest waits."""
    waiting, group = sum(map(len, state.pending)), state.plan.group
    if waiting + len(images) < group:
        return dataclasses.replace(state, pending=(*state.pending, images.clone()))
    if waiting:
        images = torch.cat([*state.pending, images])
    ready = len(images) // group * group
    state = _add(dataclasses.replace(state, pending=()), images[:ready].split(group))
    rest = images[ready:]
    return dataclasses.replace(state, pending=(rest.clone(),)) if len(rest) else state


def flush(state: State) -> State:
    """The state with all images in its sums."""
    if not sum(map(len, state.pending)):
        return state
    return _add(dataclasses.replace(state, pending=()), [torch.cat(state.pending)])


def merge(a: State, b: State) -> State:
    """The state of both sets of images; options must be equal."""
    a, b = flush(a), flush(b)
    if a.shape is None or b.shape is None:
        return b if a.shape is None else a
    return _joined_states(
        a,
        b,
        images=a.images + b.images,
        nonfinite=a.nonfinite + b.nonfinite,
        flat=a.flat + b.flat,
        whole_levels=a.whole_levels and b.whole_levels,
    )


def _joined_states(a: State, b: State, **counts) -> State:
    """State a with the sums of b as well."""
    blocks = None
    if a.summed + b.summed <= FEW:
        blocks = _both(a.by_block, b.by_block)
    return dataclasses.replace(
        a,
        summed=a.summed + b.summed,
        marks=a.marks + b.marks,
        by_image=_both(a.by_image, b.by_image),
        by_block=blocks,
        pictures=_both(a.pictures, b.pictures),
        **counts,
    )


def added(a: Any, b: Any) -> Any:
    """Sum of two trees of dataclasses, lists, tensors and numbers."""
    if isinstance(a, Pictures):
        return a.added(b)
    if dataclasses.is_dataclass(a):
        names = [f.name for f in dataclasses.fields(a)]
        return type(a)(*(added(getattr(a, name), getattr(b, name)) for name in names))
    if isinstance(a, list):
        return [added(x, y) for x, y in zip(a, b, strict=True)]
    return a + b.to(a.device) if isinstance(a, Tensor) else a + b


def _add(state: State, groups: list[Tensor]) -> State:
    """Add groups of images, in order, each on one core."""
    few = state.summed + sum(map(len, groups)) <= FEW and state.plan.blocks > 1
    parts = over_cores(functools.partial(_group, state, few), groups)
    return functools.reduce(_joined_states, parts, state)


def _both(a: Any, b: Any) -> Any:
    return added(a, b) if a is not None and b is not None else b if a is None else a


def _group(state: State, few: bool, images: Tensor) -> State:
    """The state of one group of images alone."""
    layout, records, pictures = state.plan, [], None
    for chunk in images.split(layout.chunk):
        planes = gray_planes(chunk, state)
        record = _chunk(layout, planes, len(chunk), few)
        records.append(record)
        if state.keep_pictures:
            first = [record.by_image[1 + 3 * i][:, :, 0] for i in range(len(layout.tilings))]
            new = picture_sums(planes, state.measurable, tuple(first))
            pictures = _both(pictures, new)
    return State(
        state.periods,
        shape=state.shape,
        device=state.device,
        summed=len(images),
        marks=(marks(images),),
        by_image=_reduced(records, layout, len(images)),
        by_block=_reduced(records, layout, len(images), blocks=True) if few else None,
        pictures=pictures,
    )


def gray_planes(chunk: Tensor, state: State) -> Tensor:
    """Planes (N, C', H, W) in gray levels minus 127.5, luma first where there are channels."""
    low, high = state.value_range or (0, 255)
    planes = chunk if chunk.dtype == torch.float64 else chunk.float()
    scale = 255 / (high - low)
    planes = planes * scale - (low * scale + MID_GRAY) if scale != 1 or low else planes - MID_GRAY
    planes = planes.to(state.dtype)
    channels = chunk.shape[1]
    if channels == 1:
        return planes
    weights = LUMA if channels == 3 else [1 / channels] * channels
    luma = sum(w * planes[:, c] for c, w in enumerate(weights))
    return torch.cat([luma[:, None], planes], 1)


def marks(images: Tensor) -> Tensor:
    """A 64-bit hash of the pixels of each image: equal for equal images (N,)."""
    flat = images.flatten(1)
    size = flat.element_size()
    if flat.shape[1] * size % 8:
        flat = torch.nn.functional.pad(flat, (0, -flat.shape[1] % (8 // size)))
    words = flat.contiguous().view(torch.int64)
    return (words * _multipliers(words.shape[1], words.device)).sum(1)


@functools.lru_cache(maxsize=4)
def _multipliers(count: int, device: torch.device) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (count,), generator=random).mul_(2).add_(1).to(device)


@dataclass
class _Record:
    """Sums of one chunk by cluster, clusters last; those that only add up over images as totals."""

    by_image: list[Tensor]
    by_block: list[Tensor]
    totals: list[Tensor]


def _chunk(layout: Plan, planes: Tensor, images: int, few: bool) -> _Record:
    """Sums of a chunk of planes (n, C, H, W)."""
    if len(planes) < layout.chunk:  # one shape, empty images behind
        empty = planes.new_zeros(layout.chunk - len(planes), *planes.shape[1:])
        planes = torch.cat([planes, empty])
    (h, w), (tall, wide) = layout.block, map(len, layout.starts)
    for axis, starts, side in ((2, layout.starts[0], h), (3, layout.starts[1], w)):
        if len(starts) * side != planes.shape[axis]:  # blocks overlap
            at = torch.cat([torch.arange(s, s + side) for s in starts]).to(planes.device)
            planes = planes.index_select(axis, at)
    view = planes.view(*planes.shape[:2], tall, h, wide, w).permute(3, 1, 0, 2, 4, 5)
    record = None
    for first in range(0, tall, layout.band):
        piece = view[:, :, :, first : first + layout.band]
        rows = layout.starts[0][first : first + layout.band]
        starts = [(y, x) for y in rows for x in layout.starts[1]]
        blocks = piece.contiguous().view(h, -1, w)
        new = _piece(layout, blocks, starts, piece.shape[1:3], images, few)
        record = new if record is None else _joined(record, new)
    return record


def _joined(a: _Record, b: _Record) -> _Record:
    """Record of two bands of the same images."""
    return _Record(
        [x + y for x, y in zip(a.by_image, b.by_image, strict=True)],
        [torch.cat([x, y], -1) for x, y in zip(a.by_block, b.by_block, strict=True)],
        [x + y for x, y in zip(a.totals, b.totals, strict=True)],
    )


def _piece(layout, x: Tensor, starts, planes_images, images: int, few: bool) -> _Record:
    """Sums of some blocks (H, N, W) of all images of a chunk."""

    def split(value: Tensor) -> Tensor:
        return value.unflatten(-1, (*planes_images, -1))[..., :images, :]  # (…, C, n, blocks)

    def total(value: Tensor) -> Tensor:
        return split(value).sum((-2, -1), dtype=torch.float64).movedim(-1, 0)

    clusters, totals = [torch.stack([x.sum((0, 2)), (x * x).sum((0, 2))])], []
    for tiling, beside in zip(layout.tilings, layout.beside, strict=True):
        sums = tiling.sums(x, planes_images[0], tiling.turns(starts))
        sums.even_places[0] = images * len(starts)  # without the empty images behind
        own = sums.weighted[3:5].index_select(1, tiling.at).square().sum(0)
        excess = torch.stack([own, (sums.pairs * beside).sum(1)])
        clusters += [sums.weighted, sums.even, excess]
        totals += [total(sums.pairs)]
        totals += [v.permute(2, 0, 1, 3) for v in (sums.places, sums.even_places)]
    for texture in layout.textures:
        depth, products = texture.sums(x, starts)
        clusters.append(depth)
        totals.append(total(products))
    one = x.shape[1] == math.prod(planes_images)
    return _Record(
        [split(v)[..., 0] if one else split(v).sum(-1) for v in clusters],
        [split(v) for v in clusters] if few else [],
        totals,
    )


def _reduced(records: list[_Record], layout: Plan, images: int, blocks: bool = False) -> Sums:
    """First and second moments in float64 over the clusters of some records."""
    if blocks:
        parts = [[v.flatten(-2) for v in record.by_block] for record in records]
        pixels = math.prod(layout.block)
    else:
        parts = [record.by_image for record in records]
        pixels = math.prod(layout.block) * layout.blocks
    energy, *clusters = (torch.cat(v, -1).double() for v in zip(*parts, strict=True))
    totals = iter([sum(v) for v in zip(*(r.totals for r in records), strict=True)])
    found = iter([moments_of(v) for v in clusters])
    mean, square = energy / pixels
    variance = (square - mean * mean).clamp(min=0)
    moments = torch.stack([mean, square, variance]).sum(-1)
    tiled = [
        TilingSums(*(next(found) for _ in range(3)), *(next(totals) for _ in range(3)))
        for _ in layout.tilings
    ]
    traced = [TextureSums(next(found), next(totals)) for _ in layout.textures]
    return Sums(images * (layout.blocks if blocks else 1), tiled, traced, moments)
