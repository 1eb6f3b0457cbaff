"""What a file holds, as a tree of tensors -> the weights of one network in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

from gen.runs.checkpoint import State
from gen.system.errors import InputError
from gen.system.text import shorten

_WRAPPERS = ("module.", "_orig_mod.")  # nn.DataParallel and others; torch.compile
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_SHOWN = 8
_Made = TypeVar("_Made")


def list_parts(content: Any, place: str = "") -> Iterator[tuple[str, State]]:
    """Yield every state dict in nested dictionaries, with the keys that lead to it.

    A state dict is a dictionary of tensors by name; other plain values in it are left out. States
    of optimizers hold tensors as well, by number, and are no weights.
    """
    if not isinstance(content, dict) or {"state", "param_groups"} <= content.keys():
        return
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor) and k != _COUNTER}
    inner = {k: v for k, v in content.items() if isinstance(v, dict)}
    if tensors and not inner and all(isinstance(key, str) for key in content):
        yield place, {unwrapped(name): value for name, value in tensors.items()}
    for key, value in inner.items():
        yield from list_parts(value, f"{place}.{key}" if place else str(key))


def unwrapped(name: str) -> str:
    """The name that a tensor has without what wraps networks: `module.` first, `_orig_mod.`."""
    name = name.replace("._orig_mod.", ".")
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def list_networks(content: Any, depth: int = 2) -> Iterator[tuple[str, State]]:
    """Yield the parts of a file, and of each what its names have in common: `generator.` of many.

    Lightning stores all networks in one state dict. `depth` levels of names are looked at.
    """
    for place, state in list_parts(content):
        yield place, state
        inner: dict[str, State] = {}
        for name, value in state.items():
            levels = name.split(".")
            for level in range(1, min(depth + 1, len(levels))):
                prefix = ".".join(levels[:level])
                inner.setdefault(prefix, {})[name[len(prefix) + 1 :]] = value
        for prefix, weights in inner.items():
            yield f"{place}.{prefix}" if place else prefix, weights


def choose(
    networks: Iterable[tuple[str, State]],
    key: str | None,
    make: Callable[[State], _Made | None],
    wanted: str,
) -> _Made:
    """What `make` makes of the one part of a file that it takes.

    Args:
        networks: as `list_networks` yields them.
        key: the end of the keys that lead to the part; None where only one is taken.
        make: returns None for weights that it does not take.
        wanted: what `make` takes, for the message.

    Raises:
        InputError: no part is taken, or several are, or no part has this key.
    """
    networks = list(networks)
    named = networks if key is None else named_parts(networks, key)
    found: dict[str, tuple[State, _Made]] = {}
    for place, state in sorted(named, key=lambda item: item[0].count(".")):
        # The prefix of all names of a part is this part again.
        known = (s for s, _ in found.values())
        if any({*map(id, state.values())} <= {*map(id, s.values())} for s in known):
            continue
        if (made := make(state)) is not None:
            found[place] = state, made
    if not found:
        raise InputError(f"holds {describe_parts(networks)}; {wanted}")
    if len(found) > 1:
        keys = " or ".join(f"--key {shorten(place)}" for place in [*found][:_SHOWN])
        raise InputError(f"holds {describe_parts(networks)}; choose one: {keys}")
    return next(made for _, made in found.values())


def named_parts(networks: list[tuple[str, State]], key: str) -> list[tuple[str, State]]:
    """The part of this name, or those that have it at the end of their names.

    Raises:
        InputError: there is none.
    """
    named = [(place, state) for place, state in networks if f".{place}".endswith(f".{key}")]
    if not named:
        raise InputError(f"has no part {shorten(key)!r}; it holds {describe_parts(networks)}")
    return [(place, state) for place, state in named if place == key] or named


def describe_parts(parts: list[tuple[str, State]]) -> str:
    """`generator (19 tensors), g_ema (19 tensors)`."""
    named = [f"{shorten(p) or 'a state dict'} ({len(s)} tensors)" for p, s in parts[:_SHOWN]]
    more = [f"{len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return ", ".join([*named, *more]) or "no weights of a network"


def fill_network(network: nn.Module, content: Any, key: str | None = None) -> None:
    """Load the part of a file that has the names and shapes of a network into it.

    Batch counters may be absent, as in very old files; nothing in eval mode reads them.

    Raises:
        InputError: no part fits, or several do.
    """
    own = network.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    counters = {name: value for name, value in own.items() if "num_batches" in name}

    def fitting(state: State) -> State | None:
        full = counters | state
        same = full.keys() == shapes.keys()
        return full if same and all(v.shape == shapes[n] for n, v in full.items()) else None

    first = next((f"{n} {tuple(s)}" for n, s in shapes.items()), "no weights")
    wanted = f"none has the names and shapes of {type(network).__name__} ({first} …)"
    network.load_state_dict(choose(list_networks(content), key, fitting, wanted))
