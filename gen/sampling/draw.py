"""Latents of seeds, and the images that a trained decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen.config import RunConfig
from gen.device import pick_device
from gen.images import to_uint8
from gen.training.checkpoint import (
    CheckpointError,
    check_content,
    fitting,
    read_newest,
    state_dict_in,
)
from models.build import build_modules
from models.dcgan import ExampleGenerator
from models.decoder import Decoder

Generator = Decoder | ExampleGenerator

# Matrix products round differently for different batch sizes. Every forward pass therefore has
# this one shape (the last is padded), which makes images bitwise independent of --batch-size.
GROUP = 32


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
    def masks(self) -> bool:
        """Whether it predicts masks, and draws no samples."""
        return bool(self.config and self.config.model.mask_classes)

    @property
    def draws(self) -> bool:
        """Whether it turns latents into images."""
        return any(isinstance(module, Generator) for module in self.modules.values())

    @property
    def decoder(self) -> Generator:
        """The network that turns latents into images; raises ValueError where there is none."""
        if self.masks:
            raise ValueError(
                f"{self.path}: a {self.config.model.model} draws no samples but predicts masks: "
                "sample.py RUN --images DIR --outdir DIR"
            )
        return decoder_of(self.modules)


def decoder_of(modules: Mapping[str, nn.Module]) -> Generator:
    """The network among `modules` that turns latents into images; raises ValueError for none."""
    for module in modules.values():
        if isinstance(module, Generator):
            return module
    raise ValueError(f"{', '.join(modules)}: none of these networks turns latents into images")


def open_run(path: Path | str, *, ema: bool = True, device: str = "auto") -> Run:
    """The networks of a run directory or checkpoint; no other flags are needed.

    Args:
        path: a run directory (its newest checkpoint is taken), a checkpoint file or an exported
            folder; also a DCGAN generator's state dict in the layout of PyTorch's example.
        ema: take the moving average of the weights instead of the last ones.
        device: as in `gen.device.pick_device`.

    Raises:
        CheckpointError: missing, damaged or foreign, or weights that are not finite.
    """
    path, content = read_newest(path)
    weights = state_dict_in(content)
    example = ExampleGenerator.from_weights(weights) if weights else None
    if example:
        run = Run(path, None, {"generator": example})
    else:
        content = check_content(path, content)
        modules, averaged = _modules_in(path, content, ema), tuple(content["ema_names"])
        run = Run(path, content["config"], modules, averaged, content["step"])
    place = pick_device(device)
    for name, module in run.modules.items():
        if not all(value.isfinite().all() for value in module.state_dict().values()):
            raise CheckpointError(
                f"{path}: weights of the {name} are not finite; take an older one"
            )
        module.eval().requires_grad_(False).to(place)
    return run


def use_bf16(decoder: Generator) -> None:
    """Make a decoder compute in bf16, in place; images differ from fp32 by single grey levels."""
    device = next(decoder.parameters()).device.type
    decoder.to(memory_format=torch.channels_last)
    decoder.forward = torch.autocast(device, torch.bfloat16)(decoder.forward)


def load(path: Path | str, *, ema: bool = True, device: str = "auto") -> Generator:
    """The decoder of a run directory or checkpoint, in eval mode; arguments as `open_run`."""
    return open_run(path, ema=ema, device=device).decoder


def _modules_in(path: Path, content: dict[str, Any], ema: bool) -> dict[str, nn.Module]:
    stored = content["modules"]  # of an exported folder the averaged ones
    with fitting(path):
        # A configuration can ask for more memory than there is; comparing shapes takes none.
        with torch.device("meta"):
            shapes = build_modules(content["config"].model)
        for name in stored:
            shapes[name].load_state_dict(stored[name], assign=True)
        built = build_modules(content["config"].model)
        modules = {name: built[name] for name in stored}
        for name, module in modules.items():
            module.load_state_dict(stored[name])
        if ema:
            averaged = nn.ModuleDict({name: modules[name] for name in content["ema_names"]})
            averaged.load_state_dict(content["ema"])
    return modules


def draw_latents(seeds: Sequence[int], length: int) -> Tensor:
    """Latents (B, Z), row i from its own generator seeded with seeds[i]; drawn on the CPU."""
    return torch.stack(
        [torch.randn(length, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def draw_inputs(
    decoder: Generator, seeds: Sequence[int], labels: Sequence[int] | None = None
) -> Tensor:
    """What the decoder takes, row i from seeds[i]: latents, joined with classes if conditional.

    Args:
        decoder: as `load` gives it.
        seeds: numbers from 0 up.
        labels: one class per seed; by default each image has the class seed modulo classes.

    Raises:
        ValueError: a class that the decoder does not have.
    """
    if decoder.classes and labels is None:
        labels = [seed % decoder.classes for seed in seeds]
    return join_classes(decoder, draw_latents(seeds, decoder.latent), labels)


@torch.no_grad()
def join_classes(decoder: Generator, latents: Tensor, labels: Sequence[int] | None) -> Tensor:
    """Latents (B, Z) and classes (B,) → what a conditional decoder takes, (B, Z + E).

    Latents alone, without classes, for a decoder that knows none.

    Raises:
        ValueError: a class that the decoder does not have.
    """
    if not decoder.classes:
        if labels is not None:
            raise ValueError("this generator knows no classes; train with --conditional")
        return latents
    for label in labels:
        if not 0 <= label < decoder.classes:
            raise ValueError(f"class is {label}; must be 0 to {decoder.classes - 1}")
    device = decoder.embedding.weight.device
    return decoder.condition(latents.to(device), torch.tensor(labels, device=device))


@torch.inference_mode()
def in_groups(network: Callable[..., Tensor], place: nn.Module, *inputs: Tensor) -> Tensor:
    """network(*inputs), (B, …) each, on the CPU: in passes of one fixed shape where `place` is."""
    device, outputs = next(place.parameters()).device, []
    for group in zip(*(tensor.split(GROUP) for tensor in inputs), strict=True):
        count = len(group[0])
        rows = [*range(count), *[count - 1] * (GROUP - count)]
        outputs.append(network(*(part[rows].to(device) for part in group))[:count].cpu())
    return torch.cat(outputs)


def decode_latents(decoder: Generator, latents: Tensor) -> Tensor:
    """Latents (B, Z), or rows of `draw_inputs`, → uint8 images (B, C, H, W) on the CPU."""
    return in_groups(lambda rows: to_uint8(decoder(rows)), decoder, latents)


def sample_batches(
    decoder: Generator,
    seeds: Sequence[int],
    batch_size: int = 64,
    labels: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Yield uint8 images (≤ batch_size, C, H, W) in the order of `seeds`; constant memory."""
    for start in range(0, len(seeds), batch_size):
        part = slice(start, start + batch_size)
        classes = None if labels is None else labels[part]
        yield decode_latents(decoder, draw_inputs(decoder, seeds[part], classes))


def sample_images(
    decoder: Generator,
    seeds: Sequence[int],
    batch_size: int = 64,
    labels: Sequence[int] | None = None,
) -> Tensor:
    """Images (N, C, H, W), uint8 on the CPU; image i is a function of the weights and seeds[i].

    A conditional generator takes `labels`, one class per seed, or derives them from the seeds.
    """
    return torch.cat(list(sample_batches(decoder, seeds, batch_size, labels)))
