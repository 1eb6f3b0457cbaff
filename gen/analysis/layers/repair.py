"""Repair a trained network: balance its last enlarging layer as little as the target needs.

W' = W − (G_r − Ḡ) Π / n_r with Π the projector on the ρ strongest directions of local means that
the layer receives: the smallest ρ that meets the target changes the images least. One that makes
the grid of another period stronger is taken only if all do, and then refused. Only the last layer
is touched: projecting inner ones makes grids worse, as the rest has learned to undo them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gen.analysis.layers.blame import generate_with, list_balanceable
from gen.analysis.layers.calls import Call, CallInterceptor, Layer, run_network
from gen.analysis.layers.phases import decibels
from gen.analysis.layers.trace import BATCH, local_means
from gen.analysis.measure.meter import Meter
from gen.analysis.measure.result import Measurement
from gen.system.errors import InputError

DEFAULT_REDUCTION = 10.0  # dB below the present level, where no target is given
MIN_CHANGE = 1.0  # dB: less than this is no improvement, more than this at another period is harm


@dataclass(frozen=True)
class Repair:
    """What repairing the last enlarging layer does, measured on latents not used to choose it.

    Attributes:
        layer: The layer.
        parameter: Name of its weight in the network's state.
        weight: The new weight.
        rank: Number ρ of input directions that were balanced.
        target_dbc: Target level at the layer's period.
        before: Measurement as it was.
        after: Measurement with the new weight.
        psnr_db: Peak signal-to-noise ratio of the images after, against those before.
        refused: Why the network is better left as it is, or None.
    """

    layer: Layer
    parameter: str
    weight: Tensor
    rank: int
    target_dbc: float
    before: Measurement
    after: Measurement
    psnr_db: float
    refused: str | None = None

    @property
    def reached(self) -> bool:
        """Whether the held-out images meet the target."""
        return level(self.after, self.layer.period) <= self.target_dbc

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Write the new weight into the network.

        Raises:
            ValueError: The repair was refused.
        """
        if self.refused:
            raise InputError(f"not repaired: {self.refused}")
        network.get_parameter(self.parameter).copy_(self.weight)

    def __str__(self) -> str:
        rows = [f"{'period':>6}{'before dBc':>12}{'after dBc':>12}"]
        for period in self.before.periods:
            cells = (_cell(m, period) for m in (self.before, self.after))
            rows.append(f"{period:>6}" + "".join(f"{cell:>12}" for cell in cells))
        rows.append(
            f"{self.layer.name}: {self.rank} of {self.layer.gains.shape[-1]} input directions "
            f"balanced, PSNR {self.psnr_db:.1f} dB"
        )
        if self.refused:
            rows.append(f"Refused: {self.refused}.")
        elif not self.reached:
            rows.append(f"The target of {self.target_dbc:.1f} dBc is out of reach this way.")
        return "\n".join(rows)


def level(measurement: Measurement, period: int) -> float:
    """Level in dBc; the upper end of its interval where none is known; −∞ where undefined."""
    found = measurement.periods[period]
    if found.undefined:
        return -math.inf
    return found.level_upper_dbc if found.level_dbc is None else found.level_dbc


def _cell(measurement: Measurement, period: int) -> str:
    found = measurement.periods[period]
    if found.undefined:
        return "undefined"
    return f"{'' if found.detected else '≤ '}{level(measurement, period):.1f}"


def _find_parameter(network: nn.Module, layer: Layer) -> str:
    for name, parameter in network.named_parameters():
        if (
            parameter.data_ptr() == layer.weight.data_ptr()
            and parameter.shape == layer.weight.shape
        ):
            return name
    raise InputError(
        f"{layer.name}: its weight is computed, not a parameter (a balanced, normalized or "
        "modulated layer); such a network must be trained again; repair cannot help"
    )


def repair(
    network: nn.Module,
    inputs: Tensor,
    target_dbc: float | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Repair:
    """Find the smallest change of the last enlarging layer that meets a target; change nothing.

    Args:
        network: Takes one batch of latents or maps and returns images (N, C, H, W).
        inputs: At least 64; the first half chooses the rank, the second half judges.
        target_dbc: Level at the layer's period; default: 10 dB below the present one.
        value_range: Values of black and white in the images.

    Raises:
        ValueError: Too few inputs, no layer to balance, or one whose weight is no parameter.
    """
    if len(inputs) < 64:
        raise InputError(f"repair has {len(inputs)} inputs; it takes at least 64")
    layers, notes = list_balanceable(network, inputs)
    if not layers:
        raise InputError(f"no enlarging layer to balance ({'; '.join(notes) or 'resize only'})")
    layer = layers[-1]
    parameter = _find_parameter(network, layer)
    chosen, judged = inputs.chunk(2)
    periods = sorted({2, 4, 8} | {known.period for known in layers})

    def measured(part: Tensor, weight: Tensor | None) -> tuple[Measurement, Tensor]:
        weights = {} if weight is None else {layer.enters: weight}
        images = generate_with(network, part, weights).float()
        meter = Meter(periods, value_range)
        meter.update(images)
        return meter.compute(), images

    present = measured(chosen, None)[0]
    target = level(present, layer.period) - DEFAULT_REDUCTION if target_dbc is None else target_dbc
    directions = find_strongest_directions(network, layer, chosen)
    trials = []
    for rank in _ranks(directions.shape[1]):
        top = directions[:, :rank]
        weight = layer.balanced(top @ top.T)
        found = measured(chosen, weight)[0]
        harmful = _harm(present, found, layer.period)[0] > MIN_CHANGE
        trials.append((harmful, max(target, level(found, layer.period)), rank, weight))
        if trials[-1][:2] == (False, target):
            break
    *_, rank, weight = min(trials, key=lambda trial: trial[:3])

    (before, plain), (after, repaired) = measured(judged, None), measured(judged, weight)
    error = float((repaired - plain).double().square().mean())
    psnr = -decibels(error / (value_range[1] - value_range[0]) ** 2)
    refused = _refusal(before, after, layer.period)
    return Repair(
        layer=layer, parameter=parameter, weight=weight, rank=rank, target_dbc=target,
        before=before, after=after, psnr_db=psnr, refused=refused,
    )  # fmt: skip


def _ranks(channels: int) -> list[int]:
    return [*(2**i for i in range(channels.bit_length()) if 2**i < channels), channels]


def _refusal(before: Measurement, after: Measurement, period: int) -> str | None:
    if not before.periods[period].detected:
        return f"{before.verdict(period).rstrip('.')}: nothing to repair"
    levels = level(before, period), level(after, period)
    if levels[1] > levels[0] - MIN_CHANGE:
        return (
            f"period {period} would not get better: {levels[0]:.1f} dBc before, "
            f"{levels[1]:.1f} dBc after"
        )
    harm, other = _harm(before, after, period)
    return f"period {other} would get worse by {harm:.1f} dB" if harm > MIN_CHANGE else None


def _harm(before: Measurement, after: Measurement, period: int) -> tuple[float, int]:
    """By how many dB the grid of another period grows most, and which that is."""
    others = (n for n in before.periods if n != period and after.periods[n].detected)
    return max(((level(after, n) - level(before, n), n) for n in others), default=(0.0, period))


def find_strongest_directions(network: nn.Module, layer: Layer, inputs: Tensor) -> Tensor:
    """Eigenvectors (C_in, C_in) of R = E[m mᵀ] at a layer's input, strongest first."""
    moment = torch.zeros(())

    def see(call: Call) -> None:
        nonlocal moment
        if call.number == layer.enters:
            means = local_means(call.arguments["input"]).double()
            moment = moment + means.T @ means

    for batch in inputs.split(BATCH):
        run_network(network, batch, CallInterceptor(see))
    return torch.linalg.eigh(moment)[1].flip(-1).to(layer.weight)
