"""What a snapshot shows: samples, and the grid while it grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gen.analysis.checkerboard import Meter
from gen.analysis.phases import weighted_imbalance
from gen.sampling import sample_images
from models.decoder import Decoder

from .penalty import last_enlarging, layer_gains, local_moment

PREVIEW = 64  # images on a sample sheet
MONITORED = 256  # images: half a second of one core at 32×32, 0.6 % of 1000 steps of 64


@dataclass
class Inspection:
    """What there is to see of the averaged networks at a snapshot."""

    pictures: dict[str, Tensor] = field(default_factory=dict)  # uint8 (B, C, H, W) on the CPU
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # one line each, for what needs attention


def inspect_samples(decoder: Decoder) -> Inspection:
    """Samples of seeds 0 … 255: the first 64 to be seen, all of them measured."""
    samples, metrics = grid_metrics(decoder)
    return Inspection({"samples": samples[:PREVIEW]}, metrics)


@torch.inference_mode()
def grid_metrics(decoder: Decoder) -> tuple[Tensor, dict[str, float]]:
    """Samples of seeds 0 … 255, and what the log says of their grid.

    `checkerboard/period{P}_dbc` is the level (absent where nothing stands above the noise),
    `…_limit_dbc` the level that would be found, `…_detected` the verdict as 0 or 1; a period that
    cannot be measured has none of them. `checkerboard/imbalance_db` is the weighted imbalance of
    the last layer whose weights differ by phase.
    """
    moments: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.append(local_moment(inputs[0].float()))

    layer = last_enlarging(decoder)
    handle = layer.register_forward_pre_hook(keep) if layer else None
    meter = Meter()
    samples = sample_images(decoder, range(MONITORED))
    meter.update(samples)
    values = {}
    for number, period in meter.compute().periods.items():
        if period.undefined:
            continue
        name = f"checkerboard/period{number}"
        if period.level_dbc is not None:
            values[f"{name}_dbc"] = period.level_dbc
        if period.detection_limit_dbc is not None:
            values[f"{name}_limit_dbc"] = period.detection_limit_dbc
        values[f"{name}_detected"] = float(period.detected)
    if handle:
        handle.remove()
        ratio = float(weighted_imbalance(layer_gains(layer), torch.stack(moments).mean(0)))
        values["checkerboard/imbalance_db"] = 10 * math.log10(max(ratio, 1e-20))
    return samples, values
