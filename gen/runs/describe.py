"""What a checkpoint file holds, in a few lines."""

from __future__ import annotations

from pathlib import Path

import torch

from gen.runs.checkpoint import fitting, state_dict_in, stored_in
from gen.runs.open import read_newest
from gen.system.text import shorten


def describe_file(path: Path | str) -> str:
    """What a file holds, in a few lines: a run of ours, weights of the example, or their names.

    Raises:
        CheckpointError: missing or damaged.
    """
    from gen.models.dcgan import ExampleGenerator

    path, content = read_newest(path)
    weights = state_dict_in(content)
    if weights is None:
        stored = stored_in(path, content)
        model = stored.config.model
        lines = [f"{path}: {model.model} of this toolkit after {stored.step} steps", str(model)]
        with fitting(path):
            for part, networks in (("last", stored.last), ("averaged", stored.averaged)):
                lines += [f"{name}, {part}: {_count(w)} values" for name, w in networks.items()]
        return "\n".join(lines)
    network = ExampleGenerator.from_weights(weights)
    if network is not None:
        kernels = [value for value in weights.values() if value.ndim == 4]
        widths = " → ".join(str(k.shape[1]) for k in kernels)
        return (
            f"{path}: DCGAN generator in the layout of PyTorch's example\n"
            f"latent {network.latent} → {widths} channels, images of "
            f"{network.sizes[-1][0]}x{network.sizes[-1][1]}; works in all commands"
        )
    shown = [
        f"  {shorten(name)} {tuple(value.shape)}" for name, value in list(weights.items())[:40]
    ]
    rest = [f"  … and {len(weights) - 40} more"] if len(weights) > 40 else []
    head = f"{path}: {len(weights)} tensors of a network that this toolkit does not know"
    hint = "gen model --script FILE.py:FUNCTION takes a function that builds it"
    return "\n".join([head, *shown, *rest, hint])


def _count(weights: dict[str, torch.Tensor]) -> str:
    return f"{sum(value.numel() for value in weights.values()):,}"
