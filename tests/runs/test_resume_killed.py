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
from tests.conftest import PATIENCE
from tests.equality import run_differences

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


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


# Rank 0 kills all processes of the run, torchrun and itself included, after the row of step 51.
KILLED = """
import os, signal
from pathlib import Path
from gen.commands.train import train
from gen.training.log import RunLog
metrics = RunLog.metrics
def kill(log, step, *arguments):
    metrics(log, step, *arguments)
    if step == 51:
        for pid in (*[int(file.read_text()) for file in folder.glob("pid.[1-9]")],
                    *[os.getppid()] * ("RANK" in os.environ), os.getpid()):
            os.kill(pid, signal.SIGKILL)
folder = Path(__file__).parent
(folder / f"pid.{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
RunLog.metrics = kill
train()
"""


def kill(tmp_path, name, processes=1):
    """Start a run that is killed in step 51."""
    line = command(tmp_path, name, processes=processes)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    line[line.index("train.py")] = str(script)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, **pipes)
    process.communicate(timeout=PATIENCE)  # ends when the last process that holds the pipe has
    assert process.returncode == -signal.SIGKILL
    rows = read_rows(tmp_path / name / "00000-dcgan-photos" / "metrics.jsonl")
    assert rows[-1]["step"] == 51


def test_killed_and_resumed(tmp_path):
    kill(tmp_path, "broken")
    for line in (command(tmp_path, "whole"), command(tmp_path, "broken", "--resume", "auto")):
        result = CliRunner().invoke(train.main, line[2:])
        assert result.exit_code == 0, result.output
    runs = [tmp_path / name / "00000-dcgan-photos" for name in ("broken", "whole")]
    assert run_differences(*runs) == []


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tmp_path):
    kill(tmp_path, "broken", processes=2)
    for name, more in (("whole", []), ("broken", ["--resume", "auto"])):
        line = command(tmp_path, name, *more, processes=2)
        subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    runs = [tmp_path / name / "00000-dcgan-photos" for name in ("broken", "whole")]
    assert run_differences(*runs) == []


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    """Every checkpoint, row and sample is looked at after each kill: see tests/slow/soak.py."""
    from tests.slow.soak import Soak  # which names signals that Windows does not have

    soak = Soak(tmp_path, steps=900, seed=int(time.time()))
    models = ["dcgan", "vae", "vaegan"]
    for model in models:
        soak.whole(soak.command(model, f"whole-{model}"))
    number = 0
    while soak.counts["SIGKILL"] < 10:
        soak.one_run(models[number % 3], number, until=time.time() + 600)
        number += 1
    assert soak.counts["runs ended equal"] == number
