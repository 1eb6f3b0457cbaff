"""A generator from its weights alone: a plain stack of transposed convolutions, as DCGAN has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby, pairwise

from torch import Tensor, nn

_NORM = {"weight", "bias", "running_mean", "running_var"}


class TransposedStack(nn.Module):
    """Latents (B, Z) → images (B, C, H, W) in [−1, 1] (Radford et al. 2016, figure 1).

    Weights do not hold strides. This is DCGAN's own geometry: transposed convolutions of kernel 4,
    the first of stride 1 without padding, the others of stride 2 with padding 1; batch
    normalization where there are weights for it, ReLU between, and tanh at the end. Each part has
    the name that it has in the file.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Build the stack that has these weights, and take them, in float32.

        Raises:
            ValueError: they are no such stack.
        """
        super().__init__()
        order = sorted(weights, key=_natural)
        self.parts: list[nn.Module] = []
        widths: list[int] = []
        for path, names in groupby(order, key=lambda name: name.rpartition(".")[0]):
            held = {name.rpartition(".")[2]: weights[name] for name in names}
            part = _part(held, first=not widths, width=widths[-1] if widths else None)
            self._place(path, part)
            self.parts.append(part)
            if isinstance(part, nn.ConvTranspose2d):
                widths += [part.out_channels] if widths else [part.in_channels, part.out_channels]
        # Each layer doubles the image, so that a small file could claim one of any size.
        if not 3 <= len(widths) <= 12 or not isinstance(self.parts[-1], nn.ConvTranspose2d):
            raise ValueError("not 2 to 11 transposed convolutions, the last layer one of them")
        self.widths, self.latent, self.classes = widths, widths[0], 0
        self.sizes = [(4 << stage, 4 << stage) for stage in range(len(widths) - 1)]
        # Very old files lack the batch counters, which nothing in eval mode reads.
        counters = {n: v for n, v in self.state_dict().items() if "num_batches" in n}
        self.load_state_dict(counters | dict(weights))

    def _place(self, path: str, part: nn.Module) -> None:
        *folders, name = path.split(".")
        parent: nn.Module = self
        for folder in folders:
            if folder not in parent._modules:
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(name, part)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, Z) → images."""
        maps = latents[:, :, None, None]
        for part, following in pairwise(self.parts):
            maps = part(maps)
            if isinstance(following, nn.ConvTranspose2d):
                maps = maps.relu()
        return self.parts[-1](maps).tanh()


def _natural(name: str) -> tuple[tuple[str | int, ...], ...]:
    """Names in the order of their layers: 2 before 10."""
    parts = re.split(r"(\d+)", name.rpartition(".")[0])
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _part(held: Mapping[str, Tensor], first: bool, width: int | None) -> nn.Module:
    """One layer with room for what is held of it; `width` is the number of channels before it."""
    kernel = held.get("weight")
    if kernel is not None and kernel.ndim == 4 and held.keys() <= {"weight", "bias"}:
        incoming, outgoing, *size = kernel.shape
        # A stride of 0 would let a small file claim a network of any size.
        if size != [4, 4] or width not in (None, incoming) or not kernel.is_contiguous():
            raise ValueError("no chain of kernels of 4x4")
        stride, padding = (1, 0) if first else (2, 1)
        return nn.ConvTranspose2d(incoming, outgoing, 4, stride, padding, bias="bias" in held)
    vectors = {name for name, value in held.items() if value.shape == (width,)}
    if vectors != _NORM or held.keys() - _NORM - {"num_batches_tracked"}:
        raise ValueError("neither a transposed convolution nor its batch normalization")
    return nn.BatchNorm2d(width)
