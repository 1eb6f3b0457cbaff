"""Which statistics batch normalization takes when it samples."""

from __future__ import annotations

import torch
from torch import nn

from gen.runs.open import Generator
from gen.sampling.seeds import draw_inputs

BATCH = 64
# Name → passes of BATCH fixed latents, those of seeds 0, 1, …, whose statistics are averaged.
PASSES = {"running": 0, "batch": 1, "recalibrate": 32}


@torch.no_grad()
def set_statistics(decoder: Generator, kind: str) -> None:
    """Replace the means and variances of all batch normalization in place, by name in `PASSES`.

    `running` keeps those that training left. `batch` takes those of seeds 0 … 63, normalized as in
    training (a reference batch, Salimans et al. 2016, section 3.5). `recalibrate` takes their
    cumulative average over seeds 0 … 2047 (Izmailov et al. 2018, section 3.2). In all cases image
    i stays a function of seed i: what is normalized by is fixed before it is drawn.
    """
    if not PASSES[kind]:
        return
    layers = [m for m in decoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over passes
    device = next(decoder.parameters()).device
    decoder.train()
    for number in range(PASSES[kind]):
        seeds = range(number * BATCH, (number + 1) * BATCH)
        decoder(draw_inputs(decoder, seeds).to(device))
    decoder.eval()
