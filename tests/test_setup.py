"""The preflight turns a mismatched torch and torchvision into one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gen.system.preflight import find_problem

ROOT = Path(__file__).resolve().parents[1]


def preflight(path=None):
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "gen.system.preflight"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_this_environment_passes():
    assert find_problem() is None  # `make setup` runs it in a process of its own


def test_mismatched_pair_is_one_line_with_the_fix(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist\\nmore advice')"
    )
    result = preflight(tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert (
        "torchvision::nms does not exist" in result.stderr and "make clean setup" in result.stderr
    )
    assert "torch 2." in result.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_makefile_says_what_it_will_download_and_starts_at_once_the_second_time():
    dry = subprocess.run(
        ["make", "-n", "setup", "VENV=.venv-of-nobody"], cwd=ROOT, capture_output=True, text=True
    )
    assert "5.6 GB" in dry.stdout and "-m venv .venv-of-nobody" in dry.stdout
    help_text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in ("demo", "test", "lint", "bench", "help"):
        assert f"\n{target} " in "\n" + help_text
