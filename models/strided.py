"""Convolutions k4 s2 p1 that train as matrix products where oneDNN's kernels are slow."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Weights per pixel of the coarse map from which products win, on one core that has amx_bf16. Batch
# 64, oneDNN → product in ms, fp32 and bf16: 512×256 weights of 4×4 between 8×8 and 4×4, halving
# 41 → 32 and 12 → 6, doubling 47 → 37 and 20 → 8, gradient of the weights 49 → 32 and 49 → 10.
LEAST = 1 << 16


class HalvingConv2d(nn.Conv2d):
    """Convolution k4 s2 p1, (B, C, H, W) → (B, `out_channels`, ⌊H/2⌋, ⌊W/2⌋).

    Same numbers as `nn.Conv2d`; where many weights train on a CPU, sums take another order.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve."""
        height, width = maps.shape[2:]
        if (height | width) & 1 or not trains_by_product(self, height * width // 4):
            return super().forward(maps)
        dtype = precision(maps)
        return Strided.apply(maps.to(dtype), self.weight.to(dtype), False)


class DoublingConv2d(nn.ConvTranspose2d):
    """Transposed convolution k4 s2 p1, (B, C, H, W) → (B, `out_channels`, 2H, 2W).

    Same numbers as `nn.ConvTranspose2d`; where many weights train on a CPU, sums take another
    order.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=bias)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve."""
        height, width = maps.shape[2:]
        if output_size or not trains_by_product(self, height * width):
            return super().forward(maps, output_size)
        dtype = precision(maps)
        return Strided.apply(maps.to(dtype), self.weight.to(dtype), True)


def precision(maps: Tensor) -> torch.dtype:
    """What a layer computes in."""
    autocast = torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if autocast else maps.dtype


def trains_by_product(layer: nn.Module, pixels: int) -> bool:
    """Whether a layer whose coarse map has so many pixels takes its own way."""
    return (
        layer.training
        and layer.bias is None
        and layer.weight.device.type == "cpu"
        and layer.weight.numel() >= LEAST * pixels
        and not torch.compiler.is_compiling()
    )


class Strided(torch.autograd.Function):
    """The k4 s2 p1 convolution between fine maps (B, C, 2H, 2W) and coarse ones (B, K, H, W).

    Weight (K, C, 4, 4). conv2d halves fine maps, conv_transpose2d doubles coarse ones: sums over
    the same products, so that each is the gradient of the other and `weight_gradient` of both.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, doubles: bool) -> Tensor:
        """Coarse maps of fine ones, or fine maps of coarse ones where it `doubles`."""
        ctx.save_for_backward(maps, weight)
        ctx.doubles = doubles
        return (double if doubles else halve)(maps, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of maps and weight; can be differentiated again."""
        maps, weight = ctx.saved_tensors
        to_maps, to_weight, _ = ctx.needs_input_grad
        fine, coarse = (gradient, maps) if ctx.doubles else (maps, gradient)
        return (
            Strided.apply(gradient, weight, not ctx.doubles) if to_maps else None,
            weight_gradient(fine, coarse) if to_weight else None,
            None,
        )


def patches(fine: Tensor) -> Tensor:
    """What each coarse pixel sees of fine maps (B, C, 2H, 2W): rows (B·H·W, 4·4·C)."""
    padded = F.pad(fine.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    windows = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # (B, H, W, C, 4, 4)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)


def halve(fine: Tensor, weight: Tensor) -> Tensor:
    """One product: fine maps → coarse ones."""
    batch, _, height, width = fine.shape
    rows = patches(fine) @ weight.permute(0, 2, 3, 1).flatten(1).T
    return rows.view(batch, height // 2, width // 2, -1).permute(0, 3, 1, 2)


def double(coarse: Tensor, weight: Tensor) -> Tensor:
    """Four products: coarse maps → the fine pixels of even and odd rows and columns.

    Fine row 2m + r takes tap 1 − r from coarse row m + r and tap 3 − r from row m + r − 1, and
    columns alike.
    """
    batch, _, height, width = coarse.shape
    padded = F.pad(coarse.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    fine = coarse.new_empty(batch, 2 * height, 2 * width, weight.shape[1])
    for r, s in product((0, 1), repeat=2):
        seen = [padded[:, y : y + height, x : x + width] for y in (r + 1, r) for x in (s + 1, s)]
        taps = weight[:, :, 1 - r :: 2, 1 - s :: 2].permute(2, 3, 0, 1).flatten(0, 2)
        rows = torch.cat(seen, dim=3).flatten(0, 2) @ taps
        fine[:, r::2, s::2] = rows.view(batch, height, width, -1)
    return fine.permute(0, 3, 1, 2)


def weight_gradient(fine: Tensor, coarse: Tensor) -> Tensor:
    """One product: fine maps and what comes back for coarse ones, or the reverse → (K, C, 4, 4)."""
    columns = coarse.permute(0, 2, 3, 1).flatten(0, 2)
    return (columns.T @ patches(fine)).view(-1, 4, 4, fine.shape[1]).permute(0, 3, 1, 2)
