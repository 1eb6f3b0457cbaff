"""Networks that enlarge maps in all the ways that people write, for tests; (network, draw)."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn


def maps(channels, *size, scale=1.0):
    """draw(n): random maps (n, channels, *size)."""

    def draw(count):
        generator = torch.Generator().manual_seed(1)
        return scale * torch.randn(count, channels, *size, generator=generator)

    return draw


def soft(channels, side, coarse=8):
    """draw(n): smooth maps (n, channels, side, side), as pictures of a super-resolution network."""

    def draw(count):
        noise = maps(channels, coarse, coarse)(count)
        return (F.interpolate(noise, size=side, mode="bicubic") / 2).clamp(-1, 1)

    return draw


class Function(nn.Module):
    """A function of the module and its input as `forward`, with named layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, inputs):
        return self.function(self, inputs)


def conv(a, b, kernel=3):
    return nn.Conv2d(a, b, kernel, padding=kernel // 2)


def shuffle_by_views(x, r):
    b, c, h, w = x.shape
    return x.view(b, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, -1, h * r, w * r)


def views():
    return Function(lambda n, x: shuffle_by_views(n.conv(x), 2), conv=conv(4, 12)), maps(4, 16, 16)


def tokens():
    """Tokens (B, 36, 32), each turned into 8×8 pixels by one linear layer."""

    def forward(n, x):
        x = n.pixels(x).view(-1, 6, 6, 8, 8, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 48, 48).tanh()

    return Function(forward, pixels=nn.Linear(32, 192)), maps(36, 32)


def patch_expanding():
    """Channels last, as transformers write it: window attention, two linear enlargements."""

    def expand(layer, x):
        b, h, w, _ = x.shape
        x = layer(x).view(b, h, w, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, 2 * h, 2 * w, -1)

    def windows(x):
        b, h, w, c = x.shape
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = (x @ x.mT).softmax(-1) @ x
        x = x.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h, w, c)

    def forward(n, x):
        x = expand(n.first, windows(x.view(-1, 8, 8, 16)))
        return n.last(expand(n.second, windows(x)).permute(0, 3, 1, 2))

    layers = {"first": nn.Linear(16, 32), "second": nn.Linear(8, 16), "last": conv(4, 3)}
    return Function(forward, **layers), maps(64, 16)


def scripted():
    network = nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Tanh())
    with warnings.catch_warnings():  # deprecated; files of it remain
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, maps(4, 16, 16)(2)), maps(4, 16, 16)


def fold():
    """Overlapping patches of 6, 3 pixels apart."""

    def forward(n, x):
        x = n.linear(x.flatten(2).mT).mT
        return F.fold(x, (45, 45), 6, stride=3, padding=1)

    return Function(forward, linear=nn.Linear(4, 3 * 36)), maps(4, 14, 14)


def unpool():
    def forward(n, x):
        x, at = F.max_pool2d(n.a(x), 2, return_indices=True)
        return n.b(F.max_unpool2d(x, at, 2))

    return Function(forward, a=conv(4, 8), b=conv(8, 3)), maps(4, 24, 24)


def frames():
    """A video of three frames whose layers enlarge space, and time once; frames are images."""
    layers = nn.Sequential(
        nn.ConvTranspose3d(4, 6, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose3d(6, 3, (1, 5, 5), (1, 2, 2), (0, 2, 2), (0, 1, 1)),
    )  # fmt: skip

    def forward(n, x):
        return n.layers(x).transpose(1, 2).flatten(0, 1)

    return Function(forward, layers=layers), maps(4, 3, 8, 8)


def separable():
    """Rows, then columns, by layers of one dimension."""

    def rows(layer, x):
        b, c, h, w = x.shape
        x = layer(x.transpose(1, 2).reshape(b * h, c, w))
        return x.view(b, h, x.shape[1], -1).transpose(1, 2)

    def forward(n, x):
        x = rows(n.a, n.first(x))
        return n.last(rows(n.b, x.mT).mT)

    layers = {
        "first": conv(4, 6), "a": nn.ConvTranspose1d(6, 6, 4, 2, 1),
        "b": nn.ConvTranspose1d(6, 6, 5, 2, 2, 1), "last": conv(6, 3),
    }  # fmt: skip
    return Function(forward, **layers), maps(4, 16, 16)


def modulated(stride=2):
    """Weights of each image's own, by one group of channels for each image (StyleGAN)."""

    def forward(n, x):
        styles = n.style(x)
        b, c = len(x), 8
        h = n.start.expand(b, -1, -1, -1)
        weight = (n.weight * styles.view(b, c, 1, 1, 1)).view(b * c, 3, 4, 4)
        h = F.conv_transpose2d(h.reshape(1, b * c, 16, 16), weight, None, stride, 1, groups=b)
        return h.view(b, 3, *h.shape[2:]).tanh()

    network = Function(forward, style=nn.Linear(12, 8))
    network.start = nn.Parameter(torch.randn(1, 8, 16, 16))
    network.weight = nn.Parameter(torch.randn(8, 3, 4, 4) / 8)
    return network, maps(12)


def zeros_between():
    """Enlargement as StyleGAN2 writes it: zeros between pixels, then a filter."""

    def forward(n, x):
        x = n.a(x)
        b, c, h, w = x.shape
        x = F.pad(x.reshape(b, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).reshape(b, c, 2 * h, 2 * w)
        return F.conv2d(F.pad(x, [2, 1, 2, 1]), n.filter, groups=3)

    network = Function(forward, a=conv(4, 3))
    tap = torch.tensor([1.0, 2.0, 3.0, 1.0]) / 3
    network.filter = nn.Parameter(torch.outer(tap, tap).expand(3, 1, 4, 4))
    return network, maps(4, 16, 16)


def wavelet():
    """Inverse wavelet transform that writes into slices."""

    def forward(n, x):
        a, b, c, d = n.a(x).chunk(4, 1)
        out = x.new_zeros(len(x), 4, 32, 32)
        out[..., ::2, ::2], out[..., ::2, 1::2] = a + b, a - b
        out[..., 1::2, ::2], out[..., 1::2, 1::2] = c, d
        return n.b(out)

    return Function(forward, a=conv(4, 16), b=conv(4, 3)), maps(4, 16, 16)


def interleaved():
    """Rows of two layers in turn."""

    def forward(n, x):
        return torch.stack([n.a(x), n.b(x)], 3).flatten(2, 3)

    return Function(forward, a=conv(4, 3), b=conv(4, 3)), maps(4, 16, 32)


def indexed():
    def forward(n, x):
        at = torch.arange(48) // 3
        return n.b(n.a(x)[:, :, at][..., at])

    return Function(forward, a=conv(4, 6), b=conv(6, 3)), maps(4, 16, 16)


def by_numpy():
    """Pixels of numpy, which no operator of torch shows."""

    def enlarge(_, x):
        return torch.from_numpy(x.numpy().repeat(2, -1).repeat(2, -2))

    def forward(n, x):
        return n.b(n.grow(n.a(x)))

    return Function(forward, a=conv(4, 6), grow=Function(enlarge), b=conv(6, 3)), maps(4, 16, 16)


def vectors(enlarge):
    """A network that shapes vectors as maps of 16×16, which no operator takes before `enlarge`."""

    def forward(n, x):
        return enlarge(n.first(x / x.std()).view(-1, 3, 16, 16)).tanh()

    return Function(forward, first=nn.Linear(8, 768)), maps(8)


def repeated():
    return vectors(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def sampled():
    def forward(x):
        turn, size = torch.eye(2, 3).expand(len(x), -1, -1), (len(x), 3, 48, 48)
        return F.grid_sample(x, F.affine_grid(turn, size, align_corners=False), align_corners=False)

    return vectors(forward)


def by_matrices():
    doubling = torch.eye(16).repeat_interleave(2, 0)
    return vectors(lambda x: doubling @ x @ doubling.T)


def by_fourier():
    def forward(x):
        return torch.fft.irfft2(torch.fft.rfft2(x), s=(32, 32))

    return vectors(forward)


def channels_last():
    def forward(n, x):
        x = n.first(x).view(-1, 16, 16, 3).permute(0, 3, 1, 2).contiguous()
        return torch.kron(x, torch.ones(1, 1, 2, 2)).tanh()

    return Function(forward, first=nn.Linear(8, 768)), maps(8)


def learned_constant():
    """Zeros between the pixels of a map that is no input; `n.style` is what is random."""

    def forward(n, x):
        out = torch.zeros(len(x), 3, 32, 32)
        out[:, :, ::2, ::2] = n.constant * n.style(x)[:, :, None, None]
        return n.conv(out)

    constant = nn.Parameter(torch.rand(1, 3, 16, 16))
    return Function(forward, constant=constant, style=nn.Linear(8, 3), conv=conv(3, 3)), maps(8)


def attention():
    """16 tokens with heads of 16: (batch, 4, 16, 16) in the attention is no map."""

    def forward(n, x):
        q = n.tokens(x).view(-1, 16, 4, 16).transpose(1, 2)
        x = F.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(-1, 16, 64)
        x = n.pixels(x).view(-1, 4, 4, 16, 16, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 64, 64)

    return Function(forward, tokens=nn.Linear(8, 1024), pixels=nn.Linear(64, 768)), maps(8)


def reduced(size=28):
    """Enlarged to 32×32 by two layers, then resized."""

    def forward(n, x):
        x = n.b(n.a(x).relu()).tanh()
        return F.interpolate(x, size=size, mode="bilinear")

    layers = {"a": nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), "b": nn.ConvTranspose2d(4, 3, 3, 2, 1, 1)}
    return Function(forward, **layers), maps(4, 8, 8)


def blurred_and_pooled():
    """A factor of 4, then a strided convolution and a pool of windows."""
    layers = [nn.ConvTranspose2d(4, 6, 4, 4), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), conv(6, 3)), maps(4, 16, 16)


class Attention(nn.Module):
    """Attention over all pixels, with heads."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(2, channels), nn.Linear(channels, 3 * channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x).view(b, c, h * w).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(b, h * w, 6, c // 2).transpose(1, 2).chunk(3, 1)
        y = (q @ k.mT).softmax(-1) @ v
        return x + y.transpose(1, 2).reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w)


class Residual(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(2, a), conv(a, b)
        self.norm2, self.conv2 = nn.GroupNorm(2, b), conv(b, b)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


def autoencoder():
    """The decoder of a latent diffusion model: attention, residual blocks, nearest ×2, thrice."""
    torch.manual_seed(0)
    blocks = [conv(4, 16), Residual(16, 16), Attention(16), Residual(16, 16)]
    for a, b in ((16, 16), (16, 8), (8, 8)):
        blocks += [nn.Upsample(scale_factor=2), conv(a, a), Residual(a, b)]
    return nn.Sequential(*blocks, nn.GroupNorm(2, 8), nn.SiLU(), conv(8, 3)), maps(4, 8, 8)


class Dense(nn.Module):
    """A dense block of ESRGAN."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList([conv(width * (k + 1), width) for k in range(3)])

    def forward(self, x):
        found = [x]
        for layer in self.layers:
            found.append(F.leaky_relu(layer(torch.cat(found, 1)), 0.2))
        return x + 0.2 * found[-1]


def super_resolution(factor=3):
    """ESRGAN-like: dense blocks, one pixel shuffle, a skip connection from the enlarged input."""

    def forward(n, x):
        y = n.first(x)
        y = y + n.trunk(y)
        return n.last(n.up(y)) + F.interpolate(x, scale_factor=factor, mode="bicubic")

    torch.manual_seed(0)
    up = nn.Sequential(conv(8, 8 * factor**2), nn.PixelShuffle(factor))
    trunk = nn.Sequential(Dense(8), Dense(8))
    return Function(forward, first=conv(3, 8), trunk=trunk, up=up, last=conv(8, 3)), soft(3, 24)


def unet():
    """An image-to-image network: strided convolutions, transposed ones, skip connections."""

    def forward(n, x):
        a = n.a(x).relu()
        b = n.b(a).relu()
        return n.d(torch.cat([n.c(b), a], 1)).tanh()

    layers = {
        "a": nn.Conv2d(3, 6, 4, 2, 1), "b": nn.Conv2d(6, 6, 4, 2, 1),
        "c": nn.ConvTranspose2d(6, 6, 4, 2, 1), "d": nn.ConvTranspose2d(12, 3, 4, 2, 1),
    }  # fmt: skip
    return Function(forward, **layers), soft(3, 48)


def padded_shuffle():
    """A shuffle by views, reflected borders, circular borders, a crop."""

    def forward(n, x):
        x = F.pad(shuffle_by_views(n.a(x), 2), [1] * 4, mode="reflect")
        x = F.pad(n.b(x), [1] * 4, mode="circular")
        return n.b(x)[..., :31, 1:32]

    return Function(forward, a=conv(4, 16), b=nn.Conv2d(4, 4, 3)), maps(4, 16, 16)
