"""The DCGAN discriminator (Radford et al. 2016); its generator is `decoder.Decoder`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from .blocks import StridedTrunk, initialize


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → one logit per image (B,); positive means real.

    With classes, the logit is w·φ(x, y) + b + v_y·φ(x, y): a projection on the vector of the label
    y (Miyato and Koyama 2018, equation 3). The label also adds a bias to the first layer's maps, as
    one-hot planes next to the image would (Mirza and Osindero 2014): a trunk that does not know the
    class cannot see that all images of it are alike, and lets the generator collapse within
    classes. Spectral norm keeps the largest singular value of every weight at 1 (Miyato et al.
    2018, equation 8).
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        width: int,
        classes: int = 0,
        batch_norm: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = StridedTrunk(size, channels, width, batch_norm)
        self.head = nn.Linear(self.trunk.features, 1)
        self.label = nn.Embedding(classes, width) if classes else None
        self.projection = nn.Embedding(classes, self.trunk.features) if classes else None
        initialize(self)
        if classes:
            nn.init.normal_(self.label.weight, 0.0, 0.08)  # of a plane through 4×4 weights of 0.02
            nn.init.normal_(self.projection.weight, 0.0, 0.02)
        if spectral_norm:
            layers = nn.Conv2d, nn.Linear, nn.Embedding
            for module in [m for m in self.modules() if isinstance(m, layers)]:
                parametrizations.spectral_norm(module)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B,); labels (B,) where there are classes."""
        if labels is None:
            return self.head(self.trunk(images)).squeeze(1)
        features = self.trunk(images, self.label(labels))
        return self.head(features).squeeze(1) + (self.projection(labels) * features).sum(1)
