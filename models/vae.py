"""The VAE encoder (Kingma and Welling 2014); its decoder is `decoder.Decoder`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import StridedTrunk, initialize
from .decoder import EMBEDDING


class Encoder(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → mean and log variance, (B, Z) each, of q(z|x)."""

    def __init__(
        self, latent: int, size: tuple[int, int], channels: int, width: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.trunk = StridedTrunk(size, channels, width)
        self.embedding = nn.Embedding(classes, EMBEDDING) if classes else None
        self.head = nn.Linear(self.trunk.features + EMBEDDING * (classes > 0), 2 * latent)
        initialize(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the approximate posterior; labels (B,) where there are classes.

        A class is a learned vector joined to the features (Sohn et al. 2015, with an embedding).
        """
        features = self.trunk(images)
        if labels is not None:
            features = torch.cat([features, self.embedding(labels)], dim=1)
        mean, log_variance = self.head(features).chunk(2, dim=1)
        return mean, log_variance
