"""Weights to share: model.safetensors and config.json, in which nothing can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

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
from gen.system.files import write_atomically

CONFIG = "config.json"


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

    Memory is bounded by the file's size: safetensors checks each tensor's extent against it.

    Raises:
        CheckpointError: damaged, of something else, or without its config.json.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as stored:
            about = json.loads((stored.metadata() or {}).get("gen", "{}"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, OSError, JSONDecodeError, …
        raise CheckpointError(f"{file}: damaged, or no safetensors file ({error})") from error
    if not isinstance(about, dict) or not {"format", "step", "sha256"} <= about.keys():
        raise CheckpointError(f"{file}: {len(weights)} tensors, but not exported by gen")
    if about["sha256"] != digest(weights):
        raise CheckpointError(f"{file}: damaged: the weights are not those that were written")
    check_origin(file, about["format"], about["step"])
    try:
        config = json.loads((file.parent / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.parent / CONFIG}: {error}") from error
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
        found.update(weights[name].numpy().tobytes())
    return found.hexdigest()
