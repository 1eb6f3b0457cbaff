"""First and second moments of sums over clusters, images as a rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over clusters of r terms and of their products, by plane and frequency (C, K, …).

    `kish` (2, C, K) holds Σq and Σq² of q = U^(2/3), the leverage of a cluster on a line.
    """

    first: Tensor
    second: Tensor
    kish: Tensor


def moments_of(values: Tensor) -> Moments:
    """Moments of cluster sums (r, K, C, n)."""
    v = values.permute(2, 1, 0, 3).contiguous()
    q = v[:, :, 0].clamp(min=0).pow(2 / 3)
    return Moments(v.sum(-1), v @ v.mT, torch.stack([q.sum(-1), (q * q).sum(-1)]))
