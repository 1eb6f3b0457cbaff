"""Image sets by name or by path, as uint8 tensors of one size. Names are known without torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gen.data import shapes
from gen.data.arrays import ArrayImages, open_array
from gen.data.decode import BadImage, DataError, check, convert_channels, decode, list_images

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DATASETS", "BadImage", "Batch", "DataError", "Dataset", "load_dataset"]

Progress = Callable[[int, int], None]  # (images done, images in all)

SHAPES_COUNT = 20_000
_TEST_OFFSET = 1 << 40  # where the indices of the test split of `shapes` begin
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


@dataclass(frozen=True)
class Source:
    """Where images come from: `read` maps indices (B,) to (B, C, H, W) and masks, both uint8."""

    name: str
    count: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    labels: np.ndarray | None = None  # int64 (count,)
    classes: tuple[str, ...] = ()
    check: Callable[[np.ndarray], None] = lambda indices: None  # cheap test that `read` will work
    masks: bool = False


class Dataset:
    """Images by index, all of one size; kept in memory as uint8 where they fit `memory_limit`.

    Either way every file is looked at before the first batch: decoded for a set in memory, its
    header read for a larger one.
    """

    def __init__(
        self,
        source: Source,
        bytes_per_image: int,
        memory_limit: int,
        on_progress: Progress | None = None,
    ) -> None:
        import torch

        self._source = source
        self.name, self.classes = source.name, source.classes
        self.in_memory = source.count * bytes_per_image <= memory_limit
        self._labels = None if source.labels is None else torch.from_numpy(source.labels)
        self._images: Tensor | None = None
        self._masks: Tensor | None = None
        for start in range(0, source.count, _CHUNK):
            indices = np.arange(start, min(start + _CHUNK, source.count))
            if self.in_memory:
                self._store(start, *source.read(indices))
            else:
                source.check(indices)
            if on_progress:
                on_progress(int(indices[-1]) + 1, source.count)

    def _store(self, start: int, images: np.ndarray, masks: np.ndarray | None) -> None:
        import torch

        if self._images is None:
            self._images = torch.empty((len(self), *images.shape[1:]), dtype=torch.uint8)
            if masks is not None:
                self._masks = torch.empty((len(self), *masks.shape[1:]), dtype=torch.uint8)
        self._images[start : start + len(images)] = torch.from_numpy(images)
        if self._masks is not None:
            self._masks[start : start + len(images)] = torch.from_numpy(masks)

    def __len__(self) -> int:
        return self._source.count

    def fetch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the images of these indices, in this order. Raises BadImage or DataError."""
        import torch

        indices = np.array(indices, np.int64)
        rows = torch.from_numpy(indices)
        labels = None if self._labels is None else self._labels[rows]
        if self._images is not None:
            masks = None if self._masks is None else self._masks[rows]
            return Batch(self._images[rows], labels, masks)
        images, masks = self._source.read(indices)
        return Batch(
            torch.from_numpy(images), labels, None if masks is None else torch.from_numpy(masks)
        )


@dataclass(frozen=True)
class _Request:
    """What load_dataset was asked for, as the loaders of the table take it."""

    name: str
    root: Path
    size: tuple[int, int]
    channels: int
    split: str
    seed: int
    workers: int
    count: int | None


def load_dataset(
    name: str,
    *,
    root: Path,
    size: tuple[int, int],
    channels: int,
    split: str = "train",
    seed: int = 0,
    workers: int = 0,
    count: int | None = None,
    memory_limit: int = 2 << 30,
    on_progress: Progress | None = None,
) -> Dataset:
    """Load an image set as uint8 images of one size.

    Images of another size are resized (Lanczos, antialiased) until they cover the target, then
    cropped at the center; digits and garments of 28 × 28 are padded with zeros to larger sizes
    instead, which leaves no trace of interpolation. Images of the target's size stay untouched.

    Args:
        name: a name in `DATASETS`, or the path of a folder of images or of an .npy or .npz file.
            Where all images of a folder lie in subfolders, the subfolders are the classes.
        root: folder with, or for, the files of the named sets.
        size: (H, W) in pixels.
        channels: 1, 3 or 4.
        split: "train" or "test"; a path has only "train".
        seed: which `shapes` are drawn; other sets do not depend on it.
        workers: threads that decode files; 0 is one per core, 8 at most.
        count: how many `shapes` are drawn, 20,000 unless given; no other set takes it.
        memory_limit: larger sets, in bytes as uint8, are decoded when they are fetched.
        on_progress: called with (done, total) while images are decoded or checked.

    Raises:
        ValueError: for a name, split, channel count or count that does not exist.
        DataError, BadImage: for files that are missing, cannot be downloaded or cannot be read.
    """
    if channels not in (1, 3, 4):
        raise ValueError(f"channels is {channels}, must be 1, 3 or 4")
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}, must be train or test")
    _must_exist(name)
    if count is not None and (name != "shapes" or count < 1):
        raise ValueError(f"count is {count} for {name}, must be ≥ 1 and is for shapes only")
    request = _Request(name, Path(root), size, channels, split, seed, workers, count)
    source = DATASETS.get(name, _from_path)(request)
    planes = channels + source.masks
    return Dataset(source, planes * size[0] * size[1], memory_limit, on_progress)


def natural_channels(name: str) -> int:
    """Channels that a set has of its own; a folder is judged by its first image.

    Raises ValueError for a name that does not exist, DataError and BadImage as `load_dataset`.
    """
    _must_exist(name)
    if name in DATASETS:
        return 1 if name in ("mnist", "fashion-mnist") else 3
    path = Path(name)
    if path.is_dir():
        return decode(list_images(path)[0]).shape[2]
    return _open_path(path).pixels.shape[3]


def _must_exist(name: str) -> None:
    if name not in DATASETS and not Path(name).exists():
        raise ValueError(
            f"no data set and no path {name!r}; choose {', '.join(DATASETS)}, "
            "or give a folder of images, an .npy or an .npz file"
        )


def _open_path(path: Path) -> ArrayImages:
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: not a folder of images, an .npy or an .npz file")
    return open_array(path)


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 pixels (h, w, C) to cover `size` and crop at the center: (H, W, C)."""
    if pixels.shape[:2] == size:
        return pixels
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    fitted = ImageOps.fit(image, size[::-1], method=Image.Resampling.LANCZOS)
    return np.asarray(fitted).reshape(*size, -1)


def _shapes(request: _Request) -> Source:
    offset = _TEST_OFFSET if request.split == "test" else 0
    count = request.count or SHAPES_COUNT

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, _, masks = shapes.render(
            request.seed, indices + offset, request.size, request.channels
        )
        return images, masks

    labels = shapes.labels(request.seed, np.arange(count) + offset)
    return Source("shapes", count, read, labels, shapes.CLASSES, masks=True)


def _from_path(request: _Request) -> Source:
    path = Path(request.name)
    if request.split != "train":
        raise ValueError(f"{path} has no split {request.split!r}; give the path of its test images")
    if path.is_dir():
        return _from_folder(path, request)
    return _from_array(path.name, _open_path(path), request)


def _from_folder(folder: Path, request: _Request) -> Source:
    paths = list_images(folder)
    parents = [path.relative_to(folder).parts[0] for path in paths]
    classes = tuple(sorted(set(parents)))
    if any(path.parent == folder for path in paths):
        return _from_files(folder.resolve().name, paths, None, (), request)
    labels = np.array([classes.index(parent) for parent in parents], np.int64)
    return _from_files(folder.resolve().name, paths, labels, classes, request)


def _from_files(
    name: str,
    paths: list[Path],
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    request: _Request,
) -> Source:
    pool = ThreadPoolExecutor(request.workers or min(os.cpu_count() or 1, 8), "decode")

    def read_one(index: int) -> np.ndarray:
        pixels = np.rint(decode(paths[index], channels=request.channels)).astype(np.uint8)
        return fit(pixels, request.size).transpose(2, 0, 1)

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        return np.stack(list(pool.map(read_one, indices))), None

    def check_all(indices: np.ndarray) -> None:
        list(pool.map(check, [paths[index] for index in indices]))

    return Source(name, len(paths), read, labels, classes, check_all)


def _from_array(
    name: str,
    array: ArrayImages,
    request: _Request,
    classes: tuple[str, ...] = (),
    pad: bool = False,
) -> Source:
    height, width = request.size
    rows, columns = height - array.pixels.shape[1], width - array.pixels.shape[2]

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        images = convert_channels(array.read(indices), request.channels)
        if pad and rows >= 0 and columns >= 0:
            top, left = rows // 2, columns // 2
            margins = ((0, 0), (top, rows - top), (left, columns - left), (0, 0))
            images = np.pad(images, margins)
        elif rows or columns:
            images = np.stack([fit(image, request.size) for image in images])
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), None

    if array.labels is not None and not classes:
        classes = tuple(str(label) for label in range(int(array.labels.max()) + 1))
    return Source(name, len(array.pixels), read, array.labels, classes)


@dataclass(frozen=True)
class _Torchvision:
    """A set of torchvision.datasets: its class there, and its files below the root."""

    kind: str
    files: str
    pad: bool = False

    def __call__(self, request: _Request) -> Source:
        stored = self._open(request)
        if self.kind == "CelebA":
            folder = Path(stored.root, stored.base_folder, "img_align_celeba")
            paths = [folder / name for name in stored.filename]
            return _from_files(request.name, paths, None, (), request)
        pixels = np.asarray(stored.data)
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        elif self.kind in ("SVHN", "STL10"):
            pixels = pixels.transpose(0, 2, 3, 1)
        labels = stored.targets if hasattr(stored, "targets") else stored.labels
        array = ArrayImages(pixels, (0, 255), np.asarray(labels, np.int64))
        # torchvision calls the digits "0 - zero" … in MNIST and nothing in SVHN.
        classes = tuple(name.split(" - ")[0] for name in getattr(stored, "classes", "0123456789"))
        return _from_array(request.name, array, request, classes, self.pad)

    def _open(self, request: _Request) -> Any:
        """Open the files below the root, or download them there."""
        from torchvision import datasets

        kind = getattr(datasets, self.kind)
        by_flag = self.kind in ("MNIST", "FashionMNIST", "CIFAR10")
        split = {"train": request.split == "train"} if by_flag else {"split": request.split}
        doing = "read"
        try:
            try:
                return kind(request.root, download=False, **split)
            except RuntimeError:  # torchvision's word for "not there"
                doing = "download"
                with contextlib.redirect_stdout(sys.stderr):
                    return kind(request.root, download=True, **split)
        except Exception as error:  # URLError, OSError, ValueError, ModuleNotFoundError, …
            raise DataError(
                f"cannot {doing} {request.name}: {' '.join(str(error).split())}; put {self.files} "
                f"below {request.root} by hand, or name their folder (--data-root)"
            ) from error


DATASETS: dict[str, Callable[[_Request], Source]] = {
    "shapes": _shapes,
    "mnist": _Torchvision("MNIST", "MNIST/raw/*-ubyte", pad=True),
    "fashion-mnist": _Torchvision("FashionMNIST", "FashionMNIST/raw/*-ubyte", pad=True),
    "cifar10": _Torchvision("CIFAR10", "cifar-10-batches-py/*"),
    "svhn": _Torchvision("SVHN", "train_32x32.mat and test_32x32.mat"),
    "stl10": _Torchvision("STL10", "stl10_binary/*"),
    "celeba": _Torchvision("CelebA", "celeba/img_align_celeba/* and celeba/list_*.txt"),
}
