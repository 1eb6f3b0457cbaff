"""Draw the pictures of docs/measurement.md: python benchmarks/pictures/measurement.py."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.accuracy import calibrate
from benchmarks.accuracy.calibrate import line_at
from benchmarks.accuracy.grids import PATTERNS, dead_leaves, inject
from gen.analysis.measure.meter import measure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#888888"
CORNER = (0.5, 0.5)


def with_grid(plain: np.ndarray, depth: float) -> np.ndarray:
    """Multiply a checkerboard into images."""
    generator = np.random.default_rng(0)
    return inject(plain, PATTERNS["checkerboard"], depth, "multiplicative", generator)


def idea(plain: np.ndarray, path: Path) -> None:
    """One image, the same with a grid, its spectrum with the replica, and the grid by itself."""
    dirty = with_grid(plain, 0.03)
    found = measure(dirty, (2,), value_range=(0, 255))
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
    for axis, image, title in (
        (axes[0], plain[0, 0], "an image"),
        (axes[1], dirty[0, 0], "with a grid of 3 %"),
    ):
        axis.imshow(image[:32, :32], cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=9)
    spectrum = np.roll(10 * np.log10(found.arrays.spectrum[0]), (32, 32), (0, 1))
    axes[2].imshow(spectrum, cmap="cividis", vmin=np.quantile(spectrum, 0.01))
    axes[2].plot(32, 32, "o", ms=14, mfc="none", mec=ORANGE, mew=2)
    axes[2].set_title("mean spectrum around (½, ½)", fontsize=9)
    tile = np.tile(found.arrays.patterns[2][0], (4, 4))
    axes[3].imshow(tile, cmap="gray")
    axes[3].set_title(f"the grid, ±{np.abs(tile).max():.1f} grey levels", fontsize=9)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path, dpi=80)


def replicas(plain: np.ndarray, path: Path) -> None:
    """Gain of the replica, image by image, with and without a grid of 1 %."""
    figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
    edges = np.linspace(-0.03, 0.04, 57)
    for images, color, name in (
        (plain, BLUE, "no grid"),
        (with_grid(plain, 0.01), ORANGE, "grid of 1 %"),
    ):
        found = measure(images, (2,), value_range=(0, 255))
        column = [line.frequency for line in found.lines].index(CORNER)
        axis.hist(found.arrays.gains[:, column].real, edges, color=color, alpha=0.45)
        replica = line_at(found, CORNER).replica
        error = 1.96 * np.sqrt(replica.covariance[0][0])
        label = f"{name}: all images {100 * replica.gain.real:.3f} ± {100 * error:.3f} %"
        axis.axvline(replica.gain.real, color=color, lw=2, label=label)
    axis.set(xlabel="gain of the replica at (½, ½), each image by itself", ylabel="images")
    axis.set_ylim(0, axis.get_ylim()[1] * 1.35)
    axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=80)


def limits(plain: np.ndarray, path: Path) -> None:
    """Level read against level injected, its interval, and the promised limit."""
    depths = np.geomspace(1e-4, 0.1, 13)
    reads = [
        line_at(measure(with_grid(plain, d), (2,), value_range=(0, 255)), CORNER) for d in depths
    ]
    truth = 20 * np.log10(depths)
    value = np.array([r.replica.db for r in reads])
    low = np.array([-100 if r.replica.low_db is None else r.replica.low_db for r in reads])
    high = np.array([r.replica.high_db for r in reads])
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    axis.plot(truth, truth, color=GREY, lw=1, label="truth")
    axis.errorbar(
        truth,
        value,
        [value - low, high - value],
        fmt="o",
        color=BLUE,
        ms=4,
        label="read, 95 % interval",
    )
    axis.axvline(reads[0].replica.limit_db, color=ORANGE, ls="--", label="promised limit")
    axis.set(xlabel="gain injected (dB)", ylabel="gain read (dB)", ylim=(-90, -15))
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Draw all pictures into docs/img."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(1)
    leaves = [dead_leaves(generator) for _ in range(12)]
    plain = calibrate.crops(leaves, 64)(generator, 200)
    out = ROOT / "docs" / "img"
    out.mkdir(parents=True, exist_ok=True)
    idea(plain, out / "measurement-idea.png")
    replicas(plain, out / "measurement-replica.png")
    limits(plain[:64], out / "measurement-limit.png")


if __name__ == "__main__":
    main()
