"""Which upsampler, and what does it cost? This script runs the grid of the study.

Every cell {data} × {seed} × {model} × {upsampler} is trained for equal steps with all else equal:
the width of discriminator or encoder, and the decoder's FLOPs (its width is chosen so). At
initialization and at eight points of training the averaged decoder's images are measured: level of
the checkerboard per period, radial distance and tail against the data; at the end also quality. One
JSON line per run goes to OUTDIR/runs.jsonl. A cell that is in it is not run again, so a stopped
study resumes, and several processes (`--shard i/n`) share it. `report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import copy
import dataclasses
import io
import itertools
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.models.decoder import Decoder

from gen.analysis.layers.repair import repair
from gen.analysis.measure.lattice import minimum_size
from gen.analysis.measure.meter import Meter
from gen.analysis.measure.result import Measurement
from gen.commands.demo import precision
from gen.config.run import RunConfig
from gen.data.datasets import Dataset, find_channels
from gen.data.order import epoch_order
from gen.images import to_float, to_uint8
from gen.quality.distances import ImageSet, compare_images
from gen.quality.features import Features, open_features
from gen.runs.data import open_dataset
from gen.runs.open import decoder_of
from gen.sampling.norm import set_statistics
from gen.sampling.seeds import draw_latents
from gen.training.loop import Trainer
from gen.training.summary import count_costs

# Name → upsampler, kernel size, antialias.
UPSAMPLERS: dict[str, tuple[str, int, bool]] = {
    "transposed-k2": ("transposed", 2, False),
    "transposed-k3": ("transposed", 3, False),
    "transposed-k4": ("transposed", 4, False),
    "transposed-k5": ("transposed", 5, False),
    "transposed-k6": ("transposed", 6, False),
    "balanced-k4": ("balanced", 4, False),
    "antialias-k4": ("transposed", 4, True),
    "nearest": ("nearest", 3, False),
    "bilinear": ("bilinear", 3, False),
    "subpixel": ("subpixel", 3, False),
}
REFERENCE = "transposed-k4"  # whose FLOPs at --width the others meet
PERIODS = (2, 4, 8)  # those that the images have room for
POINTS = 8  # of training, equally spaced, beside initialization
TAIL = 0.35  # cycles per pixel: the high-frequency tail begins here
# Short runs want larger steps than the DCGAN paper's; a short average follows them.
SETTINGS: dict[str, dict[str, Any]] = {"dcgan": {"lr": 1e-3}, "vae": {}}
COMMON = {"ema_half_life": 2000.0, "batch_size": 64, "log_every": 10**6, "snapshot_every": 10**6}


def configure(model: str, upsampler: str, data: str, seed: int, given: Any) -> RunConfig:
    """The run of one cell; the decoder's width meets the FLOPs of the reference upsampler."""

    def run(name: str, decoder_width: int) -> RunConfig:
        upsample, kernel, antialias = UPSAMPLERS[name]
        flags = COMMON | SETTINGS[model] | {
            "size": (given.size, given.size), "width": given.opponent_width or given.width,
            "decoder_width": decoder_width,
            "upsample": upsample, "kernel_size": kernel, "antialias": antialias, "data": data,
            "data_root": str(given.data_root), "seed": seed, "steps": given.steps,
            "channels": find_channels(data), "precision": given.precision,
        }  # fmt: skip
        return RunConfig.from_dict({"model": {"model": model}}, flags)

    def flops(config: RunConfig) -> int:
        return count_costs(config)["generator" if model == "dcgan" else "decoder"][1]

    wanted = flops(run(REFERENCE, given.width))
    widths = range(1, 4 * given.width)
    above = bisect.bisect_left(widths, wanted, key=lambda width: flops(run(upsampler, width)))
    nearest = [run(upsampler, width) for width in widths[max(above - 1, 0) : above + 1]]
    return min(nearest, key=lambda config: abs(flops(config) - wanted))


def at_initialization(decoder: Decoder) -> nn.Module:
    """A copy with the batch statistics its own latents give it: untrained ones mean nothing."""
    decoder = copy.deepcopy(decoder)
    set_statistics(decoder, "recalibrate")
    return decoder


def meter_of(images: Tensor) -> Meter:
    """What is seen of float images in [−1, 1]."""
    periods = tuple(p for p in PERIODS if min(images.shape[2:]) >= minimum_size(p))
    meter = Meter(periods, (-1, 1), pictures=True)
    meter.update(images)
    return meter


@torch.inference_mode()
def images_of(decoder: nn.Module, num: int) -> Tensor:
    """Float images (N, C, H, W) in [−1, 1] of seeds 0, 1, …: not rounded to 8 bits."""
    latents = draw_latents(range(num), decoder.latent)
    return torch.cat([decoder(part) for part in latents.split(64)])


def tail(mine: Measurement) -> tuple[float, float]:
    """Mean difference to the data beyond `TAIL` cycles per pixel in dB, and its standard error.

    The lattice's bins are left out, so that a grid does not read as a tail.
    """
    a, b = mine.pictures.profile(), mine.reference.pictures.profile()
    rings = a.frequency > TAIL
    weights = rings / rings.sum()
    covariance = (a.covariance + b.covariance) * (10 / np.log(10)) ** 2
    return float(weights @ (a.db - b.db)), float(np.sqrt(weights @ covariance @ weights))


def periods_of(m: Measurement) -> dict[str, dict[str, Any]]:
    """All four statistics of every period, in plain numbers."""
    return {str(number): dataclasses.asdict(period) for number, period in m.periods.items()}


def quality_of(images: Tensor, judge: Judge) -> dict[str, float | None]:
    """Kernel and Fréchet distance of 8-bit images to the data, precision and recall."""
    pixels = to_uint8(images)
    samples = ImageSet("samples", len(pixels), tuple(pixels.shape[1:]), lambda i: pixels[list(i)])
    found = compare_images(samples, judge.real, judge.features, len(pixels))
    return {
        "kernel": found.kernel,
        "frechet": found.frechet,
        "precision": found.precision,
        "recall": found.recall,
    }


@dataclass(frozen=True)
class Judge:
    """What every image of one data set is held against."""

    meter: Meter  # of real images, as floats
    real: ImageSet
    features: Features


def open_judge(dataset: Dataset, given: Any) -> Judge:
    """As many real images as samples, the first of an order of its own."""
    order = epoch_order(2020, 0, len(dataset))
    images = dataset.fetch(order[: given.num]).images
    shape = tuple(images.shape[1:])
    real = ImageSet(dataset.name, len(images), shape, lambda i: images[list(i)])
    return Judge(meter_of(to_float(images)), real, open_features(given.features, shape))


def point(
    step: int, decoder: nn.Module, judge: Judge, num: int, last: bool = False
) -> dict[str, Any]:
    """What one point of training shows; quality, which costs as much as the rest, at the last."""
    images = images_of(decoder, num)
    m = meter_of(images).compute(judge.meter)
    return {
        "step": step,
        "periods": periods_of(m),
        "radial_db": (
            m.difference.radial_db,
            m.difference.radial_low_db,
            m.difference.radial_high_db,
        ),
        "tail_db": tail(m),
    } | ({"quality": quality_of(images, judge)} if last else {})


def repaired(decoder: Decoder, num: int) -> dict[str, Any] | None:
    """Levels before and after `repair` with its default target; None where no layer has phases."""
    try:
        found = repair(decoder, draw_latents(range(num), decoder.latent), None, (-1, 1))
    except ValueError:
        return None
    return {
        "refused": found.refused,
        "psnr_db": found.psnr_db,
        "before": {"periods": periods_of(found.before)},
        "after": {"periods": periods_of(found.after)},
    }


def run_cell(
    config: RunConfig, folder: Path, dataset: Dataset, judge: Judge, num: int
) -> dict[str, Any]:
    """Train one cell point by point and measure at each."""
    costs = count_costs(config)
    shutil.rmtree(folder, ignore_errors=True)  # of a study that was stopped
    folder.mkdir(parents=True)
    trainer = Trainer(config, dataset, folder)
    decoder = decoder_of(trainer.average.module)
    points = [point(0, at_initialization(decoder), judge, num)]
    seconds = 0.0
    for number in range(1, POINTS + 1):
        steps = config.training.steps * number // POINTS
        training = dataclasses.replace(config.training, steps=steps)
        trainer.config = dataclasses.replace(config, training=training)
        clock = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):  # eight lines of progress a run
            stopped = trainer.run()
        if stopped:
            sys.exit(128 + stopped)
        seconds += time.process_time() - clock
        points.append(point(steps, decoder, judge, num, last=number == POINTS))
    return {
        "run": folder.name,
        "decoder_width": config.model.decoder_width,
        "parameters": {name: count for name, (count, _) in costs.items()},
        "flops": {name: count for name, (_, count) in costs.items()},
        "images_per_core_second": config.training.steps * config.training.batch_size / seconds,
        "points": points,
        "repair": repaired(decoder, num),
    }


def main() -> None:
    """Run the cells of this shard that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", default=["dcgan", "vae"], choices=["dcgan", "vae"])
    add("--upsamplers", nargs="+", default=list(UPSAMPLERS), choices=list(UPSAMPLERS))
    add("--data", nargs="+", default=["shapes"], help="names or paths, as train.py takes them")
    add("--data-root", type=Path, default=Path("data"))
    add("--seeds", type=int, default=3, help="runs of each cell")
    add("--size", type=int, default=32)
    add("--width", type=int, default=24)
    add("--opponent-width", type=int, help="of discriminator or encoder  [default: --width]")
    add("--steps", type=int, default=800)
    add("--num", type=int, default=2048, help="images measured at each point")
    add("--features", default="random", help="of quality, as analyze.py quality takes them")
    add("--precision", default=precision(), choices=["fp32", "bf16"])
    add("--shard", default="0/1", help="i/n: every n-th cell from the i-th on")
    add("--outdir", type=Path, default=ROOT / "runs" / "study")
    given = parser.parse_args()
    shard, shards = map(int, given.shard.split("/"))
    given.outdir.mkdir(parents=True, exist_ok=True)
    file = given.outdir / "runs.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    same = ("size", "width", "opponent_width", "steps", "num", "precision", "features")
    settings = {name: value for name in same if (value := getattr(given, name)) is not None}
    done = [json.loads(line)["cell"] for line in lines]

    grid = itertools.product(given.data, range(given.seeds), given.models, given.upsamplers)
    keys = ("data", "seed", "model", "upsampler")
    cells = [dict(zip(keys, cell, strict=True)) | settings for cell in grid][shard::shards]
    judges: dict[str, tuple[Dataset, Judge]] = {}
    for cell in tqdm([cell for cell in cells if cell not in done], unit="run"):
        config = configure(cell["model"], cell["upsampler"], cell["data"], cell["seed"], given)
        if cell["data"] not in judges:
            dataset = open_dataset(config)
            judges[cell["data"]] = dataset, open_judge(dataset, given)
        name = "-".join(
            [Path(cell["data"]).stem, cell["model"], cell["upsampler"], str(cell["seed"])]
        )
        result = run_cell(config, given.outdir / name, *judges[cell["data"]], given.num)
        with file.open("a") as lines_out:  # one write: shards share the file
            lines_out.write(json.dumps({"cell": cell, **result}) + "\n")


if __name__ == "__main__":
    main()
