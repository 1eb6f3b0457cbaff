"""The weights of an enlarging layer, sorted by the output phase that they feed.

Along each axis a transposed convolution with kernel k, stride s, padding p and dilation d computes
y[n] = bias + Σ W[j]·x[m] over n + p = s·m + d·j, so output phase r = n mod s sees the taps
{j : d·j ≡ r + p (mod s)} alone. Their sum G_r is what the layer does to a constant at this phase:

    phase gains   G_r (C_out, C_in);  no grid for constant input ⇔ all G_r equal (Sugawara et al.
                  2018, https://arxiv.org/abs/1806.07658)
    lines         c_q = s⁻² Σ_r G_r μ e^{-j2πq·r/s} = s⁻² Ŵ(q/s) μ e^{+j2πq·p/s}

Sub-pixel layers have the same form; their phase r is a set of output channels of the convolution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.models.upsample import Subpixel
from gen.system.errors import InputError

Axes = int | tuple[int, ...]
CELLS_PER_CHANNEL = 8  # so many at least for responses to all channels
POWER_FLOOR = 1e-20  # −200 dB: powers below it count as this much, so that ratios stay finite


def decibels(power: float) -> float:
    """10·log₁₀ of a power ratio, −200 at least."""
    return 10 * math.log10(max(power, POWER_FLOOR))


def per_axis(value: Axes, axes: int) -> tuple[int, ...]:
    """One number for every axis."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


def tap_phases(kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Output phase (K,) that each tap along one axis feeds."""
    return (dilation * torch.arange(kernel) - padding) % stride


def _fold(weight: Tensor, stride: Axes, padding: Axes, dilation: Axes) -> tuple[Tensor, list]:
    """Weights summed by phase (C_in, C_out/groups, *s), and the phase of each tap per axis."""
    axes = weight.ndim - 2
    geometry = zip(*(per_axis(v, axes) for v in (stride, padding, dilation)), strict=True)
    folded, phases = weight, []
    for axis, (s, p, d) in enumerate(geometry):
        phases.append(tap_phases(weight.shape[2 + axis], s, p, d).to(weight.device))
        shape = list(folded.shape)
        shape[2 + axis] = s
        folded = folded.new_zeros(shape).index_add(2 + axis, phases[-1], folded)
    return folded, phases


def _block_diagonal(blocks: Tensor, groups: int) -> Tensor:
    """(groups·i, o, …) of a grouped layer → (groups·i, groups·o, …), zero between groups."""
    if groups == 1:
        return blocks
    parts = blocks.unflatten(0, (groups, -1))
    full = blocks.new_zeros(groups, parts.shape[1], groups, *parts.shape[2:])
    for group, part in enumerate(parts):
        full[group, :, group] = part
    return full.flatten(2, 3).flatten(0, 1)


def phase_gains(
    weight: Tensor, stride: Axes, padding: Axes = 0, dilation: Axes = 1, groups: int = 1
) -> Tensor:
    """Phase gains G (*s, C_out, C_in) of a transposed convolution, by output pixel n mod s.

    Args:
        weight: (C_in, C_out/groups, *K), as in `torch.nn.ConvTranspose1d` and `2d`. A strided
            convolution's weight is that of the transposed convolution its gradient takes.
        stride: Like padding and dilation, one number or one per axis.
        padding: Pixels cut from each side.
        dilation: Distance of neighboring taps.
        groups: Groups of channels.
    """
    folded, _ = _fold(weight, stride, padding, dilation)
    gains = _block_diagonal(folded, groups)  # (C_in, C_out, *s)
    return gains.permute(*range(2, gains.ndim), 1, 0)


def subpixel_gains(weight: Tensor, factor: int, groups: int = 1) -> Tensor:
    """Phase gains (s, s, C_out, C_in) of a convolution that a pixel shuffle by `factor` follows.

    `weight` is the convolution's, (C_out·s², C_in/groups, K, K).
    """
    sums = weight.sum((2, 3)).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    matrix = _block_diagonal(sums, groups).T  # (C_out·s², C_in)
    return matrix.unflatten(0, (-1, factor, factor)).permute(1, 2, 0, 3)


def gain_lines(gains: Tensor, mu: Tensor) -> Tensor:
    """Complex lines c_q (…, *s, C_out) of the response to constant maps of value μ (…, C_in).

    c_0 is the mean response without bias; the real pattern is Σ_q c_q e^{+j2πq·n/s}.
    """
    phases = gains.ndim - 2
    response = torch.einsum(
        "pol,nl->npo", gains.flatten(0, phases - 1), mu.reshape(-1, mu.shape[-1])
    )
    response = response.unflatten(1, gains.shape[:phases])
    lines = torch.fft.fftn(response, dim=tuple(range(1, phases + 1)))
    return (lines / math.prod(gains.shape[:phases])).reshape(*mu.shape[:-1], *lines.shape[1:])


def predicted_lines(
    weight: Tensor,
    mu: Tensor,
    stride: Axes,
    padding: Axes = 0,
    dilation: Axes = 1,
    groups: int = 1,
) -> Tensor:
    """Lines c_q (…, *s, C_out) that a transposed convolution adds to a constant map μ (…, C_in).

    Exact for the interior; bias adds to c_0 alone. Arguments as in `phase_gains`.
    """
    return gain_lines(phase_gains(weight, stride, padding, dilation, groups), mu)


def weighted_imbalance(gains: Tensor, moment: Tensor) -> Tensor:
    """Power of the uneven part of the phase gains over the even part, for inputs as they occur.

    Σ_r tr((G_r − Ḡ) R (G_r − Ḡ)ᵀ) / (s²·tr(Ḡ R Ḡᵀ)), a 0-d tensor, differentiable.

    Args:
        gains: (*s, C_out, C_in).
        moment: R = E[m mᵀ] (C_in, C_in), second moment of local means at the layer's input.
    """
    gains = gains.flatten(0, gains.ndim - 3)
    even = gains.mean(0)
    uneven = torch.einsum("poi,ij,poj->", gains - even, moment, gains - even) / len(gains)
    return uneven / torch.einsum("oi,ij,oj->", even, moment, even).clamp_min(POWER_FLOOR)


def balance(
    weight: Tensor,
    stride: Axes,
    padding: Axes = 0,
    dilation: Axes = 1,
    groups: int = 1,
    projector: Tensor | None = None,
) -> Tensor:
    """Nearest weights (Frobenius) whose phase gains are all equal; the mean gain is kept.

    W'[j] = W[j] − (G_{r(j)} − Ḡ) Π / n_{r(j)}, n_r the number of taps of phase r: the response to
    an input m changes by (G_r − Ḡ) Π m.

    Args:
        weight: Of a transposed convolution; this and the rest as in `phase_gains`.
        stride: Enlargement.
        padding: Pixels cut from each side.
        dilation: Distance of neighboring taps.
        groups: Groups of channels.
        projector: Π (C_in, C_in), restricts the change to a subspace of inputs; default identity.

    Raises:
        ValueError: Some phase has no tap, so no weights balance it.
    """
    folded, phases = _fold(weight, stride, padding, dilation)
    uneven = folded - folded.mean(tuple(range(2, folded.ndim)), keepdim=True)
    if projector is not None:
        uneven = torch.einsum("ji,jo...->io...", projector.to(uneven), uneven)
    for axis, phase in enumerate(phases):
        taps = torch.bincount(phase, minlength=uneven.shape[2 + axis])
        if (taps == 0).any():
            raise InputError(
                f"a kernel of {weight.shape[2 + axis]} taps leaves phases of stride {len(taps)} "
                "without any: no weights balance it; use a kernel of at least the stride"
            )
        shape = [1] * uneven.ndim
        shape[2 + axis] = -1
        uneven = (uneven / taps.view(shape)).index_select(2 + axis, phase)
    return weight - uneven


def balance_subpixel(weight: Tensor, factor: int, projector: Tensor | None = None) -> Tensor:
    """The same projection for a convolution (C_out·s², C_in, K, K) before a pixel shuffle."""
    sums = weight.sum((2, 3)).unflatten(0, (-1, factor**2))  # (C_out, s², C_in)
    uneven = sums - sums.mean(1, keepdim=True)
    if projector is not None:
        uneven = uneven @ projector.to(uneven)
    return weight - (uneven.flatten(0, 1) / weight[0, 0].numel())[..., None, None]


def equalize_(maps: Tensor, stride: tuple[int, ...], lattice: tuple[int, ...]) -> None:
    """Give all phases of maps one mean and one response to the local means, in place.

    In cells of stride pixels, phase r of all channels is y_r = α_r + B_r m + x_r·∇m + e, with m the
    local means of all channels: mean over the cell, smoothed over the period of the grids that
    earlier layers have left, which are no content; x_r is the phase's place in the cell. Removed is
    (α_r − ᾱ) + (B_r − B̄) m, which is what is periodic in the stride: the counterfactual of
    `balance` for any step, whatever it does.

    Border cells do not count for α and B. With few cells for the number of channels, each channel
    responds to its own local mean alone.

    Args:
        maps: Several images (B, C, …); α and B are those of this batch.
        stride: Pixels per cell along the last axes, one number for each.
        lattice: Period of earlier grids along the same axes, in cells.
    """
    axes = range(maps.ndim - len(stride), maps.ndim)
    cells = [maps.shape[axis] // s for axis, s in zip(axes, stride, strict=True)]
    if min(cells) < 1:
        return
    phases = [*itertools.product(*map(range, stride))]
    parts = []  # a view of every phase
    for phase in phases:
        each = zip(phase, cells, stride, strict=True)
        at = [slice(r, r + (n - 1) * s + 1, s) for r, n, s in each]
        parts.append(maps[(..., *at)])
    values = torch.stack(parts).double()
    mean = values.mean(0)
    local = smooth(mean, [max(2, period) for period in lattice])
    inside = (..., *(slice(1, -1) if n > 3 else slice(None) for n in cells))
    # Where brightness rises or falls across the images, phases differ by content alone.
    slopes = [_gradient(local, axis) for axis in axes]
    ramps = torch.stack([_ramp(slopes, phase, stride) for phase in phases])
    differences = (values - mean - ramps)[inside].movedim(2, 1).flatten(2)  # (phases, C, n)
    differences = differences - differences.mean(0)
    m = local[inside].movedim(1, 0).flatten(1)  # (C, n)
    alpha, center = differences.mean(2, keepdim=True), m.mean(1, keepdim=True)
    m = m - center
    covariance, cross = m @ m.T, m @ (differences - alpha).mT
    if m.shape[1] < CELLS_PER_CHANNEL * len(m):
        own = torch.eye(len(m), dtype=m.dtype, device=m.device)
        covariance, cross = covariance * own, cross * own
    ridge = 1e-6 * covariance.diagonal().mean() + POWER_FLOOR
    covariance.diagonal().add_(ridge)
    response = torch.linalg.solve(covariance, cross).mT  # (phases, C, C)
    ones = (1,) * (maps.ndim - 2)
    local = local - center.view(-1, *ones)
    for part, constant, slope in zip(parts, alpha, response, strict=True):
        change = torch.einsum("oc,bc...->bo...", slope, local) + constant.view(-1, *ones)
        part.sub_(change.to(part.dtype))


def _ramp(slopes: list[Tensor], phase: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """How far the pixels of a phase lie above their cell's mean where brightness changes."""
    each = zip(slopes, phase, stride, strict=True)
    return sum(((r + 0.5) / s - 0.5) * slope for slope, r, s in each)


def _gradient(maps: Tensor, axis: int) -> Tensor:
    """Change from cell to cell along an axis; 0 where there is one cell."""
    if maps.shape[axis] == 1:
        return torch.zeros_like(maps)
    return torch.gradient(maps, dim=axis)[0]


def smooth(maps: Tensor, widths: Sequence[int]) -> Tensor:
    """Maps filtered twice by boxes of some widths along the last axes; borders are repeated.

    What has the period of a width along its axis becomes constant.
    """
    for axis, width in zip(range(maps.ndim - len(widths), maps.ndim), widths, strict=True):
        count = maps.shape[axis]
        width = min(width, count)
        at = torch.arange(count, device=maps.device)
        shifts = range(1 - width, width)
        weights = [(width - abs(shift)) / width**2 for shift in shifts]
        shifted = (maps.index_select(axis, (at + d).clamp(0, count - 1)) for d in shifts)
        maps = sum(w * part for w, part in zip(weights, shifted, strict=True))
    return maps


def find_last_enlarging(network: nn.Module) -> nn.ConvTranspose2d | Subpixel | None:
    """The last layer with weights that differ by phase; None where there is none."""
    kinds = nn.ConvTranspose2d, Subpixel
    return next((m for m in reversed([*network.modules()]) if isinstance(m, kinds)), None)


def layer_gains(layer: nn.ConvTranspose2d | Subpixel) -> Tensor:
    """Phase gains (s, s, C_out, C_in)."""
    if isinstance(layer, Subpixel):
        conv, shuffle = layer
        return subpixel_gains(conv.weight, shuffle.upscale_factor)
    return phase_gains(layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)


def local_moment(maps: Tensor) -> Tensor:
    """R = E[m mᵀ] (C, C) of 3×3 means m over maps (B, C, H, W)."""
    means = F.avg_pool2d(maps, 3, 1).transpose(0, 1).flatten(1)  # (C, B·H·W)
    return means @ means.T / means.shape[1]
