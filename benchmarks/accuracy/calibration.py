"""Print how accurate the measurement is: every figure next to what it should be.

    python benchmarks/accuracy/calibration.py               all tables, under 30 minutes on one core
    python benchmarks/accuracy/calibration.py --quick       fewer sets, under 3 minutes
    python benchmarks/accuracy/calibration.py --only level  one table
    python benchmarks/accuracy/calibration.py --images DIR  on grid-free images of your own

Photographs come from --images, else from ../shared/data/photos, else dead-leaves images replace
them; rows on other data of ../shared are skipped with the reason. The columns "version 0.1" are
constants: figures that the first method (version 0.1) published for the same kinds of images.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy import nulls, peers
from benchmarks.accuracy.nulls import Draw
from gen.analysis.measure import Measurement, Meter, measure

SHARED = ROOT.parent / "shared" / "data"
Images = NDArray[np.float64]
# Lines (period, a, b) of the waves that are injected: cos 2π(ay + bx)/period, largest value 1.
GRIDS = {
    "corner": (2, 1, 1),
    "rows": (2, 1, 0),
    "axis, period 4": (4, 0, 1),
    "interior, period 4": (4, 1, 1),
    "axis, period 8": (8, 0, 1),
    "interior, period 8": (8, 3, 1),
}


@dataclass
class Options:
    """What every table needs."""

    quick: bool
    photographs: list[nulls.Planes]
    kind: str

    def sets(self, full: int, quick: int) -> int:
        """Number of sets."""
        return quick if self.quick else full


def mean(values: Iterable[float]) -> float:
    """Mean of a sequence."""
    return float(np.mean(list(values)))


def look(images: NDArray, periods: Sequence[int] = (2, 4, 8)) -> Measurement:
    """Measure gray images (N, H, W) in gray levels."""
    return measure(images[:, None], periods, value_range=(0, 255))


def wave(grid: str, size: Sequence[int], shift: Sequence[int] = (0, 0)) -> Images:
    """The wave of a grid on an image of this size, moved by `shift` pixels."""
    period, a, b = GRIDS[grid]
    y, x = np.arange(size[-2])[:, None] - shift[0], np.arange(size[-1]) - shift[1]
    return np.cos(2 * np.pi * (a * y + b * x) / period)


def degrees(grid: str) -> int:
    """1 where the amplitude of a grid's line is real, else 2."""
    period, a, b = GRIDS[grid]
    return 1 if 2 * a % period == 0 == 2 * b % period else 2


def inject(
    images: NDArray, grid: str, depth: float, how: str, shift: Sequence[int] = (0, 0)
) -> Images:
    """Add a wave of `depth` gray levels, or multiply by 1 + depth·wave."""
    pattern = depth * wave(grid, images.shape, shift)
    return images * (1 + pattern) if how == "multiplied" else images + pattern


def line_at(found: Measurement, grid: str):
    """The line of a grid in a measurement."""
    period, a, b = GRIDS[grid]
    wanted = {(s * a / period % 1, s * b / period % 1) for s in (1, -1)}
    return next(v for v in found.lines if (v.frequency[0] % 1, v.frequency[1] % 1) in wanted)


def row(*cells: object) -> None:
    """Print one row of a table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def head(title: str, text: str, *columns: str) -> None:
    """Print a headline, a paragraph, and the head of a table."""
    print(f"\n## {title}\n\n{text}\n")
    row(*columns)
    row(*("---" for _ in columns))


def verdict(value: float, low: float, high: float) -> str:
    """Say whether a value is in its range."""
    return "met" if low <= value <= high else f"not met ({low:g} … {high:g})"


def skip(what: str, path: Path) -> None:
    """Say why rows are missing."""
    print(f"\n{what}: skipped, {path.name} is not in ../shared/data.")


@functools.cache
def digits() -> nulls.Planes | None:
    """MNIST's training digits (60000, 28, 28)."""
    path = SHARED / "MNIST" / "raw" / "train-images-idx3-ubyte"
    if not path.exists():
        return None
    return np.fromfile(path, np.uint8)[16:].reshape(-1, 28, 28)


@functools.cache
def cifar() -> nulls.Planes | None:
    """CIFAR-10's test images in gray (10000, 32, 32)."""
    from PIL import Image

    path = SHARED / "cifar10-jpeg.tar"
    if not path.exists():
        return None
    with tarfile.open(path) as archive:
        files = (m for m in archive if m.name.startswith("test/") and m.isfile())
        jpegs = (io.BytesIO(archive.extractfile(m).read()) for m in files)
        return np.stack([np.asarray(Image.open(jpeg).convert("L")) for jpeg in jpegs])


def collections(options: Options) -> dict[str, tuple[Draw, int]]:
    """Sources of sets with the number of images of §1: name -> (draw, N)."""
    found = {
        "photographs 64": (nulls.crops(options.photographs, 64), 32),
        "shapes 32": (nulls.shapes(32), 1024),
    }
    if digits() is not None:
        found["MNIST"] = (nulls.pick(digits()), 1000)
    if cifar() is not None:
        found["CIFAR-10"] = (nulls.pick(cifar()), 1000)
    return found


# False alarms

OLD_NULLS = {"photographs": "0.015", "letterbox": "0.68 (9 px)"}


def false_alarms(options: Options) -> None:
    """Family-wise error on sets without a grid."""
    sets = {k: v for k, v in (("digits", digits()), ("CIFAR-10", cifar())) if v is not None}
    kinds = nulls.nulls(options.photographs, sets)
    runs = [(name, draw, 32) for name, draw in kinds.items()]
    runs += [("photographs", kinds["photographs"], n) for n in (8, 128)]
    number = options.sets(300, 10)
    head(
        "False alarms",
        f"Share of {number} sets without a grid in which anything is found at 5 %; "
        "target .01 to .06, and no more than .06 is what a user notices.",
        *("images", "N", "anything", "replica or line", "excess", "trace", "version 0.1", "≤ .06"),
    )
    rates = []
    for name, draw, count in runs:
        rate = _alarms(draw, count, number)
        rates.append(rate[0])
        old = OLD_NULLS.get(name, "") if count == 32 else ""
        row(name, count, *(f"{r:.3f}" for r in rate), old, verdict(rate[0], 0, 0.06))
    print(f"\nOver all kinds: {mean(rates):.3f}: {verdict(mean(rates), 0.01, 0.06)}")
    for name, path, there in (
        ("digits", SHARED / "MNIST", digits()),
        ("CIFAR-10", SHARED / "cifar10-jpeg.tar", cifar()),
    ):
        if there is None:
            skip(name, path)


def _alarms(draw: Draw, count: int, sets: int) -> list[float]:
    """Share of sets with anything, replica or line, excess, trace."""
    generator = np.random.default_rng(1)
    kinds = {"replica", "line", "excess", "trace"}, {"replica", "line"}, {"excess"}, {"trace"}
    seen = []
    for _ in range(sets):
        found = [set(p.found) for p in look(draw(generator, count)).periods.values()]
        seen.append([any(f & kind for f in found) for kind in kinds])
    return np.mean(seen, axis=0).tolist()


def fixed_pictures(options: Options) -> None:
    """False alarms on sets that share a picture."""
    number = options.sets(500, 6)
    head(
        "Fixed pictures",
        f"Every image is a · one picture + (1 - a) · its own; a new picture for each of {number} "
        "sets of 32. Version 0.1: up to .55.",
        *("world", "anything", "replica or line", "excess", "trace", "target"),
    )
    for name, draw in nulls.worlds(options.photographs).items():
        rate = _alarms(draw, 32, number)
        row(name, *(f"{r:.3f}" for r in rate), verdict(rate[0], 0, 0.06))


def periodic_pictures(options: Options) -> None:
    """Stripes and lines of text, which are periodic without an upsampling grid."""
    number = options.sets(100, 8)
    head(
        "Stripes and lines of text",
        f"{number} sets of 32 images of 64×64 whose own content is periodic. Target: undefined or "
        "found in at most .06, and no limit of 0 dBc or more. Version 0.1: 2 of 20.",
        *("images", "found", "undefined", "largest limit dBc", "target"),
    )
    kinds = {
        "stripes": nulls.stripes(64),
        "lines of text at odd distances": nulls.text(64, range(9, 20, 2)),
        "lines of text at even distances, a true period": nulls.text(64, range(10, 20, 2)),
    }
    for name, draw in kinds.items():
        generator, alarms, undefined, limits = np.random.default_rng(4), [], [], []
        for _ in range(number):
            found = look(draw(generator, 32))
            alarms.append(any(p.found for p in found.periods.values()))
            undefined.append(any(p.undefined for p in found.periods.values()))
            limits += [
                v for p in found.periods.values() for v in (p.detection_limit_dbc,) if v is not None
            ]
        worst = max(limits, default=-np.inf)
        target = verdict(mean(alarms), 0, 0.06) if worst < 0 else "not met (limit)"
        row(name, f"{mean(alarms):.3f}", f"{mean(undefined):.2f}", f"{worst:.1f}", target)


# Depths

# Depth found in nine of ten sets (added in gray levels, multiplied in percent): version 0.1, and
# the prototype of the second method before its placebos were corrected for overlapping tiles.
DEPTHS = {
    "photographs 64": {
        "corner": (0.038, 0.023, 0.035, 0.021),
        "rows": (0.108, 0.049, 0.096, 0.046),
        "axis, period 4": (0.98, 0.112, 0.63, 0.103),
        "interior, period 4": (0.138, 0.066, 0.129, 0.064),
        "axis, period 8": (2.09, 0.38, 1.31, 0.34),
        "interior, period 8": (0.099, 0.070, 0.093, 0.068),
    },
    "shapes 32": {
        "corner": (0.018, 0.0012, 0.013, 0.0015),
        "rows": (0.224, 0.032, 0.114, 0.034),
        "axis, period 4": (0.84, 0.21, 0.37, 0.17),
        "interior, period 4": (0.091, 0.013, 0.067, 0.011),
    },
    "MNIST": {
        "corner": (0.129, 0.008, 0.138, 0.057),
        "rows": (1.21, 0.072, 0.72, 0.57),
        "axis, period 4": (14.7, 2.4, 5.1, 3.2),
        "interior, period 4": (0.80, 0.21, 1.1, 0.69),
    },
    "CIFAR-10": {
        "corner": (0.017, 0.004, 0.014, 0.003),
        "rows": (0.22, 0.053, 0.19, 0.038),
        "axis, period 4": (1.1, 0.24, 0.93, 0.18),
        "interior, period 4": (0.13, 0.060, 0.11, 0.047),
    },
}


def depths(options: Options) -> None:
    """Depth that is found in nine of ten sets."""
    number = options.sets(20, 3)
    head(
        "Depth found in nine of ten sets",
        f"Bisection in each of {number} sets; target: at most 3 dB above the second figure of the "
        "prototype.",
        *("images", "grid", "way", "version 0.1", "prototype", "now", "dB against it", "target"),
    )
    for name, (draw, count) in collections(options).items():
        for grid, figures in DEPTHS[name].items():
            for how, old, prototype in (
                ("added", *figures[:2]),
                ("multiplied", *figures[2:]),
            ):
                unit = 0.01 if how == "multiplied" else 1
                depth = _needed(draw, count, grid, how, prototype * unit, number) / unit
                gap = 20 * np.log10(depth / prototype)
                label = "%" if unit != 1 else "gray"
                figures_ = (f"{v:.2g} {label}" for v in (old, prototype, depth))
                row(name, grid, how, *figures_, f"{gap:+.1f}", verdict(gap, -np.inf, 3))


def _needed(draw: Draw, count: int, grid: str, how: str, start: float, sets: int) -> float:
    """The 90 % quantile of the smallest depth that is detected."""
    generator, period, needed = np.random.default_rng(3), GRIDS[grid][0], []
    periods = (2, 4, 8) if min(draw(generator, 1).shape[1:]) >= 48 else (2, 4)
    for _ in range(sets):
        plain = draw(generator, count)
        low, high = np.log(start / 8), np.log(start * 8)
        for _ in range(7):
            middle = (low + high) / 2
            found = look(inject(plain, grid, float(np.exp(middle)), how), periods)
            low, high = (low, middle) if found.periods[period].detected else (middle, high)
        needed.append((low + high) / 2)
    return float(np.exp(np.quantile(needed, 0.9)))


def limits(options: Options) -> None:
    """A grid exactly at the printed limit is found nine times of ten."""
    number = options.sets(60, 5)
    head(
        "Printed limits",
        "A grid in a random phase is injected exactly at the limit that its line prints; share of "
        f"{number} sets in which the statistic finds it. Target .85 to .95; version 0.1: .93.",
        *("images", "grid", "line, added", "replica, multiplied", "target of the line"),
    )
    for name, (draw, count) in collections(options).items():
        rates: dict[str, list[list[bool]]] = {}
        generator = np.random.default_rng(5)
        for _ in range(number):
            plain = draw(generator, count)
            before = look(plain)
            for grid in DEPTHS[name]:
                shift = generator.integers(8, size=2)
                rates.setdefault(grid, []).append(_at_limit(plain, before, grid, shift))
        for grid, hits in rates.items():
            line, replica = np.mean(hits, axis=0)
            row(name, grid, f"{line:.2f}", f"{replica:.2f}", verdict(line, 0.85, 0.95))


def _at_limit(plain: NDArray, before: Measurement, grid: str, shift: NDArray) -> list[bool]:
    """Whether line and replica find a grid at their own limits."""
    line, c, period = line_at(before, grid), degrees(grid), GRIDS[grid][0]
    ways = []
    if line.line.limit_gray_levels is not None:  # RMS of the wave
        ways.append(("added", "line", line.line.limit_gray_levels * c**0.5))
    if line.replica.limit_db is not None:
        ways.append(("multiplied", "replica", 10 ** (line.replica.limit_db / 20) * c))
    hits = {"line": False, "replica": False}
    for how, statistic, depth in ways:
        found = look(inject(plain, grid, depth, how, shift)).periods[period]
        hits[statistic] = statistic in found.found
    return list(hits.values())


# Level

LEVEL_DEPTH = 8  # times the printed limit: +18 dB


def masks(images: NDArray) -> dict[str, Images]:
    """Where the grid is: everywhere, in proportion to brightness, on bright or on flat regions."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    x = images.astype(float)
    smooth = gaussian_filter(x, (0, 2, 2))
    spread = uniform_filter(x**2, (0, 7, 7)) - uniform_filter(x, (0, 7, 7)) ** 2
    return {
        "everywhere": np.ones_like(x),
        "multiplied": x / np.sqrt((x**2).mean()),
        "only on bright": (smooth > np.median(smooth)).astype(float),
        "only on flat": (spread <= np.median(spread)).astype(float),
    }


def pattern_power(added: Images, plain: NDArray, period: int) -> float:
    """What the level is defined to mean, from the pixels that were added (level.py, eq. 6)."""
    from gen.analysis.measure.lattice import lattice_lines

    x = plain - plain.mean(dtype=float)
    y, z = np.arange(x.shape[1])[:, None], np.arange(x.shape[2])
    total = 0.0
    for line in lattice_lines(period):
        turned = added * np.exp(-2j * np.pi * (line.a * y + line.b * z) / period)
        constant, gain = turned.mean(), (turned * x).mean() / (x**2).mean()
        total += line.degrees * (abs(constant) ** 2 + abs(gain) ** 2 * (x**2).mean())
    return total / plain.var((1, 2), dtype=float).mean()


def levels(options: Options) -> None:
    """Bias and coverage of the level on injected truth."""
    number = options.sets(30, 4)
    head(
        "Level on injected truth",
        f"Waves of period 2, {LEVEL_DEPTH} times their printed limit where they are, in {number} "
        "sets. Bias is the median over sets in which the period is detected; coverage is that of "
        "the 95 % interval. *Pattern* is the truth as the level defines it, *all power* the mean "
        "square of all that was added: they differ where a grid does not follow brightness. Target "
        "for the pattern: bias at most .5 dB, coverage at least .93.",
        *("images", "N", "grid", "where", "detected", "bias dB", "coverage", "width dB"),
        *("bias to all power", "covers all power", "target"),
    )
    small = (256, 1024)
    for name, (draw, count) in collections(options).items():
        for n in (32, *small) if count == 32 else small:
            if options.quick and n > 256:
                continue
            for grid in ("corner", "rows"):
                readings = _level_readings(draw, n, grid, number)
                for where, values in readings.items():
                    _level_row(name, n, grid, where, np.array(values))


def _level_readings(draw: Draw, n: int, grid: str, sets: int) -> dict[str, list]:
    """(detected, level, low, high, pattern, all power) of every set by mask, in dBc."""
    generator, readings = np.random.default_rng(6), {}
    for _ in range(sets):
        plain = draw(generator, n)
        limit = line_at(look(plain, (2, 4)), grid).line.limit_gray_levels
        for where, mask in masks(plain).items():
            added = LEVEL_DEPTH * limit * mask * wave(grid, plain.shape)
            found = look(plain + added, (2, 4)).periods[2]
            ends = (found.level_dbc, found.level_low_dbc, found.level_upper_dbc)
            contrast = plain.var((1, 2), dtype=float).mean()
            truth = pattern_power(added, plain, 2), (added**2).mean() / contrast
            known = (np.nan if v is None else v for v in ends)
            dbc = 10 * np.log10(truth)
            readings.setdefault(where, []).append([found.detected, *known, *dbc.tolist()])
    return readings


def _level_row(name: str, n: int, grid: str, where: str, values: NDArray) -> None:
    detected, level, low, high, pattern, power = values.T
    seen = (detected > 0) & np.isfinite(level)
    low = np.where(np.isfinite(low), low, -np.inf)

    def against(truth: NDArray) -> tuple[float, float]:
        bias = float(np.median((level - truth)[seen])) if seen.any() else np.nan
        return bias, mean((low <= truth) & (truth <= high))

    (bias, cover), (bias_power, cover_power) = against(pattern), against(power)
    target = "met" if abs(bias) <= 0.5 and cover >= 0.93 else "not met"
    width = np.median((high - low)[seen]) if seen.any() else np.nan
    row(
        *(name, n, grid, where, f"{mean(detected):.2f}", f"{bias:+.2f}", f"{cover:.2f}"),
        *(f"{width:.1f}", f"{bias_power:+.2f}", f"{cover_power:.2f}", target),
    )


# Networks and sheets


def networks(options: Options) -> None:
    """The level over numbers of images, and how often small networks are detected."""
    path = SHARED / "weights"
    if not path.exists():
        return skip("Networks", path)
    from tests import foreign_networks

    repeats, most = options.sets(4, 1), options.sets(4096, 1024)
    head(
        "Published networks",
        f"N = 256 … {most} images in {repeats} random subsets each. Spread: largest minus smallest "
        "level over all draws in which the period is detected; target at most 3 dB. Version 0.1: "
        "19.6 dB. The last network interpolates: it must be silent.",
        *("network", "period", "detected", "level dBc", "spread dB", "smallest p", "target"),
    )
    for name, file, build in (
        ("VAE, 64 px", "vae_celeba_yanndubs.pt", foreign_networks.vae_celeba),
        ("DCGAN, 28 px", "dcgan_mnist_ryhan.pth", foreign_networks.dcgan_mnist),
        ("WGAN, nearest ×2, 28 px", "cwgangp_resize_mnist_hayato.pth", None),
    ):
        images = _samples(path / file, build, 2 * most)
        generator, readings = np.random.default_rng(7), {}
        for n in 2 ** np.arange(8, int(np.log2(most)) + 1):
            for _ in range(repeats):
                found = look(images[generator.choice(len(images), n, replace=False)])
                for period, value in found.periods.items():
                    if not value.undefined:
                        readings.setdefault(period, []).append(value)
        for period, values in readings.items():
            dbc = [v.level_dbc for v in values if v.detected and v.level_dbc is not None]
            seen = sum(v.detected for v in values)
            spread = max(dbc) - min(dbc) if dbc else 0.0
            shown = f"{min(dbc):.1f} … {max(dbc):.1f}" if dbc else "-"
            target = verdict(seen, 0, 0) if build is None else verdict(spread, 0, 3)
            p = min(v.p_value for v in values)
            row(
                name, period, f"{seen} of {len(values)}", shown, f"{spread:.1f}", f"{p:.1g}", target
            )


@torch.no_grad()
def _samples(path: Path, build: Callable | None, count: int) -> Images:
    """Gray images of a published network, rounded to 8 bits."""
    from tests import foreign_networks

    generator = torch.Generator().manual_seed(0)
    if build is None:
        network, _ = foreign_networks.resize_mnist(path)
        latents = torch.randn(count, 10, generator=generator)
        latents = torch.cat([latents, torch.arange(count)[:, None] % 10], 1)
    else:
        network = build(path)
        latents = torch.randn(count, network.latent, generator=generator)
    out = torch.cat([network.eval()(part) for part in latents.split(256)])
    out = out.mul(255) if out.shape[1] == 3 else out.add(1).mul(127.5)
    out = out.round().clamp(0, 255)
    return torch.einsum("nchw,c->nhw", out, luma(out.shape[1])).double().numpy()


def luma(channels: int) -> torch.Tensor:
    """BT.601 weights of three channels, or one of one."""
    return torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0])


def sheets(options: Options) -> None:
    """Published sample sheets."""
    from PIL import Image

    path = SHARED / "sheets"
    if not path.exists():
        return skip("Sheets", path)
    head(
        "Published sheets",
        "In color, periods 2 and 4, or 2, 4 and 8 from 48 px.",
        *("sheet", "p at 2", "p at 4", "level at 2, dBc", "asked", "target"),
    )
    for name, side, most in (
        ("csinva_cifar10_real.png", 32, None),
        ("mimicry_cifar10_sngan.png", 32, None),
        ("csinva_cifar10_dcgan_fake.png", 32, (1e-8, 1)),
        ("antixk_celeba64_vanillaVAE_k3s2.png", 64, (1e-20, 1e-10)),
    ):
        sheet = np.asarray(Image.open(path / name).convert("RGB"))
        rows, columns = (range(2, n - side + 1, side + 2) for n in sheet.shape[:2])
        tiles = np.stack([sheet[y : y + side, x : x + side] for y in rows for x in columns])
        found = measure(tiles.transpose(0, 3, 1, 2)).periods
        p = [found[k].p_value for k in (2, 4)]
        good = min(p) > 0.05 if most is None else p[0] < most[0] and p[1] < max(most[1], 1.1e-10)
        if most == (1e-8, 1):
            good = p[0] < 1e-8
        level = "-" if found[2].level_dbc is None else f"{found[2].level_dbc:.1f}"
        asked = "clean" if most is None else f"p < {most[0]:g} at 2"
        asked += "" if most is None or most[1] == 1 else f", {most[1]:g} at 4"
        row(name, *(f"{v:.1g}" for v in p), level, asked, "met" if good else "not met")


# Excess, trace, confounds, splits


def incoherent(options: Options) -> None:
    """Excess on patterns of changing sign, trace on enlarged and compressed images."""
    number = options.sets(20, 4)
    head(
        "Excess and trace",
        f"Share of {number} sets in which the statistic is found: of 32 photographs of 64×64, or "
        "of 256 other images.",
        *("set", "statistic", "found", "version 0.1", "prototype"),
    )
    generator = np.random.default_rng(8)
    draw = nulls.crops(options.photographs, 64)
    for grid, depth, old, prototype in (
        ("corner", 0.1, 0.55, 1.0),
        ("rows", 1.0, 0.10, 0.60),
        ("rows", 3.0, None, 0.65),
        ("interior, period 4", 0.6, 0.10, 1.0),
    ):
        share = _excess_found(generator, draw, 32, grid, depth, number)
        name = f"{grid}, {depth:g} gray levels, sign by image"
        row(name, "excess", f"{share:.2f}", old if old is not None else "", prototype)
    for name, change, period in (
        *(
            (f"enlarged ×2, {mode}", _enlarged(mode), 2)
            for mode in ("nearest", "bilinear", "bicubic")
        ),
        *((f"JPEG {quality}", _compressed(quality), 8) for quality in (75, 85, 95)),
    ):
        hits = []
        for _ in range(number):
            found = look(nulls.to_8_bit(change(draw(generator, 32))))
            hits.append("trace" in found.periods[period].found)
        row(name, "trace", f"{mean(hits):.2f}", {"JPEG 95": 0.75}.get(name, ""), 1.0)
    for name, (other, count) in collections(options).items():
        if count == 32:  # the photographs above
            continue
        for grid, depth in itertools.product(("corner", "rows", "interior, period 4"), (1.0, 10.0)):
            share = _excess_found(generator, other, 256, grid, depth, number)
            row(f"{name}: {grid}, {depth:g} gray levels", "excess", f"{share:.2f}", "", "")


def _excess_found(generator, draw: Draw, count: int, grid: str, depth: float, number: int) -> float:
    """Share of sets with excess from waves whose sign changes from image to image."""
    hits = []
    for _ in range(number):
        plain = draw(generator, count)
        signs = generator.choice([-1.0, 1.0], (count, 1, 1))
        found = look(plain + signs * depth * wave(grid, plain.shape))
        hits.append("excess" in found.periods[GRIDS[grid][0]].found)
    return mean(hits)


def _enlarged(mode: str) -> Callable[[NDArray], NDArray]:
    def change(images: NDArray) -> NDArray:
        small = torch.as_tensor(images[:, None, 16:48, 16:48]).double()
        options = {} if mode == "nearest" else {"align_corners": False}
        return torch.nn.functional.interpolate(small, scale_factor=2, mode=mode, **options)[:, 0]

    return lambda images: change(images).numpy()


def _compressed(quality: int) -> Callable[[NDArray], NDArray]:
    from PIL import Image

    def once(image: NDArray) -> NDArray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return lambda images: np.stack([once(image) for image in images])


def auc(negatives: Sequence[float], positives: Sequence[float]) -> float:
    """Area under the ROC curve: P(positive > negative), ties count half."""
    low, high = np.asarray(negatives)[:, None], np.asarray(positives)
    return float((high > low).mean() + (high == low).mean() / 2)


def confounds(options: Options) -> None:
    """Blindness to changes that are no grid."""
    number = options.sets(150, 12)
    head(
        "Changes that are no grid",
        f"AUC of the smallest p between {number} plain and {number} changed sets of 32 photographs "
        "of 64×64; .5 is blind.",
        *("change", "AUC", "version 0.1", "target"),
    )
    draw = nulls.crops(options.photographs, 64)
    old = dict(zip(nulls.CONFOUNDS, (0.478, 0.513, 0.495, 0.501, 0.481, 0.505), strict=True))

    def score(images: NDArray) -> float:
        found = look(images, (2, 4))
        p = [min(line.replica.p_value, line.line.p_value) for line in found.lines]
        return -float(np.log(max(min(p), 1e-300)))

    generator = np.random.default_rng(2)
    plain = [score(draw(generator, 32).astype(float)) for _ in range(number)]
    for name, change in nulls.CONFOUNDS.items():
        changed = [
            score(change(draw(generator, 32).astype(float), generator)) for _ in range(number)
        ]
        value = auc(plain, changed)
        row(name, f"{value:.3f}", old[name], verdict(value, 0.4, 0.6))


def splits(options: Options) -> None:
    """Any split and merge gives the same numbers."""
    head(
        "Splits",
        "Largest relative difference between one set and the same set in batches of 7 in two "
        "merged meters: amplitudes of lines and levels (of the amplitude). Target 1e-9.",
        *("images", "lines", "levels", "target"),
    )
    images = nulls.crops(options.photographs, 64)(np.random.default_rng(9), 60)[:, None]
    images = images + 2 * wave("corner", images.shape)
    whole, meters = measure(images, value_range=(0, 255)), []
    for part in (images[:33], images[33:]):
        meters.append(Meter(value_range=(0, 255)))
        for batch in torch.as_tensor(part).split(7):
            meters[-1].update(batch)
    meters[0].merge(meters[1])
    split = meters[0].compute()

    def worst(pairs: Iterable[tuple[float | None, float | None]], scale: float) -> float:
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return max(abs(a - b) * scale for a, b in both)

    lines = max(
        abs(a.line.amplitude - b.line.amplitude) / abs(a.line.amplitude)
        for a, b in zip(whole.lines, split.lines, strict=True)
    )
    pairs = [(whole.periods[p].level_dbc, split.periods[p].level_dbc) for p in whole.periods]
    level = worst(pairs, np.log(10) / 20)
    row("photographs 64", f"{lines:.1g}", f"{level:.1g}", verdict(max(lines, level), 0, 1e-9))


# Others


def others(options: Options) -> None:
    """AUC of published statistics on the same sets."""
    number = options.sets(40, 5)
    draw, generator = nulls.crops(options.photographs, 64), np.random.default_rng(11)
    pool = draw(generator, 400).astype(float)
    reference = {"profile": peers.azimuthal_profile(pool), "dct": peers.mean_dct(pool)}
    tried = {"corner": (0.5, 0.5), "rows": (0.5, 0.0)}
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}

    def add(column: str, grid: str, images: Images) -> None:
        line = line_at(look(images, (2, 4)), grid)
        values = peers.scores(images, tried[grid], reference)
        for name, p in (("replica", line.replica.p_value), ("line", line.line.p_value)):
            values[f"ours, {name}"] = -np.log(max(p, 1e-300))
        for name, value in values.items():
            scores.setdefault((name, grid), {}).setdefault(column, []).append(value)

    for _ in range(number):
        plain = draw(generator, 32).astype(float)
        for grid in tried:
            add("none", grid, plain)
            for depth in (1e-4, 3e-4, 1e-3):
                add(f"{grid} {100 * depth:g} %", grid, inject(plain, grid, depth, "multiplied"))
        for name in ("noise", "blur", "sharpening", "contrast"):
            changed = nulls.CONFOUNDS[name](draw(generator, 32).astype(float), generator)
            add(name, "corner", changed)
    columns = list(dict.fromkeys(c for by in scores.values() for c in by if c != "none"))
    head(
        "Statistics of others on the same sets",
        f"AUC over {number} sets of 32 photographs of 64×64: multiplied grids (1 is best), then "
        "changes that are no grid (.5 is best). Sources: benchmarks/accuracy/peers.py.",
        *("statistic", *columns),
    )
    for name in dict.fromkeys(name for name, _ in scores):
        cells = []
        for column in columns:
            by = scores[name, "rows" if column.startswith("rows") else "corner"]
            cells.append(f"{auc(by['none'], by[column]):.2f}")
        row(name, *cells)


TABLES: dict[str, Callable[[Options], None]] = {
    "nulls": false_alarms,
    "worlds": fixed_pictures,
    "stripes": periodic_pictures,
    "depths": depths,
    "limits": limits,
    "level": levels,
    "networks": networks,
    "sheets": sheets,
    "excess": incoherent,
    "confounds": confounds,
    "splits": splits,
    "peers": others,
}


def load_photographs(folder: Path | None) -> tuple[list[nulls.Planes], str]:
    """Gray images (H, W) and where they are from."""
    from PIL import Image

    folder = folder or SHARED / "photos"
    names = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".png", ".tif", ".tiff"))
    if names:
        images = [np.asarray(Image.open(name).convert("L")) for name in names]
        return images, f"{len(images)} images of {folder.name}"
    generator = np.random.default_rng(0)
    images = [nulls.to_8_bit(nulls.dead_leaves(generator, 400, 1500)[0]) for _ in range(12)]
    return images, "12 dead-leaves images"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sets, under three minutes")
    parser.add_argument("--only", choices=TABLES, action="append", help="one table; repeatable")
    parser.add_argument("--images", type=Path, metavar="DIR", help="grid-free PNG or TIFF images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    photographs, kind = load_photographs(arguments.images)
    options = Options(arguments.quick, photographs, kind)
    print(f"# Calibration on {kind}" + (" (quick: few sets)" if arguments.quick else ""))
    start = time.perf_counter()
    for name in arguments.only or TABLES:
        began = time.perf_counter()
        TABLES[name](options)
        print(f"\n_{name}: {time.perf_counter() - began:.0f} s_", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
