"""A small classifier, in whose features distances between sets of images are measured."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import StridedTrunk

FEATURES = 128


class Classifier(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → logits of the classes (B, classes)."""

    def __init__(self, size: tuple[int, int], channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.trunk = StridedTrunk(size, channels, width)
        self.hidden = nn.Sequential(
            nn.Linear(self.trunk.features, FEATURES),
            nn.LeakyReLU(0.2),
            nn.BatchNorm1d(FEATURES, affine=False),
        )
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees of the images: (B, 128), each of variance 1 over the data.

        That gives distances a unit, and the kernel distance, a third power, its small spread.
        """
        return self.hidden(self.trunk(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.features(images))
