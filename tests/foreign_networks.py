"""Three generators that nobody here trained, rebuilt from their descriptions.

    gen model vae_celeba_yanndubs.pt --script tests/foreign_networks.py:vae_celeba

`../shared/data/README.md` says where the weights come from.
"""

from itertools import pairwise

import torch
from torch import nn


def weights_of(path, prefix):
    """State dict of one file, the part under a prefix."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}


class VAEDecoder(nn.Module):
    """YannDubs/disentangling-vae: latents (B, 10) → images (B, 3, 64, 64) in [0, 1]."""

    latent = 10

    def __init__(self):
        super().__init__()
        self.lin1, self.lin2, self.lin3 = (
            nn.Linear(10, 256),
            nn.Linear(256, 256),
            nn.Linear(256, 512),
        )
        self.convT_64, self.convT1, self.convT2 = (
            nn.ConvTranspose2d(32, 32, 4, 2, 1) for _ in range(3)
        )
        self.convT3 = nn.ConvTranspose2d(32, 3, 4, 2, 1)

    def forward(self, latents):
        maps = latents
        for layer in (self.lin1, self.lin2, self.lin3):
            maps = layer(maps).relu()
        maps = maps.view(-1, 32, 4, 4)
        for layer in (self.convT_64, self.convT1, self.convT2):
            maps = layer(maps).relu()
        return self.convT3(maps).sigmoid()


def vae_celeba(path):
    network = VAEDecoder()
    network.load_state_dict(weights_of(path, "decoder."))
    return network


class DigitDCGAN(nn.Module):
    """Ryhan9834: latents (B, 64) → digits (B, 1, 28, 28) in [−1, 1]."""

    latent = 64

    def __init__(self):
        super().__init__()
        geometry = ((64, 256, 3, 2), (256, 128, 4, 1), (128, 64, 3, 2))
        blocks = [
            nn.Sequential(nn.ConvTranspose2d(a, b, k, s), nn.BatchNorm2d(b), nn.ReLU())
            for a, b, k, s in geometry
        ]
        last = nn.Sequential(nn.ConvTranspose2d(64, 1, 4, 2), nn.Tanh())
        self.gen = nn.Sequential(*blocks, last)

    def forward(self, latents):
        return self.gen(latents[..., None, None])


def dcgan_mnist(path):
    network = DigitDCGAN()
    network.load_state_dict(weights_of(path, ""))
    return network


class ConditionalResize(nn.Module):
    """HayatoHongo: latents and class (B, 11) → digits (B, 1, 28, 28), nearest ×2."""

    def __init__(self):
        super().__init__()
        self.label_emb = nn.Embedding(10, 10)
        self.l1 = nn.Sequential(nn.Linear(20, 6272))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2), nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128, eps=0.8), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(128, 64, 3, padding=1),
            nn.BatchNorm2d(64, eps=0.8), nn.ReLU(),
            nn.Conv2d(64, 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, inputs):
        latents, classes = inputs[:, :10], inputs[:, 10].long()
        maps = self.l1(torch.cat([self.label_emb(classes), latents], 1))
        return self.conv_blocks(maps.view(-1, 128, 7, 7))


def resize_mnist(path):
    network = ConditionalResize()
    network.load_state_dict(weights_of(path, ""))

    def draw(count):
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(count, 10, generator=generator)
        return torch.cat([latents, torch.arange(count)[:, None] % 10], 1)

    return network, draw


class ExampleGenerator(nn.Module):
    """The generator of pytorch/examples/dcgan: latents (B, Z) → images (B, C, H, W)."""

    def __init__(self, widths):
        """Take the channels from the latent to the image, e.g. (100, 512, 256, 128, 64, 3)."""
        super().__init__()
        self.latent, layers = widths[0], []
        for stage, (incoming, outgoing) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if stage else (1, 0)
            layers.append(nn.ConvTranspose2d(incoming, outgoing, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True)]
        self.main = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, latents):
        return self.main(latents[:, :, None, None])


def small():
    """A generator of a moment, for tests of the commands."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (8, 6, 6)), nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 3, 2, 1, 1), nn.Tanh(),
    )  # fmt: skip
    network.latent = 288
    return network


def nothing():
    return "no network"


def without_latent():
    return nn.Upsample(scale_factor=2)
