"""Checkpoints: one file of tensors and plain values, written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gen.config.run import RunConfig
from gen.system.errors import GenError, InputError
from gen.system.files import write_atomically

FORMAT = 1
EXPORTED = "model.safetensors"


State = dict[str, torch.Tensor]  # weights and buffers of a network by name


class CheckpointError(GenError):
    """A checkpoint that is missing, damaged or not of this toolkit; one line."""


def save_checkpoint(folder: Path, content: dict[str, Any], every: int = 1, keep: int = 0) -> Path:
    """Write step-NNNNNNNN.pt into `folder`, atomically; then remove what need not be kept.

    Serialized in memory first: a full disk can only spoil the temporary file. Kept are the newest
    `keep` snapshots (0: all), which are `every` steps apart, and snapshots 0, 1, 2, 4, 8, …; what
    an interruption saved between two snapshots goes when a later checkpoint is on the disk.

    Args:
        folder: where checkpoints lie; made if it is missing.
        content: tensors, numbers, strings, dicts, lists; `step`, `modules` and `ema` among them.
        every: steps between snapshots.
        keep: newest snapshots that stay.

    Raises:
        CheckpointError: a weight is not finite; nothing is written.
        OSError: as `write_atomically`.
    """
    for name, weights in {**content["modules"], "average": content["ema"]}.items():
        if bad := [key for key, value in weights.items() if not value.isfinite().all()]:
            raise CheckpointError(
                f"weights of {name} are not finite ({bad[0]}); they are not saved"
            )
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    path = folder / f"step-{content['step']:08d}.pt"
    write_atomically(path, buffer.getvalue())
    older = [p for p in _files_in(folder) if _step(p) < content["step"]]
    snapshots = [p for p in older if _step(p) % every == 0]
    newest = snapshots[-(keep - 1) :] if keep > 1 else []
    for old in older if keep else ():
        count = _step(old) // every
        milestone = old in snapshots and count & (count - 1) == 0
        if not milestone and old not in newest:
            old.unlink(missing_ok=True)
    return path


def _files_in(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    pattern = re.compile(r"step-\d{8,}\.pt")
    return sorted((p for p in folder.glob("*.pt") if pattern.fullmatch(p.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def run_checkpoints(run: Path) -> list[Path]:
    """Checkpoint files of a run directory, oldest first."""
    return _files_in(run / "checkpoints")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


_OURS = {"config", "step", "modules", "ema", "ema_names", "optimizers"}


def is_ours(content: Any) -> bool:
    """Whether a checkpoint of gen, sound or not, is what `gen.runs.open.read_file` read."""
    return isinstance(content, Stored) or (isinstance(content, dict) and content.keys() >= _OURS)


def check_content(path: Path, content: Any) -> dict[str, Any]:
    """The content of a checkpoint of ours, its configuration built and checked.

    Raises:
        CheckpointError: not of this toolkit, or of another version.
    """
    if not isinstance(content, dict) or not content.keys() >= _OURS:
        raise CheckpointError(f"{path}: a torch file, but no checkpoint of gen")
    check_origin(path, content.get("format"), content["step"])
    return {**content, "config": checked_config(path, content["config"])}


def check_origin(path: Path, version: Any, step: Any) -> None:
    """Refuse files of another format, and steps that no run takes."""
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(f"{path}: format {reprlib.repr(version)}; this gen reads {FORMAT}")
    if type(step) is not int or not 0 <= step <= 10**9:
        raise CheckpointError(f"{path}: step is {reprlib.repr(step)}; must be 0 … 10⁹")


def checked_config(path: Path, values: Any) -> RunConfig:
    """The configuration of a run that began; raises CheckpointError for anything else."""
    try:
        config = RunConfig.from_dict(values)
        if not config.model.channels:
            raise InputError("channels is 0; a run that began knows its channels")
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config


@dataclass(frozen=True)
class Stored:
    """Weights by network, and the run that they belong to."""

    config: RunConfig
    step: int
    last: dict[str, State]
    averaged: dict[str, State]


def stored_in(path: Path, held: Any) -> Stored:
    """The weights of what `gen.runs.open.read_file` read.

    Raises:
        CheckpointError: as `check_content`.
    """
    if isinstance(held, Stored):
        return held
    content = check_content(path, held)
    with fitting(path):
        averaged = {name: below(name, content["ema"]) for name in content["ema_names"]}
    return Stored(
        config=content["config"], step=content["step"], last=content["modules"], averaged=averaged
    )


def below(name: str, weights: State) -> State:
    """The weights of one network among those of several."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


@contextlib.contextmanager
def fitting(path: Path | str) -> Iterator[None]:
    """Turn what torch says of a state that does not fit the networks into one line.

    Raises:
        CheckpointError: the block failed as loading into networks or optimizers does.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: weights do not fit the stored configuration ({_reason(error)})"
        ) from error


def check_types(network: nn.Module, weights: State) -> None:
    """Raise TypeError where weights are of another type than those of a network, such as bfloat16.

    A network that takes tensors as they are would fail later, on its first input.
    """
    for name, value in network.state_dict().items():
        found = weights[name].dtype
        if found != value.dtype:
            raise TypeError(f"{name} is {found}, not {value.dtype}")
