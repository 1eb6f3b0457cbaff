"""Networks of every form that users have: what goes in, what comes out, how they are made."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

Z = 8


class Up(nn.Module):
    """Latents (B, 8) → images (B, 3, 16, 16), in the form that one wants them."""

    latent = Z

    def __init__(self, form=lambda images: images):
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.layers = nn.Sequential(
            nn.Linear(Z, 128), nn.Unflatten(1, (8, 4, 4)), nn.ConvTranspose2d(8, 4, 4, 2, 1),
            nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, latents):
        return self.form(self.layers(latents))

    def method(self):
        return self

    @classmethod
    def made(cls):
        return cls()


@dataclass
class Output:
    loss: torch.Tensor
    sample: torch.Tensor


class Holder:
    class Inner:
        def build(self):
            return Up()


holder = Holder.Inner()


def plain():
    return Up()


def without_length():
    return Up().layers


def convolution_first():
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=8))


def pair():
    return Up(lambda images: (images, images.mean()))


def logits_first():
    return Up(lambda images: (images.mean((1, 2, 3)), images))


def mapping():
    return Up(lambda images: {"mask": images[:, :1] * 0, "image": images})


def record():
    return Up(lambda images: Output(images.mean(), images))


def array():
    return Up(lambda images: images.numpy())


def channels_last():
    return Up(lambda images: images.permute(0, 2, 3, 1))


def levels():
    return Up(lambda images: (images * 127.5 + 127.5).round().byte())


def listed():
    return Up(list)  # one tensor (3, 16, 16) for each image: no batch


def video():
    return Up(lambda images: torch.stack([images, -images], 2))


def half():
    return Up().half()


def double():
    return Up().double()


def mixed():
    network = Up()
    network.layers[0].half()
    network.form, first = (lambda images: images), network.layers[0]
    network.layers[0] = nn.Sequential()
    network.first = first
    network.forward = lambda z: network.layers(network.first(z.half()).float())
    return network


def column():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConvTranspose2d(Z, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    )
    network.z_dim = Z
    return network


class Labeled(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.names = Up(), nn.Embedding(10, Z)

    def forward(self, latents, labels):
        return self.up(latents + self.names(labels))


def labels():
    return Labeled(), lambda n: (torch.randn(n, Z), torch.arange(n) % 10)


def arrays():
    return Labeled(), lambda n: (np.random.default_rng(0).normal(size=(n, Z)), np.arange(n) % 10)


def batches():
    return Up(), lambda n: [torch.ones(4, Z) * start for start in range(0, n, 4)]


def pairs_in_batches():
    return Labeled(), lambda n: ((torch.ones(5, Z), torch.zeros(5).long()) for _ in range(n))


def integers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(16, Z), Up())
    return network, lambda n: torch.arange(n) % 16


def function():
    up = Up()
    return up.layers.forward, lambda n: torch.ones(n, Z)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.trace(Up().layers, torch.zeros(2, Z)), lambda n: torch.randn(n, Z)


class Weighted(nn.Module):
    """Weights come from the file that the command names."""

    latent = Z

    def __init__(self, width=128):
        super().__init__()
        self.up = Up()

    def forward(self, latents):
        return self.up(latents)


def needs_two(latents, labels):
    raise RuntimeError("not to be called")


def breaks():
    raise RuntimeError("no weights\nhere")


def scalar():
    return Up(lambda images: images.mean())


def text():
    return Up(lambda images: {"caption": "a cat"})


def flat():
    return Up(lambda images: images.flatten(1))


def odd():
    return Up(lambda images: images[:1])


def bad_draw():
    return Up(), lambda n: ["a", "b"]


def raising_draw():
    return Up(), lambda n: 1 / 0


def wrong_draw():
    return Up(), lambda n: torch.zeros(n, 5)


def named_draw():
    return Up(), lambda n: {"z": torch.zeros(n, Z)}


def no_inputs():
    return Up(), lambda n: torch.zeros(0, Z)


def enlarge(factor, layers=()):
    """Images → images `factor` times as large."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 3 * factor**2, 3, padding=1), nn.PixelShuffle(factor), *layers
    )


def x2():
    return enlarge(2)


def x3():
    return enlarge(3)


def x4():
    return enlarge(4)


def gray_x2():
    torch.manual_seed(0)
    return nn.ConvTranspose2d(1, 1, 4, 2, 1)


class Pix2Pix(nn.Module):
    """Halves three times and doubles three times, with skips: sides must be divisible by 8."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.ModuleList(nn.Conv2d(c, 4, 4, 2, 1) for c in (3, 4, 4))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, 4, 4, 2, 1) for c in (4, 8, 8))
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, images):
        skips = []
        for layer in self.down:
            images = layer(images).relu()
            skips.append(images)
        images = skips.pop()
        for layer in self.up:
            images = layer(images).relu()
            images = torch.cat([images, skips.pop()], 1) if skips else images
        return self.last(images).tanh()
