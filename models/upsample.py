"""Ways to enlarge a map by two, with one signature; `kinds.py` lists them.

Each takes (in_channels, out_channels, kernel_size, bias) and gives a module that maps
(B, in_channels, H, W) to (B, out_channels, 2H, 2W), so networks differ in nothing else. Its
`interpolate_()` sets a layer of C → C maps without bias to bilinear interpolation of each map,
the initialization of fully convolutional networks (Long et al. 2015, section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .kinds import UPSAMPLERS


@torch.no_grad()
def _set_kernel(weight: Tensor, taps: Tensor) -> None:
    """Give every map the separable kernels of `taps` (R, K), one per pair of phases, and no other.

    `weight` is (C, C, K', K') or, for R = 2, (C, C, 4, K', K'), with K' ≥ K.
    """
    margin = (weight.shape[-1] - taps.shape[-1]) // 2
    taps = F.pad(taps, (margin, margin))
    kernels = torch.einsum("ri,sj->rsij", taps, taps).flatten(0, 1)
    weight.zero_()
    for channel in range(len(weight)):
        weight[channel, channel] = kernels.view_as(weight[channel, channel])


class Transposed(nn.ConvTranspose2d):
    """Transposed convolution of stride 2 (Zeiler et al. 2010; DCGAN uses kernel 4).

    Output size 2(H−1) + K − 2p + o with padding p = ⌊(K−1)/2⌋ and output padding o = K mod 2
    is 2H for every kernel size K ≥ 2. Odd K gives neighboring pixels different numbers of taps.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=2,
            padding=(kernel_size - 1) // 2,
            output_padding=kernel_size % 2,
            bias=bias,
        )

    def interpolate_(self) -> None:
        """Start as interpolation with (¼ ¾ ¾ ¼).

        Odd sizes have their samples on every other pixel, as (½ 1 ½); kernel 2, which sees one
        sample, becomes nearest enlargement.
        """
        size = self.kernel_size[0]
        taps = (1 - (torch.arange(size) - (size - 1) / 2).abs() / 2).clamp_min(0)
        taps[::2] /= taps[::2].sum()
        taps[1::2] /= taps[1::2].sum()
        _set_kernel(stored_weight(self), taps[None])


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


def balanced(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> Transposed:
    """Transposed convolution whose phases are kept equal while it trains; nothing at inference.

    `parametrize.remove_parametrizations(layer, "weight")` leaves a plain `Transposed` with the same
    output.
    """
    layer = Transposed(in_channels, out_channels, kernel_size, bias)
    parametrize.register_parametrization(layer, "weight", EqualPhases())
    return layer


class Nearest(nn.Sequential):
    """Nearest-neighbor enlargement, then a convolution of odd kernel (Odena et al. 2016)."""

    mode, taps = "nearest", (0.25, 0.5, 0.25)

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode=self.mode),
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
        )

    def interpolate_(self) -> None:
        """Start with the convolution that makes bilinear interpolation of the enlarged map."""
        _set_kernel(self[1].weight, torch.tensor([self.taps]))


class Bilinear(Nearest):
    """Bilinear enlargement, then a convolution of odd kernel."""

    mode, taps = "bilinear", (0.0, 1.0, 0.0)


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

        The layer then starts as nearest-neighbor enlargement of a convolution: no checkerboard.
        """
        conv = self[0]
        for parameter in (conv.weight, conv.bias):
            if parameter is not None:
                parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))

    def interpolate_(self) -> None:
        """Start with (¼ ¾) and (¾ ¼), interleaved."""
        weight = self[0].weight.unflatten(0, (-1, 4)).transpose(1, 2)  # (C, C, 4, K, K)
        _set_kernel(weight, torch.tensor([[1.0, 3.0, 0.0], [0.0, 3.0, 1.0]]) / 4)


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


def enlarger(
    name: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    bias: bool,
    antialias: bool = False,
) -> nn.Module:
    """The upsampler of the table, followed by a binomial filter with `antialias`."""
    layer = globals()[UPSAMPLERS[name].maker](in_channels, out_channels, kernel_size, bias)
    return nn.Sequential(layer, Blur()) if antialias else layer


def stored_weight(layer: nn.Module) -> nn.Parameter:
    """The weight that a layer stores and learns, of which `layer.weight` may be computed."""
    computed = parametrize.is_parametrized(layer, "weight")
    return layer.parametrizations.weight.original if computed else layer.weight
