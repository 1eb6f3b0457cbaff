"""Any path to a run, checkpoint or export -> what it holds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gen.config.run import RunConfig
from gen.models.build import build_shapes
from gen.models.dcgan import ExampleGenerator
from gen.models.decoder import Decoder
from gen.runs.checkpoint import (
    EXPORTED,
    CheckpointError,
    Stored,
    check_content,
    check_types,
    fitting,
    run_checkpoints,
    state_dict_in,
    stored_in,
)
from gen.runs.guard import UnsafeFileError, check_torch_file
from gen.system import distributed
from gen.system.device import pick_device
from gen.system.files import NotRegularError, open_regular
from gen.system.text import printable


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
            if not distributed.launch_rank():
                text = printable(f"Warning: {error}; looking for an older one")
                print(text, file=sys.stderr)
    return files[-1], read_file(files[-1])


def read_file(path: Path) -> Any:
    """What a torch file holds, or an exported one, on the CPU.

    Only tensors and plain values are ever unpickled (`weights_only=True`), after the guard has
    compared all checksums and found nothing that takes more memory than a few times the file.

    Raises:
        CheckpointError: damaged, or no torch file.
    """
    if path.suffix == ".safetensors":
        from gen.runs.pretrained import read_pretrained

        return read_pretrained(path)
    try:
        with open_regular(path) as file:
            check_torch_file(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except NotRegularError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except Exception as error:
        # torch reports damage through a dozen exception types, some with paragraphs of advice.
        reason = error if isinstance(error, UnsafeFileError) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no checkpoint ({reason})") from error


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, from a file or a run directory; `config` is a RunConfig.

    Raises:
        CheckpointError: missing, damaged, or written by something else.
    """
    return check_content(*read_newest(path))


Generator = Decoder | ExampleGenerator


@dataclass(frozen=True)
class Run:
    """What a checkpoint holds for sampling: its file, configuration and networks in eval mode.

    A state dict from elsewhere has no configuration, and its generator alone.
    """

    path: Path
    config: RunConfig | None
    modules: dict[str, nn.Module]
    averaged: tuple[str, ...] = ()  # those that are sampled
    step: int = 0

    @property
    def predicts_masks(self) -> bool:
        """Whether it predicts masks, and draws no samples."""
        return bool(self.config and self.config.model.mask_classes)

    @property
    def draws_images(self) -> bool:
        """Whether it turns latents into images."""
        return any(isinstance(module, Generator) for module in self.modules.values())

    @property
    def decoder(self) -> Generator:
        """The network that turns latents into images; raises ValueError where there is none."""
        if self.predicts_masks:
            raise ValueError(
                f"{self.path}: a {self.config.model.model} draws no samples but predicts masks: "
                "gen sample RUN --images DIR --outdir DIR"
            )
        return decoder_of(self.modules)


def decoder_of(modules: Mapping[str, nn.Module]) -> Generator:
    """The network among `modules` that turns latents into images; raises ValueError for none."""
    for module in modules.values():
        if isinstance(module, Generator):
            return module
    raise ValueError(f"{', '.join(modules)}: none of these networks turns latents into images")


def open_run(
    path: Path | str,
    *,
    ema: bool = True,
    device: str = "auto",
    read: tuple[Path, Any] | None = None,
) -> Run:
    """The networks of a run directory or checkpoint; no other flags are needed.

    Args:
        path: a run directory (its newest checkpoint is taken), a checkpoint file or an exported
            folder; also a DCGAN generator's state dict in the layout of PyTorch's example.
        ema: take the moving average of the weights instead of the last ones.
        device: as in `gen.system.device.pick_device`.
        read: what `read_newest(path)` gave, if the caller read it already.

    Raises:
        CheckpointError: missing, damaged or foreign, or weights that are not finite.
    """
    path, held = read or read_newest(path)
    weights = state_dict_in(held)
    example = ExampleGenerator.from_weights(weights) if weights else None
    if example:
        run = Run(path, None, {"generator": example})
    else:
        stored = stored_in(path, held)
        modules = networks_of(path, stored, ema)
        run = Run(path, stored.config, modules, tuple(stored.averaged), stored.step)
    place = pick_device(device)
    for name, module in run.modules.items():
        if not all(value.isfinite().all() for value in module.state_dict().values()):
            raise CheckpointError(
                f"{path}: weights of the {name} are not finite; take an older one"
            )
        module.eval().requires_grad_(False).to(place)
    return run


def load(path: Path | str, *, ema: bool = True, device: str = "auto") -> Generator:
    """The decoder of a run directory or checkpoint, in eval mode; arguments as `open_run`."""
    return open_run(path, ema=ema, device=device).decoder


def networks_of(path: Path, stored: Stored, ema: bool) -> dict[str, nn.Module]:
    """Networks with stored weights, the averaged ones if `ema` is set and there are any.

    Networks are built without memory and take the stored tensors as they are.

    Raises:
        CheckpointError: weights that do not fit the configuration.
    """
    with fitting(path):
        states = {**stored.last, **stored.averaged} if ema else {**stored.averaged, **stored.last}
        shapes = build_shapes(stored.config.networks, stored.config.model)
        modules = {name: shapes[name] for name in states}
        for name, module in modules.items():
            check_types(module, states[name])
            module.load_state_dict(states[name], assign=True)
            # Training on a CPU stores channels last, which would round samples differently.
            module.to(memory_format=torch.contiguous_format)
    return modules
