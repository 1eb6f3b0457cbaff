"""See and change what happens inside any network while it runs, without touching the network.

A `CallInterceptor` sees every operator that torch runs, whether modules, plain code, views or
TorchScript ask for it. It can replace a call's arguments and change maps in place, which makes
counterfactuals.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gen.sampling.adapt import Inputs
from gen.system.errors import InputError

CallId = tuple[str, int]  # operator, and the number of its call within one pass
END: CallId = ("images", 0)  # what the network returns
BATCH = 64  # inputs of one pass, at most


class Place(NamedTuple):
    """A map inside a network: the input or the output of one call, and its spatial axes."""

    call: CallId
    side: Literal["input", "output"]
    axes: tuple[int, ...] = (-2, -1)


class Seen(NamedTuple):
    """One call: its identity, the module that makes it, its arguments, and its result."""

    call: CallId
    path: str
    arguments: list[Any]
    output: Any


# Looks at maps (B, C, …, H, W), or changes them in place.
MapEdit = Callable[[Tensor], None]
ArgumentEdit = Callable[[list[Any]], None]  # changes a call's arguments in place


class CallInterceptor(TorchDispatchMode):
    """See and change the calls made inside a `with` block.

    Args:
        maps: Place → what to do with the map there.
        arguments: Call → what to do with its arguments.
        on_call: Called with each call once it is done.
    """

    def __init__(
        self,
        maps: Mapping[Place, Iterable[MapEdit]] | None = None,
        arguments: Mapping[CallId, ArgumentEdit] | None = None,
        on_call: Callable[[Seen], None] | None = None,
    ) -> None:
        super().__init__()
        self.maps, self.arguments, self.on_call = maps or {}, arguments or {}, on_call
        self.places: dict[tuple[CallId, str], list[Place]] = {}
        for place in self.maps:
            self.places.setdefault(place[:2], []).append(place)
        self.counts: Counter[str] = Counter()
        self.path, self.missed = [""], {p.call for p in self.maps} | {*self.arguments}
        self.batch = 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, with its changes."""
        name = func._overloadpacket.__name__
        call, given = (name, self.counts[name]), list(args)
        self.counts[name] += 1
        if call in self.arguments:
            self.arguments[call](given)
        if given:
            self._edit(call, "input", given[0])
        output = func(*given, **(kwargs or {}))
        self._edit(call, "output", output)
        self.missed.discard(call)
        if self.on_call:
            self.on_call(Seen(call, self.path[-1], [*given, *(kwargs or {}).values()], output))
        return output

    def _edit(self, call: CallId, side: str, value: Any) -> None:
        for place in self.places.get((call, side), ()):
            maps = value[0] if isinstance(value, (tuple, list)) else value
            if len(maps) == 1 < self.batch and maps.shape[1] % self.batch == 0:
                maps = maps.unflatten(1, (self.batch, -1))[0]  # images side by side in channels
            maps = maps.movedim(place.axes, tuple(range(-len(place.axes), 0)))
            for edit in self.maps[place]:
                edit(maps)

    def end(self, images: Any) -> None:
        """Edit what the network returned.

        Raises:
            InputError: The network did not make the calls that were to be changed.
        """
        self._edit(END, "output", images)
        if self.missed - {END}:
            names = ", ".join(sorted({name for name, _ in self.missed - {END}}))
            raise InputError(
                f"the network did not repeat its calls ({names}): it must do the same for every "
                "batch; make it free of random choices"
            )

    @contextlib.contextmanager
    def named(
        self,
        network: nn.Module,
        on_enter: Callable[[str, Any], None],
        on_exit: Callable[[str, Any, Any], None],
    ) -> Iterator[None]:
        """Keep `path` at the module that runs; the callbacks see its name, inputs, and output."""

        def enter(name: str, inputs: Any) -> None:
            self.path.append(name)
            on_enter(name, inputs)

        def leave(name: str, inputs: Any, output: Any) -> None:
            self.path.pop()
            on_exit(name, inputs, output)

        handles = []
        for name, module in network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            before = module.register_forward_pre_hook(lambda _, i, name=name: enter(name, i))
            after = module.register_forward_hook(lambda _, i, o, name=name: leave(name, i, o))
            handles += [before, after]
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


def run_network(
    network: nn.Module, inputs: Any, interceptor: CallInterceptor | None = None
) -> Tensor:
    """What `network` makes of one batch under an interceptor, in eval mode, without gradients."""
    with eval_mode(network), torch.no_grad():
        if interceptor is None:
            return network(inputs)
        interceptor.batch = len(inputs)
        if isinstance(inputs, Inputs):  # made before: how many calls that takes may vary
            made = inputs.tensors()
            inputs = Inputs(range(len(inputs)), lambda _: made)
        with interceptor:
            images = network(inputs)
        interceptor.end(images)
        return images


def batches(inputs: Any, size: int = BATCH) -> Iterator[Any]:
    """Inputs in batches of about one length, at most `size`.

    None holds one input where others hold more: torch may call other operators for one image.
    """
    count = len(inputs)
    parts = -(-count // size)
    edges = [count * part // parts for part in range(parts + 1)]
    return (inputs[low:high] for low, high in itertools.pairwise(edges))
