"""Draw README's first picture, one generator with three upsamplers.

    python benchmarks/pictures/front.py

Trains what is missing in runs/front (two minutes each on two cores), draws samples of each,
measures them, prints the table of `analyze.py compare` and writes docs/img/front.png.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.measure.meter import measure
from gen.analysis.measure.result import Measurement
from gen.analysis.report.figures import BLUE, STYLE, VERMILION, amplification, period_pattern
from gen.commands.compare import table
from gen.commands.demo import precision
from gen.images import make_grid
from gen.runs.open import load
from gen.sampling.seeds import sample_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UPSAMPLERS = ("transposed", "balanced", "nearest")
SHOWN = 4  # samples
PERIODS = (2, 4)


def train(outdir: Path) -> dict[str, Path]:
    """Upsampler → run; what is already trained is left as it is."""
    runs = {}
    for name in UPSAMPLERS:
        options = ["--size", "32", "--width", "32", "--precision", precision(), "--lr", "1e-3"]
        options += ["--steps", "2200", "--upsample", name, "--outdir", str(outdir / name)]
        command = [sys.executable, ROOT / "train.py", "dcgan", *options, "--resume", "auto"]
        subprocess.run(command, check=True)
        runs[name] = outdir / name / "00000-dcgan-shapes"
    return runs


def draw(measured: dict[str, Measurement], sheets: dict[str, np.ndarray], path: Path) -> None:
    """A column per upsampler: samples, their amplified grid, its levels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    patterns = {name: period_pattern(m, max(PERIODS)) for name, m in measured.items()}
    factor = min(map(amplification, patterns.values()))
    with rc_context(STYLE | {"font.size": 15}):
        figure = Figure((7.2, 7.4), layout="constrained")
        axes = figure.subplots(3, len(measured), height_ratios=(1, 1, 0.9), sharey="row")
        for (name, m), (top, middle, bottom) in zip(measured.items(), axes.T, strict=True):
            top.imshow(sheets[name], interpolation="nearest")
            top.set_title(name, fontsize=17)
            tiled = np.tile(patterns[name], (1, 3, 3)).transpose(1, 2, 0)
            middle.imshow(np.clip(127.5 + factor * tiled, 0, 255) / 255, interpolation="nearest")
            draw_levels(bottom, m)
        for axis in axes[:2].flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, words in zip(
            axes[:, 0], ("samples", f"grid, ×{factor}", "level (dBc)"), strict=True
        ):
            axis.set_ylabel(words)
        axes[2, 0].set(ylim=(-75, -32), yticks=range(-70, -39, 10))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
    Image.open(buffer).convert("RGB").save(path, optimize=True)


def draw_levels(axes: Axes, m: Measurement) -> None:
    """Level of each period and its 95 % interval; an open end where nothing was detected."""
    for column, number in enumerate(PERIODS):
        period = m.periods[number]
        low, level, high = period.level_low_dbc, period.level_dbc, period.level_upper_dbc
        color = VERMILION if period.detected else BLUE
        axes.plot([column, column], [-200 if low is None else low, high], color=color, lw=4)
        if period.detected:
            axes.plot(column, level, "o", color=color, ms=11)
        text = f"{level:.0f}" if period.detected else f"≤ {high:.0f}"
        axes.text(column, high + 1.5, text.replace("-", "−"), ha="center")
    axes.set(xlim=(-0.6, 1.6), xticks=[0, 1], xticklabels=PERIODS, xlabel="period (pixels)")
    axes.grid(axis="y", color="#E8EAED")


def main() -> None:
    """Train, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "front")
    parser.add_argument("--num", type=int, default=8192, help="samples of each")
    given = parser.parse_args()
    measured, sheets = {}, {}
    for name, run in train(given.outdir).items():
        images = sample_images(load(run), seeds=range(given.num))
        measured[name] = measure(images.numpy())
        sheets[name] = make_grid(images[:SHOWN], columns=2).permute(1, 2, 0).numpy()
    print(table(measured))
    draw(measured, sheets, ROOT / "docs" / "img" / "front.png")


if __name__ == "__main__":
    main()
