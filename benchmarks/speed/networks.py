"""Training, sampling and start-up against what a user would run instead."""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from gen.models.decoder import Decoder
from torchvision.utils import save_image

from benchmarks.speed import example_dcgan
from benchmarks.speed.timing import Clock, Row, alternate
from gen.config.run import RunConfig
from gen.data.datasets import Batch, Dataset, load_dataset
from gen.images import encode, to_float
from gen.sampling.samples import Samples
from gen.sampling.seeds import decode_latents, draw_latents, use_bf16
from gen.sampling.write import Targets, write_images
from gen.system.files import read_rows
from gen.training.loop import Trainer

ROOT = Path(__file__).resolve().parents[2]
# Multiply-adds ×2 of one image and step: five passes of G or D in our loop, k4 s2 throughout.
GFLOP = {64: 2.48, 32: 0.135}
TRAIN = {64: (64, 4, 2.3, 1.35), 32: (32, 24, 2.5, 1.4)}  # size → width, steps, targets bf16, fp32
ROUNDS = 3
SAMPLE_GFLOP = 0.21


class Stamped:
    """A data set that notes when each batch is fetched."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.stamps = dataset, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """The batch."""
        self.stamps.append(Clock.now())
        return self.dataset.fetch(indices)


def training(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of `train.py dcgan`'s loop, everything on, against the example's."""
    rows = []
    for size, (width, steps, least_bf16, least_fp32) in TRAIN.items():
        dataset = load_dataset("shapes", root="data", size=(size, size), channels=3)
        images = to_float(dataset.fetch(range(64)).images)
        step = example_dcgan.training_step(size, width, images)

        def example(step=step, steps=steps) -> float:
            start = Clock.now()
            for _ in range(steps):
                step()
            return steps * 64 / (Clock.now() - start)

        def ours(precision: str, size=size, width=width, steps=steps, dataset=dataset) -> float:
            """Run a whole run; the steps after the first two count."""
            stamped = Stamped(dataset)
            config = RunConfig.from_dict(
                {
                    "model": {
                        "model": "dcgan",
                        "size": (size, size),
                        "channels": 3,
                        "width": width,
                    },
                    "training": {
                        "steps": steps + 3,
                        "precision": precision,
                        "log_every": steps,
                        "device": "cpu",
                    },
                }
            )
            run = folder / f"{size}-{precision}-{time.monotonic_ns()}"
            run.mkdir()
            Trainer(config, stamped, run).run()
            taken = stamped.stamps[-steps - 2 : -1]  # the last one is of the snapshot at the end
            return steps * 64 / (taken[-1] - taken[0])

        rates: dict[str, list[float]] = {"example": [], "fp32": [], "bf16": []}
        example()
        for _ in range(ROUNDS):
            rates["example"].append(example())
            for precision in ("fp32", "bf16"):
                rates[precision].append(ours(precision))
        median = {name: statistics.median(values) for name, values in rates.items()}
        for precision, least in (("fp32", least_fp32), ("bf16", least_bf16)):
            share = median[precision] * GFLOP[size] / machine[precision]
            wanted = 0.65 if (size, precision) == (64, "bf16") else None
            rows.append(
                Row(
                    "Training (baseline: the PyTorch example's loop; limit: matrix products)",
                    f"{size}×{size}, width {width}, {precision}",
                    median[precision], median["example"], least, share, wanted,
                )
            )  # fmt: skip
    return rows


def sampling(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of decoding, and of writing a folder."""
    torch.manual_seed(0)
    decoder = Decoder(100, (64, 64), 3, 64).eval().requires_grad_(False)
    half = copy.deepcopy(decoder)
    use_bf16(half)
    latents = draw_latents(range(128), 100)

    @torch.inference_mode()
    def plain() -> None:
        for part in latents.split(64):
            decoder(part)

    times = alternate(plain, lambda: decode_latents(half, latents))
    rate, ours = (len(latents) / seconds for seconds in times)
    section = "Sampling 64×64 (baseline: eval-mode forward, batch 64; limit: matrix products)"
    share = ours * SAMPLE_GFLOP / machine["bf16"]
    row = Row(section, "--precision bf16", ours, rate, 3.0, share)
    return [row, *to_folder(decoder, half, folder)]


def to_folder(decoder: Decoder, half: Decoder, folder: Path) -> list[Row]:
    """Images per second of `sample.py --num N --outdir DIR`, in wall-clock time."""
    count, part = 1024, 256
    latents = draw_latents(range(part), 100)

    def draw(seeds: list[int]) -> torch.Tensor:
        return decode_latents(half, draw_latents(seeds, 100))

    def whole() -> None:
        target = folder / f"samples-{time.monotonic_ns()}"
        write_images(Samples(count, draw), Targets(outdir=target), {}, 64)

    def generate() -> None:
        for start in range(0, part, 64):
            draw(list(range(start, start + 64)))

    @torch.inference_mode()
    def one_by_one() -> None:
        for start in range(0, part, 64):
            for i, image in enumerate(decoder(latents[start : start + 64])):
                save_image(image, folder / f"{i}.png", normalize=True)

    drawn = draw(list(range(64)))

    def encoding() -> None:
        for i in range(part):
            (folder / f"e{i}.png").write_bytes(encode(drawn[i % 64], ".png"))

    functions = {whole: count, generate: part, encoding: part, one_by_one: part}
    seconds = alternate(*functions, repeats=3, wall=True)
    ours, alone, files, saved = (n / s for n, s in zip(functions.values(), seconds, strict=True))
    section = "Sampling to a folder (baseline: save_image per file; limit: drawing or files alone)"
    return [
        Row(section, "--precision bf16 --outdir", ours, saved, 2.0, ours / min(alone, files), 0.8)
    ]


def processes(machine: dict[str, Any], folder: Path) -> list[Row]:
    """Images per second of training in two processes of one thread each, against one."""
    options = ["--size", "32", "--width", "32", "--steps", "60", "--log-every", "10"]
    rates = []
    for count in (1, 2):
        output = folder / f"{count}-processes"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", str(count)]
        done = subprocess.run(
            [*torchrun, "train.py", "dcgan", *options, "--outdir", str(output)], cwd=ROOT,
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{count} processes failed: {done.stderr[-3000:]}")
        rows = read_rows(next(output.glob("*/metrics.jsonl")))
        speeds = [row["speed/images_per_second"] for row in rows if row["step"] > 10]
        rates.append(statistics.median(speeds))
    section = "Training in two processes (baseline: one; one thread each, gloo)"
    return [Row(section, "32×32, width 32, fp32, 64 images a step", rates[1], rates[0])]


def start(machine: dict[str, Any], folder: Path) -> list[Row]:
    """How often per second the help text and the first step of training could be had."""

    def help_text() -> None:
        subprocess.run(
            [sys.executable, "train.py", "dcgan", "--help"], cwd=ROOT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def first_step() -> None:
        """Until the row of the first training step is in the log; the rest is cut off."""
        output = folder / f"first-{time.monotonic_ns()}"
        command = [sys.executable, "train.py", "dcgan", "--data", "shapes", "--log-every", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*command, "--outdir", str(output)], cwd=ROOT, **quiet) as run:
            rows = lambda: chain(*map(read_rows, output.glob("*/metrics.jsonl")))  # noqa: E731
            while not any(row["step"] for row in rows()):
                if run.poll() is not None:
                    raise RuntimeError("train.py ended before its first step")
                time.sleep(0.02)
            run.kill()

    (seconds,) = alternate(help_text, repeats=5, wall=True)
    (first,) = alternate(first_step, repeats=3, wall=True)
    section = "Start (baseline: the target of 0.3 s and 8 s; ratio: how many times faster)"
    return [
        Row(section, f"`--help`: {seconds:.2f} s", 1 / seconds, 1 / 0.3, 1.0, unit="/s"),
        Row(section, f"first training step: {first:.1f} s", 1 / first, 1 / 8, 1.0, unit="/s"),
    ]
