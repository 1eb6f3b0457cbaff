"""Health of a run: numbers that say whether it still learns, and a line where it does not.

`check_health` reads nothing but the numbers that a run logs, so it serves old logs as well. Its
thresholds were held against healthy runs on shapes and on real digits (52 snapshots of 17 runs of
every GAN loss and VAE-GAN: diversity 0.92 or more, saturation 0.55 or less): none raises a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Images to be learned from before health is expected; healthy runs had 0.65 of diversity by then.
MIN_IMAGES = 10_000
# One image again and again leaves 0, k of them 1 − 1/k, the blur of a VAE that has just begun 0.5.
MIN_DIVERSITY = 0.3
# Nearly all logits: a discriminator may be sure of most images and still learn from the rest.
MAX_SATURATION = 0.99
# Variance of posterior means, whose prior is 1 (Burda et al. 2016, section 5.2).
ACTIVE_VARIANCE = 0.01
TINY = 1e-12  # a distance of which one is divided by, at least


def mean_pairwise_distance(images: Tensor, labels: Tensor | None = None) -> float:
    """Mean Euclidean distance between pairs of images (B, C, H, W), in their unit.

    With labels (B,) only pairs of one class count.
    """
    distances = torch.pdist(images.float().flatten(1))
    if labels is not None:
        first, second = torch.triu_indices(len(labels), len(labels), 1)
        distances = distances[labels[first] == labels[second]]
    return float(distances.mean())


def diversity(samples: Tensor, real: Tensor, labels: Tensor | None = None) -> float:
    """Mean distance between samples over that between real images, both in one unit.

    With labels (B,), which samples and real images share, distances within the classes: those
    between classes hide that each class has become one image. NaN if no class has two images.
    """
    return mean_pairwise_distance(samples, labels) / max(mean_pairwise_distance(real, labels), TINY)


def count_active_latents(means: Tensor) -> int:
    """Latent dimensions that tell images apart, from posterior means (B, Z).

    A dimension is active if the variance of its posterior mean over images is above 0.01, after
    Burda et al. 2016. The divergence per dimension would not do: free bits keep it up.
    """
    return int((means.var(0) > ACTIVE_VARIANCE).sum())


def count_used_latents(weight: Tensor, latent: int) -> int:
    """Latent dimensions that a decoder looks at, from its first linear layer's weight (F, Z + E).

    A dimension is dead if its column is below 1 % of the root-mean-square column.
    """
    columns = weight[:, :latent].norm(dim=0)
    return int((columns > 0.01 * columns.square().mean().sqrt()).sum())


def saturation(loss: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Share (0-d) of logits from which the discriminator learns next to nothing.

    That is |∂loss/∂logit| below 0.01 for a loss averaged over images: 1 − D(x) or D(G(z)) below
    0.01 for the nonsaturating loss, beyond the margin for hinge, never for Wasserstein.
    """
    real, fake = (logits.detach().requires_grad_() for logits in (real, fake))
    slopes = torch.autograd.grad(loss(real, fake), (real, fake))
    idle = [(slope.abs() * len(slope) < 0.01).float() for slope in slopes]
    return torch.cat(idle).mean()


def check_health(values: Mapping[str, float], images: int) -> list[str]:
    """One line for each thing that is wrong.

    Args:
        values: a snapshot's numbers by their logged names.
        images: how many the run has learned from; of one that has just begun nothing is expected.
    """
    lines: list[str] = []
    if images < MIN_IMAGES:
        return lines
    spread = values.get("health/diversity", 1.0)
    if spread < MIN_DIVERSITY:
        lines.append(
            f"COLLAPSED: samples differ by {spread:.0%} of what images of the data do; "
            "try a lower --lr, --r1 1 or --loss hinge --spectral-norm"
        )
    if values.get("health/active_latents", 1) == 0:
        lines.append(
            "POSTERIOR COLLAPSE: no latent dimension tells images apart; try a lower --beta, "
            "--warmup or --free-bits 0.1"
        )
    idle = values.get("health/saturation", 0.0)
    if idle > MAX_SATURATION:
        lines.append(
            f"SATURATED: the discriminator learns nothing from {idle:.1%} of images, it tells them "
            "too well; try a lower --lr, --r1 1 or --spectral-norm"
        )
    return lines
