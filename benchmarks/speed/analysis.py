"""Measuring and reading data against what a user would run instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn

from benchmarks.accuracy import peers
from benchmarks.accuracy.nulls import dead_leaves
from benchmarks.speed.timing import Row, alternate
from gen.analysis.measure.meter import Meter, measure
from gen.analysis.measure.threads import over_cores
from gen.data.batches import batches
from gen.data.datasets import load_dataset
from gen.data.decode import decode, list_images
from gen.data.stream import open_stream
from gen.images import save_png


def textures(count: int, side: int) -> torch.Tensor:
    """Gray crops (N, 1, side, side), uint8."""
    generator = np.random.default_rng(0)
    leaves = [dead_leaves(generator)[0] for _ in range(4)]
    leaves = [np.pad(x, [(0, max(side - n, 0)) for n in x.shape], "wrap") for x in leaves]
    crops = np.empty((count, 1, side, side), np.uint8)
    for crop in crops:
        image = leaves[generator.integers(len(leaves))]
        y, x = (generator.integers(n - side + 1) for n in image.shape)
        crop[0] = np.clip(image[y : y + side, x : x + side], 0, 255)
    return torch.from_numpy(crops)


# Side → images measured, and the target: times the rate of the azimuthal loop.
SIDES = {32: (4096, 6.0), 64: (2048, 5.5), 256: (96, 4.5), 1024: (12, 6.0)}


def measuring(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of the full measurement, in memory and of a folder."""
    rows = []
    for side, (count, target) in SIDES.items():
        images = textures(count, side)
        few = images[: max(count // 16, 4), 0].numpy().astype(float)
        kaiser = torch.kaiser_window(side, periodic=False, beta=8.0)
        kaiser = kaiser[:, None] * kaiser

        def loop(few=few) -> None:
            for image in few:
                peers.azimuthal_average(image)

        def dct(few=few) -> None:
            for image in few:
                np.abs(dctn(image, norm="ortho"))

        def windowed(few=few, kaiser=kaiser) -> None:
            for image in few:
                torch.fft.fft2(torch.from_numpy(image).float() * kaiser).abs().square()

        def full(images=images) -> None:
            Meter().update(images)

        functions = {full: count, loop: len(few), dct: len(few), windowed: len(few)}
        seconds = alternate(*functions, repeats=5)
        ours, *others = (n / s for n, s in zip(functions.values(), seconds, strict=True))
        names = ("azimuthal profile", "cosine transform", "Kaiser-windowed power")
        for name, rate in zip(names, others, strict=True):
            section = f"Measuring, in memory (baseline: {name}, image by image)"
            aim = target if name == names[0] else None
            rows.append(Row(section, f"{side}×{side}, all four statistics", ours, rate, aim))
    rows.sort(key=lambda row: row.section)
    pictures = folder / "pngs"
    pictures.mkdir()
    for i, image in enumerate(textures(768, 64)):
        save_png(pictures / f"{i:04d}.png", image)
    paths = list_images(pictures)

    def from_folder() -> None:
        measure(open_stream(pictures).batches, value_range=(0, 255))

    def decoded() -> None:
        over_cores(lambda path: decode(path, channels=1) is None, paths)

    def in_line() -> None:
        for path in paths:
            decode(path, channels=1)

    seconds = alternate(from_folder, decoded, in_line, repeats=3)
    ours, threads, one = (len(paths) / s for s in seconds)
    for limit, alone in (("on as many threads", threads), ("on one thread", one)):
        section = f"Measuring a folder of PNG files (limit: decoding alone, {limit})"
        rows.append(Row(section, "64×64, all four statistics", ours, share=ours / alone))
    return rows


def data(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of a training epoch's batches from memory, against ImageFolder."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    pictures = folder / "folder" / "one"
    pictures.mkdir(parents=True)
    shapes = load_dataset("shapes", root="data", size=(64, 64), channels=3, count=512)
    for i, image in enumerate(shapes.fetch(range(512)).images):
        save_png(pictures / f"{i:04d}.png", image)
    ours_set = load_dataset(str(pictures), root="data", size=(64, 64), channels=3)
    scale = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
    theirs = ImageFolder(folder / "folder", transforms.Compose([transforms.ToTensor(), scale]))

    def memory() -> None:
        stream = batches(ours_set, batch_size=64, seed=0, flip=True)
        for _ in range(8):
            next(stream).images.float().div_(127.5).sub_(1)

    loader = torch.utils.data.DataLoader(
        theirs, 64, shuffle=True, num_workers=torch.get_num_threads(), persistent_workers=True
    )

    def image_folder() -> None:
        for _images, _ in loader:
            pass

    ours, baseline = (512 / s for s in alternate(memory, image_folder, repeats=3, wall=True))
    section = "Data, 64×64 (baseline: ImageFolder and DataLoader with as many workers)"
    return [Row(section, "uint8 in memory, mirrored, as float", ours, baseline, 5.0)]
