"""Weights to share: model.safetensors and config.json, in which nothing can run code."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen.config.run import RunConfig
from gen.runs.checkpoint import (
    EXPORTED,
    FORMAT,
    CheckpointError,
    State,
    Stored,
    below,
    check_origin,
    checked_config,
)
from gen.system.files import open_regular, read_regular, write_atomically
from gen.system.text import shorten

CONFIG = "config.json"
_HEADER = 16 << 20  # bytes of names and shapes, which take many times that in memory


def write_pretrained(
    folder: Path, config: RunConfig, networks: Mapping[str, nn.Module], step: int
) -> None:
    """Write the networks of a run after `step` steps into a folder that exists.

    Raises:
        OSError: as `write_atomically`.
    """
    from safetensors.torch import save

    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in nn.ModuleDict(networks).state_dict().items()
    }
    about = {"format": FORMAT, "step": step, "sha256": digest(weights)}
    # One entry: safetensors writes several in an order that changes from call to call.
    write_atomically(folder / EXPORTED, save(weights, {"gen": json.dumps(about)}))
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    write_atomically(folder / CONFIG, text.encode())


def read_header(file: Path) -> dict[str, Any]:
    """Names, types, and shapes of a safetensors file, and its `__metadata__`.

    Raises:
        CheckpointError: damaged.
    """
    with _sound(file), open_regular(file) as opened:
        return _header(opened.read(8), opened.read(_HEADER))


def read_safetensors(file: Path) -> tuple[State, dict[str, str]]:
    """Tensors and metadata.

    Memory is bounded by three times the file's size: safetensors checks each tensor's extent
    against it. The file is read once, not mapped: one that is cut meanwhile would kill the process.

    Raises:
        CheckpointError: damaged.
    """
    from safetensors.torch import load

    with _sound(file):
        data = read_regular(file)
        header = _header(data[:8], data[8 : 8 + _HEADER])
        return dict(sorted(load(data).items())), header.get("__metadata__", {})


def _header(length: bytes, data: bytes) -> dict[str, Any]:
    count = int.from_bytes(length, "little")
    if count > _HEADER:
        raise ValueError(f"a header of {count} bytes; at most {_HEADER} are read")
    return json.loads(data[:count])


@contextlib.contextmanager
def _sound(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # SafetensorError, OSError, JSONDecodeError, …
        reason = shorten(getattr(error, "strerror", None) or error, 120)
        raise CheckpointError(f"{file}: damaged, or no safetensors file ({reason})") from error


def read_pretrained(file: Path) -> Stored | State:
    """What a safetensors file holds: an exported folder's networks, or weights of others.

    Raises:
        CheckpointError: damaged, or without its config.json.
    """
    weights, metadata = read_safetensors(file)
    with _sound(file):
        about = json.loads(metadata.get("gen", "{}"))
    if not isinstance(about, dict) or not {"format", "step", "sha256"} <= about.keys():
        return weights
    if about["sha256"] != digest(weights):
        raise CheckpointError(f"{file}: damaged: the weights are not those that were written")
    check_origin(file, about["format"], about["step"])
    try:
        config = json.loads(read_regular(file.parent / CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{file.parent / CONFIG}: {reason}") from error
    names = dict.fromkeys(name.partition(".")[0] for name in weights)
    return Stored(
        config=checked_config(file, config),
        step=about["step"],
        last={},
        averaged={name: below(name, weights) for name in names},
    )


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all values, by name: safetensors itself has no checksum."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(f"{name} {weights[name].dtype} {tuple(weights[name].shape)}".encode())
        # As bytes: numpy knows neither bfloat16 nor float8.
        found.update(weights[name].contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
