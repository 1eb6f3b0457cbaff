"""The VAE encoder (Kingma and Welling 2014); its decoder is `decoder.Decoder`."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import StridedTrunk, initialize


class Encoder(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → mean and log variance, (B, Z) each, of q(z|x)."""

    def __init__(self, latent: int, size: tuple[int, int], channels: int, width: int) -> None:
        super().__init__()
        self.trunk = StridedTrunk(size, channels, width)
        self.head = nn.Linear(self.trunk.features, 2 * latent)
        initialize(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the approximate posterior."""
        mean, log_variance = self.head(self.trunk(images)).chunk(2, dim=1)
        return mean, log_variance
