"""A halving convolution whose weights' gradient is one matrix product where oneDNN's is slow."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Weights from which the product wins in bf16 on a CPU. Batch 64, one Zen 4 core, oneDNN → product:
# 512×256 weights of 4×4 on maps of 8×8 53 → 11 ms, 256×128 on 16×16 20 → 17, 128×64 on 8×8 3 → 2.
WORTH_IT = 1 << 20


class HalvingConv2d(nn.Conv2d):
    """Convolution k4 s2 p1, (B, C, H, W) → (B, `out_channels`, ⌊H/2⌋, ⌊W/2⌋).

    Same numbers as `nn.Conv2d`; of large layers that train in bf16 on a CPU the gradient of the
    weights is summed in another order.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve."""
        weight = self.weight
        by_product = (
            torch.is_autocast_enabled("cpu")
            and torch.is_grad_enabled()
            and weight.requires_grad
            and weight.device.type == "cpu"
            and weight.numel() >= WORTH_IT
            and self.bias is None
            and not torch.compiler.is_compiling()
        )
        if not by_product:
            return super().forward(maps)
        dtype = torch.get_autocast_dtype("cpu")
        return ByProduct.apply(maps.to(dtype), weight.to(dtype))


class ByProduct(torch.autograd.Function):
    """conv2d(maps, weight), k4 s2 p1, with the gradient of the weights as one matrix product."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        """Maps (B, C, H, W), weight (K, C, 4, 4) → (B, K, ⌊H/2⌋, ⌊W/2⌋)."""
        ctx.save_for_backward(maps, weight)
        return F.conv2d(maps, weight, None, 2, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of maps and weight; can be differentiated again."""
        maps, weight = ctx.saved_tensors
        to_maps = to_weight = None
        if ctx.needs_input_grad[0]:
            to_maps, _, _ = torch.ops.aten.convolution_backward(
                gradient, maps, weight, None, (2, 2), (1, 1), (1, 1), False, (0, 0), 1,
                (True, False, False),
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            columns = gradient.permute(0, 2, 3, 1).flatten(0, 2)
            to_weight = (columns.T @ patches(maps)).view(-1, 4, 4, maps.shape[1])
            to_weight = to_weight.permute(0, 3, 1, 2)
        return to_maps, to_weight


def patches(maps: Tensor) -> Tensor:
    """What each output pixel sees of maps (B, C, H, W): rows (B·⌊H/2⌋·⌊W/2⌋, 4·4·C)."""
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    windows = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # (B, H/2, W/2, C, 4, 4)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)
