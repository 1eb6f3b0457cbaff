"""Weights to share: model.safetensors and config.json, in which nothing can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gen.config.run import RunConfig
from gen.runs.checkpoint import (
    EXPORTED,
    FORMAT,
    CheckpointError,
    Stored,
    below,
    check_origin,
    checked_config,
)
from gen.system.files import read_regular, write_atomically
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


def read_pretrained(file: Path) -> Stored:
    """The weights of an exported folder: the networks that are sampled, averaged or not.

    Memory is bounded by three times the file's size: safetensors checks each tensor's extent
    against it. The file is read once, not mapped: one that is cut meanwhile would kill the process.

    Raises:
        CheckpointError: damaged, of something else, or without its config.json.
    """
    from safetensors.torch import load

    try:
        data = read_regular(file)
        length = int.from_bytes(data[:8], "little")
        if length > _HEADER:
            raise CheckpointError(f"a header of {length} bytes; at most {_HEADER} are read")
        header = json.loads(data[8 : 8 + length])
        about = json.loads(header.get("__metadata__", {}).get("gen", "{}"))
        weights = load(data)
    except Exception as error:  # SafetensorError, OSError, JSONDecodeError, …
        reason = shorten(getattr(error, "strerror", None) or error, 120)
        raise CheckpointError(f"{file}: damaged, or no safetensors file ({reason})") from error
    if not isinstance(about, dict) or not {"format", "step", "sha256"} <= about.keys():
        raise CheckpointError(f"{file}: {len(weights)} tensors, but not exported by gen")
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
