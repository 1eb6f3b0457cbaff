"""U-Net: what was seen at every scale, handed across to where it is drawn."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import HE, initialize, size_ladder, stage_widths
from .upsample import enlarger


def _convolutions(incoming: int, outgoing: int) -> nn.Sequential:
    """Two 3×3 convolutions that keep the size, each with batch normalization and ReLU."""
    layers: list[nn.Module] = []
    for channels in (incoming, outgoing):
        layers += [
            nn.Conv2d(channels, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Images (B, C, H, W) → logits (B, classes, H, W) (Ronneberger et al. 2015, figure 1).

    Max pooling halves, rounding up, as often as `size_ladder(size)` has steps; on the way back
    every enlargement doubles, is cropped to the map of its scale and joined with it. Convolutions
    are padded and batch-normalized, so the output is as large as the input, whatever its size.
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        classes: int,
        width: int,
        upsample: str = "transposed",
        kernel_size: int = 4,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        widths = stage_widths(width, len(size_ladder(size)))
        self.down = nn.ModuleList(_convolutions(*pair) for pair in pairwise([channels, *widths]))
        upward = [*pairwise(widths[::-1])]  # (coarse, fine)
        self.enlarge = nn.ModuleList(
            enlarger(upsample, coarse, fine, kernel_size, True, antialias)
            for coarse, fine in upward
        )
        self.up = nn.ModuleList(_convolutions(2 * fine, fine) for _, fine in upward)
        self.head = nn.Conv2d(width, classes, 1)
        initialize(self, HE)  # as the paper has it

    def forward(self, images: Tensor) -> Tensor:
        """Logits, one map per class."""
        maps, seen = self.down[0](images), []
        for convolve in self.down[1:]:
            seen.append(maps)
            maps = convolve(F.max_pool2d(maps, 2, ceil_mode=True))
        for enlarge, convolve, across in zip(self.enlarge, self.up, reversed(seen), strict=True):
            height, width = across.shape[2:]
            maps = convolve(torch.cat([across, enlarge(maps)[..., :height, :width]], dim=1))
        return self.head(maps)
