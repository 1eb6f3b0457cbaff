"""From a grid in the images to the layer that can cause it: any `nn.Module` that returns images.

    >>> from gen.analysis.layers.trace import trace
    >>> print(trace(generator, torch.randn(256, 100)))

Composition: a layer's grid of period s in its own output has period P_l = Π_{j≥l} s_j in the image,
so a line of exact period d can only come from layers with d | P_l. What each layer really leaves
is measured with the image-level estimator on the maps between the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.analysis.layers.calls import BATCH, CallInterceptor, MapEdit, Place, batches, run_network
from gen.analysis.layers.phases import (
    POWER_FLOOR,
    decibels,
    gain_lines,
    weighted_imbalance,
)
from gen.analysis.layers.steps import Layer, find_layers, list_periods
from gen.analysis.measure.meter import Meter, range_of_maps
from gen.analysis.measure.result import Measurement
from gen.sampling.adapt import Inputs

MEANINGLESS = 20.0  # dBc
# Feature maps have hundreds of channels; so many, evenly spaced, tell their level well enough.
CHANNELS = 12
LOCAL_MEANS = 512


@dataclass(frozen=True)
class LayerTrace:
    """What one layer is and leaves.

    Attributes:
        layer: The layer.
        local_means: Input of the layer averaged over 3×3 pixels, at random places (n, C_in).
        imbalance_db: Weighted imbalance of its phase gains for these inputs; None without weights.
        predicted_dbc: Level of the line that the mean input leaves in the layer's own output.
        output: Measurement of the layer's own output; None where that is no map of two axes.
        passed_on: Measurement of what arrives at the next layer, or in the image.
    """

    layer: Layer
    local_means: Tensor
    imbalance_db: float | None
    predicted_dbc: float | None
    output: Measurement | None
    passed_on: Measurement | None


@dataclass(frozen=True)
class Trace:
    """Measurements along a network: one entry per layer, the images, and notes.

    `unseen` holds the notes about what could not be followed; `inputs` is as `measure_inputs`.
    """

    layers: tuple[LayerTrace, ...]
    images: Measurement
    notes: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    inputs: Measurement | None = None

    def causes(self, period: int) -> list[str]:
        """Names of the layers that can cause a line of exact period `period`."""
        return [t.layer.name for t in self.layers if t.layer.period % period == 0]

    def __str__(self) -> str:
        head = (
            f"{'layer':<20}{'kind':<12}{'maps':<18}{'stride':>6}{'period':>7}{'imbalance':>10}"
            f"{'predicted':>10}{'born':>8}{'passed':>8}"
        )
        unit = f"{'':<20}{'':<12}{'':<18}{'':>6}{'px':>7}{'dB':>10}{'dBc':>10}{'dBc':>8}{'dBc':>8}"
        return "\n".join([head, unit, *(_row(t) for t in self.layers), *self.notes, *self.unseen])


def _row(t: LayerTrace) -> str:
    layer = t.layer
    maps = "→".join("x".join(map(str, size)) for size in (layer.small, layer.large))
    kind, stride = layer.kind[:11], "x".join(map(str, layer.stride))
    levels = (own_level(m, layer) for m in (t.output, t.passed_on))
    born, passed = levels
    return (
        f"{layer.name[-19:]:<20}{kind:<12}{maps:<18}{stride:>6}"
        f"{layer.period if layer.period > 1 else 'none':>7}{_number(t.imbalance_db):>10}"
        f"{_number(t.predicted_dbc):>10}{born:>8}{passed:>8}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def own_level(measurement: Measurement | None, layer: Layer) -> str:
    """Level at the layer's own period; with ≤ where nothing was detected, - if nothing is known."""
    if measurement is None:
        return "-"
    period = measurement.periods[math.lcm(*layer.stride)]
    if period.undefined:
        return "small" if "needs images" in period.undefined else "-"
    if period.detected and period.level_dbc is not None:
        return f"{period.level_dbc:.1f}"
    upper = period.level_upper_dbc
    # A bound far above the carrier (0 dBc) tells nothing: one map outweighs all the others.
    return "-" if upper is None or not upper < MEANINGLESS else f"≤{upper:.0f}"


def local_means(maps: Tensor) -> Tensor:
    """Means over 3×3 pixels of maps (B, C, …, H, W), as vectors (n, C) on the CPU."""
    maps = _frames(maps)
    smooth = F.avg_pool2d(maps, 3, 1) if min(maps.shape[2:]) > 2 else maps
    return smooth.flatten(2).permute(0, 2, 1).flatten(0, 1).cpu()


def _frames(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) of videos (B, C, T, H, W), and of lines (B, C, L)."""
    maps = maps.detach().float()
    if maps.ndim == 3:
        return maps[:, :, None]
    return maps.movedim(2, 1).flatten(0, 1) if maps.ndim == 5 else maps


class _MapMeter:
    """Sums over passes at one map: a meter on some channels, in the scale of the first batch."""

    def __init__(self, periods: tuple[int, ...]) -> None:
        self.periods, self.meter = periods, None

    def add(self, maps: Tensor) -> None:
        if maps.ndim == 3:
            return
        maps = _frames(maps)
        if self.meter is None:
            # Dead channels carry no signal; rarely active ones too few images to judge.
            active = (maps.flatten(2).var(-1) > 0).float().mean(0) > 0.5
            alive = active.nonzero().flatten() if active.any() else torch.arange(maps.shape[1])
            few = torch.linspace(0, len(alive) - 1, min(CHANNELS, len(alive))).round().long()
            self.few = alive.cpu()[few]
            self.meter = Meter(self.periods, range_of_maps(maps[:, self.few]))
        self.meter.update(maps[:, self.few])

    def compute(self) -> Measurement | None:
        return self.meter and self.meter.compute()


class _LayerProbe:
    """Everything collected at one layer over the passes."""

    def __init__(self, layer: Layer, following: Layer | None) -> None:
        periods = (math.lcm(*layer.stride),)
        self.layer, self.following = layer, following
        self.output, self.passed_on = _MapMeter(periods), _MapMeter(periods)
        self.means, self.ranks = torch.zeros(0, 0), torch.zeros(0)
        self.variance, self.passes = torch.zeros(()), 0
        self.random = torch.Generator().manual_seed(0)

    def edits(self) -> Iterator[tuple[Place, MapEdit]]:
        """Where to look at maps, and with what."""
        yield self.layer.leaves, self._leave
        if self.layer.gains is not None:
            yield self.layer.enters, self._enter
        if self.following is not None and self.following.enters:
            yield self.following.enters, self.passed_on.add

    def _enter(self, maps: Tensor) -> None:
        """Keep the local means with the highest random ranks: a fair draw from all passes."""
        every = local_means(maps)
        ranks = torch.cat([self.ranks, torch.rand(len(every), generator=self.random)])
        self.ranks, kept = ranks.topk(min(LOCAL_MEANS, len(ranks)))
        self.means = torch.cat([self.means.reshape(-1, every.shape[1]), every])[kept]

    def _leave(self, maps: Tensor) -> None:
        self.output.add(maps)
        variance = _frames(maps).var((-2, -1), correction=0).mean(0).cpu()
        self.variance, self.passes = self.variance + variance, self.passes + 1

    def conclude(self, images: Measurement) -> LayerTrace:
        means, gains = self.means, self.layer.gains
        imbalance = predicted = None
        if gains is not None:
            gains = gains.float().cpu()
            moment = means.T @ means / len(means)
            imbalance = decibels(float(weighted_imbalance(gains, moment)))
            power = gain_lines(gains, means.mean(0)).abs().square()
            power = power.flatten(0, -2)[1:].sum(0)  # all q but 0
            predicted = decibels(
                float((power / (self.variance / self.passes).clamp_min(POWER_FLOOR)).mean())
            )
        passed_on = images if self.following is None else self.passed_on.compute()
        output = self.output.compute()
        return LayerTrace(
            layer=self.layer, local_means=means, imbalance_db=imbalance, predicted_dbc=predicted,
            output=output, passed_on=passed_on,
        )  # fmt: skip


def trace(
    network: nn.Module,
    inputs: Any,
    periods: Sequence[int] | None = None,
    batch_size: int = BATCH,
) -> Trace:
    """Measure the maps after every enlarging layer, what the next one receives, and the images.

    Args:
        network: Takes one batch of latents or maps and returns images (N, C, H, W).
        inputs: Some hundred latents, maps, or images (N, …).
        periods: Periods to measure in the images; default: as `list_periods`.
        batch_size: Inputs of one pass, at most.

    Raises:
        InputError: The network returns no images.
    """
    layers, notes, unseen = find_layers(network, inputs[:2])
    probes = []
    for number, layer in enumerate(layers):
        later = (other for other in layers[number + 1 :] if number in other.before)
        probes.append(_LayerProbe(layer, next(later, None)))
    result = _MapMeter(list_periods(layers, periods))
    edits: dict[Place, list[MapEdit]] = {}
    for probe in probes:
        for place, edit in probe.edits():
            edits.setdefault(place, []).append(edit)
    for batch in batches(inputs, batch_size):
        result.add(run_network(network, batch, CallInterceptor(edits)))
    images = result.compute()
    return Trace(
        layers=tuple(probe.conclude(images) for probe in probes), images=images,
        notes=tuple(notes), unseen=tuple(unseen),
        inputs=measure_inputs(inputs, images, batch_size),
    )  # fmt: skip


def input_period(period: int, factor: int) -> int:
    """Exact period of the lines that become lines of exact period `period`; 1: none do.

    An enlargement by s takes the frequency f to (f + q)/s. So a line at a/period was at s·a/period.
    """
    return period // math.gcd(period, factor)


def measure_inputs(inputs: Any, images: Measurement, batch_size: int = BATCH) -> Measurement | None:
    """What the inputs have of the periods that are detected in the images.

    None unless they are images that are enlarged by one whole factor, or not at all.
    """

    def arguments(batch: Any) -> tuple[Tensor, ...]:
        return batch.tensors() if isinstance(batch, Inputs) else (batch,)

    maps, *others = arguments(inputs[:2])
    if others or maps.ndim != 4 or maps.shape[1] not in (1, 3) or images.images != len(inputs):
        return None
    factors = {large / small for large, small in zip(images.size, maps.shape[2:], strict=True)}
    factor = int(min(factors))
    detected = [period for period, found in images.periods.items() if found.detected]
    before = dict.fromkeys(input_period(period, factor) for period in detected if factor)
    before.pop(1, None)
    if factors != {factor} or not before:
        return None
    meter = _MapMeter(tuple(before))
    for batch in batches(inputs, batch_size):
        meter.add(*arguments(batch))
    return meter.compute()
