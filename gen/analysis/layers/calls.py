"""Find the layers of any network that enlarge maps, and step in between them.

A `CallInterceptor` sees the calls of torch's own functions while the network runs, whether modules
or plain code make them: transposed convolutions, pixel shuffles, interpolations. It can replace a
call's weight, which makes counterfactuals without touching the network.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gen.analysis.layers.phases import (
    balance,
    balance_subpixel,
    per_axis,
    phase_gains,
    subpixel_gains,
)
from gen.system.errors import InputError

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONV[:5], "output_padding", "groups", "dilation")
# torch function → what it is called here, and the names of its arguments.
INTERCEPTED: dict[Callable[..., Any], tuple[str, tuple[str, ...]]] = {
    F.conv_transpose1d: ("transposed", _TRANSPOSED),
    F.conv_transpose2d: ("transposed", _TRANSPOSED),
    F.conv2d: ("convolution", _CONV),
    F.pixel_shuffle: ("subpixel", ("input", "upscale_factor")),
    F.interpolate: ("resize", ("input",)),
}


@dataclass(frozen=True, eq=False)
class Layer:
    """One enlarging call of a network.

    Attributes:
        name: Path of the module that makes the call.
        kind: "transposed", "subpixel" or "resize".
        enters: Number of the call that takes the layer's input.
        leaves: Number of the call that gives its output (for sub-pixel layers a later one).
        stride: Factor per axis.
        small: Size of the input map.
        large: Size of the output map.
        weight: As in the call; None where there is none, or none that is linear in the input.
        geometry: padding, dilation and groups of the call.
        period: Period in pixels of the final image at which the layer can leave a grid; 1: none.
    """

    name: str
    kind: str
    enters: int
    leaves: int
    stride: tuple[int, ...]
    small: tuple[int, ...]
    large: tuple[int, ...]
    weight: Tensor | None = field(default=None, repr=False)
    geometry: dict[str, Any] = field(default_factory=dict)
    period: int = 1

    @property
    def gains(self) -> Tensor | None:
        """Phase gains (*s, C_out, C_in); None where the layer has no weights of its own."""
        if self.weight is None:
            return None
        if self.kind == "subpixel":
            return subpixel_gains(self.weight, self.stride[0], self.geometry["groups"])
        return phase_gains(self.weight, self.stride, **self.geometry)

    def balanced(self, projector: Tensor | None = None) -> Tensor:
        """The layer's weight with equal phase gains; see `gen.analysis.layers.phases.balance`."""
        if self.kind == "subpixel":
            return balance_subpixel(self.weight, self.stride[0], projector)
        return balance(self.weight, self.stride, **self.geometry, projector=projector)


@dataclass(frozen=True)
class Call:
    """One intercepted call: its number, where it was made, its arguments and result."""

    number: int
    kind: str
    name: str
    arguments: dict[str, Any]
    output: Tensor


class CallInterceptor(TorchFunctionMode):
    """See (and change) the intercepted calls made inside a `with` block.

    Args:
        on_call: Called with each `Call` once it is done.
        weights: Call number → weight to use instead.
    """

    def __init__(
        self,
        on_call: Callable[[Call], None] = lambda call: None,
        weights: Mapping[int, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.on_call, self.weights = on_call, weights or {}
        self.number, self.path = 0, [""]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Pass everything on, intercepted calls with their changes."""
        kwargs = kwargs or {}
        if func not in INTERCEPTED:
            return func(*args, **kwargs)
        kind, names = INTERCEPTED[func]
        arguments = dict(zip(names, args, strict=False)) | kwargs
        number, self.number = self.number, self.number + 1
        if number in self.weights:
            arguments["weight"] = self.weights[number]
        output = func(**arguments)
        self.on_call(Call(number, kind, self.path[-1], arguments, output))
        return output

    @contextlib.contextmanager
    def named(self, network: nn.Module) -> Iterator[None]:
        """Keep `path` at the module that runs."""

        def leave(*_: Any) -> None:
            self.path.pop()

        handles = []
        for name, module in network.named_modules():
            enter = module.register_forward_pre_hook(lambda *_, name=name: self.path.append(name))
            handles += [enter, module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextlib.contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode and one fixed seed, so that passes differ in nothing but what is changed."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def run_network(network: nn.Module, inputs: Tensor, interceptor: CallInterceptor) -> Tensor:
    """What `network` makes of one batch under an interceptor, in eval mode, without gradients."""
    with eval_mode(network), torch.no_grad(), interceptor:
        return network(inputs)


def find_layers(network: nn.Module, inputs: Tensor) -> tuple[list[Layer], list[str]]:
    """Layers in the order of their calls, each with its final period, and what stays unseen.

    Args:
        network: Takes one batch of latents or maps.
        inputs: Such a batch; the smaller the faster.

    Returns:
        The layers, and one sentence for each thing that this method cannot see.

    Raises:
        InputError: The network returns no images.
    """
    layers: list[Layer] = []
    notes: list[str] = []
    latest: list[Call] = []
    reach = 0  # pixels of the largest map that a intercepted call returned

    def see(call: Call) -> None:
        nonlocal reach
        before = tuple(call.arguments["input"].shape[2:])
        if 0 < reach < math.prod(before):
            notes.append(_unseen(f"before {call.name or call.kind}", before))
        reach = max(reach, math.prod(before), math.prod(call.output.shape[2:]))
        layer = _layer_of(call, latest[0] if latest else None)
        if call.kind == "convolution":
            latest[:] = [call]
        if layer:
            _add(layer, layers, notes)

    interceptor = CallInterceptor(see)
    with interceptor.named(network):
        images = run_network(network, inputs, interceptor)
    if not (isinstance(images, Tensor) and images.ndim in (3, 4)):
        shown = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"the network returns {shown}; it must return images (N, C, H, W)")
    if 0 < reach < images.shape[2:].numel():
        notes.append(_unseen("at the end", tuple(images.shape[2:])))
    if not layers:
        notes.append(
            "no layer found that enlarges maps by a torch function (transposed convolution, pixel "
            "shuffle, interpolation); code that enlarges by views, indexing or an extension, "
            "or runs inside a compiled or scripted module, cannot be seen"
        )
    return [replace(layer, period=_final_period(layer, layers)) for layer in layers], notes


def _layer_of(call: Call, conv: Call | None) -> Layer | None:
    """What a call is as a layer, or None; `conv` is the convolution before it."""
    if call.kind == "convolution":
        return None
    given, kind = call.arguments, call.kind
    before, after = tuple(given["input"].shape[2:]), tuple(call.output.shape[2:])
    axes, entering, weight, geometry = len(before), call.number, None, {}
    if kind == "transposed":
        stride = per_axis(given.get("stride", 1), axes)
        if max(stride) == 1:
            return None
        weight = given["weight"].detach()
        geometry = {
            "padding": per_axis(given.get("padding", 0), axes),
            "dilation": per_axis(given.get("dilation", 1), axes),
            "groups": given.get("groups", 1),
        }
    elif kind == "subpixel":
        stride = per_axis(given["upscale_factor"], axes)
        if conv and conv.output is given["input"]:
            weight, entering = conv.arguments["weight"].detach(), conv.number
            geometry = {"groups": conv.arguments.get("groups", 1)}
    else:
        whole = all(b % a == 0 for a, b in zip(before, after, strict=True))
        stride = tuple(b // a for a, b in zip(before, after, strict=True)) if whole else (0,) * axes
        if max(stride) == 1:
            return None
    return Layer(
        name=call.name or kind, kind=kind, enters=entering, leaves=call.number, stride=stride,
        small=before, large=after, weight=weight, geometry=geometry,
    )  # fmt: skip


def _add(layer: Layer, layers: list[Layer], notes: list[str]) -> None:
    if 0 in layer.stride:
        notes.append(
            f"{layer.name} enlarges {_size(layer.small)} to {_size(layer.large)}, which is no "
            "whole factor: it has no fixed period and is left out"
        )
        return
    if layer.kind == "subpixel" and layer.weight is None:
        notes.append(f"{layer.name}: no convolution directly before the shuffle; weights unseen")
    layers.append(layer)


def _unseen(where: str, size: tuple[int, ...]) -> str:
    return (
        f"{where} maps grow to {_size(size)} by something that cannot be seen; final periods of "
        "earlier layers are too small"
    )


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _final_period(layer: Layer, layers: list[Layer]) -> int:
    """Π of the strides from this layer to the image, one per level of resolution.

    Parallel branches (skip connections) enlarge at the same level and count once. The lowest
    common multiple over axes, as for the exact period of a line; 1 for a single input pixel.
    """
    if math.prod(layer.small) == 1:
        return 1
    levels = {(known.small, known.stride) for known in layers if _reaches(known, layer)}
    return math.lcm(*(math.prod(s[axis] for _, s in levels) for axis in range(len(layer.small))))


def _reaches(later: Layer, layer: Layer) -> bool:
    return all(a >= b for a, b in zip(later.small, layer.small, strict=True))
