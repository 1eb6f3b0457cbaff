"""Pixels in and out: [-1, 1] ↔ uint8, sheets and PNG files. The one place where 127.5 stands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gen.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to grey levels 0 … 255 (uint8); values outside are clipped.

    The map is the same for every image, without per-batch stretching: pixels can be judged.
    """
    import torch

    return (images.float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Map grey levels 0 … 255 to float32 in [-1, 1]; the inverse of `to_uint8`."""
    return images.float().div_(127.5).sub_(1)


def make_grid(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Lay images (B, C, H, W) on one white sheet (C, rows·(H+gap)+gap, columns·(W+gap)+gap).

    Tile (row, column) starts at (gap + row·(H+gap), gap + column·(W+gap)); pixels are copied, never
    resampled, so a sheet can be cut up again and measured. Default: as square as possible.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = images.new_full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255
    )
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def save_png(path: Path, image: Tensor, compress_level: int = 1) -> None:
    """Write one uint8 image (C, H, W) with 1, 3 or 4 channels as PNG, atomically.

    Level 1 writes several times faster than Pillow's default 6 for files a few per cent larger.
    """
    import io

    from PIL import Image

    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, "png", compress_level=compress_level
    )
    write_atomically(path, buffer.getvalue())
