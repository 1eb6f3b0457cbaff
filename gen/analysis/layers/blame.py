"""Which layer makes the grid: counterfactuals on the same latents, shared out after Shapley.

A layer is replaced by its nearest balanced weights (`gen.analysis.layers.phases.balance`). With
u(S) the complex amplitudes of all lines of one period (their power is the level) when the layers of
S are balanced, layer l's part is

    φ_l = Σ_{S ∌ l} |S|! (n−|S|−1)!/n! · (u(S) − u(S ∪ l)),     share_l = Re⟨u(∅), φ_l⟩ / |u(∅)|²

(Shapley 1953). Amplitudes add up where decibels do not: layers cancel each other, so a share can be
negative or above one; what balancing cannot remove is the rest, 1 − Σ share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gen.analysis.layers.calls import CallInterceptor, Layer, find_layers, run_network
from gen.analysis.layers.phases import POWER_FLOOR, decibels
from gen.analysis.layers.trace import BATCH
from gen.analysis.measure.meter import Meter
from gen.analysis.measure.result import Measurement
from gen.system.errors import InputError

MAX_LAYERS = 5  # layers shared out; 2^5 passes over the latents
BLOCKS = 8  # groups of latents that the bootstrap draws from
DRAWS = 400


@dataclass(frozen=True)
class LayerShare:
    """One layer's part in one period.

    Attributes:
        layer: The layer.
        share: Its Shapley share of the period's amplitudes.
        low: Lower end of the share's 95 % interval, a bootstrap over latents.
        high: Upper end.
        balanced_db: Change of the period's level when this layer alone is balanced.
        control_db: The same for a random change of its weights of equal norm.
    """

    layer: Layer
    share: float
    low: float
    high: float
    balanced_db: float
    control_db: float


@dataclass(frozen=True)
class Blame:
    """Shares per period, the images they are about, and what could not be considered."""

    periods: dict[int, tuple[LayerShare, ...]]
    images: Measurement
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            f"{'period':>6}  {'layer':<20}{'share':>8}{'95 % interval':>18}"
            f"{'balanced':>12}{'random change':>15}"
        ]
        for period, shares in self.periods.items():
            if not self.images.periods[period].detected:
                rows.append(f"{period:>6}  not detected: nothing to share out")
                continue
            for s in shares:
                interval = f"{100 * s.low:.0f} … {100 * s.high:.0f} %"
                rows.append(
                    f"{period:>6}  {s.layer.name[-19:]:<20}{100 * s.share:>6.0f} %{interval:>18}"
                    f"{s.balanced_db:>+9.1f} dB{s.control_db:>+12.1f} dB"
                )
        return "\n".join([*rows, *self.notes])


class _Amplitudes:
    """Images → complex amplitudes by block, scaled so that their power is the level."""

    def __init__(self, periods: Sequence[int], value_range: tuple[float, float]) -> None:
        self.options = periods, value_range
        self.total = Meter(*self.options)

    def __call__(self, images: Tensor) -> NDArray[np.complex128]:
        """(blocks, K) amplitudes of images (N, C, H, W) in the order of their latents."""
        self.total = Meter(*self.options)
        rows = []
        for block in images.chunk(BLOCKS):
            meter = Meter(*self.options)
            meter.update(block.float())
            rows.append(self.amplitudes(meter))
            self.total.merge(meter)
        return np.stack(rows)

    def amplitudes(self, meter: Meter) -> NDArray[np.complex128]:
        parts, self.period = [], []
        for found in meter.estimates():
            rows = slice(None) if len(found.contrast) == 1 else slice(1, None)  # luma is a sum
            contrast = np.maximum(found.contrast[rows, None], 1e-12)
            share = found.even_line.c / contrast / len(contrast)
            spread = found.spread[rows, None]
            for estimate, power in ((found.even_replica, spread), (found.even_line, 1.0)):
                parts.append((estimate.value[rows] * np.sqrt(share * power)).ravel())
                self.period += [line.period for line in found.lines] * len(contrast)
        return np.concatenate(parts) if parts else np.empty(0, complex)  # nothing can be measured


def list_balanceable(network: nn.Module, inputs: Tensor) -> tuple[list[Layer], list[str]]:
    """Layers that balancing can change, at most the last five, and notes on the others."""
    layers, notes = find_layers(network, inputs[:2])
    chosen = []
    for layer in layers:
        if layer.weight is None or layer.period == 1 or len(layer.small) != 2:
            continue
        try:
            layer.balanced()
        except ValueError as error:
            notes.append(f"{layer.name}: {error}")
        else:
            chosen.append(layer)
    if len(chosen) > MAX_LAYERS:
        left = ", ".join(layer.name for layer in chosen[:-MAX_LAYERS])
        notes.append(f"only the last {MAX_LAYERS} layers share the blame; left out: {left}")
    return chosen[-MAX_LAYERS:], notes


def generate_with(network: nn.Module, inputs: Tensor, weights: Mapping[int, Tensor]) -> Tensor:
    """Images (N, C, H, W) of all inputs, with some calls' weights replaced."""
    parts = [
        run_network(network, batch, CallInterceptor(weights=weights))
        for batch in inputs.split(BATCH)
    ]
    return torch.cat(parts)


def change_at_random(layer: Layer) -> Tensor:
    """The layer's weight changed at random by as much (Frobenius) as balancing changes it."""
    generator = torch.Generator().manual_seed(layer.enters)
    noise = torch.randn(layer.weight.shape, generator=generator).to(layer.weight)
    return layer.weight + noise * (layer.balanced() - layer.weight).norm() / noise.norm()


def shapley(
    amplitudes: Mapping[frozenset[int], NDArray[np.complex128]], count: int
) -> NDArray[np.complex128]:
    """φ (count, …): mean effect of adding each player to a coalition, over all orders."""
    parts = []
    for player in range(count):
        others = [i for i in range(count) if i != player]
        total = 0
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for chosen in itertools.combinations(others, size):
                coalition = frozenset(chosen)
                total = total + weight * (amplitudes[coalition] - amplitudes[coalition | {player}])
        parts.append(total)
    return np.stack(parts)


def blame(
    network: nn.Module, inputs: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)
) -> Blame:
    """Share every period's grid out among the enlarging layers of a network.

    Args:
        network: Takes one batch of latents or maps and returns images (N, C, H, W).
        inputs: At least 64 latents or maps; the same ones are used in all counterfactuals.
        value_range: Values of black and white in the images.

    Raises:
        ValueError: Fewer than 64 inputs, or no images.
    """
    if len(inputs) < 8 * BLOCKS:
        raise InputError(f"blame has {len(inputs)} inputs; it takes at least {8 * BLOCKS}")
    layers, notes = list_balanceable(network, inputs)
    periods = sorted({2, 4, 8} | {layer.period for layer in layers})
    reading = _Amplitudes(periods, value_range)
    plain = reading(generate_with(network, inputs, {}))
    measurement = reading.total.compute()
    balanced = {i: {layer.enters: layer.balanced()} for i, layer in enumerate(layers)}
    found = {frozenset(): plain}
    for size in range(1, len(layers) + 1):
        for chosen in itertools.combinations(range(len(layers)), size):
            weights = {call: w for i in chosen for call, w in balanced[i].items()}
            found[frozenset(chosen)] = reading(generate_with(network, inputs, weights))
    controls = [
        reading(generate_with(network, inputs, {layer.enters: change_at_random(layer)}))
        for layer in layers
    ]
    owner = np.array(reading.period)
    shares = {
        period: _shares(layers, found, controls, owner == period)
        for period in periods
        if not measurement.periods[period].undefined
    }
    return Blame(shares, measurement, tuple(notes))


def _shares(
    layers: list[Layer],
    found: Mapping[frozenset[int], NDArray[np.complex128]],
    controls: list[NDArray[np.complex128]],
    mask: NDArray[np.bool_],
) -> tuple[LayerShare, ...]:
    """Shares of one period, with intervals over draws of blocks that keep latents paired."""
    if not layers:
        return ()
    parts = shapley({key: value[:, mask] for key, value in found.items()}, len(layers))
    plain = found[frozenset()][:, mask]
    draws = np.random.default_rng(0).multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), DRAWS)
    draws = np.concatenate([np.ones((1, BLOCKS)), draws]) / BLOCKS  # the first: as it is
    u = draws @ plain  # (draws, K)
    phi = np.einsum("db,lbk->ldk", draws, parts)
    values = (u.conj() * phi).sum(-1).real / np.maximum((np.abs(u) ** 2).sum(-1), POWER_FLOOR)
    low, high = np.quantile(values[:, 1:], (0.025, 0.975), axis=1)

    def change(counterfactual: NDArray[np.complex128]) -> float:
        power = [float((np.abs(v.mean(0)) ** 2).sum()) for v in (counterfactual[:, mask], plain)]
        return decibels(power[0]) - decibels(power[1])

    return tuple(
        LayerShare(
            layer=layer,
            share=float(values[i, 0]),
            low=float(low[i]),
            high=float(high[i]),
            balanced_db=change(found[frozenset({i})]),
            control_db=change(controls[i]),
        )
        for i, layer in enumerate(layers)
    )
