"""Ways to enlarge a map by two, with one signature and one table.

Each maker takes (in_channels, out_channels, kernel_size, bias) and returns a module that maps
(B, in_channels, H, W) to (B, out_channels, 2H, 2W), so networks differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def transposed(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
    """Transposed convolution of stride 2 (Zeiler et al. 2010; DCGAN uses kernel 4).

    Output size 2(H−1) + K − 2p + o with padding p = ⌊(K−1)/2⌋ and output padding o = K mod 2
    is 2H for every kernel size K ≥ 2. Odd K gives neighbouring pixels different numbers of taps.
    """
    return nn.ConvTranspose2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=2,
        padding=(kernel_size - 1) // 2,
        output_padding=kernel_size % 2,
        bias=bias,
    )


class Resize(nn.Sequential):
    """Fixed interpolation, then an ordinary convolution of odd kernel (Odena et al. 2016)."""

    def __init__(
        self, mode: str, in_channels: int, out_channels: int, kernel_size: int, bias: bool
    ) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode=mode),
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
        )


def nearest(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
    """Nearest-neighbour enlargement and convolution."""
    return Resize("nearest", in_channels, out_channels, kernel_size, bias)


def bilinear(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
    """Bilinear enlargement and convolution."""
    return Resize("bilinear", in_channels, out_channels, kernel_size, bias)


class Subpixel(nn.Sequential):
    """Convolution to 4·out_channels maps, interleaved 2×2 by pixel shuffle (Shi et al. 2016)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels, 4 * out_channels, kernel_size, padding=kernel_size // 2, bias=bias
            ),
            nn.PixelShuffle(2),
        )
        self.icnr_()

    @torch.no_grad()
    def icnr_(self) -> None:
        """Give the four sub-kernels of each output map the same weights (ICNR, Aitken et al. 2017).

        The layer then starts as nearest-neighbour enlargement of a convolution: no checkerboard.
        """
        conv = self[0]
        for parameter in (conv.weight, conv.bias):
            if parameter is not None:
                parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))


UPSAMPLERS: dict[str, Callable[[int, int, int, bool], nn.Module]] = {
    "transposed": transposed,
    "nearest": nearest,
    "bilinear": bilinear,
    "subpixel": Subpixel,
}
