"""Which layer makes the grid: counterfactuals on the same latents, shared out after Shapley.

Balancing a layer takes away what is periodic in its own stride, in one of two ways:

- *activations*, for any layer: all phases of its output get one mean and one response to the local
  means (`gen.analysis.layers.phases.equalize_`);
- *weights*, for layers that have them: their nearest balanced weights (`balance`).

With u(S) the complex amplitudes of all lines of one period (their power is the level) when the
layers of S are balanced, and N all layers, layer l's part is the mean of what it changes first and
what it changes last,

    φ_l = ½ (u(∅) − u(l) + u(N∖l) − u(N)),     share_l = Re⟨u(∅), φ_l⟩ / |u(∅)|²,

which is the Shapley value where layers interact in pairs, and takes 2n passes instead of 2ⁿ
(Shapley 1953; Grabisch and Roubens 1999). Amplitudes add up where decibels do not: layers cancel
each other, so a share can be negative or above one. What no balancing removes is the rest,
Re⟨u(∅), u(N)⟩ / |u(∅)|².
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gen.analysis.layers.calls import BATCH, CallInterceptor, batches, run_network
from gen.analysis.layers.phases import POWER_FLOOR
from gen.analysis.layers.steps import Layer, find_layers, list_periods
from gen.analysis.measure.meter import Meter
from gen.analysis.measure.result import Measurement
from gen.system.errors import InputError

Way = Literal["activations", "weights"]
BLOCKS = 8  # groups of latents that the bootstrap draws from
DRAWS = 400
LEAST = 64  # inputs
NO_SHARE = 0.005  # would be shown as 0 %


@dataclass(frozen=True)
class Share:
    """One layer's part in one period, by one way of balancing it.

    Attributes:
        share: Its share of the period's amplitudes.
        low: Lower end of the share's 95 % interval, a bootstrap over latents.
        high: Upper end.
        balanced_db: Change of the period's level when this layer alone is balanced.
        balanced_low_db: Lower end of that change's 95 % interval.
        balanced_high_db: Upper end.
    """

    share: float
    low: float
    high: float
    balanced_db: float
    balanced_low_db: float
    balanced_high_db: float

    @property
    def is_cause(self) -> bool:
        """Whether the share is above zero, and balancing the layer alone lowers the level."""
        return self.low > NO_SHARE and self.balanced_high_db < 0

    @property
    def is_compensation(self) -> bool:
        """Whether the layer takes away from the grid of others."""
        return self.high < -NO_SHARE and self.balanced_low_db > 0


@dataclass(frozen=True)
class LayerShare:
    """One layer's part in one period; `weights` is None where it cannot be balanced that way."""

    layer: Layer
    activations: Share
    weights: Share | None = None

    @property
    def ways(self) -> dict[Way, Share]:
        """The shares that there are."""
        found: dict[Way, Share] = {"activations": self.activations}
        return found | ({"weights": self.weights} if self.weights else {})


@dataclass(frozen=True)
class Blame:
    """Shares per period, what no balancing removes, the images, and what was not considered."""

    periods: dict[int, tuple[LayerShare, ...]]
    rest: dict[int, float]
    images: Measurement
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            f"{'period':>6}  {'layer':<20}{'by':<13}{'share':>8}{'95 % interval':>18}"
            f"{'balanced':>12}"
        ]
        for period, shares in self.periods.items():
            if not self.images.periods[period].detected:
                rows.append(f"{period:>6}  not detected: nothing to share out")
                continue
            for each in shares:
                for way, s in each.ways.items():
                    interval = f"{100 * s.low:.0f} … {100 * s.high:.0f} %"
                    rows.append(
                        f"{period:>6}  {each.layer.name[-19:]:<20}{way:<13}"
                        f"{100 * s.share:>6.0f} %{interval:>18}{s.balanced_db:>+9.1f} dB"
                    )
            rows.append(f"{period:>6}  {'(rest)':<33}{100 * self.rest[period]:>6.0f} %")
        return "\n".join([*rows, *self.notes])


class Amplitudes:
    """Complex amplitudes of all lines by block of latents, scaled so that their power is the level.

    Images are streamed: batch number i belongs to block i mod BLOCKS.
    """

    def __init__(self, periods: Sequence[int], value_range: tuple[float, float]) -> None:
        self.options = periods, value_range
        self.total = Meter(*self.options)
        self.period: list[int] = []
        self.line: list[tuple[float, float]] = []
        self.contrast: NDArray[np.float64] = np.ones(1)

    def __call__(self, passes: Iterable[Tensor], pictures: bool = False) -> NDArray[np.complex128]:
        """(blocks, K) amplitudes of batches of images, in the order of their latents."""
        meters = [Meter(*self.options, pictures) for _ in range(BLOCKS)]
        for number, images in enumerate(passes):
            meters[number % BLOCKS].update(images.float())
        self.total = Meter(*self.options, pictures)
        for meter in meters:
            self.total.merge(meter)
        return np.stack([self.amplitudes(meter) for meter in meters])

    def amplitudes(self, meter: Meter) -> NDArray[np.complex128]:
        """(K,) amplitudes of one meter; `period` and `line` then hold those of each.

        `contrast` is the variance in an image by channel, in gray levels².
        """
        parts, self.period, self.line = [], [], []
        for found in meter.estimates():
            rows = slice(None) if len(found.contrast) == 1 else slice(1, None)  # luma is a sum
            self.contrast = found.contrast[rows]
            contrast = np.maximum(found.contrast[rows, None], 1e-12)
            share = found.even_line.c / contrast / len(contrast)
            spread = found.spread[rows, None]
            for estimate, power in ((found.even_replica, spread), (found.even_line, 1.0)):
                parts.append((estimate.value[rows] * np.sqrt(share * power)).ravel())
                self.period += [line.period for line in found.lines] * len(contrast)
                self.line += [line.frequency for line in found.lines] * len(contrast)
        return np.concatenate(parts) if parts else np.empty(0, complex)  # nothing can be measured


def block_batches(inputs: Any, batch_size: int) -> Iterator[Any]:
    """Inputs in batches, as many for each block as for any other or one more."""
    return batches(inputs, max(1, min(batch_size, len(inputs) // BLOCKS)))


def can_balance(layer: Layer) -> str | None:
    """Why the layer's weights cannot be balanced, or None."""
    if layer.weight is None:
        return "no weights that are linear in its input"
    try:
        layer.balanced()
    except InputError as error:
        return str(error)
    return None


def balancing(layers: Iterable[Layer], way: Way) -> CallInterceptor:
    """What runs a network with these layers balanced."""
    layers = list(layers)
    if way == "weights":
        return CallInterceptor(arguments={x.call: x.balance_arguments for x in layers})
    return CallInterceptor({layer.leaves: [layer.equalize_] for layer in layers})


def generate(
    network: nn.Module,
    inputs: Any,
    batch_size: int = BATCH,
    layers: Sequence[Layer] = (),
    way: Way = "weights",
) -> Iterator[Tensor]:
    """Batches of images (N, C, H, W) of all inputs, with some layers balanced."""
    for batch in block_batches(inputs, batch_size):
        yield run_network(network, batch, balancing(layers, way) if layers else None)


def blame(
    network: nn.Module,
    inputs: Any,
    value_range: tuple[float, float] = (-1.0, 1.0),
    periods: Sequence[int] | None = None,
    batch_size: int = BATCH,
    pictures: bool = False,
) -> Blame:
    """Share every period's grid out among the enlarging layers of a network.

    Args:
        network: Takes one batch of latents or maps and returns images (N, C, H, W).
        inputs: At least 64 latents or maps; the same ones are used in all counterfactuals.
        value_range: Values of black and white in the images.
        periods: Periods to measure; default: as `list_periods`.
        batch_size: Inputs of one pass, at most.
        pictures: Keep in the measurement of the images what pictures of it need.

    Raises:
        InputError: Fewer than 64 inputs, or no images.
    """
    if len(inputs) < LEAST:
        raise InputError(f"blame has {len(inputs)} inputs; it takes at least {LEAST}")
    layers, notes, _ = find_layers(network, inputs[:2])
    reading = Amplitudes(list_periods(layers, periods), value_range)
    plain = reading(generate(network, inputs, batch_size), pictures)
    measurement, owner = reading.total.compute(), np.array(reading.period)
    layers = [layer for layer in layers if layer.period > 1]
    why = {layer: can_balance(layer) for layer in layers}
    notes += [f"{x.name}: {text}" for x, text in why.items() if text and x.weight is not None]
    found: dict[Way, Game] = {}
    if measurement.detected:
        for way in ("activations", "weights"):
            players = [x for x in layers if way == "activations" or not why[x]]

            def play(chosen: list[Layer], way: Way = way) -> NDArray[np.complex128]:
                return reading(generate(network, inputs, batch_size, chosen, way))

            found[way] = _play(players, plain, play)
    shares, rest = {}, {}
    for period, value in measurement.periods.items():
        if not value.undefined:
            mask = owner == period
            parts = {way: game.shares(mask) for way, game in found.items()}
            shares[period] = tuple(
                LayerShare(x, parts["activations"][x], parts["weights"].get(x))
                for x in layers
                if parts and x.period % period == 0
            )
            rest[period] = found["activations"].rest(mask) if found else 1.0
    return Blame(shares, rest, measurement, tuple(notes))


@dataclass(frozen=True)
class Game:
    """Amplitudes (blocks, K): as they are, with one layer balanced, all others, and all."""

    layers: list[Layer]
    plain: NDArray[np.complex128]
    first: list[NDArray[np.complex128]]
    others: list[NDArray[np.complex128]]
    every: NDArray[np.complex128]

    def rest(self, mask: NDArray[np.bool_]) -> float:
        """Share of the amplitudes of some lines that no balancing removes."""
        u, left = (v[:, mask].mean(0) for v in (self.plain, self.every))
        return float((u.conj() * left).sum().real / max((np.abs(u) ** 2).sum(), POWER_FLOOR))

    def shares(self, mask: NDArray[np.bool_]) -> dict[Layer, Share]:
        """Shares in some lines, with intervals over draws of blocks that keep latents paired."""
        draws = np.random.default_rng(0).multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), DRAWS)
        draws = np.concatenate([np.ones((1, BLOCKS)), draws]) / BLOCKS  # the first: as it is
        u, every = draws @ self.plain[:, mask], draws @ self.every[:, mask]
        power = np.maximum((np.abs(u) ** 2).sum(-1), POWER_FLOOR)
        found = {}
        for layer, first, others in zip(self.layers, self.first, self.others, strict=True):
            alone = draws @ first[:, mask]
            part = (u - alone + draws @ others[:, mask] - every) / 2
            share = (u.conj() * part).sum(-1).real / power
            after = np.maximum((np.abs(alone) ** 2).sum(-1), POWER_FLOOR)
            change = 10 * np.log10(after / power)
            low, high = np.quantile(share[1:], (0.025, 0.975))
            change_low, change_high = np.quantile(change[1:], (0.025, 0.975))
            found[layer] = Share(
                share=float(share[0]),
                low=float(low),
                high=float(high),
                balanced_db=float(change[0]),
                balanced_low_db=float(change_low),
                balanced_high_db=float(change_high),
            )
        return found


def _play(
    layers: list[Layer],
    plain: NDArray[np.complex128],
    play: Callable[[list[Layer]], NDArray[np.complex128]],
) -> Game:
    """Balance each layer alone, all but each, and all of them."""
    known = {frozenset[int](): plain}

    def amplitudes(chosen: Iterable[int]) -> NDArray[np.complex128]:
        coalition = frozenset(chosen)
        if coalition not in known:
            known[coalition] = play([layers[number] for number in sorted(coalition)])
        return known[coalition]

    every = range(len(layers))
    return Game(
        layers=layers,
        plain=plain,
        first=[amplitudes([number]) for number in every],
        others=[amplitudes(other for other in every if other != number) for number in every],
        every=amplitudes(every),
    )
