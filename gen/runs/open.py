"""Any path to a run, checkpoint or export -> what it holds."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from gen.runs.checkpoint import (
    EXPORTED,
    CheckpointError,
    _check_archive,
    _check_tensors,
    _reason,
    check_content,
    run_checkpoints,
)
from gen.system import distributed


def is_run(path: Path) -> bool:
    """Whether a path is meant as a run or weights, not as images."""
    weights = path.suffix in (".pt", ".pth", ".safetensors")
    return weights or any((path / name).exists() for name in ("checkpoints", EXPORTED))


def find_checkpoint(path: Path | str) -> Path:
    """The file itself, the newest checkpoint of a run directory, or an exported folder's weights.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such run or checkpoint")
    if files := run_checkpoints(path):
        return files[-1]
    if (path / EXPORTED).is_file():
        return path / EXPORTED
    raise CheckpointError(f"{path}: holds no checkpoints/step-*.pt, so it is no run of gen")


def read_newest(path: Path | str) -> tuple[Path, Any]:
    """A checkpoint file and what it holds: the file itself, or the newest whole one of a run.

    A line on stderr names each newer file that is damaged.

    Raises:
        CheckpointError: there is none that can be read.
    """
    newest = find_checkpoint(path)
    files = run_checkpoints(Path(path))[::-1] or [newest]
    for file in files[:-1]:
        try:
            return file, read_file(file)
        except CheckpointError as error:
            if not distributed.started_as():
                print(f"Warning: {error}; looking for an older one", file=sys.stderr)
    return files[-1], read_file(files[-1])


def read_file(path: Path) -> Any:
    """What a torch file holds, or an exported one, on the CPU.

    Only tensors and plain values are ever unpickled (`weights_only=True`), checksums are compared,
    and nothing takes more memory than the file has bytes.

    Raises:
        CheckpointError: damaged, or no torch file.
    """
    if path.suffix == ".safetensors":
        from gen.runs.pretrained import read_pretrained

        return read_pretrained(path)
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(content)
    except Exception as error:
        # torch reports damage through a dozen exception types, some with paragraphs of advice.
        ours = isinstance(error, zipfile.BadZipFile)
        reason = _reason(error) if ours else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no checkpoint ({reason})") from error
    return content


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, from a file or a run directory; `config` is a RunConfig.

    Raises:
        CheckpointError: missing, damaged, or written by something else.
    """
    return check_content(*read_newest(path))
