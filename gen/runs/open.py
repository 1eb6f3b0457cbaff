"""Any path to a run, checkpoint or export -> what it holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gen.config.run import RunConfig
from gen.models.build import build_shapes
from gen.models.decoder import Decoder
from gen.models.stack import TransposedStack
from gen.runs.checkpoint import (
    CheckpointError,
    State,
    Stored,
    check_content,
    check_types,
    fitting,
    is_ours,
    run_checkpoints,
    stored_in,
)
from gen.runs.formats import FOREIGN, HUB, INDEX, PUBLISHED, SAFETENSORS, format_of, read_index
from gen.runs.guard import HoldsCodeError, UnsafeFileError, check_torch_file, plain_classes
from gen.runs.hub import fetch
from gen.runs.weights import choose, list_networks, list_parts
from gen.system import distributed
from gen.system.device import pick_device
from gen.system.errors import InputError
from gen.system.files import NotRegularError, open_regular
from gen.system.text import printable, shorten


def find_checkpoint(path: Path | str) -> Path:
    """The file itself, the newest checkpoint of a run directory, or the weights of another folder.

    `hf-hub:user/name` is a folder that was exported to the Hugging Face Hub.

    Raises:
        CheckpointError: there is none.
    """
    path = fetch(str(path)) if str(path).startswith(HUB) else Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such run or checkpoint")
    if files := run_checkpoints(path):
        return files[-1]
    for name in PUBLISHED:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{path}: no run of gen (checkpoints/step-*.pt), and no weights such as {PUBLISHED[0]}"
    )


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
    """What a file of weights holds, on the CPU: nested dictionaries of tensors and plain values.

    The first bytes decide how it is read: a torch file, safetensors (`Stored` if gen exported it),
    or the index of a sharded checkpoint. Only tensors and plain values are ever unpickled
    (`weights_only=True`), after the guard has compared all checksums and found nothing that takes
    more memory than a few times the file.

    Raises:
        CheckpointError: damaged, or something else; it says what, and what to do.
    """
    from gen.runs.pretrained import read_pretrained

    try:
        kind = format_of(path)
    except NotRegularError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    if kind == SAFETENSORS:
        return read_pretrained(path)
    if kind == INDEX:
        return _read_shards(path)
    if kind in FOREIGN:
        raise CheckpointError(f"{path}: {FOREIGN[kind]}")
    try:
        with open_regular(path) as file:
            check_torch_file(file)
            file.seek(0)
            with torch.serialization.safe_globals(plain_classes()):
                return torch.load(file, map_location="cpu", weights_only=True)
    except HoldsCodeError as error:
        raise CheckpointError(f"{path}: {error}; {_INSTEAD[error.script]}") from error
    except Exception as error:
        # torch reports damage through a dozen exception types, some with paragraphs of advice.
        reason = error if isinstance(error, UnsafeFileError) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no checkpoint ({reason})") from error


_INSTEAD = {
    True: "run it with --script FILE, or save its state_dict()",
    False: "save a state_dict() of it, or build its network with --script FILE.py:FUNCTION",
}


def _read_shards(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of all files that an index names, in one state dict."""
    try:
        files = read_index(path)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged index ({shorten(error)})") from error
    there = {file.name for file in path.parent.iterdir() if file.is_file()}
    weights = {}
    for name, tensors in files.items():
        shard = path.parent / name
        if name not in there:  # also no name that a file can have
            raise CheckpointError(f"{path}: names {shorten(name)}, which is not in its folder")
        held = {} if format_of(shard) == INDEX else read_file(shard)
        if not isinstance(held, dict) or not all(
            isinstance(held.get(tensor), torch.Tensor) for tensor in tensors
        ):
            raise CheckpointError(f"{shard}: does not hold the tensors that {path.name} names")
        weights |= {tensor: held[tensor] for tensor in tensors}
    return weights


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, from a file or a run directory; `config` is a RunConfig.

    Raises:
        CheckpointError: missing, damaged, or written by something else.
    """
    return check_content(*read_newest(path))


Generator = Decoder | TransposedStack


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
    key: str | None = None,
    read: tuple[Path, Any] | None = None,
) -> Run:
    """The networks of a run directory or checkpoint; no other flags are needed.

    Args:
        path: a run directory (its newest checkpoint is taken), a checkpoint file or an exported
            folder; also weights of others, if they are those of a `TransposedStack`.
        ema: take the moving average of the weights instead of the last ones.
        device: as in `gen.system.device.pick_device`.
        key: the part of a file of others, such as `g_ema`.
        read: what `read_newest(path)` gave, if the caller read it already.

    Raises:
        CheckpointError: missing, damaged or foreign, or weights that are not finite.
    """
    path, held = read or read_newest(path)
    if is_ours(held):
        if key:
            raise CheckpointError(f"{path}: a run of gen has no parts to choose by --key")
        stored = stored_in(path, held)
        modules = networks_of(path, stored, ema)
        run = Run(path, stored.config, modules, tuple(stored.averaged), stored.step)
    else:
        run = Run(path, None, {"generator": stack_in(path, held, key)})
    place = pick_device(device)
    for name, module in run.modules.items():
        if not all(value.isfinite().all() for value in module.state_dict().values()):
            raise CheckpointError(
                f"{path}: weights of the {name} are not finite; take an older one"
            )
        module.eval().requires_grad_(False).to(place)
    return run


def open_own_run(path: Path | str, *, ema: bool = True, device: str = "auto") -> Run:
    """As `open_run`, of what gen wrote alone.

    Raises:
        CheckpointError: weights of others as well.
    """
    file, held = read_newest(path)
    if not is_ours(held):
        raise CheckpointError(f"{file}: weights from elsewhere, without a configuration of gen")
    return open_run(path, ema=ema, device=device, read=(file, held))


_GENERATOR = re.compile(r"(.*\.)?(net_?)?g(en(erator)?)?(_?ema)?|(.*\.)?(g_)?ema", re.IGNORECASE)


def stack_in(path: Path, held: Any, key: str | None = None) -> TransposedStack:
    """The one generator in a file of others that its weights alone define.

    Raises:
        CheckpointError: there is none, or there are several.
    """

    places = {place for place, _ in list_parts(held)}

    def make(weights: State) -> TransposedStack | None:
        try:
            return TransposedStack(weights)
        except (ValueError, KeyError, TypeError, RuntimeError, AttributeError):
            return None  # other layers, or names that no module can have

    # Layers with one prefix may be a part of a network. Only a name can say that they are all.
    parts = list_networks(held, depth=2 if key else 1)
    whole = [(p, s) for p, s in parts if key or _GENERATOR.fullmatch(p) or p in places]
    wanted = "gen can build none of these by itself: --script FILE.py:FUNCTION builds a network"
    try:
        return choose(whole, key, make, f"no checkpoint of gen, and {wanted}")
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from error


def load(
    path: Path | str, *, ema: bool = True, device: str = "auto", key: str | None = None
) -> Generator:
    """The decoder of a run directory or checkpoint, in eval mode; arguments as `open_run`."""
    return open_run(path, ema=ema, device=device, key=key).decoder


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
