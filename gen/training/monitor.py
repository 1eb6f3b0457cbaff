"""What a snapshot shows: samples, and the grid while it grows."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gen.analysis.layers.phases import (
    decibels,
    find_last_enlarging,
    layer_gains,
    local_moment,
    weighted_imbalance,
)
from gen.analysis.measure.conclude import conclude
from gen.analysis.measure.meter import Meter
from gen.images import to_uint8
from gen.models.decoder import Decoder
from gen.sampling.seeds import sample_images

from .health import count_used_latents, diversity

SHEET_IMAGES = 64  # images on a sample sheet
MEASURED_IMAGES = 256  # images: half a second of one core at 32×32, 0.6 % of 1000 steps of 64


@dataclass
class Inspection:
    """What there is to see of the averaged networks at a snapshot."""

    pictures: dict[str, Tensor] = field(default_factory=dict)  # uint8 (B, C, H, W) on the CPU
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # what the metrics alone do not tell


def inspect_samples(
    averaged: Decoder, trained: Decoder, real: Tensor, labels: Tensor | None = None
) -> Inspection:
    """Samples of seeds 0 … 255: the first 64 to be seen, all of them measured.

    Args:
        averaged: the decoder whose samples are shown and measured.
        trained: the decoder as it is. Its samples are judged, for the average lags behind.
        real: images of the data in [−1, 1], which say how much samples should differ.
        labels: of those images, where the decoder is conditional.
    """
    samples, metrics = grid_metrics(averaged)
    classes = None if labels is None else labels.cpu()
    named = None if classes is None else classes.tolist()
    judged = sample_images(copy.deepcopy(trained).eval(), range(len(real)), labels=named)
    metrics["health/diversity"] = diversity(judged, to_uint8(real).cpu(), classes)
    metrics["health/active_latents"] = count_used_latents(trained.stem[0].weight, trained.latent)
    return Inspection({"samples": samples[:SHEET_IMAGES]}, metrics)


class GridMonitor:
    """What the log says of the grid in a network's images; runs of the network go in the block.

    `checkerboard/period{P}_dbc` is the level (absent where no power is left),
    `…_limit_dbc` the level that would be found, `…_detected` the verdict as 0 or 1; a period that
    cannot be measured has none of them. `checkerboard/imbalance_db` is the weighted imbalance of
    the last layer whose weights differ by phase.
    """

    def __init__(self, network: nn.Module, value_range: tuple[float, float] | None = None) -> None:
        self.layer, self.meter = find_last_enlarging(network), Meter(value_range=value_range)
        self.moments: list[Tensor] = []

    def __enter__(self) -> GridMonitor:
        if self.layer:
            self.hook = self.layer.register_forward_pre_hook(self.keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self.layer:
            self.hook.remove()

    def keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Remember the maps that enter the layer."""
        self.moments.append(local_moment(inputs[0].float()))

    def update(self, images: Tensor) -> None:
        """Add images (B, C, H, W), uint8, or floats in the value range."""
        self.meter.update(images)

    def metrics(self) -> dict[str, float]:
        """The numbers of all images so far."""
        values = {}
        for number, period in conclude(self.meter.state).periods.items():  # rank 0 draws all
            if period.undefined:
                continue
            name = f"checkerboard/period{number}"
            if period.level_dbc is not None:
                values[f"{name}_dbc"] = period.level_dbc
            if period.detection_limit_dbc is not None:
                values[f"{name}_limit_dbc"] = period.detection_limit_dbc
            values[f"{name}_detected"] = float(period.detected)
        if self.moments:
            moment = torch.stack(self.moments).mean(0)
            ratio = float(weighted_imbalance(layer_gains(self.layer), moment))
            values["checkerboard/imbalance_db"] = decibels(ratio)
        return values


@torch.inference_mode()
def grid_metrics(decoder: Decoder) -> tuple[Tensor, dict[str, float]]:
    """Samples of seeds 0 … 255, and what the log says of their grid."""
    with GridMonitor(decoder) as monitor:
        samples = sample_images(decoder, range(MEASURED_IMAGES))
        monitor.update(samples)
    return samples, monitor.metrics()
