"""Ways to enlarge a map by two, with one signature and one table.

Each maker takes (in_channels, out_channels, kernel_size, bias) and returns a module that maps
(B, in_channels, H, W) to (B, out_channels, 2H, 2W), so networks differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


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


class EqualPhases(nn.Module):
    """Weights (…, K, K) of stride 2 → the nearest whose four phases have equal sums, mean kept.

    Output pixels of one parity see the taps of one parity; W'[j] = W[j] − (G_r − Ḡ)/n_r, with G_r
    the sum and n_r the number of the taps of phase r. Constant maps then stay constant (Sugawara
    et al. 2018), whatever is learned. Sums stay in the weights' own precision under autocast.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Project."""
        phases = [
            (..., slice(row, None, 2), slice(col, None, 2)) for row in (0, 1) for col in (0, 1)
        ]
        gains = [weight[phase].sum((-2, -1), keepdim=True) for phase in phases]
        mean, balanced = sum(gains) / 4, weight.clone()
        for phase, gain in zip(phases, gains, strict=True):
            balanced[phase] -= (gain - mean) / weight[0, 0][phase].numel()
        return balanced

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Any weight is its own original."""
        return weight


def balanced(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
    """Transposed convolution whose phases are kept equal while it trains; nothing at inference.

    `parametrize.remove_parametrizations(layer, "weight")` leaves a plain `ConvTranspose2d` with the
    same output.
    """
    layer = transposed(in_channels, out_channels, kernel_size, bias)
    parametrize.register_parametrization(layer, "weight", EqualPhases())
    return layer


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


class Blur(nn.Module):
    """Binomial filter [1 2 1]/4 along both axes, which has its zeros at f = ½: no line of period 2.

    Reflected borders keep it so to the last pixel.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape; H, W ≥ 2."""
        channels = maps.shape[1]
        tap = torch.tensor([1.0, 2.0, 1.0], dtype=maps.dtype, device=maps.device) / 4
        kernel = torch.outer(tap, tap).expand(channels, 1, -1, -1)
        return F.conv2d(F.pad(maps, (1, 1, 1, 1), "reflect"), kernel, groups=channels)


UPSAMPLERS: dict[str, Callable[[int, int, int, bool], nn.Module]] = {
    "transposed": transposed,
    "balanced": balanced,
    "nearest": nearest,
    "bilinear": bilinear,
    "subpixel": Subpixel,
}


def enlarger(
    name: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    bias: bool,
    antialias: bool = False,
) -> nn.Module:
    """The upsampler of the table, followed by a binomial filter with `antialias`."""
    layer = UPSAMPLERS[name](in_channels, out_channels, kernel_size, bias)
    return nn.Sequential(layer, Blur()) if antialias else layer


def own_weight(layer: nn.Module) -> nn.Parameter:
    """The weight that a layer stores and learns, of which `layer.weight` may be computed."""
    held = parametrize.is_parametrized(layer, "weight")
    return layer.parametrizations.weight.original if held else layer.weight


@torch.no_grad()
def interpolate_(layer: nn.Module) -> None:
    """Set a layer of the table, C → C maps without bias, to bilinear interpolation of each map.

    The initialization of fully convolutional networks (Long et al. 2015, section 3.3). Every
    upsampler can be bilinear: kernel (¼ ¾ ¾ ¼) of stride 2, (¼ ½ ¼) after nearest enlargement,
    (¼ ¾) and (¾ ¼) interleaved. Transposed kernels of odd size interpolate with their samples on
    every other pixel, as (½ 1 ½); kernel 2, which sees one sample, becomes nearest enlargement.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        weight = own_weight(layer)
        size = weight.shape[-1]
        tap = (1 - (torch.arange(size) - (size - 1) / 2).abs() / 2).clamp_min(0)
        tap[::2] /= tap[::2].sum()
        tap[1::2] /= tap[1::2].sum()
        taps = tap[None]
    elif isinstance(layer, Subpixel):
        weight = layer[0].weight.unflatten(0, (-1, 4)).transpose(1, 2)  # (C, C, 4, K, K)
        taps = torch.tensor([[1.0, 3.0, 0.0], [0.0, 3.0, 1.0]]) / 4
    else:
        weight = layer[1].weight
        smooth = layer[0].mode == "bilinear"
        taps = torch.tensor([[0.0, 1.0, 0.0] if smooth else [0.25, 0.5, 0.25]])
    margin = (weight.shape[-1] - taps.shape[-1]) // 2
    taps = F.pad(taps, (margin, margin))
    kernels = torch.einsum("ri,sj->rsij", taps, taps).flatten(0, 1)  # (phases, K, K)
    weight.zero_()
    for channel in range(len(weight)):
        weight[channel, channel] = kernels.view_as(weight[channel, channel])
