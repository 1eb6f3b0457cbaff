"""Latents → image: the DCGAN generator and the VAE decoder are this one class."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .blocks import initialize, size_ladder, stage_widths
from .upsample import enlarger

EMBEDDING = 32  # length of the vector of a class


class Decoder(nn.Module):
    """Enlarge latents (B, Z) to images (B, C, H, W) in [−1, 1] (Radford et al. 2016, figure 1).

    A linear stem makes the coarsest map of `size_ladder(size)`; each stage doubles it with the
    chosen upsampler (and, with `antialias`, a binomial filter) and crops to the next size; batch
    normalization and ReLU everywhere but after the last stage, which ends in tanh.
    """

    def __init__(
        self,
        latent: int,
        size: tuple[int, int],
        channels: int,
        width: int,
        upsample: str = "transposed",
        kernel_size: int = 4,
        antialias: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.embedding = nn.Embedding(classes, EMBEDDING) if classes else None
        self.sizes = size_ladder(size)

        def enlarge(incoming: int, outgoing: int, bias: bool) -> nn.Module:
            return enlarger(upsample, incoming, outgoing, kernel_size, bias, antialias)

        widths = stage_widths(width, len(self.sizes) - 1)[::-1]
        height, breadth = self.sizes[0]
        self.stem = nn.Sequential(
            nn.Linear(latent + EMBEDDING * (classes > 0), widths[0] * height * breadth, bias=False),
            nn.Unflatten(1, (widths[0], height, breadth)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                enlarge(incoming, outgoing, False),
                nn.BatchNorm2d(outgoing),
                nn.ReLU(inplace=True),
            )
            for incoming, outgoing in pairwise(widths)
        )
        self.stages.append(enlarge(widths[-1], channels, True))
        initialize(self)

    def condition(self, latents: Tensor, labels: Tensor) -> Tensor:
        """What the stem of a conditional decoder takes: latents (B, Z), labels (B,) → (B, Z + E).

        A class is a learned vector joined to the latent, of unit variance at the start (Mirza
        and Osindero 2014, with an embedding).
        """
        return torch.cat([latents, self.embedding(labels)], dim=1)

    def logits(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The image before tanh: (B, C, H, W), unbounded. Arguments as `forward`."""
        maps = self.stem(latents if labels is None else self.condition(latents, labels))
        for stage, (height, width) in zip(self.stages, self.sizes[1:], strict=True):
            maps = stage(maps)[..., :height, :width]
        return maps

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, Z) → images (B, C, H, W) in [−1, 1].

        A conditional decoder takes labels (B,), or latents that `condition` has joined with them.
        """
        return self.logits(latents, labels).tanh()
