"""The DCGAN discriminator (Radford et al. 2016); its generator is `decoder.Decoder`."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import StridedTrunk, initialize


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → one logit per image (B,); positive means real."""

    def __init__(self, size: tuple[int, int], channels: int, width: int) -> None:
        super().__init__()
        self.trunk = StridedTrunk(size, channels, width)
        self.head = nn.Linear(self.trunk.features, 1)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,)."""
        return self.head(self.trunk(images)).squeeze(1)
