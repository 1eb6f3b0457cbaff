"""A price on grids: the weighted imbalance of a decoder's last enlarging layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.analysis.layers.phases import phase_gains, subpixel_gains, weighted_imbalance
from gen.models.upsample import Subpixel


def last_enlarging(network: nn.Module) -> nn.ConvTranspose2d | Subpixel | None:
    """The last layer with weights that differ by phase; None where there is none."""
    kinds = nn.ConvTranspose2d, Subpixel
    return next((m for m in reversed([*network.modules()]) if isinstance(m, kinds)), None)


def layer_gains(layer: nn.ConvTranspose2d | Subpixel) -> Tensor:
    """Phase gains (s, s, C_out, C_in), differentiable in the weights."""
    if isinstance(layer, Subpixel):
        conv, shuffle = layer
        return subpixel_gains(conv.weight, shuffle.upscale_factor)
    return phase_gains(layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)


def local_moment(maps: Tensor) -> Tensor:
    """R = E[m mᵀ] (C, C) of 3×3 means m over maps (B, C, H, W)."""
    means = F.avg_pool2d(maps, 3, 1).transpose(0, 1).flatten(1)  # (C, B·H·W)
    return means @ means.T / means.shape[1]


class GridPenalty:
    """weight · Σ_{q≠0} tr(Ŵ(q/s) R Ŵ(q/s)ᴴ) / tr(Ŵ(0) R Ŵ(0)ᴴ) of the last enlarging layer.

    By Parseval's theorem this is the layer's weighted imbalance. R comes from the maps of the
    latest forward pass and takes no gradient: only the layer's own weights feel the price.
    A weight of 0 costs nothing.
    """

    def __init__(self, decoder: nn.Module, weight: float) -> None:
        self.weight, self.layer, self.maps = weight, last_enlarging(decoder), torch.empty(0)
        if weight:
            self.layer.register_forward_pre_hook(self.keep)

    def keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Remember the maps that enter the layer."""
        if layer.training:
            self.maps = inputs[0].detach()

    def price(self) -> Tensor:
        """The penalty (0-d) for the latest maps, in the weights' precision under autocast too."""
        with torch.autocast(self.maps.device.type, enabled=False):
            gains = layer_gains(self.layer)
            return self.weight * weighted_imbalance(gains, local_moment(self.maps.to(gains.dtype)))

    def add(self, loss: Tensor, metrics: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss and its metrics with the penalty added."""
        if not self.weight:
            return loss, metrics
        price = self.price()
        return loss + price, metrics | {"loss/grid": price.detach()}
