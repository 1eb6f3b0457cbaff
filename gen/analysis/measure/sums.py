"""Sums over images: `update` and `merge` of a `State` that keeps no image.

What belongs to one image is computed in float32, in chunks of one shape that begin at fixed image
numbers, so an image rounds alike however the set is split. Sums over images are float64. Images
with a side of 2 BLOCK or more are cut into blocks, which are summed by image; of FEW images or
fewer the blocks are kept apart as well, because they are then the clusters of the variance. Nothing
in the sums depends on the size of an image but on that of its blocks: images of several sizes that
are cut into blocks of one size add up.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .amplitude import Moments
from .lattice import minimum_size
from .spectrum import Pictures, picture_sums
from .threads import over_cores
from .tiles import FLOOR, tilings
from .trace import TextureSums, textures

BLOCK = 64  # pixels: work stays linear in the number of pixels
STEP = 8  # blocks start at multiples
CHUNK = 2**19  # pixels of one chunk: few enough for the cache, many enough to spread overhead
ALIGNED = 64  # matrix products round alike in every column where these come in such numbers
GROUP = 256  # images whose second moments are added up together, at most four chunks
FEW = 16  # images: with more, images are the clusters
MID_GRAY = 127.5
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; other channel counts take the plain mean as luma


@dataclass
class TilingSums:
    """Sums of one tiling over clusters; see `TileSums` for the terms.

    For each of the tiling's `axials`, `excess` has the terms of `AxialShifts.compared`, and
    `powers` (C, L, 1 + A) the sums of |s_d|². `places` and `even_places` (C, 7, L, tiles) make the
    placebos.
    """

    weighted: Moments
    even: Moments
    excess: list[Moments]
    powers: list[Tensor]
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
    block: tuple[int, int] | None = None  # cut images into blocks of this size, whatever theirs
    dtype: torch.dtype = torch.float32
    shape: tuple[int, int, int] | None = None
    device: torch.device | None = None
    images: int = 0  # seen
    sizes: tuple[tuple[int, int, int], ...] = ()  # height, width, images seen of that size
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
        return plan(self.shape, self.periods, self.floor, self.device, self.dtype, self.block)

    @property
    def clusters(self) -> Sums:
        """Sums by image, or by block of FEW images or fewer."""
        return self.by_image if self.by_block is None else self.by_block

    @property
    def distinct(self) -> int:
        """Number of different images in the sums."""
        return len(torch.cat(self.marks).unique()) if self.marks else 0


class Plan:
    """How images of one shape are cut, and the matrices that transform their blocks."""

    def __init__(self, shape, periods, floor, device, dtype, block=None):
        channels, *size = shape
        self.planes = channels + (channels > 1)
        self.fits = tuple(p for p in periods if min(block or size) >= minimum_size(p))
        least = least_block(self.fits)
        self.block = block or tuple(n if n < 2 * least else least for n in size)
        self.uniform = block is None  # chunks have one shape, so that images round alike
        self.starts = [
            sorted({int(s) // STEP * STEP for s in torch.linspace(0, n - b, -(-n // b)).tolist()})
            for n, b in zip(size, self.block, strict=True)
        ]
        tall, wide = map(len, self.starts)
        self.blocks = tall * wide
        self.tilings = tilings(self.block, self.fits, floor, device, dtype)
        self.textures = textures(self.block, self.fits, device, dtype)
        row = self.planes * wide * math.prod(self.block)
        self.band = max(1, min(tall, CHUNK // row))  # rows of blocks in one piece
        # Images of one chunk, such that blocks come in multiples of ALIGNED, or one.
        step = ALIGNED // math.gcd(ALIGNED, self.planes * self.blocks)
        self.chunk = max(CHUNK // (row * tall) // step, 1) * step
        if self.chunk * row * tall > 4 * CHUNK:
            # Too many at once: one image, or rows of blocks of many where one image has few blocks.
            many = ALIGNED // math.gcd(ALIGNED, self.planes * wide)
            by_rows = self.planes * self.blocks < ALIGNED // 2 and many * row <= 4 * CHUNK
            self.chunk = many if by_rows else 1
            self.band = max(1, self.band // self.chunk)
        self.group = self.chunk * (1 if self.chunk == 1 else max(1, min(4, GROUP // self.chunk)))

    def laid_out(self, planes: Tensor) -> Tensor:
        """Blocks of planes (n, C, H, W) by row and column: (n, C, rows, h, columns, w)."""
        (h, w), (tall, wide) = self.block, map(len, self.starts)
        for axis, starts, side in ((2, self.starts[0], h), (3, self.starts[1], w)):
            if len(starts) * side != planes.shape[axis]:  # blocks overlap
                at = torch.cat([torch.arange(s, s + side) for s in starts]).to(planes.device)
                planes = planes.index_select(axis, at)
        return planes.reshape(*planes.shape[:2], tall, h, wide, w)

    def cut(self, planes: Tensor) -> Tensor:
        """Blocks of planes (n, C, H, W): (n, C, blocks, h, w)."""
        return self.laid_out(planes).transpose(3, 4).flatten(2, 3)


def least_block(periods: Sequence[int]) -> int:
    """Side of the blocks that large images are cut into: the least that serves all periods."""
    return -(-max([BLOCK, *map(minimum_size, periods)]) // STEP) * STEP


@functools.lru_cache(maxsize=16)
def plan(shape, periods, floor, device, dtype, block=None) -> Plan:
    """The plan of these options; equal options share one."""
    return Plan(shape, periods, floor, device, dtype, block)


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
    if state.shape != images.shape[1:]:  # cut into blocks of one size
        state = dataclasses.replace(flush(state), shape=tuple(images.shape[1:]))
    images = images.to(state.device)
    low, high = images.flatten(2).amin(-1), images.flatten(2).amax(-1)
    finite = (low.isfinite() & high.isfinite()).all(1)
    varies = finite & (low != high).any(1)
    good, usable = int(finite.sum()), int(varies.sum())
    state = dataclasses.replace(
        state,
        images=state.images + len(images),
        sizes=_counted(state.sizes, ((*state.shape[1:], len(images)),)),
        nonfinite=state.nonfinite + len(images) - good,
        flat=state.flat + good - usable,
        whole_levels=state.whole_levels and images.dtype == torch.uint8,
    )
    return _queue(state, images if usable == len(images) else images[varies])


def _queue(state: State, images: Tensor) -> State:
    """Add whole groups of images to the sums; the rest waits."""
    waiting, group = sum(map(len, state.pending)), state.plan.group
    if waiting + len(images) < group:
        return dataclasses.replace(state, pending=(*state.pending, images.clone()))
    if waiting:
        images = torch.cat([*state.pending, images])
    ready = len(images) // group * group
    state = _add(dataclasses.replace(state, pending=()), images[:ready].split(group))
    return dataclasses.replace(state, pending=(images[ready:].clone(),))


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
    counts = {name: getattr(a, name) + getattr(b, name) for name in ("images", "nonfinite", "flat")}
    whole, sizes = a.whole_levels and b.whole_levels, _counted(a.sizes, b.sizes)
    return dataclasses.replace(_joined(a, b), **counts, whole_levels=whole, sizes=sizes)


def _counted(a, b) -> tuple[tuple[int, int, int], ...]:
    """Numbers of images by size, added up."""
    counts: dict[tuple[int, int], int] = {}
    for height, width, count in (*a, *b):
        counts[height, width] = counts.get((height, width), 0) + count
    return tuple((*size, count) for size, count in counts.items())


def _joined(a: State, b: State) -> State:
    """State a with the sums of b as well."""
    few = a.summed + b.summed <= FEW
    return dataclasses.replace(
        a,
        summed=a.summed + b.summed,
        marks=a.marks + b.marks,
        by_image=added(a.by_image, b.by_image),
        by_block=added(a.by_block, b.by_block) if few else None,
        pictures=added(a.pictures, b.pictures),
    )


def added(a: Any, b: Any) -> Any:
    """Sum of two trees of dataclasses, lists, tensors and numbers; None is nothing, tuples stay."""
    if a is None or b is None or isinstance(a, tuple):
        return b if a is None else a
    if dataclasses.is_dataclass(a):
        names = [f.name for f in dataclasses.fields(a)]
        return type(a)(*(added(getattr(a, name), getattr(b, name)) for name in names))
    if isinstance(a, list):
        return [added(x, y) for x, y in zip(a, b, strict=True)]
    return a + b.to(a.device) if isinstance(a, Tensor) else a + b


def _add(state: State, groups: list[Tensor]) -> State:
    """Add groups of images, in order, each on one core."""
    few = state.summed + sum(map(len, groups)) <= FEW
    few = few and (state.plan.blocks > 1 or state.block is not None)
    parts = over_cores(functools.partial(_group, state, few), groups)
    return functools.reduce(_joined, parts, state)


def _group(state: State, few: bool, images: Tensor) -> State:
    """The sums of one group of images alone."""
    layout, records, pictures = state.plan, [], None
    for chunk in images.split(layout.chunk):
        planes = gray_planes(chunk, state)
        records.append(_chunk(layout, planes, few))
        if state.keep_pictures:
            luma = planes[:, 0, None] if state.block is None else layout.cut(planes[:, :1])[:, 0]
            pictures = added(pictures, picture_sums(luma, layout.fits))
    return State(
        state.periods,
        summed=len(images),
        marks=(marks(images),),
        by_image=_reduced([r.by_image for r in records], records, layout, layout.blocks),
        by_block=_reduced([r.by_block for r in records], records, layout, 1) if few else None,
        pictures=pictures,
    )


def gray_planes(chunk: Tensor, state: State) -> Tensor:
    """Planes (N, C', H, W) in gray levels minus 127.5, luma first where there are channels."""
    low, high = state.value_range or (0, 255)
    planes, scale = chunk if chunk.dtype == torch.float64 else chunk.float(), 255 / (high - low)
    planes = planes * scale - (low * scale + MID_GRAY) if scale != 1 or low else planes - MID_GRAY
    planes, channels = planes.to(state.dtype), chunk.shape[1]
    if channels == 1:
        return planes
    weights = LUMA if channels == 3 else [1 / channels] * channels
    return torch.cat([sum(w * planes[:, c, None] for c, w in enumerate(weights)), planes], 1)


def marks(images: Tensor) -> Tensor:
    """A 64-bit hash of the pixels of each image: equal for equal images (N,)."""
    flat, per_word = images.flatten(1), 8 // images.element_size()
    words = torch.nn.functional.pad(flat, (0, -flat.shape[1] % per_word)).view(torch.int64)
    return (words * _multipliers(words.shape[1], words.device)).sum(1)


@functools.lru_cache(maxsize=4)
def _multipliers(count: int, device: torch.device) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (count,), generator=random).mul_(2).add_(1).to(device)


@dataclass
class _Record:
    """Sums of one chunk by cluster, clusters last; those that only add up over images as totals."""

    by_image: list[Tensor]
    by_block: tuple[Tensor, ...]
    totals: list[Tensor]


def _chunk(layout: Plan, planes: Tensor, few: bool) -> _Record:
    """Sums of a chunk of planes (n, C, H, W)."""
    images, record = len(planes), None
    if images < layout.chunk and layout.uniform:  # one shape, empty images behind
        empty = planes.new_zeros(layout.chunk - images, *planes.shape[1:])
        planes = torch.cat([planes, empty])
    (h, w), tall = layout.block, len(layout.starts[0])
    view = layout.laid_out(planes).permute(3, 1, 0, 2, 4, 5)
    for first in range(0, tall, layout.band):
        piece = view[:, :, :, first : first + layout.band]
        rows = layout.starts[0][first : first + layout.band]
        starts = [(y, x) for y in rows for x in layout.starts[1]]
        blocks = piece.contiguous().view(h, -1, w)
        new = _piece(layout, blocks, starts, piece.shape[1:3], images, few)
        if record is not None:
            pairs = zip(record.by_block, new.by_block, strict=True)
            new.by_block = tuple(torch.cat(pair, -1) for pair in pairs)
            new.by_image = added(record.by_image, new.by_image)
            new.totals = added(record.totals, new.totals)
        record = new
    return record


def _piece(layout: Plan, x: Tensor, starts, planes_images, images: int, few: bool) -> _Record:
    """Sums of some blocks (H, N, W) of all images of a chunk."""

    def split(value: Tensor) -> Tensor:
        return value.unflatten(-1, (*planes_images, -1))[..., :images, :]  # (…, C, n, blocks)

    def total(value: Tensor) -> Tensor:
        return split(value).sum((-2, -1), dtype=torch.float64).movedim(-1, 0)

    clusters, totals = [torch.stack([x.sum((0, 2)), (x * x).sum((0, 2))])], []
    for tiling in layout.tilings:
        sums = tiling.sums(x, planes_images[0], starts)
        sums.even_places[0] = images * len(starts)  # without the empty images behind
        pairs = zip(tiling.axials, sums.powers, strict=True)
        clusters += [sums.weighted, sums.even, *(axial.compared(power) for axial, power in pairs)]
        places = (v.permute(2, 0, 1, 3) for v in (sums.places, sums.even_places))
        totals += [*map(total, sums.powers), *places]
    for texture in layout.textures:
        depth, products = texture.sums(x, starts)
        clusters.append(depth)
        totals.append(total(products))
    clusters = [split(v) for v in clusters]
    by_image = [v[..., 0] if v.shape[-1] == 1 else v.sum(-1) for v in clusters]
    return _Record(by_image, tuple(v.flatten(-2) for v in clusters) if few else (), totals)


def _reduced(parts, records: list[_Record], layout: Plan, blocks: int) -> Sums:
    """First and second moments in float64 over clusters of `blocks` blocks each."""
    energy, *clusters = (torch.cat(v, -1).double() for v in zip(*parts, strict=True))
    totals = iter([sum(v) for v in zip(*(r.totals for r in records), strict=True)])
    found = iter([Moments.of(v) for v in clusters])
    mean, square = energy / (math.prod(layout.block) * blocks)
    variance = (square - mean * mean).clamp(min=0)
    tiled = [
        TilingSums(
            *(next(found), next(found)),
            *([next(values) for _ in tiling.axials] for values in (found, totals)),
            *(next(totals), next(totals)),
        )
        for tiling in layout.tilings
    ]
    traced = [TextureSums(next(found), next(totals)) for _ in layout.textures]
    return Sums(energy.shape[-1], tiled, traced, torch.stack([mean, square, variance]).sum(-1))
