"""Latents of seeds, and the images that a trained decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gen.images import to_uint8
from gen.runs.open import Generator
from gen.system.errors import InputError

# Matrix products round differently for different batch sizes. Every forward pass therefore has
# this one shape (the last is padded), which makes images bitwise independent of --batch-size.
GROUP = 32


def use_bf16(decoder: Generator) -> None:
    """Make a decoder compute in bf16, in place; images differ from fp32 by single gray levels."""
    device = next(decoder.parameters()).device.type
    decoder.to(memory_format=torch.channels_last)
    decoder.forward = torch.autocast(device, torch.bfloat16)(decoder.forward)


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
            raise InputError("this generator knows no classes; train with --conditional")
        return latents
    for label in labels:
        if not 0 <= label < decoder.classes:
            raise InputError(f"class is {label}; must be 0 to {decoder.classes - 1}")
    device = decoder.embedding.weight.device
    return decoder.condition(latents.to(device), torch.tensor(labels, device=device))


@torch.inference_mode()
def run_in_groups(network: Callable[..., Tensor], place: nn.Module, *inputs: Tensor) -> Tensor:
    """`network(*inputs)`, (B, …) each, on the CPU; passes of one shape, where `place` is."""
    device, outputs = next(place.parameters()).device, []
    for group in zip(*(tensor.split(GROUP) for tensor in inputs), strict=True):
        count = len(group[0])
        rows = [*range(count), *[count - 1] * (GROUP - count)]
        outputs.append(network(*(part[rows].to(device) for part in group))[:count].cpu())
    return torch.cat(outputs)


def decode_latents(decoder: Generator, latents: Tensor) -> Tensor:
    """Latents (B, Z), or rows of `draw_inputs`, → uint8 images (B, C, H, W) on the CPU."""
    return run_in_groups(lambda rows: to_uint8(decoder(rows)), decoder, latents)


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
