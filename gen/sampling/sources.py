"""What can be drawn: images by index, each a function of its index alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .draw import Generator, decode_latents, draw_latents


@dataclass(frozen=True)
class Source:
    """Images by index: in any order, any company, any number of processes they are the same.

    Attributes:
        count: how many there are.
        draw: indices → uint8 images (B, C, H, W) on the CPU, in that order.
        name: index → file name, without suffix.
        columns: of a sheet; None for as square as possible.
    """

    count: int
    draw: Callable[[Sequence[int]], Tensor]
    name: Callable[[int], str] = "{:08d}".format
    columns: int | None = None


def of_seeds(decoder: Generator, seeds: Sequence[int], truncation: float = 1.0) -> Source:
    """Image of seed i from i alone; files are named by their seeds."""

    def draw(indices: Sequence[int]) -> Tensor:
        latents = draw_latents([seeds[i] for i in indices], decoder.latent)
        return decode_latents(decoder, truncation * latents)

    return Source(len(seeds), draw, lambda i: f"{seeds[i]:08d}")


def of_latents(decoder: Generator, latents: Tensor | np.ndarray, strip: bool = False) -> Source:
    """Images of latents (N, Z); a strip is laid out in one row."""

    def draw(indices: Sequence[int]) -> Tensor:
        rows = torch.as_tensor(np.asarray(latents[list(indices)], np.float32))
        return decode_latents(decoder, rows)

    return Source(len(latents), draw, columns=len(latents) if strip else None)


def lerp(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    """Straight line from a to b (Z,) at shares (N,) in [0, 1]: (1 − t)·a + t·b, (N, Z).

    Between two Gaussian latents it passes nearer to the origin than samples lie.
    """
    t = shares.double()[:, None]
    return ((1 - t) * a.double() + t * b.double()).to(a.dtype)


def slerp(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    """Great circle from a to b (Z,) at shares (N,) in [0, 1], the norm going linearly: (N, Z).

    With unit vectors â, b̂ at angle Ω: (sin((1 − t)Ω)·â + sin(tΩ)·b̂) / sin Ω (Shoemake 1985,
    section 3.3), times (1 − t)|a| + t|b|. Both ends are exact. Directions that are equal or
    opposite have no great circle between them, and take the straight line.
    """
    t = shares.double()[:, None]
    a64, b64 = a.double(), b.double()
    norms = a64.norm(), b64.norm()
    start, end = a64 / norms[0], b64 / norms[1]
    angle = torch.arccos((start @ end).clamp(-1, 1))
    if not angle.sin() > 1e-6:
        return lerp(a, b, shares)
    direction = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return (((1 - t) * norms[0] + t * norms[1]) * direction).to(a.dtype)


PATHS = {"lerp": lerp, "slerp": slerp}


def interpolation(kind: str, ends: Sequence[int], frames: int, length: int) -> Tensor:
    """Latents (frames, Z) from that of one seed to that of another, both included."""
    a, b = draw_latents(ends, length)
    return PATHS[kind](a, b, torch.linspace(0, 1, frames, dtype=torch.float64))


def walk(seeds: Sequence[int], frames: int, length: int) -> Tensor:
    """Latents (frames, Z) of a closed path: great circles from seed to seed and back to the first.

    Frame 0 is the first seed; the frame after the last would be it again. Each way between two
    seeds takes the same time.
    """
    corners = draw_latents(seeds, length)
    places = torch.arange(frames, dtype=torch.float64) * len(seeds) / frames
    parts = []
    for leg in range(len(seeds)):
        shares = places[(places >= leg) & (places < leg + 1)] - leg
        parts.append(slerp(corners[leg], corners[(leg + 1) % len(seeds)], shares))
    return torch.cat(parts)


def read_latents(path: Path, length: int) -> np.ndarray:
    """Latents (N, Z) of an .npy file, mapped, not read.

    Raises:
        ValueError: no .npy file, another shape or type, or values that are not finite.
    """
    try:
        latents = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: no .npy file of numbers ({error})") from error
    if not isinstance(latents, np.ndarray) or latents.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds no plain array of numbers")
    if latents.ndim != 2 or latents.shape[1] != length or not len(latents):
        raise ValueError(f"{path}: has shape {latents.shape}; this network takes (N, {length})")
    step = max(1, 2**22 // length)
    for start in range(0, len(latents), step):
        finite = np.isfinite(latents[start : start + step].astype(np.float32)).all(axis=1)
        if not finite.all():
            raise ValueError(f"{path}: row {start + int(finite.argmin())} is not finite")
    return latents
