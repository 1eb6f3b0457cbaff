"""Find the steps of any network that enlarge maps, by following maps from operator to operator.

A step is a place where a map becomes larger by a factor, however that is written: an operator that
enlarges, a rearrangement by views, user code. Where torch has an operator for it, its weights and
geometry are known as well.

*Periods.* Resampling by the factor b/a (in lowest terms) has a grid of period b of its own, and
takes a grid of period P to the period P·b/gcd(P·b, a): the frequency k/P becomes k·a/(P·b).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from gen.analysis.layers.calls import END, CallId, CallInterceptor, Place, Seen, run_network
from gen.analysis.layers.phases import (
    balance,
    balance_subpixel,
    equalize_,
    phase_gains,
    subpixel_gains,
)
from gen.system.errors import InputError

Size = tuple[int, ...]
Ratio = tuple[int, int]  # (a, b): a pixels become b, in lowest terms
WEIGHT, BIAS, STRIDE, PADDING, DILATION, TRANSPOSED, GROUPS = 1, 2, 3, 4, 5, 6, 8
MEASURABLE = 32  # pixels: longer periods have so many lines that they are measured only on request
CONVOLUTIONS = ("convolution", "_convolution")
POOLS = ("avg_pool", "max_pool", "_adaptive_avg_pool", "adaptive_max_pool")
VIEWS = (
    "view", "_unsafe_view", "reshape", "permute", "clone", "expand", "detach", "unfold",
    "as_strided",
)  # fmt: skip
FACTORIES = ("new_", "zeros", "ones", "empty", "full", "rand")  # take no values of their arguments
PADS = ("constant_pad", "reflection_pad", "replication_pad", "cat")


@dataclass(frozen=True, eq=False)
class Layer:
    """One enlarging step of a network.

    Attributes:
        name: Path of the module that makes the call.
        kind: "transposed", "subpixel", "resize", "unpool", "fold", "views", or the operator.
        enters: Where the layer's input map is; None where it is no map.
        leaves: Where its output map is.
        stride: Period of its own grid per image axis: the factor, where that is a whole number.
        small: Size of the input map.
        large: Size of the output map.
        period: Period in pixels of the final image at which the layer can leave a grid; 1: none.
        before: The layers whose output reaches this one, as numbers.
        lattice: Period, in cells of `stride` pixels, of the grids that those have left.
        call: The call that holds the weights; None where there are none.
        weight: As in that call.
        bias: As in that call, of a sub-pixel layer: others have one bias for all phases.
        geometry: stride, padding, dilation and groups of that call; of a sub-pixel layer the factor
            and groups.
        modulated: Whether every image has weights of its own (one group of channels for each).
    """

    name: str
    kind: str
    enters: Place | None
    leaves: Place
    stride: Size
    small: Size
    large: Size
    period: int = 1
    before: frozenset[int] = frozenset()
    lattice: Size = (1, 1)
    call: CallId | None = None
    weight: Tensor | None = field(default=None, repr=False)
    bias: Tensor | None = field(default=None, repr=False)
    geometry: dict[str, Any] = field(default_factory=dict)
    modulated: bool = False

    def equalize_(self, maps: Tensor) -> None:
        """Take away what is periodic in the layer's own stride from its output, in place."""
        along = len(self.leaves.axes) == 2
        if along and tuple(maps.shape[-2:]) != self.large:
            raise InputError(
                f"{self.name}: a map of {show_size(maps.shape[-2:])}, not {show_size(self.large)}: "
                "the network must do the same for every batch"
            )
        stride = self.stride if along else (max(self.stride),)
        equalize_(maps, stride, self.lattice if along else (max(self.lattice),))

    @property
    def gains(self) -> Tensor | None:
        """Phase gains (*s, C_out, C_in); None where the layer has no weights of its own."""
        if self.weight is None or self.modulated:
            return None
        if self.kind == "subpixel":
            return subpixel_gains(self.weight, **self.geometry)
        return phase_gains(self.weight, **self.geometry)

    def balanced(self, projector: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with equal phase gains; see `gen.analysis.layers.phases.balance`.

        Raises:
            InputError: No weights of this geometry have equal gains.
        """
        if self.kind == "subpixel":
            factor, bias = self.geometry["factor"], self.bias
            if bias is not None:
                means = bias.unflatten(0, (-1, factor**2)).mean(1, keepdim=True)
                bias = means.expand(-1, factor**2).flatten()
            return balance_subpixel(self.weight, factor, projector), bias
        return balance(self.weight, **self.geometry, projector=projector), None

    def balance_arguments(self, arguments: list[Any]) -> None:
        """Balance the weights in the arguments of a call, which may differ from call to call."""
        own = {"weight": arguments[WEIGHT]}
        if self.kind == "subpixel":
            own["bias"] = arguments[BIAS]
        else:
            own["geometry"] = _geometry(arguments)
        weight, bias = dataclasses.replace(self, **own).balanced()
        arguments[WEIGHT] = weight
        if bias is not None:
            arguments[BIAS] = bias


@dataclass(frozen=True)
class _Flow:
    """What a tensor descends from.

    `size` and `place` are those of the nearest map, `periods` those of all earlier steps in pixels
    of that map, `made` what was made of it since: call → module, shape, number. `line` holds the
    steps along one axis that were taken since. Before the first map, `shaped` is the last two axes
    of the batch when it first has four: () until then, and None for values that do not depend on
    the inputs.
    """

    size: Size | None = None
    place: Place | None = None
    periods: dict[int, Size] = field(default_factory=dict)
    made: dict[CallId, tuple[str, Size, int]] = field(default_factory=dict)
    line: tuple[Seen, ...] = ()
    shaped: Size | None = None

    def at(self, place: Place, size: Sequence[int]) -> _Flow:
        """The flow of a map of this size."""
        return _Flow(tuple(size), place, self.periods)


class Steps(NamedTuple):
    """Layers in the order of their calls, notes about them, and what could not be followed."""

    layers: list[Layer]
    notes: list[str]
    unseen: list[str]


def find_layers(network: nn.Module, inputs: Any) -> Steps:
    """Layers in the order of their calls, each with its final period, and what stays unseen.

    Args:
        network: Takes one batch of latents or maps.
        inputs: Such a batch of two or more; the smaller the faster.

    Raises:
        InputError: The network returns no images.
    """
    finder = _Finder(len(inputs))
    interceptor = CallInterceptor(on_call=finder.see)
    with interceptor.named(network, finder.enter, finder.leave):
        images = run_network(network, inputs, interceptor)
    if not (isinstance(images, Tensor) and images.ndim == 4):
        shown = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"the network returns {shown}; it must return images (N, C, H, W)")
    return finder.conclude(images)


def list_periods(layers: Iterable[Layer], given: Sequence[int] | None = None) -> tuple[int, ...]:
    """Periods to measure: those given, or 2, 4, 8 and all that some layer's grid can have.

    A grid of period 6 has lines of the exact periods 2, 3 and 6.
    """
    if given:
        return tuple(given)
    longest = {layer.period for layer in layers} | {math.lcm(*layer.stride) for layer in layers}
    found = {p for n in longest for p in range(2, n + 1) if n % p == 0}
    return tuple(sorted({2, 4, 8} | {p for p in found if p <= MEASURABLE}))


class _Finder:
    """Follows maps by the storage that holds them, from call to call."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        # Address of a storage → flow of each tensor that is a view of it; None: of all others.
        self.flows: dict[int, dict[int | None, _Flow]] = {}
        self.convolved: dict[int, Seen] = {}  # a tensor → the convolution that it comes from
        self.alive: list[Any] = []  # so that no address is used twice
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self.unseen: list[str] = []
        self.number = 0
        self.entered = False

    def see(self, seen: Seen) -> None:
        """Follow one call."""
        self.number += 1
        self.alive.append((seen.arguments, seen.output))
        tensors, made = list(_tensors(seen.arguments)), list(_tensors(seen.output))
        name = seen.call[0]
        if not (tensors and made) or name.startswith(FACTORIES):
            return
        flow = self._joined(tensors[:1] if name in CONVOLUTIONS else tensors)
        flow = self._shaped(tensors[0], made[0], self._through(seen, tensors[0], made[0], flow))
        for tensor in made:
            self._record(tensor, flow, seen.call, seen.path, written=tensor is tensors[0])
        if name in CONVOLUTIONS:
            self.convolved[id(made[0])] = seen
        elif made[0] is tensors[0]:
            self.convolved.pop(id(made[0]), None)

    def enter(self, path: str, inputs: Any) -> None:
        """Begin with what the network takes."""
        if self.entered:
            return
        for tensor in _tensors(inputs):
            self.entered = True
            maps = tensor.ndim in (4, 5) and tensor.is_floating_point()
            self.alive.append(tensor)
            size = tuple(tensor.shape[-2:]) if maps else None
            self.flows[_address(tensor)] = {None: _Flow(size, shaped=())}

    def leave(self, path: str, inputs: Any, output: Any) -> None:
        """Follow a module through what torch's operators did not show."""
        flow = self._joined(_tensors(inputs))
        for tensor in _tensors(output):
            if flow.size and not self._joined([tensor]).size:
                self.alive.append(tensor)
                self._record(tensor, flow, (path, -1), path)

    def conclude(self, images: Tensor) -> Steps:
        """The layers with their final periods, and the notes."""
        if _address(images) not in self.flows:
            self.unseen.append("the images do not come from operators that can be followed")
        flow = self._map(Place(END, "output"), images, self._joined([images]), "")
        layers, names = [], Counter()
        for number, layer in enumerate(self.layers):
            names[layer.name] += 1
            period = math.lcm(*flow.periods.get(number, (1,)))
            again = f"#{names[layer.name]}" if names[layer.name] > 1 else ""
            layers.append(dataclasses.replace(layer, name=layer.name + again, period=period))
        return Steps(layers, list(dict.fromkeys(self.notes)), list(dict.fromkeys(self.unseen)))

    def _record(
        self, tensor: Tensor, flow: _Flow, call: CallId, path: str, written: bool = True
    ) -> None:
        made = {**flow.made, call: (path, tuple(tensor.shape), self.number)}
        flow, address = dataclasses.replace(flow, made=made), _address(tensor)
        if written or address not in self.flows:
            self.flows[address] = {None: flow}
        else:
            self.flows[address][id(tensor)] = flow

    def _joined(self, tensors: Iterable[Tensor]) -> _Flow:
        """What a result of these tensors descends from."""
        flow = _Flow()
        for tensor in tensors:
            known = self.flows.get(_address(tensor), {})
            flow = _join(flow, known.get(id(tensor), known.get(None, _Flow())))
        return flow

    def _through(self, seen: Seen, source: Tensor, output: Tensor, flow: _Flow) -> _Flow:
        """The flow after one call."""
        name, place, size = seen.call[0], Place(seen.call, "output"), tuple(output.shape[-2:])
        if source.ndim == 3 and _enlarges_lines(seen):
            return dataclasses.replace(flow, line=(*flow.line, seen))
        if name == "col2im":
            strides = tuple(seen.arguments[5])
            blocks = tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
            ratios = [(1, s) for s in strides]
            return self._resampled(seen, "fold", flow, (blocks, size), ratios, place)
        if name in VIEWS:
            return self._merged(seen, source, output, flow)
        if not {source.ndim, output.ndim} <= {4, 5}:  # images, or videos whose third axis is time
            return flow
        ratios, kind = _ratios(seen, source, output)
        if ratios is None and name == "slice":
            if tuple(source.shape[-2:]) != flow.size or size == flow.size:
                return flow
            ratios, kind = _sliced(seen.arguments, source.ndim), "slice"
        pads = name.startswith(PADS) and tuple(source.shape[-2:]) == flow.size != size
        if ratios is None and not pads:
            return flow
        flow = self._map(Place(seen.call, "input"), source, flow, seen.path)
        if ratios is None or all(ratio == (1, 1) for ratio in ratios):
            return flow.at(place, size)
        return self._resampled(seen, kind, flow, (flow.size, size), ratios, place)

    def _shaped(self, source: Tensor, output: Tensor, flow: _Flow) -> _Flow:
        """The flow after a call that may shape a batch as maps, move their axes, or end them."""
        known = flow.size or flow.shaped is None
        if known or output.ndim not in (3, 4) or len(output) != self.batch:
            return flow
        size = tuple(output.shape[-2:]) if output.ndim == 4 else ()  # else tokens
        moved = output.numel() == source.numel() and tuple(source.shape[-2:]) == flow.shaped
        if size == (1, 1) or (size and flow.shaped and not moved):
            return flow
        return dataclasses.replace(flow, shaped=size)

    def _resampled(
        self,
        seen: Seen,
        kind: str,
        flow: _Flow,
        sizes: tuple[Size, Size],
        ratios: Sequence[Ratio],
        place: Place,
    ) -> _Flow:
        """The flow after a step, which becomes a layer if it has a grid of its own."""
        small, large = sizes
        if any(a > b for a, b in ratios) and flow.periods:
            self.notes.append(
                f"{seen.path or kind} reduces {show_size(small)} to {show_size(large)}: periods of "
                "the layers before it are those after the reduction"
            )
        # A single pixel has no lattice.
        own = tuple(b if n > 1 else 1 for n, (_, b) in zip(small, ratios, strict=True))
        periods = {
            number: tuple(_period(p, r) for p, r in zip(period, ratios, strict=True))
            for number, period in flow.periods.items()
        }
        if max(own) > 1:
            periods[len(self.layers)] = own
            earlier = zip((1, 1), *flow.periods.values(), strict=True)
            values = {
                "name": seen.path or kind, "kind": kind, "enters": flow.place, "leaves": place,
                "stride": own, "small": small, "large": large, "before": frozenset(flow.periods),
                "lattice": tuple(math.lcm(*each) for each in earlier),
            }  # fmt: skip
            self.layers.append(Layer(**(values | self._weights(seen, kind))))
        return _Flow(tuple(large), place, periods)

    def _weights(self, seen: Seen, kind: str) -> dict[str, Any]:
        """Call, weight and geometry of a layer, as far as it has them."""
        if kind == "subpixel":
            conv = self.convolved.get(id(seen.arguments[0]))
            if conv is None or conv.arguments[TRANSPOSED]:
                return {}
            bias = conv.arguments[BIAS]
            return {
                "call": conv.call,
                "enters": Place(conv.call, "input"),
                "weight": conv.arguments[WEIGHT].detach(),
                "bias": None if bias is None else bias.detach(),
                "geometry": {"factor": seen.arguments[1], "groups": conv.arguments[GROUPS]},
            }
        if kind != "transposed":
            return {}
        source, geometry = seen.arguments[0], _geometry(seen.arguments)
        return {
            "call": seen.call,
            "enters": Place(seen.call, "input"),
            "weight": seen.arguments[WEIGHT].detach(),
            "geometry": geometry,
            "modulated": len(source) == 1 < self.batch and geometry["groups"] % self.batch == 0,
        }

    def _map(self, place: Place, maps: Tensor, flow: _Flow, path: str) -> _Flow:
        """The flow of a map that an operator takes as one; it may have grown since the last one."""
        size = tuple(maps.shape[-2:])
        if flow.line:
            return self._lines(flow, size).at(place, size)
        if flow.size is None and flow.shaped and math.prod(size) > math.prod(flow.shaped):
            flow = dataclasses.replace(flow, size=flow.shaped)
        if flow.size in (None, size):
            return flow.at(place, size)
        ratios = [_lowest(n, m) for n, m in zip(flow.size, size, strict=True)]
        cropped = all(b == 1 for _, b in ratios) and {"slice", "index"} & {n for n, _ in flow.made}
        whole = 1 in (max(a for a, _ in ratios), max(b for _, b in ratios))
        if cropped or not whole:
            if any(m >= 1.5 * n for n, m in zip(flow.size, size, strict=True)):
                self.unseen.append(
                    f"{path or 'at the end'}: maps grow from {show_size(flow.size)} to "
                    f"{show_size(size)} by something that cannot be followed"
                )
            return flow.at(place, size)
        made = sorted((n, call, name, shape) for call, (name, shape, n) in flow.made.items())
        fitting = [m for m in made if len(m[3]) >= 4 and m[3][-2:] == size and m[1][1] >= 0]
        name, kind = made[-1][2] if made else path, "views"
        if fitting:  # the first map of this size; otherwise what the operator takes
            _, call, name, _ = fitting[0]
            place = Place(call, "output")
            kind = "views" if call[0] in VIEWS else call[0].strip("_")
        sizes = flow.size, size
        return self._resampled(Seen(place.call, name, [], None), kind, flow, sizes, ratios, place)

    def _lines(self, flow: _Flow, size: Size) -> _Flow:
        """The flow after steps that enlarged all rows, or all columns, of a map one by one."""
        for seen in flow.line:
            before, after = seen.arguments[0].shape[-1], seen.output.shape[-1]
            kind, ratio = "resize", _lowest(before, after)
            if seen.call[0] in CONVOLUTIONS:
                kind, ratio = "transposed", (1, seen.arguments[STRIDE][0])
            now = flow.size or size
            # Rows are enlarged where the width was, or will be, that of the lines.
            along = 1 if before == now[1] != size[1] or flow.size is None else 0
            small, large, ratios = list(now), list(now), [(1, 1), (1, 1)]
            small[along], large[along], ratios[along] = before, after, ratio
            sizes, place = (tuple(small), tuple(large)), Place(seen.call, "output", (-1,))
            flow = self._resampled(seen, kind, flow, sizes, ratios, place)
        return flow

    def _merged(self, seen: Seen, source: Tensor, output: Tensor, flow: _Flow) -> _Flow:
        """The flow after a view, which may interleave pixels: (h, p, w, q) → (h·p, w·q)."""
        if output.ndim == 4:
            groups = merged_axes(source.shape, output.shape)
            # Both axes of (B, C, H, W), both of (B, H, W, C), or one of the former.
            for axes, least in (((2, 3), 2), ((1, 2), 2), ((2, 3), 1)) if groups else ():
                large = tuple(output.shape[axis] for axis in axes)
                factors = [groups[axis][-1] if len(groups[axis]) == 2 else 1 for axis in axes]
                small = tuple(n // f for n, f in zip(large, factors, strict=True))
                known = small == (flow.size or flow.shaped) or (flow.size is None and least == 2)
                if known and max(factors) > 1 and min(factors) >= least:
                    place = Place(seen.call, "output", tuple(axis - 4 for axis in axes))
                    ratios = [(1, f) for f in factors]
                    return self._resampled(seen, "views", flow, (small, large), ratios, place)
        elif source.ndim == 4 and flow.size is None:
            groups = merged_axes(output.shape, source.shape)
            if groups and len(groups[1]) == len(groups[2]) == 2:  # windows of (B, H, W, C)
                return dataclasses.replace(flow, size=tuple(source.shape[1:3]))
        return flow


def _join(a: _Flow, b: _Flow) -> _Flow:
    """What a result of both descends from: the larger map counts, grids come from both."""
    for flow, other in ((a, b), (b, a)):
        if flow.size is None and flow.shaped is None:  # a constant
            return other
    large, other = (b, a) if math.prod(b.size or (0,)) > math.prod(a.size or (0,)) else (a, b)
    periods = dict(large.periods)
    for number, period in other.periods.items():
        pairs = zip(period, periods.get(number, (1, 1)), strict=True)
        periods[number] = tuple(math.lcm(*pair) for pair in pairs)
    made = {**other.made, **large.made} if other.size in (None, large.size) else large.made
    line = large.line + tuple(x for x in other.line if x not in large.line)
    shaped = min(filter(None, (a.shaped, b.shaped)), key=math.prod, default=())
    return dataclasses.replace(large, periods=periods, made=made, line=line, shaped=shaped)


def _enlarges_lines(seen: Seen) -> bool:
    """Whether a call on (B, C, L) enlarges L."""
    name, arguments = seen.call[0], seen.arguments
    if name in CONVOLUTIONS:
        return bool(arguments[TRANSPOSED]) and max(arguments[STRIDE]) > 1
    return name.lstrip("_").startswith("upsample_")


def _sliced(arguments: list[Any], axes: int) -> list[Ratio] | None:
    """By what x[..., ::n] reduces each axis; None for a crop."""
    axis, step = ([*arguments, 0])[1] % axes - axes, arguments[4] if len(arguments) > 4 else 1
    return [(step if axis == k else 1, 1) for k in (-2, -1)]


def _ratios(seen: Seen, source: Tensor, output: Tensor) -> tuple[list[Ratio] | None, str]:
    """By what an operator on maps resamples each axis, and what it is called; None for others."""
    name, arguments = seen.call[0], seen.arguments
    sizes = list(zip(source.shape[-2:], output.shape[-2:], strict=True))
    if name in CONVOLUTIONS:
        strides = _last_two(arguments[STRIDE])
        if arguments[TRANSPOSED]:
            return [(1, s) for s in strides], "transposed"
        return [(s, 1) for s in strides], "convolution"
    if name == "pixel_shuffle":
        return [(1, arguments[1])] * 2, "subpixel"
    if name == "pixel_unshuffle":
        return [(arguments[1], 1)] * 2, "unshuffle"
    if "adaptive" in name or name.lstrip("_").startswith("upsample_"):
        return [_lowest(*pair) for pair in sizes], "pool" if "adaptive" in name else "resize"
    if name.startswith(POOLS):
        kernel, *rest = arguments[1:]
        stride = rest[0] if rest and isinstance(rest[0], (list, tuple)) and rest[0] else kernel
        return [(s, 1) for s in _last_two(stride)], "pool"
    if name.startswith("max_unpool"):
        return [_lowest(*pair) for pair in sizes], "unpool"
    return None, name


def merged_axes(before: Sequence[int], after: Sequence[int]) -> list[list[int]] | None:
    """Which axes of `before` each axis of `after` joins, without those of one; None if it cuts."""
    rest, groups = [n for n in before if n != 1], []
    for side in after:
        group: list[int] = []
        while math.prod(group) < side and rest:
            group.append(rest.pop(0))
        if math.prod(group) != side:
            return None
        groups.append(group)
    return groups


def show_size(size: Sequence[int]) -> str:
    """(16, 32) → 16x32."""
    return "x".join(map(str, size))


def _geometry(arguments: list[Any]) -> dict[str, Any]:
    return {
        "stride": tuple(arguments[STRIDE]),
        "padding": tuple(arguments[PADDING]),
        "dilation": tuple(arguments[DILATION]),
        "groups": arguments[GROUPS],
    }


def _last_two(values: Sequence[int]) -> list[int]:
    return (list(values) * 2)[-2:] if len(values) == 1 else list(values)[-2:]


def _lowest(before: int, after: int) -> Ratio:
    common = math.gcd(before, after) or 1
    return before // common, after // common


def _period(period: int, ratio: Ratio) -> int:
    """What a period becomes when `a` pixels become `b`."""
    a, b = ratio
    return period * b // math.gcd(period * b, a)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors in a value, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
