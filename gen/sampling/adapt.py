"""Any network that makes images, with whatever it takes and returns, as one kind of network.

An adapted network takes `Inputs` and returns float images (N, C, H, W). Hooks convert both ends, so
that its modules, their names, and its state dict stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen.system.errors import InputError
from gen.system.text import describe_error, shorten

IMAGES = ("sample", "samples", "images", "image", "out", "output", "fake", "reconstruction")
LATENTS = ("latent", "latent_dim", "latent_size", "z_dim", "zdim", "nz")
_MOST = 32  # images of one pass
_VALUES = 1 << 22  # of one pass, which bounds its memory whatever the size of an image
_WANTED = "return images (B, C, H, W), video (B, C, T, H, W), or one of these in a tuple or dict"


class Inputs:
    """What a network takes, by row: counted and sliced like one tensor, made when it is needed."""

    def __init__(
        self, rows: Sequence[int], take: Callable[[Sequence[int]], tuple[Tensor, ...]]
    ) -> None:
        """Rows of what `take` makes: rows → one tensor (len(rows), …) per argument."""
        self.rows, self.take = rows, take

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Inputs:
        return Inputs(self.rows[part], self.take)

    def split(self, size: int) -> Iterator[Inputs]:
        """Yield batches of at most `size` rows."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def tensors(self) -> tuple[Tensor, ...]:
        """One tensor per argument of the network."""
        return self.take(self.rows)


class CallableNetwork(nn.Module):
    """A function, or the method of a network, as a network."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        owner = getattr(function, "__self__", None)
        self.network = owner if isinstance(owner, nn.Module) else None
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        """What the function makes of its inputs."""
        return self.function(*inputs)


def collect(made: Any, count: int) -> Inputs:
    """At most `count` rows of what the user's `draw(count)` returned.

    Args:
        made: a tensor or array (n, …); a tuple of these, one for each argument of the network; or
            an iterable of batches of either.
        count: rows that are wanted.

    Raises:
        InputError: it is something else, or empty.
    """
    if isinstance(made, Iterable) and not isinstance(made, Tensor | np.ndarray | Mapping):
        several = isinstance(made, tuple) and len({len(part) for part in made}) == 1
        arguments = _tensors(made) if several else _join(made, count)
    else:
        arguments = _tensors((made,))
    number = min(count, *map(len, arguments))
    if not number:
        raise InputError("draw(n) gave no inputs")
    return Inputs(range(number), lambda rows: tuple(part[list(rows)] for part in arguments))


def _join(batches: Iterable[Any], count: int) -> tuple[Tensor, ...]:
    parts, number = [], 0
    for batch in batches:
        parts.append(_tensors(batch if isinstance(batch, tuple | list) else (batch,)))
        number += len(parts[-1][0])
        if number >= count:
            break
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _tensors(values: Iterable[Any]) -> tuple[Tensor, ...]:
    try:
        tensors = tuple(torch.as_tensor(value) for value in values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"draw(n) gave what is no tensor or array ({shorten(error)})") from error
    if not tensors or not all(tensor.ndim for tensor in tensors):
        raise InputError("draw(n) gave single numbers; it must give tensors (n, …)")
    return tensors


def images_in(output: Any, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """The images (N, C, H, W), float32 or float64, in what a network returned.

    Of a tuple it is the first tensor of 3 to 5 axes; of a mapping or an object the one that has a
    name of `IMAGES`, or the first. Video (B, C, T, H, W) becomes B·T images, and (B, H, W) gray
    ones. Integers are gray levels 0 … 255 and mapped to the value range.

    Raises:
        InputError: there are no images in it.
    """
    found = next((t for t in _candidates(output) if 3 <= t.ndim <= 5), None)
    if found is None:
        raise InputError(f"returned {describe(output)}; it must {_WANTED}")
    if found.ndim == 3:
        found = found[:, None]
    if found.ndim == 5:
        found = found.transpose(1, 2).flatten(0, 1)
    if found.shape[3] in (1, 3, 4) and min(found.shape[1:3]) > 4:
        found = found.permute(0, 3, 1, 2)  # channels last, as NumPy and Pillow have it
    if not found.is_floating_point():
        low, high = value_range
        return low + found.float() * ((high - low) / 255)
    return found if found.dtype == torch.float64 else found.float()


def _candidates(output: Any) -> Iterator[Tensor]:
    if isinstance(output, np.ndarray):
        output = torch.from_numpy(output)
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for key in sorted(output, key=lambda key: _rank(key)):
            yield from _candidates(output[key])
    elif hasattr(output, "_fields") or (
        hasattr(output, "__dict__") and not isinstance(output, list | tuple)
    ):
        names = getattr(output, "_fields", None) or [*vars(output)]
        yield from _candidates({name: getattr(output, name) for name in names})
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _candidates(part)


def _rank(key: Any) -> int:
    return IMAGES.index(key) if key in IMAGES else len(IMAGES)


def describe(value: Any) -> str:
    """What a value is, in a few words: `Tensor (2, 3) float32`, `dict of Tensor (2, 3) …`."""
    if isinstance(value, Tensor | np.ndarray):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} {tuple(value.shape)} {dtype}"
    parts: Iterable[Any] = ()
    if isinstance(value, Mapping):
        parts = [f"{key}: {describe(part)}" for key, part in [*value.items()][:3]]
    elif isinstance(value, list | tuple):
        parts = [describe(part) for part in value[:3]]
    return type(value).__name__ + f" of {', '.join(parts)}" * bool(parts)


@dataclass(frozen=True)
class Adapted:
    """A network in eval mode that takes `Inputs`, and what one small batch of it showed.

    Attributes:
        network: `Inputs` → images (N, C, H, W).
        shape: (C, H, W) of its images.
        frames: images of each input; 1 unless it makes video.
        batch_size: inputs of one pass.
    """

    network: nn.Module
    shape: tuple[int, int, int]
    frames: int
    batch_size: int


def adapt(
    network: nn.Module,
    inputs: Callable[[int], Inputs],
    value_range: tuple[float, float] = (-1.0, 1.0),
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> Adapted:
    """Make a network take `Inputs` and return images, and try it on two inputs.

    Networks of half precision compute in float32 if they can, as their weights have little to gain
    from rounding. Latents (B, Z) are given as (B, Z, 1, 1) to a network that fails without.

    Raises:
        InputError: it fails, or returns no images; what came, and what is wanted.
    """
    network = network.eval().to(device)
    dtype = next(_floats(network), torch.zeros(())).dtype
    if isinstance(network, torch.jit.RecursiveScriptModule):  # it takes no hooks
        network = network.float() if dtype.itemsize < 4 else network
        dtype = max(dtype, torch.float32, key=lambda dtype: dtype.itemsize)
        network = CallableNetwork(partial(network.__call__))
    for parameter in network.parameters():  # TorchScript has no requires_grad_() of its own
        parameter.requires_grad_(False)
    state = _State(dtype)

    def unpack(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not isinstance(arguments[0], Inputs):
            return None
        values = (t.to(device) for t in arguments[0].tensors())
        values = tuple(t.to(state.dtype) if t.is_floating_point() else t for t in values)
        return tuple(t[..., None, None] if t.ndim == 2 and state.columns else t for t in values)

    hooks = [
        network.register_forward_pre_hook(unpack),
        network.register_forward_hook(lambda _, __, output: images_in(output, value_range)),
    ]
    try:
        images = _try(network, inputs(2), state)
    except InputError:
        for hook in hooks:
            hook.remove()
        raise
    shape = tuple(images.shape[1:])
    size = batch_size or max(1, min(_MOST, _VALUES // images[0].numel()))
    return Adapted(network, shape, len(images) // len(inputs(2)), size)


@dataclass
class _State:
    """What the trial finds out: the type of inputs, and whether latents are (B, Z, 1, 1)."""

    dtype: torch.dtype
    columns: bool = False


def _floats(network: nn.Module) -> Iterator[Tensor]:
    values = [*network.parameters(), *network.buffers()]
    return (value for value in values if value.is_floating_point())


def _try(network: nn.Module, inputs: Inputs, state: _State) -> Tensor:
    """Images of two inputs, after the changes that let the network make them."""
    if any(value.itemsize < 4 for value in _floats(network)):
        halves = {name: v.dtype for name, v in network.state_dict().items()}
        network.float()
        with contextlib.suppress(InputError):
            return _try_columns(network, inputs, _as_float(state))
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            value.data = value.data.to(halves.get(name, value.dtype))
        state.dtype = next(_floats(network)).dtype
    return _try_columns(network, inputs, state)


def _as_float(state: _State) -> _State:
    state.dtype = torch.float32
    return state


def _try_columns(network: nn.Module, inputs: Inputs, state: _State) -> Tensor:
    state.columns = False
    try:
        return _run(network, inputs)
    except InputError:
        if not any(tensor.ndim == 2 for tensor in inputs.tensors()):
            raise
        state.columns = True
        try:
            return _run(network, inputs)
        except InputError:
            state.columns = False
        raise


def _run(network: nn.Module, inputs: Inputs) -> Tensor:
    given = ", ".join(map(describe, inputs.tensors()))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images = network(inputs)
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"failed on {given} ({describe_error(error)}); give it what it takes: return "
            "(network, draw) where draw(n) gives n inputs, or show it images by --inputs and --crop"
        ) from error
    if not images.numel() or len(images) % len(inputs):
        raise InputError(f"returned {describe(images)} for {len(inputs)} inputs; it must {_WANTED}")
    return images
