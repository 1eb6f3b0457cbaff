"""Pixels in and out: [-1, 1] ↔ uint8, sheets and PNG files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gen.system.errors import InputError
from gen.system.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

MID_GREY = 127.5  # the gray level that is 0 in [-1, 1]
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (Rec. 601)


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to gray levels 0 … 255 (uint8); values outside are clipped.

    The map is the same for every image, without per-batch stretching: pixels can be judged.
    """
    import torch

    return (images.float() * MID_GREY + MID_GREY).round_().clamp_(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Map gray levels 0 … 255 to float32 in [-1, 1]; the inverse of `to_uint8`."""
    return images.float().div_(MID_GREY).sub_(1)


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


def palette() -> Tensor:
    """Colors of class indices, uint8 (256, 3), as PASCAL VOC has them: black, maroon, green, …

    The bits of an index go to red, green and blue in turn, to their highest bits first.
    """
    import torch

    index, shifts = torch.arange(256), torch.arange(3)
    colors = torch.zeros(256, 3, dtype=torch.int64)
    for bit in range(8):
        colors |= (index[:, None] >> shifts & 1) << (7 - bit)
        index = index >> 3
    return colors.to(torch.uint8)


def colorize(masks: Tensor) -> Tensor:
    """Class indices, uint8 (B, H, W) → their colors, uint8 (B, 3, H, W)."""
    return palette()[masks.long()].permute(0, 3, 1, 2)


def encode_mask(mask: Tensor) -> bytes:
    """Class indices, uint8 (H, W), as the bytes of a PNG with the palette."""
    import io

    from PIL import Image

    image = Image.fromarray(mask.contiguous().numpy())
    image.putpalette(palette().flatten().tolist())  # a gray image becomes one of indices
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def encode(image: Tensor, suffix: str, compress_level: int = 1) -> bytes:
    """One uint8 image (C, H, W) with 1, 3 or 4 channels as the bytes of a file of this suffix.

    Args:
        image: gray levels.
        suffix: .png, .jpg (quality 95, colors at full resolution) or .npy (H, W, C).
        compress_level: of PNG. Level 1 is several times faster than Pillow's default 6 for files a
            few per cent larger.

    Raises:
        ValueError: JPEG of an image with alpha.
    """
    import io

    import numpy as np
    from PIL import Image

    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, pixels)
        return buffer.getvalue()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if suffix == ".png":
        picture.save(buffer, "png", compress_level=compress_level)
    elif suffix not in (".jpg", ".jpeg"):
        raise InputError(f"suffix is {suffix}; must be .png, .jpg, .jpeg or .npy")
    elif pixels.shape[2] == 4:
        raise InputError("images with alpha have no JPEG; write png or npy")
    else:
        picture.save(buffer, "jpeg", quality=95, subsampling=0)
    return buffer.getvalue()


def encode_gif(frames: Sequence[Tensor], frames_per_second: int) -> bytes:
    """Gray or RGB frames (C, H, W), uint8, as a GIF that loops forever.

    Each frame has its own 256 colors, the nearest to its pixels, without dithering; gray is exact.

    Raises:
        ValueError: frames with alpha, or a rate that is no whole number of hundredths of a second.
    """
    import io

    from PIL import Image

    if 100 % frames_per_second:
        raise InputError(f"a GIF counts in 1/100 s; {frames_per_second} frames per second do not")
    if frames[0].shape[0] == 4:
        raise InputError("images with alpha have no GIF; write --grid or --npy")
    pictures = []
    for frame in frames:
        picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy().squeeze())
        gray = frame.shape[0] == 1
        pictures.append(picture if gray else picture.quantize(256, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    delay = 1000 // frames_per_second  # milliseconds
    pictures[0].save(
        buffer, "gif", save_all=True, append_images=pictures[1:], duration=delay, loop=0,
        optimize=False, disposal=1,
    )  # fmt: skip
    return buffer.getvalue()


def save_png(path: Path, image: Tensor, compress_level: int = 1) -> None:
    """Write one uint8 image (C, H, W) with 1, 3 or 4 channels as PNG, atomically."""
    write_atomically(path, encode(image, ".png", compress_level))
