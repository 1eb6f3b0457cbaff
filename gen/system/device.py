"""Where to compute."""

from __future__ import annotations

import torch

from gen.system import distributed
from gen.system.errors import InputError


def pick_device(name: str) -> torch.device:
    """`auto` → CUDA, else Apple's MPS, else the CPU; any other name must be usable here.

    Of several processes on a machine each takes its own GPU.

    Raises:
        ValueError: the device is not available.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, usable in there.items() if usable), "cpu")
    if not there.get(name, True):
        raise InputError(f"device is {name}; this torch ({torch.__version__}) sees none")
    if name == "cuda" and distributed.world_size() > 1:
        own, count = distributed.local_rank(), torch.cuda.device_count()
        if own >= count:
            raise InputError(f"process {own + 1} of this machine finds {count} GPUs; start {count}")
        return torch.device(name, own)
    return torch.device(name)
