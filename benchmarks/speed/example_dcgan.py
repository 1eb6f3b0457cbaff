"""The baseline of training: the loop of PyTorch's well-known DCGAN example, from its description.

Images NCHW in float32, a discriminator that ends in a sigmoid, binary cross-entropy on
probabilities, gradients of the discriminator also in the generator's turn, plain Adam, four numbers
read from the device in every step. Data in memory; nothing is logged, averaged or saved.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


def build(size: int, width: int, latent: int = 100) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, k4 s2 p1 throughout, k4 at both ends."""
    stages = size.bit_length() - 3
    widths = [width * 2**i for i in reversed(range(stages))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, 1, 0, bias=False)]
    for a, b in pairwise([*widths, 3]):
        layers += [nn.BatchNorm2d(a), nn.ReLU(True), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
    generator = nn.Sequential(*layers, nn.Tanh())
    layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for a, b in pairwise(widths[::-1]):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, True)]
    discriminator = nn.Sequential(
        *layers, nn.Conv2d(widths[0], 1, 4, 1, 0, bias=False), nn.Sigmoid()
    )
    return generator, discriminator


def training_step(size: int, width: int, images: Tensor) -> Callable[[], None]:
    """A function that takes one step on images (B, 3, H, W) in [−1, 1]."""
    generator, discriminator = build(size, width)
    criterion = nn.BCELoss()
    players = generator, discriminator
    adam_g, adam_d = (torch.optim.Adam(p.parameters(), 2e-4, (0.5, 0.999)) for p in players)
    real, fake = torch.ones(len(images)), torch.zeros(len(images))

    def step() -> None:
        discriminator.zero_grad()
        output = discriminator(images).view(-1)
        loss_real = criterion(output, real)
        loss_real.backward()
        output.mean().item()
        drawn = generator(torch.randn(len(images), 100, 1, 1))
        output = discriminator(drawn.detach()).view(-1)
        loss_fake = criterion(output, fake)
        loss_fake.backward()
        output.mean().item()
        adam_d.step()
        generator.zero_grad()
        loss = criterion(discriminator(drawn).view(-1), real)
        loss.backward()
        adam_g.step()
        (loss_real + loss_fake).item(), loss.item()

    return step
