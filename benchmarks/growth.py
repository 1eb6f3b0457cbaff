"""How the cost of measuring and training grows: seconds and memory against size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import alternate

ROOT = Path(__file__).resolve().parent.parent
MEMORY = """
import resource, sys, numpy as np
from gen.analysis.measure.meter import measure
generator = np.random.default_rng(0)
draw = lambda: generator.integers(0, 256, (256, 1, 32, 32), np.uint8)
measure(draw() for _ in range(2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
measure(draw() for _ in range(int(sys.argv[1]) // 256))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def measure_growth() -> dict[str, dict[str, list[float]]]:
    """Name → x, y of each curve."""
    from gen.analysis.measure.meter import Meter

    def seconds(count: int, side: int) -> float:
        images = np.random.default_rng(0).integers(0, 256, (count, 1, side, side), np.uint8)
        return alternate(lambda: Meter().update(images), repeats=3)[0]

    curves: dict[str, dict[str, list[float]]] = {}

    def add(name: str, xs: list[int], ys: list[float]) -> None:
        curves[name] = {"x": xs, "y": ys}

    counts, sides, widths = [256, 1024, 4096], [32, 64, 128, 256, 512], [8, 16, 32]
    add("measuring: s against N (32×32)", counts, [seconds(n, 32) for n in counts])
    add(
        "measuring: s against pixels (16 images)",
        [n * n for n in sides],
        [seconds(16, n) for n in sides],
    )
    add(
        "training: s per step against width² (32×32)",
        [w * w for w in widths],
        [step_seconds(w) for w in widths],
    )
    memory = [2048, 16384]
    kib = [float(kib_kept(n)) for n in memory]
    add("measuring: MiB above the start against N", memory, [value / 1024 for value in kib])
    return curves


def kib_kept(count: int) -> int:
    """KiB that measuring a stream of so many 32×32 images adds to a process."""
    command = [sys.executable, "-c", MEMORY, str(count)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def step_seconds(width: int) -> float:
    """Seconds of a training step at 32×32, batch 64, fp32."""
    import contextlib

    from gen.models.build import build_modules

    from gen.config.run import RunConfig
    from gen.data.datasets import Batch
    from gen.training.loop import train_step
    from gen.training.objectives import build_objective

    model: dict[str, Any] = {"model": "dcgan", "size": (32, 32), "channels": 3, "width": width}
    config = RunConfig.from_dict({"model": model})
    objective = build_objective(config, build_modules(config.model))
    batch = Batch(torch.rand(64, 3, 32, 32) * 2 - 1)
    take = lambda: train_step(objective, batch, 0, contextlib.nullcontext())  # noqa: E731
    return alternate(take, repeats=5)[0]
