"""Start from weights of another run: what fits is taken, the rest is named."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gen.config.run import RunConfig
from gen.models.build import build_modules
from gen.runs.checkpoint import CheckpointError, stored_in
from gen.runs.open import read_newest
from gen.system.text import shorten

Weights = dict[str, dict[str, Tensor]]  # network → name → tensor
SHOWN = 3  # names of tensors in one line


def load_fitting_weights(path: Path | str, config: RunConfig) -> tuple[Weights, str]:
    """The last weights of a run or checkpoint that this run's networks can take.

    A tensor is taken if a network and a tensor of these names and this shape are there.

    Returns:
        The weights, and one line that says what was taken and what was not.

    Raises:
        CheckpointError: missing, damaged, foreign, or nothing fits.
    """
    found_in = stored_in(*read_newest(path))
    stored = {**found_in.averaged, **found_in.last}
    taken: Weights = {}
    missing, other, count = [], [], 0
    with torch.device("meta"):
        modules = build_modules(config.networks, config.model)
    wanted = {name: module.state_dict() for name, module in modules.items()}
    for network, tensors in wanted.items():
        found = stored.get(network, {})
        taken[network] = {}
        for name, tensor in tensors.items():
            count += 1
            if name not in found:
                missing.append(f"{network}.{name}")
            elif found[name].shape != tensor.shape:
                shapes = "→".join("x".join(map(str, t.shape)) for t in (found[name], tensor))
                other.append(f"{network}.{name} ({shapes})")
            else:
                taken[network][name] = found[name]
    number = sum(map(len, taken.values()))
    if not number:
        raise CheckpointError(f"{path}: none of its weights fits these networks")
    parts = [f"{path}: took {number} of {count} tensors"]
    parts += [f"{len(other)} of another shape: {_few(other)}"] * bool(other)
    parts += [f"{len(missing)} not there: {_few(missing)}"] * bool(missing)
    return taken, "; ".join(parts)


def _few(names: list[str]) -> str:
    return ", ".join(map(shorten, names[:SHOWN])) + ", …" * (len(names) > SHOWN)
