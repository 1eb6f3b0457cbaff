"""Images of a folder as inputs of networks that turn images into images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.decode import DataError, decode_frames, list_images, read_headers
from gen.sampling.adapt import Inputs

_MULTIPLE = 32  # pixels; the sides of what U-Nets and others halve again and again


def draw_crops(
    folder: Path,
    crop: tuple[int, int] | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    channels: int | None = None,
) -> tuple[Callable[[int], Inputs], str]:
    """Crops of one size of a folder's images, in the order of their names, and one line on them.

    As many crops as fit are cut from each image, from its top left corner: first one of each, then
    the second ones. Only what one batch needs is decoded.

    Args:
        folder: with images; of these, those smaller than the crop are left out.
        crop: (H, W); by default the smallest sides, each rounded down to a multiple of 32.
        value_range: values of black and white.
        channels: 1 or 3; by default 3 if any image is in color.

    Raises:
        DataError, BadImage: no images, or unreadable ones.
    """
    paths = list_images(folder) if folder.is_dir() else []
    headers = [header for path in paths for header in read_headers(path)]
    if not headers:
        raise DataError(f"{folder}: no folder with images")
    smallest = tuple(min(header.size[axis] for header in headers) for axis in range(2))
    height, width = crop or tuple(
        side // _MULTIPLE * _MULTIPLE or 1 << side.bit_length() - 1 for side in smallest
    )
    channels = channels or (3 if any(header.color for header in headers) else 1)
    places = sorted(
        (number, index, y, x)
        for index, header in enumerate(headers)
        for number, (y, x) in enumerate(_corners(header.size, height, width))
    )
    if not places:
        raise DataError(
            f"{folder}: no image of {height}x{width} pixels or more; take a smaller --crop"
        )
    low, high = value_range

    def one(row: int) -> np.ndarray:
        _, index, y, x = places[row]
        header = headers[index]
        frame = range(header.frame, header.frame + 1)
        (pixels,) = decode_frames(header.path, frame, channels=channels)
        return pixels[y : y + height, x : x + width].astype(np.float32)

    def take(rows: Sequence[int]) -> tuple[Tensor, ...]:
        pixels = torch.from_numpy(np.stack([one(row) for row in rows])).permute(0, 3, 1, 2)
        return (low + pixels * ((high - low) / 255),)

    note = f"{folder}: {len(places)} crops of {height}x{width} pixels of {len(headers)} images"
    return lambda count: Inputs(range(min(count, len(places))), take), note


def _corners(size: tuple[int, int], height: int, width: int) -> list[tuple[int, int]]:
    tops, lefts = range(0, size[0] - height + 1, height), range(0, size[1] - width + 1, width)
    return [(y, x) for y in tops for x in lefts]
