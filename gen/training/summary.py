"""What a configuration costs, without building it for real: parameters and FLOPs."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from gen.config.run import RunConfig
from gen.models.build import build_modules
from gen.models.decoder import Decoder


def count_costs(config: RunConfig) -> dict[str, tuple[int, int]]:
    """Parameters and forward FLOPs per image of each network; one multiply-add is two FLOPs.

    Networks are built on torch's meta device: shapes without memory.
    """
    model = config.model
    costs = {}
    with torch.device("meta"):
        for name, module in build_modules(config.networks, model).items():
            latents = isinstance(module, Decoder)
            shape = (module.latent,) if latents else (model.channels, *model.size)
            labels = [torch.zeros(1, dtype=torch.int64)] * getattr(model, "conditional", False)
            with FlopCounterMode(display=False) as counter:
                module.eval()(torch.empty(1, *shape), *labels)
            parameters = sum(weight.numel() for weight in module.parameters())
            costs[name] = (parameters, counter.get_total_flops())
    return costs


def describe_run(config: RunConfig) -> str:
    """The networks of a run and their costs, as a table."""
    model, training = config.model, config.training
    lines = [
        f"{model.model} {model}; {training.steps} steps of {training.batch_size} images",
        f"{'network':<14}{'parameters':>12}{'MFLOP/image':>13}",
    ]
    for name, (parameters, flops) in count_costs(config).items():
        lines.append(f"{name:<14}{parameters:>12,}{flops / 1e6:>13.1f}")
    return "\n".join(lines)
