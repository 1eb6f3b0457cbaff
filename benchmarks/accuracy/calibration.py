"""Print the calibration of the measurement, and what others' statistics make of the same sets.

    python benchmarks/accuracy/calibration.py            about fifteen minutes on two cores
    python benchmarks/accuracy/calibration.py --quick    under three

Images: crops of the photographs in ../shared/data/photos where present, else dead-leaves images
made here. Every target stands beside its figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy import calibrate, peers
from benchmarks.accuracy.calibrate import Draw, auc
from benchmarks.accuracy.grids import PATTERNS, dead_leaves, inject
from gen.analysis.measure.meter import measure

CORNER, ROWS, WAVE = (0.5, 0.5), (0.5, 0.0), (0.0, 0.25)


def load_images() -> tuple[list[np.ndarray], str]:
    """Gray images (1, H, W) and where they are from."""
    paths = sorted((ROOT / ".." / "shared" / "data" / "photos").glob("*.png"))
    if paths:
        from PIL import Image

        return [np.asarray(Image.open(p).convert("L"))[None] for p in paths], "photographs"
    generator = np.random.default_rng(0)
    return [dead_leaves(generator, 400, 1500) for _ in range(16)], "dead leaves"


def verdict(value: float, low: float, high: float) -> str:
    """Say whether a value lies within its target."""
    return "met" if low <= value <= high else f"MISSED ({low:g} … {high:g})"


def injections(images: list[np.ndarray], sets: int) -> None:
    """Bias, RMSE, coverage, AUC over patterns, modes, depths, numbers and sizes."""
    print("\n## Injection: bias and error of the reading, coverage of its 95 % interval, AUC\n")
    print(
        "| grid | mode | depth | N | size | bias dB | RMSE dB | coverage | AUC | found | target |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    few = max(sets // 12, 4)
    rows = [
        *[("checkerboard", CORNER, d, "multiplicative", 1000, 32, few) for d in (0.1, 0.03, 0.01)],
        ("checkerboard", CORNER, 0.003, "multiplicative", 1000, 32, few),
        *[("checkerboard", CORNER, d, "multiplicative", 32, 64, sets) for d in (0.001, 0.003)],
        *[("rows", ROWS, d, "multiplicative", 32, 64, sets) for d in (0.001, 0.003, 0.006)],
        ("checkerboard", CORNER, 0.06, "additive", 32, 64, sets),
        ("rows", ROWS, 0.3, "additive", 32, 64, sets),
        ("cosine4", WAVE, 0.02, "multiplicative", 32, 64, sets),
        ("cosine4", WAVE, 0.5, "additive", 32, 64, sets),
        ("overlap k3 s2", (0.0, 0.5), 0.02, "multiplicative", 32, 64, sets),
        ("overlap k5 s3", (0.0, 1 / 3), 0.02, "multiplicative", 32, 66, sets),
        ("checkerboard", CORNER, 0.01, "multiplicative", 8, 64, sets),
        ("checkerboard", CORNER, 0.003, "multiplicative", 128, 32, sets // 2),
        ("checkerboard", CORNER, 0.001, "multiplicative", 8, 256, sets // 3),
    ]
    coverages = []
    for name, line, depth, mode, number, size, repeats in rows:
        periods = (3,) if "s3" in name else (2, 4)
        draw = calibrate.crops(images, size)
        r = calibrate.injection(draw, name, line, depth, mode, number, repeats, periods)
        coverages += [r.coverage] * repeats
        target = ""
        if number == 1000:
            target = verdict(r.bias_db, -0.3, 0.3)
        elif name == "checkerboard" and (mode, depth, number) == ("multiplicative", 0.001, 32):
            target = verdict(r.auc, 0.97, 1)
        elif name == "checkerboard" and mode == "additive":
            target = verdict(r.auc, 0.99, 1)
        unit = "" if mode == "multiplicative" else " gray"
        print(
            f"| {name} | {mode} | {depth:g}{unit} | {number} | {size} | {r.bias_db:+.2f} |"
            f" {r.rmse_db:.2f} | {r.coverage:.2f} | {r.auc:.3f} | {r.found:.2f} | {target} |"
        )
    mean = float(np.mean(coverages))
    print(f"\nCoverage over all sets: {mean:.3f}: {verdict(mean, 0.92, 0.98)}")


def nulls(images: list[np.ndarray], sets: int) -> None:
    """False alarms."""
    print("\n## Null: share of grid-free sets in which anything is reported at 5 %\n")
    print("| N | size | sets | anything | replica or line | excess | trace | target |")
    print("|---|---|---|---|---|---|---|---|")
    total = []
    for number, size, rounded in ((8, 64, False), (32, 64, False), (32, 64, True), (128, 32, True)):
        draw = calibrate.crops(images, size)
        r = calibrate.null(draw, number, sets, eight_bit=rounded)
        total.append(r.family_wise)
        kind = "8-bit" if rounded else "float"
        print(
            f"| {number} | {size} {kind} | {sets} | {r.family_wise:.3f} | {r.verdict:.3f} |"
            f" {r.excess:.3f} | {r.trace:.3f} | |"
        )
    rate = float(np.mean(total))
    print(f"\nFamily-wise error: {rate:.3f}: {verdict(rate, 0.01, 0.09)}")


def confounds(draw: Draw, sets: int) -> None:
    """Blindness to what is no grid."""
    print("\n## Specificity: AUC between plain and changed sets, N = 32, 64×64 (0.5 is blind)\n")
    print("| change | AUC | target |\n|---|---|---|")
    for name in calibrate.CONFOUNDS:
        value = calibrate.specificity(draw, name, sets=sets)
        print(f"| {name} | {value:.3f} | {verdict(value, 0.4, 0.6)} |")


def limits(draw: Draw, sets: int) -> None:
    """Promised against measured detection limit."""
    print("\n## Detection limit: promised and measured level at 90 % power, N = 32, 64×64\n")
    print("| grid | statistic | promised dB | measured dB | difference | target |")
    print("|---|---|---|---|---|---|")
    for name, line, mode in (
        ("checkerboard", CORNER, "multiplicative"),
        ("rows", ROWS, "multiplicative"),
        ("checkerboard", CORNER, "additive"),
        ("rows", ROWS, "additive"),
        ("cosine4", WAVE, "additive"),
    ):
        promised, measured = calibrate.detection_level(draw, name, line, mode, sets=sets)
        gap = promised - measured
        statistic = "replica" if mode == "multiplicative" else "line"
        print(
            f"| {name} | {statistic} | {promised:.1f} | {measured:.1f} | {gap:+.1f} |"
            f" {verdict(gap, -2, 2)} |"
        )


def against_peers(draw: Draw, sets: int) -> None:
    """AUC of every statistic on the same sets: of grids, then of changes that are no grid."""
    generator = np.random.default_rng(11)
    pool = draw(generator, 600)[:, 0]
    reference = {"profile": peers.azimuthal_profile(pool), "dct": peers.mean_dct(pool)}
    grids = [("checkerboard", CORNER), ("rows", ROWS)]
    depths = (3e-4, 1e-3, 3e-3)
    changes = ("noise", "blur", "sharpening", "contrast")
    clean: dict[str, list] = {}
    dirty: dict[tuple[str, str], list] = {}

    def score(images: np.ndarray, line: tuple[float, float]) -> dict[str, float]:
        found = calibrate.line_at(measure(images, (2, 4), value_range=(0, 255)), line)
        values = peers.scores(images[:, 0], line, reference)
        for name in ("replica", "line"):
            values[f"ours, {name}"] = -np.log(max(getattr(found, name).p_value, 1e-300))
        return values

    for _ in range(sets):
        plain = draw(generator, 32)
        for name, line in grids:
            for key, value in score(plain, line).items():
                clean.setdefault(f"{key}/{name}", []).append(value)
            for depth in depths:
                grid = inject(plain, PATTERNS[name], depth, "multiplicative", generator)
                for key, value in score(grid, line).items():
                    column = f"{name} {100 * depth:g} %"
                    dirty.setdefault((f"{key}/{name}", column), []).append(value)
        for change in changes:
            other = calibrate.CONFOUNDS[change](draw(generator, 32), generator)
            for key, value in score(other, CORNER).items():
                dirty.setdefault((f"{key}/checkerboard", change), []).append(value)
    columns = list(dict.fromkeys(column for _, column in dirty))
    print("\n## Others' statistics on the same sets: AUC, N = 32, 64×64")
    print("\nMultiplicative grids (1 is best), then changes that are no grid (0.5 is best).\n")
    print("| statistic | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for key in dict.fromkeys(k.split("/checkerboard")[0] for k in clean if "checkerboard" in k):
        cells = []
        for column in columns:
            source = f"{key}/{'rows' if column.startswith('rows') else 'checkerboard'}"
            cells.append(f"{auc(clean[source], dirty[source, column]):.2f}")
        print(f"| {key} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sets, under three minutes")
    args = parser.parse_args()
    quick = args.quick
    torch.set_num_threads(1)
    images, kind = load_images()
    print(f"# Calibration on {len(images)} images ({kind})", flush=True)
    start, sets = time.perf_counter(), 24 if quick else 120
    draw = calibrate.crops(images, 64)
    nulls(images, 40 if quick else 250)
    injections(images, sets)
    limits(draw, 12 if quick else 40)
    confounds(draw, 30 if quick else 150)
    against_peers(draw, 12 if quick else 60)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
