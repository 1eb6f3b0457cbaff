"""Where a step of training spends its time: `python benchmarks/step_profile.py --precision bf16`.

One thread of the processor, with everything on that a user has: averages, logs, data.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from gen.config.run import RunConfig
from gen.data.datasets import Batch, Dataset, load_dataset
from gen.training.loop import Trainer

WARM, STEPS = 6, 30
KINDS = {  # the first of which an operation's name has a part
    "convolutions and products": ("convolution", "::mm", "::addmm", "::bmm"),
    "activations": ("relu", "threshold", "clamp_min_", "tanh"),
    "batch norm": ("native_batch_norm",),
    "copies, casts, patches": ("aten::copy_", "aten::cat", "aten::constant_pad"),
    "optimizer": ("adam", "Adam"),
    "norms of gradients and weights": ("vector_norm",),
    "average of weights": ("lerp",),
    "data": ("aten::index", "index_put"),
    "all else": ("",),
}


class Profiled:
    """A data set that profiles all between the fetching of two batches."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.fetched, self.profile = dataset, 0, profile()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """The batch."""
        self.fetched += 1
        if self.fetched == WARM:
            self.profile.start()
        elif self.fetched == WARM + STEPS:
            self.profile.stop()
        return self.dataset.fetch(indices)


def main() -> None:
    """Train, and print shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = (given.size, given.size)
    dataset = Profiled(load_dataset("shapes", root="data", size=size, channels=3))
    model = {"model": "dcgan", "size": size, "channels": 3, "width": given.width}
    training = {"steps": WARM + STEPS, "precision": given.precision, "device": "cpu"}
    config = RunConfig.from_dict({"model": model, "training": training})
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, dataset, Path(folder)).run()
    times, count = Counter(), 0
    for event in dataset.profile.key_averages():
        kind = next(k for k, parts in KINDS.items() if any(part in event.key for part in parts))
        times[kind] += event.self_cpu_time_total
        count += event.count * event.key.startswith("aten::")
    print(f"{sum(times.values()) / STEPS / 1e3:.0f} ms and {count / STEPS:.0f} operations a step")
    for kind, time in times.most_common():
        print(f"{time / sum(times.values()):6.1%}  {kind}")


if __name__ == "__main__":
    main()
