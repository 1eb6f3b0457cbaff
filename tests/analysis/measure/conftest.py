"""Images without a grid for the tests of the measurement, and the shared data folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def natural(count, channels=1, height=32, width=32, seed=0):
    """Images (N, C, H, W) of 1/f noise with a few flat rectangles, float, 0 to 255."""
    generator = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    radius = np.maximum(np.hypot(fy, fx), 0.5 / max(height, width))
    white = generator.standard_normal((count, channels, height, width))
    images = np.fft.irfft2(np.fft.rfft2(white) / radius, s=(height, width))
    images *= 45 / images.std((-2, -1), keepdims=True)
    images += generator.uniform(80, 170, (count, channels, 1, 1))
    for image in images:
        for _ in range(3):
            y, x = (int(generator.integers(0, n)) for n in (height, width))
            image[:, y : y + height // 3, x : x + width // 3] = generator.uniform(0, 255)
    return images.clip(0, 255)


def grid(size, frequency):
    """A cosine of unit RMS amplitude at a frequency (fy, fx)."""
    y, x = (np.arange(n) for n in size)
    wave = np.cos(2 * np.pi * np.add.outer(frequency[0] * y, frequency[1] * x))
    return wave / np.sqrt((wave**2).mean())


@pytest.fixture
def draw():
    return natural


@pytest.fixture
def pattern():
    return grid


@pytest.fixture(scope="session")
def shared():
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    return SHARED
