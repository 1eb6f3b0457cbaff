"""Where to compute."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """`auto` → CUDA, else Apple's MPS, else the CPU; any other name must be usable here.

    Raises:
        ValueError: the device asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, usable in there.items() if usable), "cpu")
    if not there.get(name, True):
        raise ValueError(f"device is {name}; this torch ({torch.__version__}) sees none")
    return torch.device(name)
