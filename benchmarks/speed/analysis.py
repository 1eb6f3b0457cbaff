"""Measuring and reading data against what a user would run instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn

from benchmarks.accuracy import peers
from benchmarks.accuracy.grids import dead_leaves
from benchmarks.speed.timing import Row, alternate
from gen.analysis.measure.spectrum import Spectrum
from gen.analysis.measure.threads import chunk_length, over_cores
from gen.data.batches import batches
from gen.data.datasets import load_dataset
from gen.data.decode import decode, list_images
from gen.data.stream import open_stream
from gen.images import save_png


def textures(count: int, side: int) -> torch.Tensor:
    """Grey crops (N, 1, side, side), uint8."""
    generator = np.random.default_rng(0)
    leaves = [dead_leaves(generator)[0] for _ in range(4)]
    leaves = [np.pad(x, [(0, max(side - n, 0)) for n in x.shape], "wrap") for x in leaves]
    crops = np.empty((count, 1, side, side), np.uint8)
    for crop in crops:
        image = leaves[generator.integers(len(leaves))]
        y, x = (generator.integers(n - side + 1) for n in image.shape)
        crop[0] = np.clip(image[y : y + side, x : x + side], 0, 255)
    return torch.from_numpy(crops)


def measuring(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of the full measurement, of the spectrum alone, and of a folder."""
    from gen.analysis.measure.meter import Meter, measure

    rows = []
    for side, count in ((32, 4096), (64, 2048), (256, 96), (1024, 12)):
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

        def spectrum(images=images, side=side) -> None:
            Spectrum(1, (side, side)).update(images)

        def fft(images=images, side=side) -> None:
            parts = images[:, 0].float().split(chunk_length(images.shape[1:]))
            workers = [None] * torch.get_num_threads()
            over_cores(lambda _, part: torch.fft.rfft2(part) is None, workers, parts)

        functions = {loop: len(few), dct: len(few), windowed: len(few)}
        functions |= {full: count, spectrum: count, fft: count}
        seconds = alternate(*functions, repeats=5)
        azimuthal, cosine, power, ours, mean, alone = (
            n / s for n, s in zip(functions.values(), seconds, strict=True)
        )
        section = "Measuring, in memory (baseline: {}; limit: rfft2 alone)"
        profile, name = section.format("azimuthal profile per image"), f"{side}×{side}, "
        rows.append(
            Row(profile, name + "full measurement", ours, azimuthal, 8.0 if side < 256 else None)
        )
        name += "mean spectrum and profile"
        targets = (40.0, mean / alone, 0.5) if side in (64, 256) else (None, mean / alone)
        rows.append(Row(profile, name, mean, azimuthal, *targets))
        for other, rate in (("cosine transform", cosine), ("Kaiser-windowed power", power)):
            rows.append(Row(section.format(f"{other} per image"), name, mean, rate))
    rows.sort(key=lambda row: row.section)
    pictures = folder / "pngs"
    pictures.mkdir()
    for i, image in enumerate(textures(768, 64)):
        save_png(pictures / f"{i:04d}.png", image)
    paths = list_images(pictures)

    def from_folder() -> None:
        measure(open_stream(pictures).batches)

    def decoded() -> None:
        workers = [None] * torch.get_num_threads()
        over_cores(lambda _, path: decode(path, channels=1) is None, workers, paths)

    ours, alone = (len(paths) / s for s in alternate(from_folder, decoded, repeats=3))
    section = "Measuring a folder of PNG files (limit: decoding alone, on as many threads)"
    return [*rows, Row(section, "64×64, full measurement", ours, share=ours / alone)]


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
