"""Losses. Each takes whole batches and returns a sum per image, averaged over the batch (0-d).

`gen.config.objectives` lists those that can be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.data.masks import IGNORED


@dataclass(frozen=True)
class GANLoss:
    """A pair of losses on the discriminator's logits (B,), and D(x) as the paper means it."""

    discriminator: Callable[[Tensor, Tensor], Tensor]  # logits of real, logits of fake
    generator: Callable[[Tensor], Tensor]  # logits of fake
    output: Callable[[Tensor], Tensor] = torch.clone  # logits → D


# Goodfellow et al. 2014, section 3: −log D(x) − log(1 − D(G(z))); −log D(G(z)).
NONSATURATING = GANLoss(
    lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    lambda fake: F.softplus(-fake).mean(),
    torch.sigmoid,
)
# Lim and Ye 2017, Miyato et al. 2018, equations 16 and 17.
HINGE = GANLoss(
    lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    lambda fake: -fake.mean(),
)
# Mao et al. 2017, equation 9, with a = 0, b = c = 1.
LEAST_SQUARES = GANLoss(
    lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
    lambda fake: (fake - 1).square().mean() / 2,
)
# Arjovsky et al. 2017, equations 2 and 4; with `lipschitz_penalty`.
WASSERSTEIN = GANLoss(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean())


def gradient_norms(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """‖∇ₓD(x)‖₂ of each image (B,), differentiable in the weights; float32 also under autocast."""
    images = images.detach().float().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        logits = discriminator(images)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def lipschitz_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor
) -> Tensor:
    """E(‖∇D(x̂)‖ − 1)², x̂ uniform between real and fake (Gulrajani et al. 2017, equation 3)."""
    mix = torch.rand(len(real), 1, 1, 1, device=real.device)
    return (gradient_norms(discriminator, torch.lerp(fake.float(), real, mix)) - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½·E‖∇D(x)‖² on real images (Mescheder et al. 2018, equation 9)."""
    return gradient_norms(discriminator, real).square().mean() / 2


def bernoulli_nll(logits: Tensor, images: Tensor) -> Tensor:
    """−log p(x|z) in nats per image; pixels x = (images + 1)/2 in [0, 1], p = sigmoid(2·logits).

    The factor 2 makes tanh(logits), the decoder's image, equal to 2p − 1. Gray pixels count as
    probabilities, as is customary (Kingma and Welling 2014, appendix C.1).
    """
    pixels = (images + 1) / 2
    return F.binary_cross_entropy_with_logits(2 * logits, pixels, reduction="sum") / len(images)


# The variance of rounding to one of 256 levels, which are 2/255 apart in [−1, 1].
ROUNDING_VARIANCE = (2 / 255) ** 2 / 12


def gaussian_nll(logits: Tensor, images: Tensor) -> Tensor:
    """−log p(x|z) in nats per image, N(tanh(logits), σ²) with one σ² for all pixels.

    σ² is the batch's mean squared error, which maximizes the likelihood (Rybkin et al. 2021,
    σ-VAE, equation 6), so nothing needs tuning; at least the variance of 8-bit rounding.
    """
    square = (logits.tanh() - images).square()
    variance = square.mean().detach().clamp_min(ROUNDING_VARIANCE)
    nll = (square / variance + (2 * math.pi * variance).log()) / 2
    return nll.sum() / len(images)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) of each dimension, (B, Z) → (Z,) nats, averaged over the batch.

    Kingma and Welling 2014, appendix B.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean(0) / 2


def reparametrize(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw z ~ N(μ, σ²), differentiable in both (ibid., section 2.4)."""
    return mean + torch.randn_like(mean) * (log_variance / 2).exp()


def pixel_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """−log p(class) in nats, mean over the pixels that count; (B, C, H, W), indices (B, H, W)."""
    masks = masks.long()
    total = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp_min(1)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 − mean over classes of 2 Σ p g / (Σ p + Σ g), over the pixels of the batch that count.

    p are probabilities, g is 1 where the class is. After Milletari et al. 2016, equation 4, with
    sums for sums of squares. One is added above and below, so that a class which is nowhere, and
    nowhere expected, costs nothing.
    """
    counted = (masks != IGNORED)[:, None]
    expected = logits.softmax(1) * counted
    given = torch.zeros_like(expected).scatter_(1, masks[:, None].long() * counted, 1) * counted
    both, either = (part.sum((0, 2, 3)) for part in (expected * given, expected + given))
    return 1 - ((2 * both + 1) / (either + 1)).mean()


def cross_entropy_and_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """The sum of both."""
    return pixel_cross_entropy(logits, masks) + dice_loss(logits, masks)
