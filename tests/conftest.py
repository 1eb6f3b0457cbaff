"""Small real runs, made once and shared by the tests of training, sampling and commands."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gen.config.networks import GeneratorConfig
from gen.config.run import MODELS, RunConfig

ROOT = Path(__file__).resolve().parents[1]

# Networks and images here are tiny: a second thread gains nothing, and waits on busy machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `nohup` lets tests and the processes that they start ignore this one, as gen respects.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Seconds that a test waits for another process. Only a test that fails waits so long; a busy
# machine may need minutes.
PATIENCE = 900.0


def wait_until(happened: Callable[[], bool], *processes: subprocess.Popen) -> None:
    """Wait for a condition; fail if a process that brings it about ends before."""
    end = time.monotonic() + PATIENCE
    while not happened():
        ended = [process for process in processes if process.poll() is not None]
        assert not ended or happened(), [p.stderr.read() if p.stderr else p.args for p in ended]
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as a quota or a full disk does."""
    resource = pytest.importorskip("resource", reason="this system has no limit on a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def link(path: Path, target: Path | str) -> None:
    """Make a symbolic link, which Windows allows to few users."""
    try:
        path.symlink_to(target)
    except (OSError, NotImplementedError) as error:
        pytest.skip(f"symbolic links cannot be made here: {error}")


def make_pipe(path: Path) -> None:
    """Make a named pipe."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes in folders")
    os.mkfifo(path)


def imported(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run Python at the project's root; also the names of all modules that it imported."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return result, {line.rpartition("|")[2].strip() for line in lines}


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


@pytest.fixture
def version_0_1(tmp_path):
    """A copy of what version 0.1 wrote; see tests/runs/test_version_0_1.py."""
    with tarfile.open(ROOT / "tests" / "runs" / "version_0_1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "version-0.1"


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_dataset):
    """Model → directory of its run that came to its end; each is trained once."""
    from gen.training.loop import Trainer

    @functools.cache
    def get(model):
        folder = tmp_path_factory.mktemp(model)
        assert Trainer(small_config(model), small_dataset, folder).run() == 0
        return folder

    return get


@pytest.fixture(scope="session", params=["dcgan", "vae", "vaegan"])
def finished_run(request, finished):
    """(model, run directory) of a run that came to its end."""
    return request.param, finished(request.param)
