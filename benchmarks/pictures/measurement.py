"""Draw the picture of docs/measurement.md: python benchmarks/pictures/measurement.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy.nulls import dead_leaves
from gen.analysis.measure.reference import Geometry, local_spectrum, noise
from gen.analysis.report.figures import BLUE, STYLE, VERMILION

SIDE, GRID = 256, 0.5  # pixels of the image; gray levels of the checkerboard
CORNER = (2, 2)  # (½, ½) in steps of 1/4


def main() -> None:
    """An image, the noise of its tiles, and what each tile says about an added checkerboard."""
    leaves = dead_leaves(np.random.default_rng(3))[0][:SIDE, :SIDE]
    ramp = np.linspace(0, 1, SIDE)[:, None]
    image = 120 + (leaves - 120) * np.clip(2 * ramp - 0.4, 0.01, 1)  # sky above, leaves below
    checkerboard = 1 - 2 * (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2)
    sensor = np.random.default_rng(0).normal(0, 0.3, image.shape)
    image = np.rint(image + GRID * checkerboard + sensor)
    starts = tuple(range(0, SIDE - 7, 5))
    tiles = Geometry(8, starts, starts)
    seen = local_spectrum(image, tiles, CORNER).real
    loud = np.sqrt(noise(image, tiles, CORNER))
    with rc_context(STYLE):
        figure = Figure((9, 3.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
        left.imshow(image, cmap="gray", vmin=0, vmax=255)
        left.set_title(f"an image with a checkerboard\nof ±{GRID} gray levels", fontsize=10)
        shown = np.log10(loud).reshape(len(starts), -1)
        middle.imshow(shown, cmap="cividis")
        middle.set_title("noise of each tile\n(dark: quiet)", fontsize=10)
        for axes in (left, middle):
            axes.set(xticks=[], yticks=[])
        right.scatter(loud, seen, 5, color=BLUE, lw=0, alpha=0.5)
        right.axhline(GRID, color=VERMILION, lw=1.5, label="the checkerboard")
        right.set(xscale="log", ylim=(-6, 6), xlabel="noise of the tile (gray levels)")
        right.set_ylabel("pattern that the tile sees")
        right.legend(loc="upper left")
        figure.savefig(ROOT / "docs" / "img" / "measurement-idea.png", dpi=100)


if __name__ == "__main__":
    main()
