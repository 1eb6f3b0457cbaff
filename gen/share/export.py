"""Folders to share: weights, configuration, ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gen.system.errors import InputError
from gen.system.files import atomic_folder

if TYPE_CHECKING:
    from torch import nn

    from gen.runs.open import Run

ONNX = "model.onnx"


def save_pretrained(source: Path | str, folder: Path | str, *, ema: bool = True) -> None:
    """Write config.json and model.safetensors of a run or checkpoint.

    Args:
        source: as `gen.runs.open.open_own_run`.
        folder: new or empty.
        ema: take the moving average of the weights instead of the last ones.

    Raises:
        CheckpointError: as `gen.runs.open.open_own_run`.
        OSError: `folder` holds something, or cannot be written.
    """
    from gen.runs.open import open_own_run

    run = open_own_run(source, ema=ema, device="cpu")
    check_new(Path(folder))
    with atomic_folder(Path(folder)) as target:
        write(run, target)


def from_pretrained(folder: Path | str, *, device: str = "auto") -> nn.ModuleDict:
    """The networks of an exported folder by name, such as `generator`, in eval mode.

    Raises:
        CheckpointError: missing, damaged, foreign, or its configuration breaks a rule.
        ValueError: the device is not available.
    """
    from torch import nn

    from gen.runs.open import open_own_run

    return nn.ModuleDict(open_own_run(folder, device=device).modules).eval()


def write(run: Run, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder that exists."""
    from gen.runs.pretrained import write_pretrained

    # Where the images lay on this machine is nobody else's business.
    data = dataclasses.replace(
        run.config.data, data=last_name(run.config.data.data), data_root="data"
    )
    networks = {name: run.modules[name] for name in run.averaged}
    write_pretrained(folder, dataclasses.replace(run.config, data=data), networks, run.step)


def last_name(path: str) -> str:
    """The last name of a path, also behind `classifier:`."""
    kind, colon, place = path.rpartition(":")
    return f"{kind}{colon}{Path(place).name}"


def check_new(folder: Path) -> None:
    """Raise FileExistsError unless the folder is new or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists; give a new or empty folder")


def write_onnx(run: Run, file: Path) -> str:
    """Write the network that a run is for as ONNX, for any number B of inputs.

    Decoders take `latents`, float32 (B, Z), and where they have classes `labels`, int64 (B,), and
    give `images` in [−1, 1]; others take such `images` and give `logits`.

    Returns:
        What the file holds, in words.

    Raises:
        ValueError: the extra is missing.
    """
    import torch

    network = run.decoder if run.draws_images else run.modules[run.averaged[0]]
    if run.draws_images:
        inputs, output = {"latents": torch.zeros(2, network.latent)}, "images"
        if network.classes:
            inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    else:
        model = run.config.model
        inputs, output = {"images": torch.zeros(2, model.channels, *model.size)}, "logits"
    try:
        program = torch.onnx.export(
            network, tuple(inputs.values()), dynamo=True, verbose=False,
            input_names=list(inputs), output_names=[output],
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}] * len(inputs),
        )  # fmt: skip
    except ModuleNotFoundError as error:
        raise InputError(
            "ONNX needs two packages: pip install onnx onnxscript (extra gen[onnx])"
        ) from error
    program.save(str(file), external_data=False)
    return f"{', '.join(inputs)} → {output}, for batches of any size"
