"""The DCGAN discriminator (Radford et al. 2016); its generator is `decoder.Decoder`.

`ExampleGenerator` is for weights from elsewhere, in the layout of PyTorch's well-known example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

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


class ExampleGenerator(nn.Module):
    """Latents (B, Z) → images (B, C, H, W) in [−1, 1], as pytorch/examples/dcgan builds it.

    `main` is ConvTranspose2d k4 s1 p0 from Z to the widest map of 4×4, then k4 s2 p1 to half the
    width each, batch normalization and ReLU between, tanh at the end.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        """Take the channels from the latent to the image, e.g. (100, 512, 256, 128, 64, 3)."""
        super().__init__()
        self.latent, self.classes = widths[0], 0
        self.sizes = [(4 << stage, 4 << stage) for stage in range(len(widths) - 1)]
        layers: list[nn.Module] = []
        for stage, (incoming, outgoing) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if stage else (1, 0)
            layers.append(nn.ConvTranspose2d(incoming, outgoing, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True)]
        self.main = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, Z) → images."""
        return self.main(latents[:, :, None, None])

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> ExampleGenerator | None:
        """The network these weights belong to, with them in it; None if they are of another kind.

        Keys may carry the `module.` prefix of `nn.DataParallel`. Latent length, widths, channels
        and depth are read from the shapes.
        """
        plain = {name.removeprefix("module."): value for name, value in weights.items()}
        count = sum(bool(re.fullmatch(r"main\.\d+\.weight", name)) for name in plain) // 2 + 1
        kernels = [plain.get(f"main.{3 * stage}.weight") for stage in range(count)]
        if count < 2 or any(k is None or k.ndim != 4 or k.shape[2:] != (4, 4) for k in kernels):
            return None
        # A stride of 0 would let a small file claim a network of any size.
        chained = all(a.shape[1] == b.shape[0] for a, b in pairwise(kernels))
        if not chained or not all(k.is_contiguous() for k in kernels):
            return None
        network = cls((kernels[0].shape[0], *(k.shape[1] for k in kernels)))
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        # Very old files lack the batch counters, which nothing in eval mode reads.
        counters = {
            name: value for name, value in network.state_dict().items() if "batches" in name
        }
        plain = counters | plain
        if {name: value.shape for name, value in plain.items()} != wanted:
            return None
        network.load_state_dict(plain)
        return network
