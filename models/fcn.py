"""Fully convolutional networks: class scores of a coarse map, enlarged to the image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import StridedTrunk, initialize, stage_widths
from .upsample import enlarger

STAGES = 5  # halvings of the encoder, down to stride 32
# Head → strides of the maps that are scored (Long et al. 2015, figure 3).
HEADS = {"32s": 1, "16s": 2, "8s": 3}


class FCN(nn.Module):
    """Images (B, C, H, W) → logits (B, classes, H, W) (Long et al. 2015, section 4.2).

    1×1 convolutions score the map of stride 32 and, by `head`, those of 16 and 8 as well; from
    stride 32 on, scores are doubled and the finer ones added. Enlarging layers start as bilinear
    interpolation and, if `fixed`, stay so. The paper's single layer of factor 8 is three of factor
    2 here, so that every upsampler can take its place. Images are padded at the bottom and right
    to multiples of 32, and the logits are cropped.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,
        head: str = "8s",
        fixed: bool = False,
        upsample: str = "transposed",
        kernel_size: int = 4,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = StridedTrunk((64, 64), channels, width, stages=STAGES)
        widths = stage_widths(width, STAGES)[::-1]
        self.scores = nn.ModuleList(nn.Conv2d(w, classes, 1) for w in widths[: HEADS[head]])
        self.enlarge = nn.ModuleList(
            enlarger(upsample, classes, classes, kernel_size, False, antialias)
            for _ in range(STAGES)
        )
        initialize(self)
        for layer in self.enlarge:
            (layer[0] if antialias else layer).interpolate_()
        self.enlarge.requires_grad_(not fixed)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, one map per class."""
        height, width = images.shape[2:]
        stride = 2**STAGES
        images = F.pad(images, (0, -width % stride, 0, -height % stride), "replicate")
        maps = self.trunk.maps(images)[::-1]
        logits = self.scores[0](maps[0])
        for stage, enlarge in enumerate(self.enlarge, 1):
            logits = enlarge(logits)
            if stage < len(self.scores):
                logits = logits + self.scores[stage](maps[stage])
        return logits[..., :height, :width]
