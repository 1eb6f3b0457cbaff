"""Work on all cores: chunks that fit the cache, dealt to as many threads as torch would use."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Part = TypeVar("_Part")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Images processed together: few enough that the working arrays stay in the cache, so many that
# starting operations does not cost as much as they do.
CHUNK_PIXELS = 2**18


def chunk_length(shape: Sequence[int]) -> int:
    """Images (C, H, W) of one chunk."""
    return max(1, CHUNK_PIXELS // math.prod(shape))


def over_cores(
    function: Callable[[_Part, _Item], _Result], parts: Sequence[_Part], items: Sequence[_Item]
) -> list[_Result]:
    """Results of function(part, item) in the order of items; each part stays in one thread.

    Items are dealt in turn, so the result does not depend on which thread is faster. Torch itself
    keeps to one core meanwhile: two that wait for each other cost 15 times as much when busy.
    """
    parts = parts[: len(items)]
    inference = torch.is_inference_mode_enabled()

    def work(first: int) -> list[_Result]:
        torch.set_num_threads(1)  # holds for the thread that says it, as inference mode does
        with torch.inference_mode(inference):
            return [function(parts[first], item) for item in items[first :: len(parts)]]

    with one_thread():
        if len(parts) < 2:
            return work(0) if parts else []
        with ThreadPoolExecutor(len(parts)) as pool:
            dealt = list(pool.map(work, range(len(parts))))
    return [dealt[i % len(parts)][i // len(parts)] for i in range(len(items))]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's operations on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
