"""Real processes that are really killed: nothing is lost, and they end as an unbroken run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import train
from gen.system.files import read_rows
from tests.equality import run_differences
from tests.slow.soak import Soak

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(tmp_path, name, *more, processes=1):
    """train.py on 29 images, in its own folder."""
    if not (tmp_path / "photos.npy").exists():
        pixels = np.random.default_rng(0).integers(0, 256, (29, 16, 16, 3), np.uint8)
        np.save(tmp_path / "photos.npy", pixels)
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [
        *start, "train.py", "dcgan", "--data", str(tmp_path / "photos.npy"), "--size", "16",
        "--width", "4", "--batch-size", "8", "--device", "cpu", "--steps", "200", "--flip",
        "--snapshot-every", "40", "--log-every", "3", "--outdir", str(tmp_path / name), *more,
    ]  # fmt: skip


def kill_after(step, tmp_path, name, processes=1):
    """Kill all processes of a run when the row of a step is there."""
    process = subprocess.Popen(
        command(tmp_path, name, processes=processes),
        cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    metrics = tmp_path / name / "00000-dcgan-photos" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and read_rows(metrics) and read_rows(metrics)[-1]["step"] >= step):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_and_resumed(tmp_path):
    kill_after(50, tmp_path, "broken")
    for line in (command(tmp_path, "whole"), command(tmp_path, "broken", "--resume", "auto")):
        result = CliRunner().invoke(train.main, line[2:])
        assert result.exit_code == 0, result.output
    runs = [tmp_path / name / "00000-dcgan-photos" for name in ("broken", "whole")]
    assert run_differences(*runs) == []


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tmp_path):
    kill_after(50, tmp_path, "broken", processes=2)
    for name, more in (("whole", []), ("broken", ["--resume", "auto"])):
        line = command(tmp_path, name, *more, processes=2)
        subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    runs = [tmp_path / name / "00000-dcgan-photos" for name in ("broken", "whole")]
    assert run_differences(*runs) == []


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    """Every checkpoint, row and sample is looked at after each kill: see tests/slow/soak.py."""
    soak = Soak(tmp_path, steps=900, seed=int(time.time()))
    models = ["dcgan", "vae", "vaegan"]
    for model in models:
        soak.whole(soak.command(model, f"whole-{model}"))
    number = 0
    while soak.counts["SIGKILL"] < 10:
        soak.one_run(models[number % 3], number, until=time.time() + 600)
        number += 1
    assert soak.counts["runs ended equal"] == number
