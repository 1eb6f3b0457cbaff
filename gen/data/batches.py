"""Order and augmentation: pure functions of (seed, epoch, index), so that resuming is exact."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from gen.data.order import flips, step_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gen.data.datasets import Batch, Dataset


def load_batch(
    dataset: Dataset, batch_size: int, seed: int, step: int, flip: bool, part: slice = slice(None)
) -> Batch:
    """Batch of one step, or `part` of it, augmented: a function of its arguments and no more."""
    import torch

    epoch, indices = step_indices(seed, step, len(dataset), batch_size)
    indices = indices[part]
    batch = dataset.fetch(indices)
    if not flip:
        return batch
    mirrored = torch.from_numpy(flips(seed, epoch, indices))
    return batch.mirror(mirrored)


def batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    flip: bool = False,
    part: slice = slice(None),
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Endless batches of the steps start_step, start_step + 1, …; of each only `part` is read.

    A set that is not in memory is read `prefetch` batches ahead by one background thread, whose
    errors are raised here, at the batch they belong to; closing the iterator ends the thread.
    Raises ValueError at once when a batch is larger than the set.
    """
    step_indices(seed, start_step, len(dataset), batch_size)
    ahead = 0 if dataset.in_memory else prefetch
    load = partial(load_batch, dataset, batch_size, seed, flip=flip, part=part)
    return _iterate(load, start_step, ahead)


def _iterate(load: Callable[[int], Batch], step: int, ahead: int) -> Iterator[Batch]:
    if not ahead:
        while True:
            yield load(step)
            step += 1
    with ThreadPoolExecutor(1, "prefetch") as pool:
        pending: deque = deque()
        try:
            while True:
                while len(pending) < ahead:
                    pending.append(pool.submit(load, step))
                    step += 1
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
