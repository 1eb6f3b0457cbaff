"""Repair a trained network: balance its last enlarging layer as little as the target needs.

W' = W − λ (G_r − Ḡ) Π / n_r. What all images share of the grid comes from few directions of the
layer's input m: its mean μ, and its covariances κ with the brightness of the image. With V = [μ, κ]
and M = E[m mᵀ],

    Π = V (Vᵀ M⁻¹ V)⁻¹ Vᵀ M⁻¹

takes these directions to zero and changes the output least, E|ΔG m|². Where that does not meet the
target, Π is the projector on the ρ strongest directions of M, for growing ρ. λ = 0.7 lowers an
amplitude by 10 dB; λ = 1 takes all of it.

The same latents make the images before and after, so every line is judged by its paired change, on
latents that did not choose Π. Refused is what makes a line stronger, or changes more of the images
than the grid that it removes. Only the last layer is touched: balancing inner ones makes grids
worse, as the rest has learned to undo them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gen.analysis.layers.blame import LEAST, Amplitudes, block_batches, can_balance, generate
from gen.analysis.layers.calls import BATCH, CallInterceptor, batches, run_network
from gen.analysis.layers.phases import decibels
from gen.analysis.layers.steps import Layer, find_layers, list_periods
from gen.analysis.measure.result import Measurement
from gen.analysis.measure.statistics import SIGNIFICANT, weighted_holm
from gen.system.errors import InputError

DEFAULT_REDUCTION = 10.0  # dB below the present level, where no target is given
MIN_CHANGE = 1.0  # dB: less is no improvement
# What lines gain does not matter below both: a share of the power removed, and dB of their period.
NEGLIGIBLE = 0.01
MAX_GROWTH = 0.5
Weights = dict[str, Tensor]  # parameter → values


@dataclass(frozen=True)
class PairedChange:
    """What the repair does to one period, on the same latents before and after.

    Attributes:
        before: Power of the grid before, relative to the contrast.
        removed: That power less the power after.
        fall_p: p-value of the power's fall, one-sided.
        growth: Power that those of its lines gain which are found afterwards, and which grow by a
            p-value that is corrected over all lines and periods.
    """

    before: float
    removed: float
    fall_p: float
    growth: float

    def is_worse(self, removed: float) -> bool:
        """Whether its lines gain more than is negligible, where all in all so much is removed."""
        rise = decibels(1 + self.growth / self.before)
        return self.growth > NEGLIGIBLE * max(removed, 0) or rise > MAX_GROWTH

    @property
    def falls(self) -> bool:
        """Whether the period becomes weaker, and by a decibel or more."""
        return self.fall_p < SIGNIFICANT and decibels(1 - self.removed / self.before) < -MIN_CHANGE


@dataclass(frozen=True)
class Repair:
    """What repairing the last enlarging layer does, measured on latents not used to choose it.

    Attributes:
        layer: The layer.
        weights: New values of its parameters, by name.
        old: Their values as they were.
        rank: Number of input directions that were balanced.
        target_dbc: Target level at the layer's period.
        before: Measurement as it was.
        after: Measurement with the new weights.
        changes: Paired change of every period that can be measured.
        changed_dbc: Power of all that changes in the images, grid or not.
        psnr_db: Peak signal-to-noise ratio of the images after, against those before.
        refused: Why the network is better left as it is, or None.
    """

    layer: Layer
    weights: Weights
    old: Weights
    rank: int
    target_dbc: float
    before: Measurement
    after: Measurement
    changes: dict[int, PairedChange]
    changed_dbc: float
    psnr_db: float
    refused: str | None = None

    @property
    def reached(self) -> bool:
        """Whether the held-out images meet the target."""
        return level(self.after, self.layer.period) <= self.target_dbc

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Write the new weights into the network.

        Raises:
            InputError: The repair was refused.
        """
        if self.refused:
            raise InputError(f"not repaired: {self.refused}")
        _write(network, self.weights)

    def __str__(self) -> str:
        rows = [f"{'period':>6}{'before dBc':>12}{'after dBc':>12}  same latents"]
        for period in self.before.periods:
            cells = (_cell(m, period) for m in (self.before, self.after))
            rows.append(f"{period:>6}" + "".join(f"{cell:>12}" for cell in cells))
            if period in self.changes:
                rows[-1] += f"  {_in_words(self.changes[period])}"
        rows.append(
            f"{self.layer.name}: {self.rank} of {self.layer.gains.shape[-1]} input directions "
            f"balanced; the images change by {self.changed_dbc:.1f} dBc, PSNR {self.psnr_db:.1f} dB"
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
    return found.reading_dbc


def _cell(measurement: Measurement, period: int) -> str:
    found = measurement.periods[period]
    if found.undefined:
        return "undefined"
    return f"{'' if found.detected else '≤ '}{level(measurement, period):.1f}"


def _in_words(change: PairedChange) -> str:
    if change.growth:
        return f"a line gains {decibels(change.growth):.1f} dBc"
    return f"weaker (p = {change.fall_p:.2g})" if change.falls else "no change found"


def repair(
    network: nn.Module,
    inputs: Any,
    target_dbc: float | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    periods: Sequence[int] | None = None,
    batch_size: int = BATCH,
) -> Repair:
    """Find the smallest change of the last enlarging layer that meets a target; change nothing.

    Args:
        network: Takes one batch of latents or maps and returns images (N, C, H, W).
        inputs: At least 64; the first half chooses the change, the second half judges it.
        target_dbc: Level at the layer's period; default: 10 dB below the present one.
        value_range: Values of black and white in the images.
        periods: Periods to watch; default: as `list_periods`.
        batch_size: Inputs of one pass, at most.

    Raises:
        InputError: Too few inputs, no layer to balance, weights that are no parameters, or a period
            that these images are too small for.
    """
    if len(inputs) < LEAST:
        raise InputError(f"repair has {len(inputs)} inputs; it takes at least {LEAST}")
    layers, notes, _ = find_layers(network, inputs[:2])
    layer = _last_balanceable(layers, notes)
    names = find_parameters(network, layer)
    period = layer.period
    watched = sorted({*list_periods(layers, periods), period})
    chosen, judged = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]

    trials = Trials(network, chosen, watched, value_range, batch_size)
    present = trials.before.periods[period]
    if present.undefined:
        raise InputError(f"{layer.name}: its period cannot be measured: {present.undefined}")
    target = level(trials.before, period) - DEFAULT_REDUCTION if target_dbc is None else target_dbc
    candidates = (
        (rank, dict(zip(names, _toward(layer, projector, scale), strict=False)))
        for rank, projector, scale in _candidates(network, layer, chosen, batch_size)
    )
    rank, balanced = _choose(candidates, trials, target, period)

    trials = Trials(network, judged, watched, value_range, batch_size)
    trial = trials.run(balanced)
    return Repair(
        layer=layer,
        weights=balanced,
        old={name: network.get_parameter(name).detach().clone() for name in balanced},
        rank=rank,
        target_dbc=target,
        before=trials.before,
        after=trial.after,
        changes=trial.changes,
        changed_dbc=decibels(trial.changed),
        psnr_db=trial.psnr_db,
        refused=refuse(trials.before, trial, period),
    )


def _choose(
    candidates: Iterator[tuple[int, Weights]], trials: Trials, target: float, period: int
) -> tuple[int, Weights]:
    """The first candidate that meets the target and is not refused, or the best."""
    best = None
    for rank, weights in candidates:
        trial = trials.run(weights)
        worse = trial.refusal is not None, max(target, level(trial.after, period)), rank
        if best is None or worse < best[0]:
            best = worse, rank, weights
        if worse[:2] == (False, target):
            break
    return best[1:]


@dataclass(frozen=True)
class Trial:
    """What some weights do: measurement, paired change by period, power of all changes, PSNR."""

    after: Measurement
    changes: dict[int, PairedChange]
    changed: float
    pattern: float
    psnr_db: float

    @property
    def worse(self) -> list[int]:
        """Periods that become worse."""
        removed = sum(change.removed for change in self.changes.values())
        return [n for n, change in self.changes.items() if change.is_worse(removed)]

    @property
    def refusal(self) -> str | None:
        """Why these weights make the images worse, or None."""
        removed = sum(change.removed for change in self.changes.values())
        if self.worse:
            period = self.worse[0]
            return (
                f"a line of period {period} would become stronger on the same latents, by "
                f"{decibels(self.changes[period].growth):.1f} dBc"
            )
        other = self.changed - self.pattern
        if other > removed:
            return (
                f"it would change the images by {decibels(other):.1f} dBc apart from the grid, "
                f"more than the grid that it removes ({decibels(removed):.1f} dBc)"
            )
        return None


class Trials:
    """Images of some inputs with the network as it is, and with other weights."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        periods: Sequence[int],
        value_range: tuple[float, float],
        batch_size: int,
    ) -> None:
        self.network, self.inputs = network, inputs
        self.value_range, self.batch_size = value_range, batch_size
        self.reading = Amplitudes(periods, value_range)
        self.plain = self.reading(generate(network, inputs, batch_size))
        self.before = self.reading.total.compute()

    def run(self, weights: Weights) -> Trial:
        """The same inputs with other weights."""
        squares, count = torch.zeros((), dtype=torch.float64), 0

        def pairs() -> Iterator[Tensor]:
            nonlocal squares, count
            for batch in block_batches(self.inputs, self.batch_size):
                plain = run_network(self.network, batch)
                with replaced(self.network, weights):
                    images = run_network(self.network, batch)
                squares = squares + (images.double() - plain.double()).square().mean((0, 2, 3))
                count += 1
                yield images

        repaired = self.reading(pairs())
        low, high = self.value_range
        error = (squares / max(count, 1)).cpu().numpy() * (255 / (high - low)) ** 2
        contrast = np.maximum(self.reading.contrast, 1e-12)
        pattern = np.abs((repaired - self.plain).mean(0)) ** 2
        after = self.reading.total.compute()
        lines = after.lines + after.channel_lines
        found = {
            line.frequency
            for line in lines
            if min(line.line.p_value, line.replica.p_value) < SIGNIFICANT / (2 * len(lines))
        }
        return Trial(
            after=after,
            changes=paired_changes(
                self.plain, repaired, np.array(self.reading.period), self.reading.line, found
            ),
            changed=float((error / contrast).mean()),
            pattern=float(pattern.sum()),
            psnr_db=-decibels(float(error.mean()) / 255**2),
        )


def paired_changes(
    before: NDArray[np.complex128],
    after: NDArray[np.complex128],
    periods: NDArray[np.int64],
    lines: Sequence[tuple[float, float]],
    found: Collection[tuple[float, float]],
) -> dict[int, PairedChange]:
    """Paired change of power by period, from amplitudes (blocks, K) of the same latents.

    `found` holds the lines that are a grid after the change: the content of the images has power at
    all others as well, and that is no grid.

    The power of a line is Σ|ū|² over channels, line and replica. Its change has the influences
    2 Re(ū'* (u'_b − ū') − ū* (u_b − ū)) of the blocks b, whose spread gives a t statistic with
    blocks − 1 degrees of freedom. Lines are corrected as one family (Holm).
    """
    from scipy.special import stdtr

    if not before.size:
        return {}
    u, v = before.mean(0), after.mean(0)
    change = np.abs(v) ** 2 - np.abs(u) ** 2
    influence = 2 * (v.conj() * (after - v) - u.conj() * (before - u)).real

    def growth(mask: NDArray[np.bool_]) -> float:
        """One-sided p-value: how often chance alone gives as much growth."""
        value = float(change[mask].sum())
        error = float(influence[:, mask].sum(1).std(ddof=1)) / math.sqrt(len(before))
        if error < 1e-12 * abs(value) or error == 0:
            return 0.5 if value == 0 else float(value < 0)
        return float(stdtr(len(before) - 1, -value / error))

    keys = list(dict.fromkeys(zip(periods.tolist(), lines, strict=True)))
    owner = np.array([keys.index(key) for key in zip(periods.tolist(), lines, strict=True)])
    raw = np.array([growth(owner == number) for number in range(len(keys))])
    grows = weighted_holm(raw, np.ones(len(raw))) < SIGNIFICANT
    grows &= np.array([line in found for _, line in keys])
    changes = {}
    for period in dict.fromkeys(periods.tolist()):
        mask = periods == period
        p = growth(mask)
        changes[period] = PairedChange(
            before=float((np.abs(u[mask]) ** 2).sum()),
            removed=-float(change[mask].sum()),
            fall_p=1 - p,
            growth=float(change[mask & grows[owner]].sum()),
        )
    return changes


def refuse(before: Measurement, trial: Trial, period: int) -> str | None:
    """Why the network is better left as it is, or None."""
    if not before.periods[period].detected:
        return f"{before.verdict(period).rstrip('.')}: nothing to repair"
    if not trial.changes[period].falls:
        return (
            f"period {period} would not become weaker: {level(before, period):.1f} dBc before, "
            f"{level(trial.after, period):.1f} dBc after"
        )
    return trial.refusal


def _last_balanceable(layers: list[Layer], notes: list[str]) -> Layer:
    """The last layer with weights that can be balanced and that no later step follows."""
    reasons = list(notes)
    for layer in reversed([layer for layer in layers if layer.period > 1]):
        why = can_balance(layer)
        if why is None and len(layer.leaves.axes) == 2:
            return layer
        reasons.append(f"{layer.name}: {why or 'along one axis alone'}")
    raise InputError(f"no enlarging layer to balance ({'; '.join(reasons) or 'there is none'})")


def find_parameters(network: nn.Module, layer: Layer) -> list[str]:
    """Names of the parameters that hold the layer's weight and, if that differs by phase, bias."""
    names = []
    for value in filter(lambda v: v is not None, (layer.weight, layer.bias)):
        fitting = (
            name
            for name, parameter in network.named_parameters()
            if parameter.data_ptr() == value.data_ptr() and parameter.shape == value.shape
        )
        names.append(next(fitting, None))
    if None in names:
        raise InputError(
            f"{layer.name}: its weight is computed, not a parameter (a balanced, normalized or "
            "modulated layer); such a network must be trained again; repair cannot help"
        )
    return names


@torch.no_grad()
def _write(network: nn.Module, weights: Weights) -> None:
    for name, value in weights.items():
        network.get_parameter(name).copy_(value)


@contextlib.contextmanager
def replaced(network: nn.Module, weights: Weights) -> Iterator[None]:
    """The network with other weights: what a file of them gives, wherever a parameter is used."""
    old = {name: network.get_parameter(name).detach().clone() for name in weights}
    _write(network, weights)
    try:
        yield
    finally:
        _write(network, old)


def _toward(layer: Layer, projector: Tensor | None, scale: float) -> list[Tensor]:
    """The layer's weight, and bias where it differs by phase, balanced by a part."""
    now = [layer.weight, layer.bias]
    pairs = zip(now, layer.balanced(projector), strict=True)
    return [old + scale * (new - old) for old, new in pairs if new is not None]


def _candidates(
    network: nn.Module, layer: Layer, inputs: Any, batch_size: int
) -> Iterator[tuple[int, Tensor | None, float]]:
    """What to try: number of directions, projector Π (C_in, C_in), λ; mildest first."""
    for rank, projector in _projectors(network, layer, inputs, batch_size):
        yield rank, projector, 0.7
        yield rank, projector, 1.0


def _projectors(
    network: nn.Module, layer: Layer, inputs: Any, batch_size: int
) -> Iterator[tuple[int, Tensor | None]]:
    """Projectors Π (C_in, C_in) with the number of directions that they balance, mildest first."""
    channels = layer.gains.shape[-1]
    if layer.geometry["groups"] == 1:
        moment, shared = _input_moments(network, layer, inputs, batch_size)
        ridge = 1e-6 * float(moment.trace()) / len(moment)
        solved = torch.linalg.solve(moment + ridge * torch.eye(len(moment)).to(moment), shared)
        inner = torch.linalg.pinv(shared.T @ solved, rtol=1e-9)
        if shared.shape[1] < channels:
            yield shared.shape[1], (shared @ inner @ solved.T).to(layer.weight)
        directions = torch.linalg.eigh(moment)[1].flip(-1).to(layer.weight)
        for power in range(channels.bit_length()):
            if 2**power < channels:
                top = directions[:, : 2**power]
                yield 2**power, top @ top.T
    yield channels, None


def _input_moments(
    network: nn.Module, layer: Layer, inputs: Any, batch_size: int
) -> tuple[Tensor, Tensor]:
    """M = E[m mᵀ] (C_in, C_in) of 3×3 means m at a layer's input, and V = [μ, κ] (C_in, 1 + C)."""
    kept: list[Tensor] = []

    def see(maps: Tensor) -> None:
        kept[:] = [maps.detach().double()]

    first = second = cross = count = 0.0
    for batch in batches(inputs, batch_size):
        edits = {layer.enters: [see]}
        images = run_network(network, batch, CallInterceptor(edits)).double()
        maps = kept[0].movedim(2, 1).flatten(0, 1) if kept[0].ndim == 5 else kept[0]
        light = F.adaptive_avg_pool2d(images, maps.shape[-2:])
        small = min(maps.shape[-2:]) < 3
        m, b = (
            (v if small else F.avg_pool2d(v, 3, 1)).transpose(0, 1).flatten(1)
            for v in (maps, light)
        )
        if m.shape[1] != b.shape[1]:  # an image does not belong to each map
            b = torch.zeros(len(b), m.shape[1]).to(m)
        joint = torch.cat([torch.ones(1, m.shape[1]).to(m), b])
        second = second + m @ m.T
        cross = cross + m @ joint.T
        first = first + joint.sum(1)
        count += m.shape[1]
    mean, brightness = cross[:, :1] / count, first[1:] / count
    return second / count, torch.cat([mean, cross[:, 1:] / count - mean * brightness], 1)
