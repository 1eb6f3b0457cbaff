"""Checkpoints: one file of tensors and plain values, written whole or not at all.

`python -m gen.training.checkpoint inspect FILE` says what any torch file holds.
"""

from __future__ import annotations

import io
import re
import sys
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


def is_run(path: Path) -> bool:
    """Whether a path is meant as a run or weights, not as images."""
    return path.suffix in (".pt", ".pth") or (path / "checkpoints").is_dir()


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


def read_file(path: Path) -> Any:
    """What a torch file holds, on the CPU.

    Only tensors and plain values are ever unpickled (`weights_only=True`).

    Raises:
        CheckpointError: damaged, or no torch file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports damage through a dozen exception types, some with paragraphs of advice.
        raise CheckpointError(
            f"{path}: damaged, or no checkpoint ({type(error).__name__})"
        ) from error


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, from a file or a run directory; `config` is a RunConfig.

    Raises:
        CheckpointError: missing, damaged, or written by something else.
    """
    path = find_checkpoint(path)
    return check_content(path, read_file(path))


def check_content(path: Path, content: Any) -> dict[str, Any]:
    """The content of a checkpoint of ours, its configuration built and checked.

    Raises:
        CheckpointError: not of this toolkit, or of another version.
    """
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


def state_dict_in(content: Any) -> dict[str, torch.Tensor] | None:
    """The state dict that a file is, or None."""
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    tensors = named and all(isinstance(value, torch.Tensor) for value in content.values())
    return dict(content) if content and tensors else None


def inspect(path: Path | str) -> str:
    """What a file holds, in a few lines: a run of ours, weights of the example, or their names.

    Raises:
        CheckpointError: missing or damaged.
    """
    from models.dcgan import ExampleGenerator

    path = find_checkpoint(path)
    content = read_file(path)
    weights = state_dict_in(content)
    if weights is None:
        content = check_content(path, content)
        model = content["config"].model
        lines = [
            f"{path}: {model.model} of this toolkit after {content['step']} steps",
            str(model),
        ]
        lines += [f"{name}: {_count(held)} values" for name, held in content["modules"].items()]
        return "\n".join([*lines, f"ema: {_count(content['ema'])} values"])
    network = ExampleGenerator.from_weights(weights)
    if network is not None:
        kernels = [value for value in weights.values() if value.ndim == 4]
        widths = " → ".join(str(k.shape[1]) for k in kernels)
        return (
            f"{path}: DCGAN generator in the layout of PyTorch's example\n"
            f"latent {network.latent} → {widths} channels, images of "
            f"{network.sizes[-1][0]}x{network.sizes[-1][1]}; works in sample.py and analyze.py"
        )
    shown = [f"  {name} {tuple(value.shape)}" for name, value in list(weights.items())[:40]]
    rest = [f"  … and {len(weights) - 40} more"] if len(weights) > 40 else []
    head = f"{path}: {len(weights)} tensors of a network that this toolkit does not know"
    hint = "python analyze.py model --script FILE.py:FUNCTION takes a function that builds it"
    return "\n".join([head, *shown, *rest, hint])


def _count(weights: dict[str, torch.Tensor]) -> str:
    return f"{sum(value.numel() for value in weights.values()):,}"


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(prog="python -m gen.training.checkpoint")
    parser.add_argument("verb", choices=["inspect"], help="say what a file holds")
    parser.add_argument("path", help="checkpoint, run directory or file of weights")
    try:
        print(inspect(parser.parse_args().path))
    except CheckpointError as error:
        sys.exit(f"Error: {error}")
