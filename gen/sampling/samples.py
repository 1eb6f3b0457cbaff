"""What can be drawn: images by index, each a function of its index alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.datasets import DataError, load_dataset
from gen.images import to_float
from gen.runs.open import Generator, Run
from gen.sampling.seeds import decode_latents, draw_latents, join_classes, run_in_groups
from gen.system.errors import InputError

from .paths import interpolate, walk
from .targets import file_sha256

_CHUNK = 1 << 22  # values looked at in one go


@dataclass(frozen=True)
class Samples:
    """Images by index: in any order, any company, any number of processes they are the same.

    Attributes:
        count: How many there are.
        draw: Indices → uint8 images (B, C, H, W) on the CPU, in that order.
        name: Index → file name, without suffix.
        columns: Of a sheet; None for as square as possible.
        description: What an image is a function of, besides its name.
    """

    count: int
    draw: Callable[[Sequence[int]], Tensor]
    name: Callable[[int], str] = "{:08d}".format
    columns: int | None = None
    description: str = "seeds"


@dataclass(frozen=True)
class SampleOptions:
    """What to draw. Each maker reads the fields that it needs.

    Attributes:
        label: A class; "all", a row of each; or None: seed modulo classes.
        truncation: Factor of the latents.
        fps: Frames per second of a walk.
        latents: File of latents (N, Z), .npy.
        interpolate: "lerp" or "slerp", and the seeds of both ends.
        walk: Length in seconds.
        reconstruct: Folder of images.
    """

    label: int | str | None = None
    num: int = 64
    seeds: Sequence[int] | None = None
    truncation: float = 1.0
    frames: int = 9
    fps: int = 20
    latents: Path = Path()
    interpolate: tuple[str, int, int] = ("slerp", 0, 1)
    walk: float = 1.0
    reconstruct: Path = Path()


def make_samples(kind: str, run: Run, options: SampleOptions) -> Samples:
    """The samples of a run; `kind` is a key of `MAKERS`.

    Raises:
        ValueError: something that this run cannot draw, or a bad file.
        DataError: no images to reconstruct.
    """
    if options.label != "all":
        return MAKERS[kind](run, options)
    if not run.decoder.classes:
        raise InputError("--class all: this generator knows no classes; train with --conditional")
    classes = range(run.decoder.classes)
    return join_samples([MAKERS[kind](run, replace(options, label=k)) for k in classes])


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Samples of each class, equally many: a row of the sheet and a folder each."""
    each, digits = parts[0].count, len(str(len(parts) - 1))

    def draw(indices: Sequence[int]) -> Tensor:
        rows = groupby(indices, lambda index: index // each)
        return torch.cat([parts[k].draw([i % each for i in row]) for k, row in rows])

    def name(index: int) -> str:
        label, place = divmod(index, each)
        return f"{label:0{digits}d}/{parts[label].name(place)}"

    return Samples(each * len(parts), draw, name, columns=each, description=parts[0].description)


def _labels(decoder: Generator, label: int | None, numbers: Sequence[int]) -> list[int] | None:
    """The given class, else each number modulo classes, else none."""
    if label is None and not decoder.classes:
        return None
    return [number % decoder.classes if label is None else label for number in numbers]


def _inputs(run: Run, options: SampleOptions, seeds: Sequence[int]) -> Tensor:
    """Rows of seeds, truncated: what the decoder takes."""
    latents = options.truncation * draw_latents(seeds, run.decoder.latent)
    return join_classes(run.decoder, latents, _labels(run.decoder, options.label, seeds))


def _seeds(run: Run, options: SampleOptions) -> Samples:
    """Image of seed i from i alone; files are named by their seeds."""
    seeds = options.seeds or range(options.num)

    def draw(indices: Sequence[int]) -> Tensor:
        rows = _inputs(run, options, [seeds[index] for index in indices])
        return decode_latents(run.decoder, rows)

    return Samples(len(seeds), draw, lambda index: f"{seeds[index]:08d}")


def _latents(run: Run, options: SampleOptions) -> Samples:
    """Images of the rows of a file; row i of a conditional generator has class i modulo classes."""
    decoder = run.decoder
    latents = read_latents(options.latents, decoder.latent)

    def draw(indices: Sequence[int]) -> Tensor:
        rows = torch.from_numpy(latents[list(indices)].astype(np.float32))
        labels = _labels(decoder, options.label, indices)
        return decode_latents(decoder, join_classes(decoder, rows, labels))

    description = f"latents of SHA-256 {file_sha256(options.latents)}"
    return Samples(len(latents), draw, description=description)


def _table(run: Run, rows: Tensor) -> Callable[[Sequence[int]], Tensor]:
    return lambda indices: decode_latents(run.decoder, rows[list(indices)])


def _interpolation(run: Run, options: SampleOptions) -> Samples:
    """From the image of one seed to that of another, in one row."""
    kind, *ends = options.interpolate
    corners, frames = _inputs(run, options, ends), options.frames
    rows = interpolate(kind, run.decoder.latent, corners, frames)
    description = f"{kind} from seed {ends[0]} to {ends[1]} in {frames} frames"
    return Samples(frames, _table(run, rows), columns=frames, description=description)


def _walk(run: Run, options: SampleOptions) -> Samples:
    """A loop from seed to seed: those given, or one per second."""
    seeds = options.seeds or range(max(3, math.ceil(options.walk)))
    frames = round(options.walk * options.fps)
    if not 2 <= len(seeds) <= frames:
        raise InputError(
            f"a walk of {frames} frames goes through 2 to {frames} seeds, not {len(seeds)}; "
            "change --walk, --fps or --seeds"
        )
    rows = walk(run.decoder.latent, _inputs(run, options, seeds), frames)
    description = f"walk of {frames} frames through seeds {seeds}"
    return Samples(frames, _table(run, rows), description=description)


def _reconstructions(run: Run, options: SampleOptions) -> Samples:
    """Each image next to decoder(posterior mean) of it, (C, H, 2W).

    Images are fitted to the networks' size as in training. The classes of a conditional VAE are
    the subfolders.
    """
    encoder, decoder = run.modules.get("encoder"), run.decoder
    if encoder is None or run.config is None:
        raise InputError(f"{run.path}: has no encoder, and only a VAE reconstructs")
    folder, model = options.reconstruct, run.config.model
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    dataset = load_dataset(
        str(folder.absolute()), root=Path(), size=model.size, channels=model.channels,
        memory_limit=0,
    )  # fmt: skip
    if decoder.classes and len(dataset.classes) != decoder.classes:
        raise InputError(
            f"{folder}: holds {len(dataset.classes)} classes (subfolders), the model has "
            f"{decoder.classes}"
        )

    def draw(indices: Sequence[int]) -> Tensor:
        batch = dataset.fetch(indices)
        labels = [batch.labels] if decoder.classes else []
        means = run_in_groups(lambda *b: encoder(*b)[0], decoder, to_float(batch.images), *labels)
        rows = join_classes(decoder, means, batch.labels.tolist() if labels else None)
        return torch.cat([batch.images, decode_latents(decoder, rows)], dim=3)

    return Samples(len(dataset), draw, description=f"{len(dataset)} images of {folder.absolute()}")


MAKERS: dict[str, Callable[[Run, SampleOptions], Samples]] = {
    "seeds": _seeds,
    "num": _seeds,
    "latents": _latents,
    "interpolate": _interpolation,
    "walk": _walk,
    "reconstruct": _reconstructions,
}


def read_latents(path: Path, length: int) -> np.ndarray:
    """Latents (N, Z) of an .npy file, mapped, not read.

    Raises:
        ValueError: no .npy file, another shape or type, or values that are not finite.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: no file")
    try:
        latents = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OverflowError, TypeError) as error:
        raise InputError(f"{path}: no .npy file of numbers ({error})") from error
    if latents.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {latents.dtype}, must be numbers")
    if latents.ndim != 2 or latents.shape[1] != length or not len(latents):
        raise InputError(f"{path}: has shape {latents.shape}; this network takes (N, {length})")
    step = max(1, _CHUNK // length)
    for start in range(0, len(latents), step):
        with np.errstate(over="ignore"):
            finite = np.isfinite(latents[start : start + step].astype(np.float32)).all(axis=1)
        if not finite.all():
            raise InputError(f"{path}: row {start + int(finite.argmin())} is not finite")
    return latents
