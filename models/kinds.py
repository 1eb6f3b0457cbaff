"""The table of upsamplers, without torch, so that `--help` can list them at once."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One upsampler.

    Even kernels of an ordinary convolution would shift the image by half a pixel, so only
    transposed convolutions have them.
    """

    maker: str  # its class or function in `upsample.py`
    kernel_sizes: tuple[int, ...]  # the first is the default
    help: str


UPSAMPLERS: dict[str, Kind] = {
    "transposed": Kind("Transposed", (4, 2, 3, 5, 6), "transposed convolution"),
    "balanced": Kind("balanced", (4, 2, 3, 5, 6), "the same with equal sums of weights per phase"),
    "nearest": Kind("Nearest", (3, 5), "nearest-neighbor resize and convolution"),
    "bilinear": Kind("Bilinear", (3, 5), "bilinear resize and convolution"),
    "subpixel": Kind("Subpixel", (3, 5), "convolution and pixel shuffle"),
}
