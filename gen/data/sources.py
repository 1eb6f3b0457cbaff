"""Where images come from: the table of named sets, and the readers of folders and arrays."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gen.data import shapes
from gen.data.arrays import ArrayImages, checked_labels, open_array
from gen.data.decode import (
    MAX_PIXELS,
    WHITE,
    BadImage,
    Color,
    DataError,
    check,
    convert_channels,
    decode,
    list_images,
)
from gen.data.masks import IGNORED, Pairs, is_pair_folder, pairs_of
from gen.system.errors import InputError

SHAPES_COUNT = 20_000
_TEST_OFFSET = 1 << 40  # where the indices of the test split of `shapes` begin


@dataclass(frozen=True)
class Source:
    """Where images come from: `read` maps indices (B,) to (B, C, H, W) and masks, both uint8."""

    name: str
    count: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    labels: np.ndarray | None = None  # int64 (count,)
    classes: tuple[str, ...] = ()
    check: Callable[[np.ndarray], None] = lambda indices: None  # raises what `read` would
    masks: bool = False
    drawn: bool = False  # by a formula, each image in less time than a file takes to be read


@dataclass(frozen=True)
class Request:
    """What `load_dataset` was asked for, as the loaders of the table take it."""

    name: str
    root: Path
    size: tuple[int, int]
    channels: int
    split: str
    seed: int
    workers: int
    count: int | None
    mask_classes: int = 0  # masks are read, and may hold indices below this; 0 reads none
    background: Color = WHITE
    max_pixels: int = MAX_PIXELS


def fit(pixels: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Resize uint8 pixels (h, w, C) to cover `size` and crop at the center: (H, W, C).

    Lanczos with antialiasing or, for indices, which have no mean, the nearest pixel.
    """
    if pixels.shape[:2] == size:
        return pixels
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.fit(image, size[::-1], method=method)).reshape(*size, -1)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 pixels (h, w, C) to (H, W, C), Lanczos with antialiasing, nothing cropped."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS)).reshape(*size, -1)


def _shapes(request: Request) -> Source:
    offset = _TEST_OFFSET if request.split == "test" else 0
    count = request.count or SHAPES_COUNT

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, _, masks = shapes.render(
            request.seed, indices + offset, request.size, request.channels
        )
        return images, masks

    labels = shapes.labels(request.seed, np.arange(count) + offset)
    return Source("shapes", count, read, labels, shapes.CLASSES, masks=True, drawn=True)


def open_file(path: Path) -> ArrayImages:
    """Open an .npy or .npz file of images; raises DataError for any other file."""
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: not a folder of images, an .npy or an .npz file")
    return open_array(path)


def from_path(request: Request) -> Source:
    """Open a folder of images or an array file. Raises ValueError for a split, DataError."""
    path = Path(request.name)
    if request.mask_classes and is_pair_folder(path):
        return _from_pairs(path.resolve().name, pairs_of(path).split(request.split), request)
    if request.split != "train":
        raise InputError(f"{path} has no split {request.split!r}; give the path of its test images")
    if is_pair_folder(path):
        return _from_files(path.resolve().name, list_images(path / "images"), None, (), request)
    if path.is_dir():
        return _from_folder(path, request)
    return _from_array(path.name, open_file(path), request)


def subfolders(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """The folders of all images below `folder`, sorted: its classes; none if one lies beside."""
    if any(path.parent == folder for path in paths):
        return ()
    return tuple(sorted({path.relative_to(folder).parts[0] for path in paths}))


def _from_folder(folder: Path, request: Request) -> Source:
    paths = list_images(folder)
    classes = subfolders(folder, paths)
    if not classes:
        return _from_files(folder.resolve().name, paths, None, (), request)
    labels = np.array([classes.index(p.relative_to(folder).parts[0]) for p in paths], np.int64)
    return _from_files(folder.resolve().name, paths, labels, classes, request)


def _from_files(
    name: str,
    paths: list[Path],
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    request: Request,
) -> Source:
    pool = _pool(request)

    def read_one(index: int) -> np.ndarray:
        pixels = _decode(paths[index], request)
        return fit(pixels, request.size).transpose(2, 0, 1)

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        return np.stack(list(pool.map(read_one, indices))), None

    def check_all(indices: np.ndarray) -> None:
        look = partial(check, max_pixels=request.max_pixels)
        list(pool.map(look, [paths[index] for index in indices]))

    return Source(name, len(paths), read, labels, classes, check_all)


def _pool(request: Request) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(request.workers or min(os.cpu_count() or 1, 8), "decode")


def _decode(path: Path, request: Request) -> np.ndarray:
    pixels = decode(
        path,
        channels=request.channels,
        background=request.background,
        max_pixels=request.max_pixels,
    )
    return np.rint(pixels).astype(np.uint8)


def _from_pairs(name: str, pairs: Pairs, request: Request) -> Source:
    pool = _pool(request)

    def read_one(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = _decode(pairs.images[index], request)
        mask = pairs.mask(index, request.mask_classes)
        if mask.shape != pixels.shape[:2]:
            wrong, right = (f"{s[0]}×{s[1]}" for s in (mask.shape, pixels.shape))
            raise BadImage(f"{pairs.masks[index]}: is of {wrong} pixels, its image of {right}")
        image = fit(pixels, request.size).transpose(2, 0, 1)
        return image, fit(mask[..., None], request.size, nearest=True)[..., 0]

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, masks = zip(*pool.map(read_one, indices), strict=True)
        return np.stack(images), np.stack(masks)

    def check_all(indices: np.ndarray) -> None:
        for _ in pool.map(read_one, indices):  # a wrong index shows in the pixels alone
            pass

    return Source(name, len(pairs.images), read, None, (), check_all, masks=True)


def _from_array(
    name: str,
    array: ArrayImages,
    request: Request,
    classes: tuple[str, ...] = (),
    pad: bool = False,
) -> Source:
    height, width = request.size
    rows, columns = height - array.pixels.shape[1], width - array.pixels.shape[2]

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        images = convert_channels(array.read(indices), request.channels, request.background)
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


# The pets' trimaps hold 1 for the animal, 2 for what is around it, 3 for the border between.
_TRIMAP = np.arange(256, dtype=np.uint8)
_TRIMAP[[1, 2, 3]] = 1, 0, IGNORED


@dataclass(frozen=True)
class _Torchvision:
    """A set of torchvision.datasets: its class there, and its files below the root."""

    kind: str
    files: str
    pad: bool = False

    def __call__(self, request: Request) -> Source:
        try:
            return self._read(request)
        except Exception as error:  # URLError, OSError, ValueError, ModuleNotFoundError, …
            raise DataError(
                f"cannot read or download {request.name}: {' '.join(str(error).split())}; put "
                f"{self.files} below {request.root} by hand, or name their folder (--data-root)"
            ) from error

    def _read(self, request: Request) -> Source:
        stored = self._open(request)
        if self.kind == "VOCSegmentation":
            images, masks = (list(map(Path, part)) for part in (stored.images, stored.targets))
            return self._pairs(Pairs(images, masks), request)
        if self.kind == "OxfordIIITPet":
            return self._pairs(Pairs(stored._images, stored._segs, _TRIMAP), request)
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
        # torchvision calls the digits "0 - zero" … in MNIST and nothing in SVHN.
        classes = tuple(name.split(" - ")[0] for name in getattr(stored, "classes", "0123456789"))
        labels = checked_labels(np.asarray(labels), len(pixels), len(classes))
        array = ArrayImages(pixels, (0, 255), labels)
        return _from_array(request.name, array, request, classes, self.pad)

    def _pairs(self, pairs: Pairs, request: Request) -> Source:
        if request.mask_classes:
            return _from_pairs(request.name, pairs, request)
        return _from_files(request.name, pairs.images, None, (), request)

    def _open(self, request: Request) -> Any:
        """Open the files below the root, or download them there."""
        from torchvision import datasets

        kind = getattr(datasets, self.kind)
        train = request.split == "train"
        split = {
            "MNIST": {"train": train},
            "FashionMNIST": {"train": train},
            "CIFAR10": {"train": train},
            "VOCSegmentation": {"image_set": "train" if train else "val"},
            "OxfordIIITPet": {"split": "trainval" if train else "test"},
        }.get(self.kind, {"split": request.split})
        try:
            return kind(request.root, download=False, **split)
        except RuntimeError:  # torchvision's word for "not there"
            with contextlib.redirect_stdout(sys.stderr):
                return kind(request.root, download=True, **split)


DATASETS: dict[str, Callable[[Request], Source]] = {
    "shapes": _shapes,
    "mnist": _Torchvision("MNIST", "MNIST/raw/*-ubyte", pad=True),
    "fashion-mnist": _Torchvision("FashionMNIST", "FashionMNIST/raw/*-ubyte", pad=True),
    "cifar10": _Torchvision("CIFAR10", "cifar-10-batches-py/*"),
    "svhn": _Torchvision("SVHN", "train_32x32.mat and test_32x32.mat"),
    "stl10": _Torchvision("STL10", "stl10_binary/*"),
    "celeba": _Torchvision("CelebA", "celeba/img_align_celeba/* and celeba/list_*.txt"),
    "oxford-pets": _Torchvision("OxfordIIITPet", "oxford-iiit-pet/images and /annotations"),
    "voc": _Torchvision("VOCSegmentation", "VOCdevkit/VOC2012"),
}

# Labels of the named sets that have them.
CLASSES = {"shapes": len(shapes.CLASSES)} | dict.fromkeys(
    ("mnist", "fashion-mnist", "cifar10", "svhn", "stl10"), 10
)
