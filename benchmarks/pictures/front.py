"""Draw README's first picture: one decoder, with a grid and without.

    python benchmarks/pictures/front.py PHOTOS --shown NAME --area Y,X

Trains a small autoencoder on the photographs of a folder twice: its decoder enlarges by transposed
convolutions of kernel 3, or by nearest neighbor and convolutions of kernel 3 (150 steps, less than
a minute each on one core). Both reconstruct all photographs, which are measured. A part of one is
drawn, and below it a flat area of that part, enlarged. Neither contrast nor color is changed.
Writes docs/img/front.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.measure.meter import measure
from gen.analysis.measure.result import Measurement
from gen.images import to_uint8

STEPS, BATCH, CROP, WIDTH, LATENT = 150, 16, 64, 32, 8
PART, AREA = 240, 24  # pixels of the photograph, and of the flat area
CELL = 240  # pixels of the picture: whole multiples of both
GAP, HEAD, MARK = 12, 64, (213, 94, 0)


def enlarge(kind: str, channels: int) -> nn.Module:
    """A layer that doubles maps of WIDTH channels."""
    if kind == "transposed":
        return nn.ConvTranspose2d(WIDTH, channels, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, channels, 3, padding=1))


def build(kind: str) -> nn.Module:
    """An autoencoder: maps of a quarter of the size, LATENT channels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 4, 2, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(WIDTH, LATENT, 1), nn.Conv2d(LATENT, WIDTH, 3, padding=1), nn.ReLU(),
        enlarge(kind, WIDTH), nn.ReLU(), enlarge(kind, 3),
    )  # fmt: skip


def reconstruct(kind: str, photos: Tensor) -> Tensor:
    """Photographs (N, 3, H, W) in [−1, 1] → what an autoencoder makes of them, uint8."""
    network, random = build(kind), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(STEPS):
        which = torch.randint(len(photos), (BATCH,), generator=random).tolist()
        rows = torch.randint(photos.shape[2] - CROP, (BATCH,), generator=random).tolist()
        columns = torch.randint(photos.shape[3] - CROP, (BATCH,), generator=random).tolist()
        places = zip(which, rows, columns, strict=True)
        batch = torch.stack([photos[i, :, y : y + CROP, x : x + CROP] for i, y, x in places])
        loss = (network(batch) - batch).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        return torch.cat([to_uint8(network(photo[None])) for photo in photos])


def flat_area(photo: Tensor) -> tuple[int, int]:
    """Row and column of the flattest mid-gray AREA of a photograph (3, H, W) in [−1, 1]."""
    gray = photo.mean(0, keepdim=True)
    mean = avg_pool2d(gray, AREA, 1)[0]
    spread = avg_pool2d(gray.square(), AREA, 1)[0] - mean.square()
    spread[mean.abs() > 0.5] = torch.inf
    return divmod(int(spread.argmin()), spread.shape[1])


def level(m: Measurement) -> str:
    """The strongest detected period of 2 and 4, or what both are below."""
    periods = [m.periods[2], m.periods[4]]
    found = [p.level_dbc for p in periods if p.detected]
    value = max(found) if found else max(p.level_upper_dbc for p in periods)
    return f"{'' if found else '≤ '}{value:.0f} dBc".replace("-", "−")


def draw(columns: dict[tuple[str, str], np.ndarray], place: tuple[int, int], path: Path) -> None:
    """A column per heading: the part around a place, and the place."""
    from matplotlib import get_data_path

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 19)
    picture = Image.new("RGB", (3 * CELL + 2 * GAP, HEAD + 2 * CELL + GAP), "white")
    pen = ImageDraw.Draw(picture)
    y, x = place
    for number, (heading, pixels) in enumerate(columns.items()):
        left = number * (CELL + GAP)
        for row, words in enumerate(heading):
            pen.text((left + CELL / 2, 4 + 29 * row), words, "black", font, anchor="ma")
        top, side = (
            max(0, min(v + AREA // 2 - PART // 2, n - PART))
            for v, n in zip(place, pixels.shape, strict=False)
        )
        for down, (a, b, size) in enumerate(((top, side, PART), (y, x, AREA))):
            cell = Image.fromarray(pixels[a : a + size, b : b + size])
            at = HEAD + down * (CELL + GAP)
            picture.paste(cell.resize((CELL, CELL), Image.Resampling.NEAREST), (left, at))
        scale = CELL // PART
        corner = left + (x - side) * scale, HEAD + (y - top) * scale
        pen.rectangle((*corner, *(v + AREA * scale for v in corner)), outline=MARK, width=2)
        low = HEAD + CELL + GAP
        pen.rectangle((left, low, left + CELL - 1, low + CELL - 1), outline=MARK, width=2)
    picture.save(path, optimize=True)


def main() -> None:
    """Train, reconstruct, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="folder of photographs of one size")
    parser.add_argument("--shown", help="name of the photograph to draw; default: the first")
    parser.add_argument("--area", help="row and column of the flat area; default: the flattest")
    given = parser.parse_args()
    files = sorted(path for path in given.photos.iterdir() if path.suffix in (".png", ".jpg"))
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    height, width = (n // 16 * 16 for n in arrays[0].shape[:2])
    pixels = torch.stack([torch.tensor(a[:height, :width]).permute(2, 0, 1) for a in arrays])
    photos = pixels / 127.5 - 1
    shown = [file.name for file in files].index(given.shown) if given.shown else 0
    columns = {("photograph", ""): pixels[shown]}
    for kind in ("transposed", "nearest"):
        images = reconstruct(kind, photos)
        found = measure(images)
        print(f"{kind}\n{found}\n")
        columns[f"{kind}, kernel 3", level(found)] = images[shown]
    arrays = {words: image.permute(1, 2, 0).numpy() for words, image in columns.items()}
    place = tuple(map(int, given.area.split(","))) if given.area else flat_area(photos[shown])
    draw(arrays, place, ROOT / "docs" / "img" / "front.png")


if __name__ == "__main__":
    main()
