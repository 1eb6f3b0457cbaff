"""Draw the picture of docs/cases.md: python benchmarks/pictures/cases.py ../shared/data.

A column per network or sheet: its first nine images, and the strongest detected grid of period 2
or 4 alone, amplified.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.report.figures import STYLE, plot_pattern
from gen.commands.measuring import Looked, measure_path
from gen.data.stream import Selection, Sheet
from gen.images import make_grid

NETWORKS = {
    "1. DigitDCGAN": ("dcgan_mnist_ryhan.pth", "dcgan_mnist", (-1, 1)),
    "2. WGAN-GP": ("cwgangp_resize_mnist_hayato.pth", "resize_mnist", (-1, 1)),
    "3. VAE": ("vae_celeba_yanndubs.pt", "vae_celeba", (0, 1)),
}
SHEETS = {
    "4. DCGAN": ("csinva_cifar10_dcgan_fake.png", 32),
    "5. real images": ("csinva_cifar10_real.png", 32),
    "6. SN-GAN": ("mimicry_cifar10_sngan.png", 32),
    "7. VAE": ("antixk_celeba64_vanillaVAE_k3s2.png", 64),
}


def plot(looked: Looked, title: str, samples: Axes, grid: Axes) -> None:
    """One column."""
    sheet = make_grid(torch.from_numpy(looked.samples[:9])).permute(1, 2, 0).numpy()
    samples.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    samples.set_title(title, fontsize=10)
    samples.set_axis_off()
    periods = looked.measurement.periods
    found = [number for number in (2, 4) if periods[number].detected]
    if not found:
        grid.text(0.5, 0.5, "not\ndetected", ha="center", va="center", transform=grid.transAxes)
    else:
        strongest = max(found, key=lambda number: periods[number].level_dbc)
        factor = plot_pattern(grid, looked.measurement, strongest)
        grid.set_title(f"period {strongest}, ×{factor}", fontsize=9)
    grid.set(xlabel="", ylabel="")
    grid.set_axis_off()


def main() -> None:
    """Measure all and draw."""
    data = Path(sys.argv[1])
    looked = {}
    for title, (file, function, black_and_white) in NETWORKS.items():
        code = f"{ROOT}/tests/foreign_networks.py:{function}"
        network = {"script": code, "value_range": black_and_white}
        looked[title] = measure_path(data / "weights" / file, network=network, pictures=True)
    for title, (file, size) in SHEETS.items():
        selection = Selection(sheet=Sheet((size, size), 2))
        looked[title] = measure_path(data / "sheets" / file, selection=selection, pictures=True)
    with rc_context(STYLE):
        figure = Figure((10.5, 3.3), layout="constrained")
        axes = figure.subplots(2, len(looked))
        for column, (title, found) in enumerate(looked.items()):
            plot(found, title, *axes[:, column])
        figure.savefig(ROOT / "docs" / "img" / "cases.png", dpi=100)


if __name__ == "__main__":
    main()
