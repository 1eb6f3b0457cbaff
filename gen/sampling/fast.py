"""The same decoder with fewer operations: what can be computed once is, before the first image.

Each step with what it bought on two CPU cores, fp32 / bf16 (docs/performance.md): batch
normalization folded into the weights before it, and maps stored channel by channel per pixel; the
stem as one matrix product that writes this order; the last layer, whose few channels suit
no transposed convolution, as four interleaved small convolutions.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gen.models.decoder import Decoder

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class FastDecoder(nn.Module):
    """A decoder in eval mode for sampling alone: same images up to rounding.

    In fp32 images in [−1, 1] differ from the decoder's by less than 1e-5; how far in bf16,
    docs/performance.md says in grey levels.

    Args:
        decoder: as `gen.runs.open.load` gives it; it is left as it is.
        precision: fp32 or bf16.
    """

    def __init__(self, decoder: Decoder, precision: str = "fp32") -> None:
        super().__init__()
        self.latent, self.classes, self.sizes = decoder.latent, decoder.classes, decoder.sizes
        self.embedding, self.condition = decoder.embedding, decoder.condition
        self.dtype = PRECISIONS[precision]
        linear, _, norm, _ = decoder.stem
        self.stem = _folded_stem(linear, norm, decoder.sizes[0])
        *inner, last = decoder.stages
        self.stages = nn.ModuleList([*map(_folded_stage, inner), _polyphase(last)])
        for part in (self.stem, self.stages):
            part.to(self.dtype, memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, Z), or what `condition` made of them → images (B, C, H, W) in [−1, 1]."""
        height, width = self.sizes[0]
        flat = self.stem(latents.to(self.dtype)).relu_()
        maps = flat.view(len(latents), height, width, -1).permute(0, 3, 1, 2)
        for stage, (height, width) in zip(self.stages, self.sizes[1:], strict=True):
            maps = stage(maps)[..., :height, :width]
        return maps.float().tanh()


def _folded_stem(linear: nn.Linear, norm: nn.BatchNorm2d, size: tuple[int, int]) -> nn.Linear:
    """Linear layer and batch norm as one, whose output is ordered (H, W, C)."""
    channels, pixels = norm.num_features, size[0] * size[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    stem = nn.Linear(linear.in_features, linear.out_features, device=linear.weight.device)
    weight = linear.weight.view(channels, pixels, -1) * scale[:, None, None]
    stem.weight.data = weight.transpose(0, 1).reshape(linear.weight.shape)
    stem.bias.data = (norm.bias - norm.running_mean * scale).repeat(pixels)
    return stem


def _folded_stage(stage: nn.Sequential) -> nn.Sequential:
    """Stage with its batch norm in the transposed convolution's weights; others as they are."""
    stage = copy.deepcopy(stage)
    layer, norm, activation = stage
    if not isinstance(layer, nn.ConvTranspose2d):
        return stage
    return nn.Sequential(fuse_conv_bn_eval(_plain(layer), norm, transpose=True), activation)


def _plain(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """Transposed convolution whose weight is a parameter, whatever it was computed by."""
    settings = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding)
    plain = nn.ConvTranspose2d(
        layer.in_channels, layer.out_channels, *settings, bias=layer.bias is not None
    ).to(layer.weight.device)
    plain.weight.data = layer.weight.detach().clone()
    if layer.bias is not None:
        plain.bias.data = layer.bias.detach().clone()
    return plain.eval()


def _polyphase(layer: nn.Module) -> nn.Module:
    """Transposed convolution of stride 2 as a convolution to four phases, and their interleaving.

    Output row n = 2m + r takes tap j ≡ r + p (mod 2) from input row m + (r + p − j)/2, and columns
    alike (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?").
    """
    if not isinstance(layer, nn.ConvTranspose2d):
        return copy.deepcopy(layer)
    kernel, padding = layer.kernel_size[0], layer.padding[0]
    taps = [
        (r, j, (r + padding - j) // 2) for r in (0, 1) for j in range(r + padding & 1, kernel, 2)
    ]
    reach = max(abs(offset) for *_, offset in taps)
    side = 2 * reach + 1
    weight = layer.weight.new_zeros(layer.out_channels, 2, 2, layer.in_channels, side, side)
    for r, j, y in taps:
        for s, k, x in taps:
            weight[:, r, s, :, reach + y, reach + x] = layer.weight[:, :, j, k].T
    phases = nn.Conv2d(layer.in_channels, 4 * layer.out_channels, side, padding=reach)
    phases.weight.data = weight.flatten(0, 2).detach()
    phases.bias.data = layer.bias.detach().repeat_interleave(4)
    return nn.Sequential(phases, nn.PixelShuffle(2))
