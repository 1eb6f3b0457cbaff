"""Checkpoints: one file of tensors and plain values, written whole or not at all."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import torch

from gen.config import RunConfig
from gen.files import write_atomically

FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or not of this toolkit; one line."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, dicts, lists) atomically.

    Serialised in memory first: a full disk can only spoil the temporary file.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def find_checkpoint(path: Path | str) -> Path:
    """The file itself, or the newest checkpoint of a run directory.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such run or checkpoint")
    pattern = re.compile(r"step-\d{8}\.pt")
    steps = sorted(p for p in (path / "checkpoints").glob("*.pt") if pattern.fullmatch(p.name))
    if not steps:
        raise CheckpointError(f"{path}: holds no checkpoints/step-*.pt, so it is no run of gen")
    return steps[-1]


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, from a file or a run directory; `config` is a RunConfig.

    Only tensors and plain values are ever unpickled (`weights_only=True`).

    Raises:
        CheckpointError: missing, damaged, or written by something else.
    """
    path = find_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports damage through a dozen exception types, some with paragraphs of advice.
        raise CheckpointError(
            f"{path}: damaged, or no checkpoint ({type(error).__name__})"
        ) from error
    expected = {"config", "step", "modules", "ema", "optimizers", "rng"}
    if not isinstance(content, dict) or not expected <= content.keys():
        raise CheckpointError(f"{path}: a torch file, but no checkpoint of gen")
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {content.get('format')}; this gen reads {FORMAT}")
    try:
        content["config"] = RunConfig.from_dict(content["config"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return content
