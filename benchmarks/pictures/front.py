"""Draw README's first picture: photographs through one decoder, with and without a grid.

    python benchmarks/pictures/front.py

Trains a VAE-GAN twice on CIFAR-10, with transposed convolutions of kernel 3 and with nearest
enlargement (six minutes each on one core; runs/front keeps them). Both reconstruct the photographs
of the test set. The reconstructions are measured, and two with a flat area are drawn. No contrast
is stretched. Writes docs/img/front.png. `--data` and `--photos` take folders instead.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.measure.meter import measure
from gen.analysis.measure.result import Measurement
from gen.analysis.report.figures import STYLE, VERMILION
from gen.commands.demo import precision
from gen.data.datasets import load_dataset
from gen.images import to_uint8
from gen.runs.open import open_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UPSAMPLERS = ("transposed", "nearest")
NUMBER = 2000  # photographs that are reconstructed
SIDE = 10  # pixels of the crop


def train(outdir: Path, data: str, root: Path) -> dict[str, Path]:
    """Upsampler → run; what is already trained stays."""
    runs = {}
    for name in UPSAMPLERS:
        options = ["--data", data, "--data-root", root, "--size", "32", "--width", "32"]
        options += ["--latent", "256", "--lr", "1e-3", "--ema-half-life", "0", "--steps", "1500"]
        options += ["--upsample", name, "--kernel-size", "3", "--precision", precision()]
        command = [sys.executable, ROOT / "train.py", "vaegan", *options, "--resume", "auto"]
        subprocess.run([*command, "--outdir", outdir / name], check=True)
        (runs[name],) = (outdir / name).glob("00000-*")
    return runs


@torch.inference_mode()
def reconstruct(run: Path, photographs: Tensor) -> Tensor:
    """uint8 (N, C, H, W) → the decoder's images of their posterior means."""
    modules = open_run(run, device="cpu").modules
    batches = (photographs.float() / 127.5 - 1).split(100)
    return torch.cat([to_uint8(modules["decoder"](modules["encoder"](b)[0])) for b in batches])


def flat_crops(photographs: Tensor) -> list[tuple[int, int, int]]:
    """Image, row and column of the flattest mid-gray crops of two images with much contrast."""
    gray = photographs.float().mean(1, keepdim=True)
    mean = torch.nn.functional.avg_pool2d(gray, SIDE, 1)[:, 0]
    spread = torch.nn.functional.avg_pool2d(gray.square(), SIDE, 1)[:, 0] - mean.square()
    spread[(mean < 70) | (mean > 185)] = torch.inf
    flattest = torch.where(gray.flatten(1).std(1) > 40, spread.flatten(1).amin(1), torch.inf)
    found = []
    for image in flattest.argsort()[:2].tolist():
        place = int(spread[image].argmin())
        found.append((image, *divmod(place, spread.shape[2])))
    return found


def title(m: Measurement) -> str:
    """Level of period 2 in dBc, or its bound."""
    period = m.periods[2]
    level = period.level_dbc if period.detected else period.level_upper_dbc
    return f"{'' if period.detected else '≤ '}{level:.0f} dBc".replace("-", "−")


def draw(columns: dict[str, Tensor], places: list[tuple[int, int, int]], path: Path) -> None:
    """A column per title; two rows per photograph: itself, and its crop."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    with rc_context(STYLE | {"font.size": 14}):
        figure = Figure((6, 0.5 + 3.7 * len(places)), layout="constrained")
        axes = figure.subplots(2 * len(places), len(columns))
        for column, (words, images) in zip(axes.T, columns.items(), strict=True):
            column[0].set_title(words, fontsize=14)
            for (image, y, x), top, bottom in zip(places, column[::2], column[1::2], strict=True):
                pixels = images[image].permute(1, 2, 0).numpy()
                show(top, pixels)
                show(bottom, pixels[y : y + SIDE, x : x + SIDE])
                frame = {"fill": False, "edgecolor": VERMILION, "lw": 2}
                top.add_patch(Rectangle((x - 0.5, y - 0.5), SIDE, SIDE, **frame))
                bottom.spines[:].set(visible=True, color=VERMILION, lw=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
    Image.open(buffer).convert("RGB").save(path, optimize=True)


def show(axes: Axes, pixels: np.ndarray) -> None:
    """Pixels as they are."""
    axes.imshow(pixels, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main() -> None:
    """Train, reconstruct, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10", help="photographs to learn")
    parser.add_argument("--photos", help="folder of those to reconstruct; default: the test set")
    parser.add_argument("--data-root", type=Path, default=ROOT / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "front")
    given = parser.parse_args()
    runs = train(given.outdir, given.data, given.data_root)
    split = {} if given.photos else {"split": "test"}
    name = given.photos or given.data
    size = {"size": (32, 32), "channels": 3, "count": NUMBER}
    photographs = load_dataset(name, root=given.data_root, **size, **split)
    photographs = photographs.fetch(range(NUMBER)).images
    columns = {"photograph\n": photographs}
    for name, run in runs.items():
        images = reconstruct(run, photographs)
        found = measure(images)
        print(f"{name}\n{found}\n")
        columns[f"{name}, kernel 3\n{title(found)}"] = images
    draw(columns, flat_crops(photographs), ROOT / "docs" / "img" / "front.png")


if __name__ == "__main__":
    main()
