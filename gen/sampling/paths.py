"""Paths between latents: straight lines, great circles, closed walks.

Rows are what a decoder takes (B, Z + E): a latent, and the vector of a class where there is one,
which always goes straight.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Straight line from a to b (Z,) at fractions (N,) in [0, 1]: (1 − t)·a + t·b, (N, Z).

    Between two Gaussian latents it passes nearer to the origin than samples lie.
    """
    t = fractions.double()[:, None]
    return ((1 - t) * a.double() + t * b.double()).to(a.dtype)


def slerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Great circle from a to b (Z,) at fractions (N,) in [0, 1], the norm going linearly: (N, Z).

    With unit vectors â, b̂ at angle Ω: (sin((1 − t)Ω)·â + sin(tΩ)·b̂) / sin Ω (Shoemake 1985,
    section 3.3), times (1 − t)|a| + t|b|. Both ends are exact. Directions that are equal or
    opposite have no one great circle between them, and take the straight line.
    """
    t = fractions.double()[:, None]
    norms = a.double().norm(), b.double().norm()
    start, end = a.double() / norms[0], b.double() / norms[1]
    angle = torch.arccos((start @ end).clamp(-1, 1))
    if not angle.sin() > 1e-6:
        return lerp(a, b, fractions)
    direction = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return (((1 - t) * norms[0] + t * norms[1]) * direction).to(a.dtype)


PATHS = {"lerp": lerp, "slerp": slerp}


def connect(kind: str, length: int, a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Rows (N, Z + E) from row a to row b at fractions (N,), the latent of `length` by `kind`."""
    latents = PATHS[kind](a[:length], b[:length], fractions)
    return torch.cat([latents, lerp(a[length:], b[length:], fractions)], dim=1)


def interpolate(kind: str, length: int, ends: Tensor, frames: int) -> Tensor:
    """Rows (frames, Z + E) from ends[0] to ends[1], both included."""
    fractions = torch.linspace(0, 1, frames, dtype=torch.float64)
    return connect(kind, length, *ends.cpu(), fractions)


def walk(length: int, corners: Tensor, frames: int) -> Tensor:
    """Rows (frames, Z + E) of a closed path: great circles from corner to corner to the first.

    Row 0 is the first corner, and the row after the last would be it again. Each way between two
    corners takes the same time.
    """
    corners = corners.cpu()
    places = torch.arange(frames, dtype=torch.float64) * len(corners) / frames
    ways = []
    for number, corner in enumerate(corners):
        fractions = places[(places >= number) & (places < number + 1)] - number
        following = corners[(number + 1) % len(corners)]
        ways.append(connect("slerp", length, corner, following, fractions))
    return torch.cat(ways)
