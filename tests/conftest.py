"""Small real runs, made once and shared by the tests of training, sampling and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gen.config.networks import GeneratorConfig
from gen.config.run import MODELS, RunConfig

ROOT = Path(__file__).resolve().parents[1]

# Networks and images here are tiny: a second thread gains nothing, and waits on busy machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def timed(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run Python at the project's root; also its processor time in seconds, its own alone."""
    before = os.times()
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    after = os.times()
    return result, sum(after[2:4]) - sum(before[2:4])


def small_config(
    model: str = "dcgan",
    networks: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    **training,
) -> RunConfig:
    """A run of seconds: 16×16, width 4."""
    return RunConfig.from_dict(
        {
            "model": {
                "model": model,
                "size": (16, 16),
                "channels": 3,
                "width": 4,
                **({"latent": 6} if model in GENERATORS else {"classes": 4}),
                **(networks or {}),
            },
            "objective": objective or {},
            "training": {
                "steps": 6,
                "batch_size": 8,
                "snapshot_every": 3,
                "log_every": 2,
                "ema_half_life": 20.0,
                "device": "cpu",
                **training,
            },
        }
    )


GENERATORS = [name for name, kind in MODELS.items() if issubclass(kind.model, GeneratorConfig)]


@pytest.fixture(scope="session")
def small_dataset():
    """Sixty-four procedural shapes of 16×16."""
    from gen.data.datasets import load_dataset

    return load_dataset("shapes", root="data", size=(16, 16), channels=3, count=64)


@pytest.fixture(scope="session", params=["dcgan", "vae", "vaegan"])
def finished_run(request, tmp_path_factory, small_dataset):
    """(model, run directory) of a run that came to its end."""
    from gen.training.loop import Trainer

    folder = tmp_path_factory.mktemp(request.param)
    config = small_config(request.param)
    assert Trainer(config, small_dataset, folder).run() == 0
    return request.param, folder
