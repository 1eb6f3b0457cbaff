"""Order and augmentation as hashes of (seed, epoch, index)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gen.system.errors import InputError

_ORDER, _FLIP, _NOISE = 1, 2, 3  # independent streams of the same seed


def hash64(*keys: int | np.ndarray) -> np.ndarray:
    """Hash integers to uniform uint64, element by element, over the broadcast shape of `keys`.

    Chained SplitMix64 finalizers (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
    generators"). Unlike a generator's stream it has no state and depends on no library's version.
    """
    state = np.zeros(1, np.uint64)  # numpy wraps arrays silently, scalars with a warning
    for key in keys:
        state = state ^ np.asarray(key).astype(np.uint64)
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


@lru_cache(maxsize=2)  # the current epoch, and the next one while prefetching
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Permutation of 0 … n-1 (int64, read-only) in which the images of one epoch are taken."""
    order = np.argsort(hash64(seed, _ORDER, epoch, np.arange(n)), kind="stable")
    order.flags.writeable = False
    return order


def step_indices(seed: int, step: int, n: int, batch_size: int) -> tuple[int, np.ndarray]:
    """Epoch of a step and the indices (batch_size,) of its images.

    An epoch has n // batch_size steps; the images left over are others in each epoch. Raises
    ValueError when a batch is larger than the set.
    """
    if not 1 <= batch_size <= n:
        raise InputError(f"batch size is {batch_size}, must be 1 … {n}, the number of images")
    epoch, position = divmod(step, n // batch_size)
    return epoch, epoch_order(seed, epoch, n)[position * batch_size : (position + 1) * batch_size]


def flips(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Whether each image is mirrored left to right in this epoch: bool (B,), fair coins."""
    return hash64(seed, _FLIP, epoch, indices) >= np.uint64(1 << 63)


def noise_seed(seed: int, process: int, step: int) -> int:
    """Seed of the noise that one of several processes draws from this step on."""
    return int(hash64(seed, _NOISE, process, step)[0])
