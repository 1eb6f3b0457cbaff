"""Work on all cores: as many threads as torch would use, each with torch on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def over_cores(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Results of function(item) in the order of items.

    Torch itself keeps to one core meanwhile: two threads that wait for each other at every
    operation cost far more than they gain, and one core per item rounds alike on any machine.
    """
    before, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def work(item: _Item) -> _Result:
        torch.set_num_threads(1)  # holds for the calling thread, as inference mode does
        with torch.inference_mode(inference):
            return function(item)

    try:
        if min(before, len(items)) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(before, len(items))) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(before)
