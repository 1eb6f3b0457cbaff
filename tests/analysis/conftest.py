"""Grid-free textures and the shared data folder for the tests of the measurement."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy.calibrate import crops
from benchmarks.accuracy.grids import dead_leaves

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def leaves():
    """Eight dead-leaves images (1, 256, 256)."""
    generator = np.random.default_rng(7)
    return [dead_leaves(generator) for _ in range(8)]


@pytest.fixture
def texture(leaves):
    """Draw n grid-free crops (n, C, H, W) in grey levels; channels are different crops."""

    def draw(n, channels=1, height=32, width=32, seed=0):
        generator = np.random.default_rng(seed)
        flat = crops(leaves, (height, width))(generator, n * channels)
        return flat.reshape(n, channels, height, width)

    return draw


@pytest.fixture(scope="session")
def shared():
    if not SHARED.is_dir():
        pytest.skip("no shared data folder beside the repository")
    return SHARED
