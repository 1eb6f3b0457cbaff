"""Pieces that every network shares: the size ladder, the strided trunk, the initialization."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .upsample import Subpixel, stored_weight


def size_ladder(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Map sizes from the coarsest to (H, W), each step at most doubling both axes.

    Halves, rounding up, until the shorter side is 6 or less: 64 → 4 8 16 32 64, 28 → 4 7 14 28,
    (34, 45) → (5, 6) (9, 12) (17, 23) (34, 45). An odd size is its doubled predecessor less one
    row or column, so an upsampling network that doubles exactly reaches any size by cropping.

    Raises:
        ValueError: a side is below 8, which leaves nothing to enlarge.
    """
    if min(size) < 8:
        raise ValueError(f"size is {size[0]}x{size[1]}; both sides must be at least 8 pixels")
    sizes = [size]
    while min(sizes[0]) > 6:
        sizes.insert(0, (math.ceil(sizes[0][0] / 2), math.ceil(sizes[0][1] / 2)))
    return sizes


def stage_widths(width: int, stages: int) -> list[int]:
    """Channels from the finest inner map to the coarsest: width, 2·width, … at most 8·width."""
    return [width * min(2**stage, 8) for stage in range(stages)]


def channels_last(maps: Tensor) -> Tensor:
    """The same maps (B, C, H, W), all channels of a pixel side by side."""
    return maps.contiguous(memory_format=torch.channels_last)


class StridedTrunk(nn.Sequential):
    """Images (B, C, H, W) → features (B, `features`): the DCGAN discriminator without its head.

    Convolutions k4 s2 p1, each halving (rounding down), LeakyReLU 0.2, batch normalization
    everywhere but in the first (Radford et al. 2016), or nowhere; as many as `size_ladder(size)`
    has steps, or `stages`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        width: int,
        batch_norm: bool = True,
        stages: int | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        stages = stages or len(size_ladder(size)) - 1
        incoming = channels
        for stage, outgoing in enumerate(stage_widths(width, stages)):
            normal = batch_norm and stage > 0
            layers.append(nn.Conv2d(incoming, outgoing, 4, 2, 1, bias=not normal))
            if normal:
                layers.append(nn.BatchNorm2d(outgoing))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            incoming = outgoing
        super().__init__(*layers, nn.Flatten())
        self.features = incoming * (size[0] >> stages) * (size[1] >> stages)

    def forward(self, images: Tensor, bias: Tensor | None = None) -> Tensor:
        """Features (B, F); `bias` (B, width) is added to the first convolution's maps."""
        first, *others, flatten = self
        images = first(images)
        if bias is not None:
            images = images + bias[:, :, None, None]
        for layer in others:
            images = layer(images)
        if images.requires_grad and images.is_contiguous(memory_format=torch.channels_last):
            # Its gradient would come back in another order, which costs activations ten times as
            # much: a twentieth of a step of bf16 at 32×32.
            images.register_hook(channels_last)
        return flatten(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map that each stage leaves, finest first, of images of any size."""
        found = []
        for layer in list(self)[:-1]:
            images = layer(images)
            if isinstance(layer, nn.LeakyReLU):
                found.append(images)
        return found


DCGAN = partial(nn.init.normal_, std=0.02)  # Radford et al. 2016
HE = partial(nn.init.kaiming_normal_, nonlinearity="relu")  # N(0, 2 / fan-in), He et al. 2015


def initialize(network: nn.Module, draw: Callable[[Tensor], object] = DCGAN) -> None:
    """Initialize in place: weights by `draw`, norm weights N(1, 0.02²), biases 0."""
    if next(network.parameters()).is_meta:  # shapes alone; torch would take seconds to say so
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            draw(stored_weight(module))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Subpixel):
            module.icnr_()
