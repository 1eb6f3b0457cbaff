"""The calibration runs from a checkout and knows what it injects."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.calibration import GRIDS, degrees, inject, masks, pattern_power, wave

ROOT = Path(__file__).resolve().parents[2]


def test_one_table_from_the_command_line():
    command = [sys.executable, "benchmarks/accuracy/calibration.py", "--quick", "--only", "splits"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| photographs 64"))
    assert row.endswith("| met |")


@pytest.mark.parametrize("grid", GRIDS)
def test_the_pattern_of_an_even_grid_is_all_its_power(grid):
    plain = np.random.default_rng(0).uniform(0, 255, (40, 48, 48))
    added = 0.5 * wave(grid, plain.shape) + 0 * plain
    all_power = (added**2).mean() / plain.var((1, 2)).mean()
    assert pattern_power(added, plain, GRIDS[grid][0]) == pytest.approx(all_power, rel=0.01)
    assert (added**2).mean() == pytest.approx(0.25 / degrees(grid))


def test_the_pattern_of_a_multiplied_grid_is_all_its_power():
    plain = np.random.default_rng(0).uniform(0, 255, (400, 16, 16))
    added = inject(plain, "corner", 0.02, "multiplied") - plain
    all_power = (added**2).mean() / plain.var((1, 2)).mean()
    assert pattern_power(added, plain, 2) == pytest.approx(all_power, rel=0.02)


def test_half_of_the_area_halves_the_amplitude():
    plain = np.random.default_rng(0).uniform(0, 255, (100, 32, 32))
    mask = np.arange(32) < 16
    added = mask * wave("corner", plain.shape) + 0 * plain
    all_power = (added**2).mean() / plain.var((1, 2)).mean()
    assert pattern_power(added, plain, 2) == pytest.approx(all_power / 2, rel=0.01)


def test_masks_cover_half():
    cover = masks(np.random.default_rng(0).uniform(0, 255, (20, 32, 32)))
    assert cover["only on bright"].mean() == pytest.approx(0.5, abs=0.02)
    assert cover["only on flat"].mean() == pytest.approx(0.5, abs=0.02)
