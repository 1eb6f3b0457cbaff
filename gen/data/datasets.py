"""Image sets by name or by path, as uint8 tensors of one size. Names are known without torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gen.data.decode import (
    MAX_PIXELS,
    BadImage,
    DataError,
    decode,
    describe_skipped,
    list_images,
)
from gen.data.masks import count_classes, is_pair_folder, list_pairs
from gen.data.sources import (
    DATASETS,
    ImageSource,
    Request,
    from_path,
    list_class_folders,
    open_array_file,
)
from gen.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DATASETS", "BadImage", "Batch", "DataError", "Dataset", "load_dataset"]

OnProgress = Callable[[int, int], None]  # (images done, images in all)

_CHUNK = 256  # images between two calls of on_progress


@dataclass(frozen=True)
class Batch:
    """Images uint8 (B, C, H, W), labels int64 (B,) if there are classes, masks uint8 (B, H, W)."""

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None

    def mirror(self, which: Tensor) -> Batch:
        """Mirror left to right the images and masks where `which`, bool (B,), is true."""
        import torch

        images = torch.where(which[:, None, None, None], self.images.flip(-1), self.images)
        masks = self.masks
        if masks is not None:
            masks = torch.where(which[:, None, None], masks.flip(-1), masks)
        return Batch(images, self.labels, masks)


class Dataset:
    """Images by index, all of one size; kept in memory as uint8 where they fit `memory_limit`.

    Either way every file is decoded once before the first batch; images that are drawn, of which
    none can be bad, are drawn when they are first fetched. Where bad images are skipped, the
    indices count the good ones alone, in the order of the source, and `notes` says what is missing,
    and how an array was read.
    """

    def __init__(
        self,
        source: ImageSource,
        bytes_per_image: int,
        memory_limit: int,
        on_progress: OnProgress | None = None,
        skip_bad: bool = False,
    ) -> None:
        import torch

        self._source = source
        self.name, self.classes = source.name, source.classes
        self.in_memory = source.count * bytes_per_image <= memory_limit
        self._images: Tensor | None = None
        self._masks: Tensor | None = None
        self._made = np.full(source.count, not source.drawn)
        work = source.read if self.in_memory else source.check
        looked_at = 0 if source.drawn else source.count
        good, bad = [np.arange(looked_at, source.count)], []
        for start in range(0, looked_at, _CHUNK):
            chunk = np.arange(start, min(start + _CHUNK, source.count))
            for indices, found in _good_parts(chunk, work, bad if skip_bad else None):
                if self.in_memory:
                    row = sum(map(len, good))
                    self._store(slice(row, row + len(indices)), *found)
                good.append(indices)
            if on_progress:
                on_progress(int(chunk[-1]) + 1, source.count)
        self._good = np.concatenate(good)  # our index → the source's
        skipped = [describe_skipped(bad, source.count)] if bad else []
        self.notes = [*source.notes, *skipped]
        if not len(self._good):
            raise DataError(f"{source.name}: {skipped[0]}")
        self._labels = (
            None if source.labels is None else torch.from_numpy(source.labels[self._good])
        )

    def _store(
        self, rows: slice | np.ndarray, images: np.ndarray, masks: np.ndarray | None
    ) -> None:
        import torch

        if self._images is None:
            self._images = torch.empty((self._source.count, *images.shape[1:]), dtype=torch.uint8)
            if masks is not None:
                self._masks = torch.empty((self._source.count, *masks.shape[1:]), dtype=torch.uint8)
        self._images[rows] = torch.from_numpy(images)
        if self._masks is not None:
            self._masks[rows] = torch.from_numpy(masks)

    def __len__(self) -> int:
        return len(self._good)

    def digest(self) -> str:
        """SHA-256 of the files as they are stored, read once more; drawn images have none."""
        found = hashlib.sha256(self._good)
        for part in self._source.contents(self._good):
            found.update(part)
        if self._labels is not None:
            found.update(self._labels.numpy())
        return found.hexdigest()

    def fetch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the images of these indices, in this order. Raises BadImage or DataError."""
        import torch

        indices = np.array(indices, np.int64)
        rows = torch.from_numpy(indices)
        labels = None if self._labels is None else self._labels[rows]
        if self.in_memory:
            new = self._good[np.unique(indices[~self._made[indices]])]
            if len(new) or self._images is None:
                self._store(new, *self._source.read(new))
                self._made[new] = True
            masks = None if self._masks is None else self._masks[rows]
            return Batch(self._images[rows], labels, masks)
        images, masks = self._source.read(self._good[indices])
        return Batch(
            torch.from_numpy(images), labels, None if masks is None else torch.from_numpy(masks)
        )


def _good_parts(
    indices: np.ndarray, work: Callable[[np.ndarray], Any], bad: list[str] | None
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (indices, work(indices)) for those that are good; the others' errors go to `bad`.

    Where an image is bad, each half is tried by itself. Raises BadImage where `bad` is None.
    """
    try:
        yield indices, work(indices)
        return
    except BadImage as error:
        if bad is None:
            raise
        if len(indices) == 1:
            bad.append(str(error))
            return
    for half in np.array_split(indices, 2):
        yield from _good_parts(half, work, bad)


def load_dataset(
    name: str,
    *,
    root: Path | str,
    skip_bad: bool = False,
    memory_limit: int = 2 << 30,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Dataset:
    """Load an image set as uint8 images of one size.

    Images of another size are resized (Lanczos, antialiased) until they cover the target, then
    cropped at the center; digits and garments of 28 × 28 are padded with zeros to larger sizes
    instead, which leaves no trace of interpolation. Images of the target's size stay untouched.

    Args:
        name: of a set, or a path.
        root: folder with, or for, the files of the named sets.
        skip_bad: leave bad image files out, and say so in `notes`, instead of raising.
        memory_limit: larger sets, in bytes as uint8, are decoded when they are fetched.
        on_progress: called with (done, total) while images are decoded or checked.
        **options: `size`, `channels` and the other fields of `gen.data.sources.Request`.

    Raises:
        ValueError: for a name, split, channel count or count that does not exist, and where masks
            are asked of a set without.
        DataError, BadImage: for files that are missing, cannot be downloaded or cannot be read.
    """
    request = Request(name, Path(root), **options)
    _check_name(name)
    if request.mask_classes:
        _check_mask_classes(name, request.mask_classes)
    source = DATASETS[name].open(request) if name in DATASETS else from_path(request)
    if request.count and request.count < source.count:
        source = _take_evenly(source, request.count)
    bytes_per_image = (request.channels + source.masks) * math.prod(request.size)
    return Dataset(source, bytes_per_image, memory_limit, on_progress, skip_bad)


def find_channels(name: str, *, skip_bad: bool = False, max_pixels: int = MAX_PIXELS) -> int:
    """Channels that a set has of its own; a folder is judged by its first good image.

    Raises ValueError for a name that does not exist, DataError and BadImage as `load_dataset`.
    """
    _check_name(name)
    if name in DATASETS:
        return DATASETS[name].channels
    path = Path(name)
    if path.is_dir():
        bad = []
        for image in list_images(path / "images" if is_pair_folder(path) else path):
            try:
                return decode(image, max_pixels=max_pixels).shape[2]
            except BadImage as error:
                if not skip_bad:
                    raise
                bad.append(str(error))
        raise DataError(f"{path}: {describe_skipped(bad, len(bad))}")
    return open_array_file(path).pixels.shape[3]


def find_classes(name: str) -> int:
    """Classes that the labels of a set distinguish.

    Raises ValueError for a name that does not exist or a set without labels, DataError and
    BadImage as `load_dataset`.
    """
    _check_name(name)
    path = Path(name)
    if name in DATASETS:
        count = DATASETS[name].classes
    elif path.is_dir():
        count = len(list_class_folders(path, list_images(path)))
    else:
        labels = open_array_file(path).labels
        count = 0 if labels is None else int(labels.max()) + 1
    if not count:
        raise InputError(
            f"{name}: has no classes; give a folder with one subfolder per "
            "class, an .npz file with labels or a named set"
        )
    return count


def find_mask_classes(name: str, *, skip_bad: bool = False) -> int:
    """Classes of pixels that the masks of a set hold; those of a folder are all looked at.

    Raises ValueError for a set that does not exist or has no masks, DataError and BadImage for
    files that are not as they must be.
    """
    _check_name(name)
    if name in DATASETS and DATASETS[name].mask_classes:
        return DATASETS[name].mask_classes
    if name in DATASETS or not is_pair_folder(Path(name)):
        masked = ", ".join(key for key, known in DATASETS.items() if known.mask_classes)
        raise InputError(
            f"{name} has no masks; take {masked}, or a folder that holds images/ and masks/"
        )
    return count_classes(list_pairs(Path(name)), skip_bad)


def _check_mask_classes(name: str, classes: int) -> None:
    """Refuse masks that cannot be had, before any file is read."""
    if is_pair_folder(Path(name)) and name not in DATASETS:
        return
    if classes < (count := find_mask_classes(name)):
        raise InputError(f"classes is {classes}; {name} has {count}")


def _take_evenly(source: ImageSource, count: int) -> ImageSource:
    """So many images of a source, evenly spread."""
    chosen = np.arange(count) * source.count // count
    return replace(
        source,
        count=count,
        read=lambda indices: source.read(chosen[indices]),
        labels=None if source.labels is None else source.labels[chosen],
        check=lambda indices: source.check(chosen[indices]),
        contents=lambda indices: source.contents(chosen[indices]),
    )


def _check_name(name: str) -> None:
    if name not in DATASETS and not Path(name).exists():
        raise InputError(
            f"no data set and no path {name!r}; choose {', '.join(DATASETS)}, "
            "or give a folder of images, an .npy or an .npz file"
        )
