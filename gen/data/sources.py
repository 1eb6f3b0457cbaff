"""Where images come from: the table of named sets, and the readers of folders and arrays."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gen.data import shapes
from gen.data.arrays import ArrayImages, channels_last, checked_labels, open_array
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
from gen.data.masks import IGNORED, Pairs, is_pair_folder, list_pairs
from gen.system.errors import InputError
from gen.system.files import read_regular

SHAPES_COUNT = 20_000
_TEST_OFFSET = 1 << 40  # where the indices of the test split of `shapes` begin


@dataclass(frozen=True)
class ImageSource:
    """Where images come from: `read` maps indices (B,) to (B, C, H, W) and masks, both uint8."""

    name: str
    count: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    labels: np.ndarray | None = None  # int64 (count,)
    classes: tuple[str, ...] = ()
    check: Callable[[np.ndarray], None] = lambda indices: None  # raises what `read` would
    masks: bool = False
    notes: tuple[str, ...] = ()  # how the source was read
    drawn: bool = False  # by a formula, each image in less time than a file takes to be read
    contents: Callable[[np.ndarray], Iterable[Any]] = lambda indices: ()  # bytes, as stored


@dataclass(frozen=True)
class Request:
    """Which images are wanted, and as what.

    Attributes:
        name: A name in `DATASETS`, or the path of a folder of images or of an .npy or .npz file.
            Where all images of a folder lie in subfolders, the subfolders are the classes.
        root: Folder with, or for, the files of the named sets.
        size: (H, W) in pixels.
        channels: 1, 3 or 4.
        split: "train" or "test"; a path has only "train".
        seed: Which `shapes` are drawn; other sets do not depend on it.
        workers: Threads that decode files; 0 is one per core, 8 at most.
        count: Take so many images at most, spread evenly over the set; of `shapes`, of which there
            are 20,000 unless given, the first.
        mask_classes: Read masks as well, of indices below this, and 255; 0 needs no masks.
        background: Color under transparent pixels, unless channels is 4.
        max_pixels: Larger image files are bad.
    """

    name: str
    root: Path
    size: tuple[int, int]
    channels: int
    split: str = "train"
    seed: int = 0
    workers: int = 0
    count: int | None = None
    mask_classes: int = 0
    background: Color = WHITE
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.channels not in (1, 3, 4):
            raise InputError(f"channels is {self.channels}, must be 1, 3 or 4")
        if self.split not in ("train", "test"):
            raise InputError(f"split is {self.split!r}, must be train or test")
        if self.count is not None and self.count < 1:
            raise InputError(f"count is {self.count}, must be ≥ 1")


def resize_and_crop(pixels: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Resize uint8 pixels (h, w, C) to cover `size` and crop at the center: (H, W, C).

    Lanczos with antialiasing or, for indices, which have no mean, the nearest pixel.
    """
    if pixels.shape[:2] == size:
        return pixels
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.fit(image, size[::-1], method=method)).reshape(*size, -1)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 pixels (h, w, C) to (H, W, C), Lanczos with antialiasing, nothing cropped."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS)).reshape(*size, -1)


def open_array_file(path: Path) -> ArrayImages:
    """Open an .npy or .npz file of images; raises DataError for any other file."""
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: not a folder of images, an .npy or an .npz file")
    return open_array(path)


def from_path(request: Request) -> ImageSource:
    """Open a folder of images or an array file. Raises ValueError for a split, DataError."""
    path = Path(request.name)
    if request.mask_classes and is_pair_folder(path):
        return _from_pairs(path.resolve().name, list_pairs(path).split(request.split), request)
    if request.split != "train":
        raise InputError(f"{path} has no split {request.split!r}; give the path of its test images")
    if is_pair_folder(path):
        return _from_files(path.resolve().name, list_images(path / "images"), None, (), request)
    if path.is_dir():
        return _from_folder(path, request)
    return _from_array(path.name, open_array_file(path), request)


def list_class_folders(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """The folders of all images below `folder`, sorted; none if an image lies outside."""
    if any(path.parent == folder for path in paths):
        return ()
    return tuple(sorted({path.relative_to(folder).parts[0] for path in paths}))


def _from_folder(folder: Path, request: Request) -> ImageSource:
    paths = list_images(folder)
    classes = list_class_folders(folder, paths)
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
) -> ImageSource:
    pool = _pool(request)

    def read_one(index: int) -> np.ndarray:
        pixels = _decode(paths[index], request)
        return resize_and_crop(pixels, request.size).transpose(2, 0, 1)

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        return np.stack(list(pool.map(read_one, indices))), None

    def check_all(indices: np.ndarray) -> None:
        look = partial(check, max_pixels=request.max_pixels)
        list(pool.map(look, [paths[index] for index in indices]))

    return ImageSource(
        name, len(paths), read, labels=labels, classes=classes, check=check_all,
        contents=lambda indices: (read_regular(paths[index]) for index in indices),
    )  # fmt: skip


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


def _from_pairs(name: str, pairs: Pairs, request: Request) -> ImageSource:
    if not request.mask_classes:
        return _from_files(name, pairs.images, None, (), request)
    pool = _pool(request)

    def read_one(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = _decode(pairs.images[index], request)
        mask = pairs.mask(index, request.mask_classes)
        if mask.shape != pixels.shape[:2]:
            given, wanted = (f"{s[0]}×{s[1]}" for s in (mask.shape, pixels.shape))
            raise BadImage(f"{pairs.masks[index]}: is of {given} pixels, its image of {wanted}")
        image = resize_and_crop(pixels, request.size).transpose(2, 0, 1)
        return image, resize_and_crop(mask[..., None], request.size, nearest=True)[..., 0]

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, masks = zip(*pool.map(read_one, indices), strict=True)
        return np.stack(images), np.stack(masks)

    def check_all(indices: np.ndarray) -> None:
        for _ in pool.map(read_one, indices):  # a wrong index shows in the pixels alone
            pass

    def contents(indices: np.ndarray) -> Iterable[bytes]:
        for index in indices:
            yield read_regular(pairs.images[index])
            yield read_regular(pairs.masks[index])

    return ImageSource(
        name, len(pairs.images), read, check=check_all, masks=True,
        contents=contents,
    )  # fmt: skip


def _from_array(
    name: str,
    array: ArrayImages,
    request: Request,
    classes: tuple[str, ...] = (),
    pad: bool = False,
) -> ImageSource:
    height, width = request.size
    rows, columns = height - array.pixels.shape[1], width - array.pixels.shape[2]

    def read(indices: np.ndarray) -> tuple[np.ndarray, None]:
        images = convert_channels(array.read(indices), request.channels, request.background)
        if pad and rows >= 0 and columns >= 0:
            top, left = rows // 2, columns // 2
            margins = ((0, 0), (top, rows - top), (left, columns - left), (0, 0))
            images = np.pad(images, margins)
        elif rows or columns:
            images = np.stack([resize_and_crop(image, request.size) for image in images])
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), None

    if array.labels is not None and not classes:
        classes = tuple(str(label) for label in range(int(array.labels.max()) + 1))

    def contents(indices: np.ndarray) -> Iterable[np.ndarray]:
        for part in np.array_split(indices, len(indices) // 256 + 1):
            yield np.ascontiguousarray(array.pixels[part])

    return ImageSource(
        name, len(array.pixels), read, labels=array.labels, classes=classes, contents=contents,
        notes=tuple(f"{name}: {note}" for note in array.notes),
    )  # fmt: skip


@dataclass(frozen=True)
class NamedSet:
    """What is known of a data set before its `open(request)` gives an `ImageSource`."""

    channels: int = 3
    classes: int = 0  # of images; 0: it has no labels
    mask_classes: int = 0  # of pixels, background included; 0: it has no masks


class ShapesSet(NamedSet):
    """The procedural images of `gen.data.shapes`."""

    def open(self, request: Request) -> ImageSource:
        """Open the requested split."""
        offset = _TEST_OFFSET if request.split == "test" else 0
        count = request.count or SHAPES_COUNT

        def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            images, _, masks = shapes.render(
                request.seed, indices + offset, request.size, request.channels
            )
            return images, masks

        labels = shapes.labels(request.seed, np.arange(count) + offset)
        return ImageSource(
            "shapes", count, read, labels=labels, classes=shapes.CLASSES, masks=True, drawn=True
        )


@dataclass(frozen=True, kw_only=True)
class TorchvisionSet(NamedSet):
    """A set of torchvision.datasets.

    Attributes:
        kind: Its class there.
        files: Its files below the root.
        split: The argument that chooses the split, its value for "train" and for "test".
        pad: Enlarge images with zeros instead of resizing them.
        pairs: Its object → its files; None for sets that torchvision holds in memory.
    """

    kind: str
    files: str
    split: tuple[str, Any, Any] = ("split", "train", "test")
    pad: bool = False
    pairs: Callable[[Any], Pairs] | None = None

    def open(self, request: Request) -> ImageSource:
        """Open the files below the root, or download them there.

        Raises:
            DataError: neither works.
        """
        try:
            stored = self._stored(request)
            if self.pairs:
                return _from_pairs(request.name, self.pairs(stored), request)
            pixels = channels_last(np.asarray(stored.data))
            labels = stored.targets if hasattr(stored, "targets") else stored.labels
            # torchvision calls the digits "0 - zero" … in MNIST and nothing in SVHN.
            names = getattr(stored, "classes", "0123456789")
            classes = tuple(name.split(" - ")[0] for name in names)
            labels = checked_labels(np.asarray(labels), len(pixels), len(classes))
            array = ArrayImages(pixels, (0, 255), labels)
            return _from_array(request.name, array, request, classes, self.pad)
        except Exception as error:  # URLError, OSError, ValueError, ModuleNotFoundError, …
            raise DataError(
                f"cannot read or download {request.name}: {' '.join(str(error).split())}; put "
                f"{self.files} below {request.root} by hand, or name their folder (--data-root)"
            ) from error

    def _stored(self, request: Request) -> Any:
        from torchvision import datasets

        kind, (argument, *splits) = getattr(datasets, self.kind), self.split
        split = {argument: splits[request.split == "test"]}
        try:
            return kind(request.root, download=False, **split)
        except RuntimeError:  # torchvision's word for "not there"
            with contextlib.redirect_stdout(sys.stderr):
                return kind(request.root, download=True, **split)


def _celeba(stored: Any) -> Pairs:
    folder = Path(stored.root, stored.base_folder, "img_align_celeba")
    return Pairs([folder / name for name in stored.filename], [])


# The pets' trimaps hold 1 for the animal, 2 for what is around it, 3 for the border between.
_TRIMAP = np.arange(256, dtype=np.uint8)
_TRIMAP[[1, 2, 3]] = 1, 0, IGNORED
_TRAIN = ("train", True, False)

DATASETS: dict[str, NamedSet] = {
    "shapes": ShapesSet(classes=len(shapes.CLASSES), mask_classes=1 + len(shapes.CLASSES)),
    "mnist": TorchvisionSet(
        kind="MNIST", files="MNIST/raw/*-ubyte", split=_TRAIN, channels=1, classes=10, pad=True
    ),
    "fashion-mnist": TorchvisionSet(
        kind="FashionMNIST", files="FashionMNIST/raw/*-ubyte", split=_TRAIN, channels=1,
        classes=10, pad=True,
    ),
    "cifar10": TorchvisionSet(
        kind="CIFAR10", files="cifar-10-batches-py/*", split=_TRAIN, classes=10
    ),
    "svhn": TorchvisionSet(kind="SVHN", files="train_32x32.mat and test_32x32.mat", classes=10),
    "stl10": TorchvisionSet(kind="STL10", files="stl10_binary/*", classes=10),
    "celeba": TorchvisionSet(
        kind="CelebA", files="celeba/img_align_celeba/* and celeba/list_*.txt", pairs=_celeba
    ),
    "oxford-pets": TorchvisionSet(
        kind="OxfordIIITPet", files="oxford-iiit-pet/images and /annotations",
        split=("split", "trainval", "test"), mask_classes=2,
        pairs=lambda stored: Pairs(stored._images, stored._segs, _TRIMAP),
    ),
    "voc": TorchvisionSet(
        kind="VOCSegmentation", files="VOCdevkit/VOC2012", split=("image_set", "train", "val"),
        mask_classes=21,
        pairs=lambda stored: Pairs([*map(Path, stored.images)], [*map(Path, stored.targets)]),
    ),
}  # fmt: skip
