"""Do FID and KID see a grid, and from which level does an eye? Known grids in real images.

    python benchmarks/study/visibility.py --photographs DIR --images DATA

Every image gets the same checkerboard of one pixel (period 2, corner), whose power is a stated
level in dBc, relative to the mean variance of an image. The table compares such images with other
images of the same set, without a grid. The picture shows magnified crops of photographs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.measure import measure
from gen.data.datasets import load_dataset
from gen.data.order import epoch_order
from gen.quality.distances import ImageSet, compare_images
from gen.quality.features import open_features

LEVELS = (None, -10, -20, -30, -40, -50)  # dBc
SHOWN = (None, -20, -30, -40, -50)
SIDE, ZOOM = 24, 5  # pixels of a crop, screen pixels of each


def with_grid(images: NDArray, level: float | None, variance: float) -> NDArray[np.uint8]:
    """Add a checkerboard of this level to images (…, H, W), rounded up or down by chance.

    Rounding to the nearest would lose every grid below half a gray level, and double others.
    """
    if level is None:
        return images
    chance = np.random.default_rng(0).random(images.shape)
    height, width = images.shape[-2:]
    board = 1.0 - 2 * (np.add.outer(np.arange(height), np.arange(width)) % 2)
    grid = np.sqrt(variance * 10 ** (level / 10)) * board
    return np.clip(np.floor(images + grid + chance), 0, 255).astype(np.uint8)


def contrast(images: NDArray) -> float:
    """Mean spatial variance of images (…, H, W) in gray levels², the carrier of dBc."""
    return float(images.astype(float).var(axis=(-2, -1)).mean())


def as_set(name: str, images: NDArray[np.uint8]) -> ImageSet:
    """An array (N, C, H, W) as what distances read."""
    held: Tensor = torch.from_numpy(images)
    return ImageSet(name, len(held), tuple(held.shape[1:]), lambda at: held[list(at)])


def table(data: str, size: int, repeats: int, count: int, features: str) -> None:
    """Distances of images with a grid from other images without one."""
    dataset = load_dataset(data, root=Path("data"), channels=3, size=(size, size), split="train")
    network, rows = open_features(features, (3, size, size)), {}
    for repeat in range(repeats):
        order = epoch_order(repeat, 0, len(dataset))[: 2 * count]
        images = dataset.fetch(order).images.numpy()
        real, plain = as_set("real", images[:count]), images[count:]
        for level in LEVELS:
            marked = with_grid(plain, level, contrast(plain))
            found = compare_images(as_set("with grid", marked), real, network, count)
            period = measure(marked[:1024], (2,)).periods[2]
            values = found.frechet, 1000 * found.kernel, found.recall, period.level_dbc
            rows.setdefault(level, []).append(values)
            names = "grid", "Fréchet", "kernel × 1000", "recall", "measured dBc"
    print(f"{count} against {count} images of {data}, {repeats} draws; features: {features}\n")
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for level, values in rows.items():
        columns = []
        for column in zip(*values, strict=True):
            known = [v for v in column if v is not None]
            spread = f" ± {np.std(known, ddof=1):.2g}" if len(known) > 1 else ""
            columns.append(f"{np.mean(known):.4g}{spread}" if known else "none")
        print(f"| {'none' if level is None else f'{level} dBc'} | {' | '.join(columns)} |")


def crops(folder: Path) -> list[NDArray[np.uint8]]:
    """Three crops (SIDE, SIDE, 3) of photographs: the flattest, a smooth, and a textured one."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"))
        for y in range(0, image.shape[0] - SIDE, SIDE):
            for x in range(0, image.shape[1] - SIDE, SIDE):
                crop = image[y : y + SIDE, x : x + SIDE]
                if 60 < crop.mean() < 200:
                    rough = float(np.abs(np.diff(crop.astype(float), axis=1)).mean())
                    found.append((rough, float(crop.std()), crop))
    found.sort(key=lambda each: each[0])
    smooth = max(found[: len(found) // 4], key=lambda each: each[1])
    return [found[len(found) // 200][2], smooth[2], found[-len(found) // 20][2]]


def picture(folder: Path, target: Path) -> None:
    """Crops in rows, levels in columns."""
    from PIL import Image, ImageDraw, ImageFont

    variance = np.mean([contrast(_planes(path)) for path in sorted(folder.glob("*.png"))])
    gap, top = 6, 22
    side = SIDE * ZOOM + gap
    sheet = Image.new("RGB", (len(SHOWN) * side + gap, 3 * side + gap + top), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, level in enumerate(SHOWN):
        left = gap + column * side
        draw.text((left, 4), "no grid" if level is None else f"{level} dBc", "black", font=font)
        for row, crop in enumerate(crops(folder)):
            marked = with_grid(crop.transpose(2, 0, 1), level, variance).transpose(1, 2, 0)
            zoomed = Image.fromarray(marked).resize((SIDE * ZOOM,) * 2, Image.Resampling.NEAREST)
            sheet.paste(zoomed, (left, top + row * side))
    sheet.save(target, optimize=True)
    print(f"grid at -20 dBc: ±{np.sqrt(variance / 100):.1f} gray levels → {target}")


def _planes(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


def main() -> None:
    """Parse, draw, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="PNG files for the picture")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/img/visibility.png")
    parser.add_argument("--images", help="a folder or named set for the table")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--features", default="random", help="random, inception, classifier:RUN")
    options = parser.parse_args()
    if options.photographs:
        picture(options.photographs, options.picture)
    if options.images:
        given = options.images, options.size, options.repeats, options.count, options.features
        table(*given)


if __name__ == "__main__":
    main()
