"""Objectives: which networks play, in which turns, for which loss. Mathematics only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.config.objectives import (
    GAN_LOSSES,
    LIKELIHOODS,
    PIXEL_LOSSES,
    ClassificationConfig,
    GANConfig,
    SegmentationConfig,
    VAEConfig,
    VAEGANConfig,
)
from gen.config.run import RunConfig
from gen.data.datasets import Batch
from gen.images import to_uint8

from . import losses
from .agreement import inspect_masks
from .health import count_active_latents, saturation
from .losses import kl_divergence, lipschitz_penalty, r1_penalty, reparametrize
from .monitor import SHEET_IMAGES, Inspection, inspect_samples

Metrics = dict[str, Tensor]  # "group/name" → detached 0-d tensor on the device


@dataclass(frozen=True)
class Phase:
    """One player's turn. The optimizer alone says which weights the turn may change."""

    name: str
    optimizer: torch.optim.Optimizer
    # A batch with images in [−1, 1], and the step → 0-d loss and metrics.
    loss: Callable[[Batch, int], tuple[Tensor, Metrics]]
    every: int = 1

    @property
    def weights(self) -> list[Tensor]:
        """What the turn may change."""
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]


class Objective(Protocol):
    """What the loop needs to know of a model."""

    modules: Mapping[str, nn.Module]  # what a checkpoint holds, by name
    averaged: tuple[str, ...]  # those whose moving average is kept and sampled
    phases: tuple[Phase, ...]  # taken in order, once per step

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """What a snapshot shows and logs of the averaged networks, in eval mode.

        Args:
            averaged: the networks named in `averaged`, by name.
            preview: the same few images at every snapshot, in [−1, 1] on the device.
        """


def _adam(parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr, betas, fused=True)


class GAN:
    """A discriminator's and a generator's turn (Goodfellow et al. 2014, algorithm 1)."""

    averaged = ("generator",)

    def __init__(self, modules: Mapping[str, nn.Module], config: GANConfig) -> None:
        self.modules = modules
        self.generator, self.discriminator = modules["generator"], modules["discriminator"]
        self.conditional = bool(self.generator.classes)
        self.losses = getattr(losses, GAN_LOSSES[config.loss])
        self.lipschitz = config.gradient_penalty if config.loss == "wgan-gp" else 0.0  # λ
        self.r1 = config.r1  # γ
        betas = (config.beta1, config.beta2)
        self.phases = (
            Phase(
                "discriminator",
                _adam(self.discriminator.parameters(), config.lr, betas),
                self.discriminator_loss,
            ),
            Phase(
                "generator",
                _adam(self.generator.parameters(), config.lr, betas),
                self.generator_loss,
                every=config.critic_steps,
            ),
        )

    def generate(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """As many images as the batch has, from fresh latents and the batch's labels, if any."""
        labels = batch.labels if self.conditional else None
        latents = torch.randn(len(batch.images), self.generator.latent, device=batch.images.device)
        return self.generator(latents, labels), labels

    def discriminator_loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """Tell real from fake; they pass apart, so batch norm sees one kind at a time."""
        with torch.no_grad():
            fakes, labels = self.generate(batch)
        real = self.discriminator(batch.images, labels).float()
        fake = self.discriminator(fakes, labels).float()
        loss = self.losses.discriminator(real, fake)
        metrics = {
            "loss/discriminator": loss.detach(),
            "d/real": self.losses.output(real.detach()).mean(),
            "d/fake": self.losses.output(fake.detach()).mean(),
            "health/saturation": saturation(self.losses.discriminator, real, fake),
        }
        if self.lipschitz or self.r1:
            penalty = self.gradient_penalty(batch.images, fakes, labels)
            loss, metrics["loss/slope"] = loss + penalty, penalty.detach()
        return loss, metrics

    def gradient_penalty(self, real: Tensor, fakes: Tensor, labels: Tensor | None) -> Tensor:
        """λ·(the penalty of WGAN-GP) + γ·R1."""

        def discriminator(images: Tensor) -> Tensor:
            # A compiled network cannot be differentiated twice; its `forward` is not compiled.
            return self.discriminator.forward(images, labels)

        penalty = real.new_zeros(())
        if self.lipschitz:
            penalty = penalty + self.lipschitz * lipschitz_penalty(discriminator, real, fakes)
        if self.r1:
            penalty = penalty + self.r1 * r1_penalty(discriminator, real)
        return penalty

    def generator_loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """Pass for real."""
        loss = self.losses.generator(self.discriminator(*self.generate(batch)).float())
        return loss, {"loss/generator": loss.detach()}

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """Samples and their grid."""
        labels = preview.labels if self.conditional else None
        return inspect_samples(averaged["generator"], self.generator, preview.images, labels)


class VAE:
    """Maximize the evidence lower bound (Kingma and Welling 2014, equation 3; β: Higgins 2017)."""

    averaged = ("encoder", "decoder")

    def __init__(self, modules: Mapping[str, nn.Module], config: VAEConfig) -> None:
        self.modules = modules
        self.encoder, self.decoder = modules["encoder"], modules["decoder"]
        self.conditional = bool(self.decoder.classes)
        self.nll = getattr(losses, LIKELIHOODS[config.likelihood])
        self.beta, self.warmup, self.free_bits = config.beta, config.warmup, config.free_bits
        weights = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.phases = (Phase("elbo", _adam(weights, config.lr, (0.9, 0.999)), self.loss),)

    def negative_elbo(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """−log p(x|z) with one sample of z, and KL(q(z|x)‖p(z)) per dimension (Z,).

        In nats, means over the batch; all are conditional on the labels where the networks are
        (Sohn et al. 2015, equation 4).
        """
        labels = batch.labels if self.conditional else None
        mean, log_variance = (part.float() for part in self.encoder(batch.images, labels))
        logits = self.decoder.logits(reparametrize(mean, log_variance), labels).float()
        return self.nll(logits, batch.images), kl_divergence(mean, log_variance)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """−log p(x|z) + β·Σⱼ max(λ, KLⱼ), β rising linearly during warm-up.

        Each dimension j has λ nats free (Kingma et al. 2016, equation 15).
        """
        nll, dimensions = self.negative_elbo(batch)
        beta = self.beta * min(1.0, (step + 1) / self.warmup) if self.warmup else self.beta
        loss = nll + beta * dimensions.clamp_min(self.free_bits).sum()
        kl = dimensions.sum()
        metrics = {"vae/nll": nll, "vae/kl": kl, "vae/elbo": -(nll + kl), "loss/vae": loss}
        return loss, {name: value.detach() for name, value in metrics.items()}

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """Samples, their grid, and images next to reconstructions from their posterior means."""
        labels = preview.labels if self.conditional else None
        return inspect_reconstructions(averaged, self.modules, preview.images, labels)


class VAEGAN:
    """A VAE whose likeness is judged by a discriminator's features (Larsen et al. 2016).

    Algorithm 1: the encoder lowers KL + L, the decoder γ·L and the discriminator's success, L being
    −log p(φ(x)|z) under a Gaussian of unit variance over the features φ that the discriminator's
    last linear layer sees. Reconstructions and samples pass the decoder as one batch, so that its
    batch norm knows one distribution, in training as in sampling.
    """

    averaged = ("encoder", "decoder")

    def __init__(self, modules: Mapping[str, nn.Module], config: VAEGANConfig) -> None:
        self.modules = modules
        self.encoder, self.decoder = modules["encoder"], modules["decoder"]
        self.discriminator = modules["discriminator"]
        self.beta, self.gamma = config.beta, config.gamma
        turns = {
            "encoder": self.encoder_loss,
            "decoder": self.decoder_loss,
            "discriminator": self.discriminator_loss,
        }
        betas = (config.beta1, config.beta2)
        self.phases = tuple(
            Phase(name, _adam(modules[name].parameters(), config.lr, betas), loss)
            for name, loss in turns.items()
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latents drawn from the posterior (B, Z), and KL per dimension (Z,)."""
        mean, log_variance = (part.float() for part in self.encoder(images))
        return reparametrize(mean, log_variance), kl_divergence(mean, log_variance)

    def feature_nll(self, features: Tensor, images: Tensor) -> Tensor:
        """L in nats per image, without its constant; features (B, F) of reconstructions."""
        wanted = self.discriminator.trunk(images).float()
        return (features.float() - wanted).square().sum() / (2 * len(images))

    def decode(self, images: Tensor) -> Tensor:
        """Reconstructions, then as many samples (2B, C, H, W)."""
        latents, _ = self.encode(images)
        return self.decoder(torch.cat([latents, torch.randn_like(latents)]))

    def encoder_loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """L + β·KL."""
        latents, dimensions = self.encode(batch.images)
        features = self.discriminator.trunk(self.decoder(latents))
        nll, kl = self.feature_nll(features, batch.images), dimensions.sum()
        loss = nll + self.beta * kl
        metrics = {"vae/nll": nll, "vae/kl": kl, "loss/encoder": loss}
        return loss, {name: value.detach() for name, value in metrics.items()}

    def decoder_loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """γ·L − log D(reconstructions) − log D(samples): the form that does not saturate."""
        features = self.discriminator.trunk(self.decode(batch.images))
        logits = self.discriminator.head(features).float()
        adversarial_loss = 2 * losses.NONSATURATING.generator(logits)
        count = len(batch.images)
        loss = self.gamma * self.feature_nll(features[:count], batch.images) + adversarial_loss
        return loss, {"loss/decoder": loss.detach()}

    def discriminator_loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """−log D(x) − log(1 − D(reconstructions)) − log(1 − D(samples))."""
        real = self.discriminator(batch.images).float()
        fake = self.discriminator(self.decode(batch.images)).float()
        loss = F.softplus(-real).mean() + 2 * F.softplus(fake).mean()
        return loss, {
            "loss/discriminator": loss.detach(),
            "d/real": real.detach().sigmoid().mean(),
            "d/fake": fake.detach().sigmoid().mean(),
            "health/saturation": saturation(losses.NONSATURATING.discriminator, real, fake),
        }

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """Samples, their grid, and images next to reconstructions from their posterior means."""
        return inspect_reconstructions(averaged, self.modules, preview.images)


def inspect_reconstructions(
    averaged: Mapping[str, nn.Module],
    trained: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
) -> Inspection:
    """Samples, their grid, and images next to reconstructions from their posterior means."""
    inspection = inspect_samples(averaged["decoder"], trained["decoder"], images, labels)
    mean, log_variance = copy.deepcopy(trained["encoder"]).eval()(images, labels)
    dimensions = kl_divergence(mean, log_variance)
    inspection.metrics["health/active_latents"] = count_active_latents(mean)
    inspection.metrics["vae/kl_largest_dimension"] = float(dimensions.max())
    inspection.metrics["vae/kl_median_dimension"] = float(dimensions.median())
    few, named = (
        images[: SHEET_IMAGES // 2],
        None if labels is None else labels[: SHEET_IMAGES // 2],
    )
    mean, _ = averaged["encoder"](few, named)
    pairs = torch.stack([few, averaged["decoder"](mean, named)], dim=1)  # (B, 2, C, H, W)
    inspection.pictures["reconstructions"] = to_uint8(pairs.flatten(0, 1)).cpu()
    return inspection


class Segmentation:
    """Tell every pixel's class (Long et al. 2015, section 4.3)."""

    averaged = ("segmenter",)

    def __init__(self, modules: Mapping[str, nn.Module], config: SegmentationConfig) -> None:
        self.modules, self.segmenter = modules, modules["segmenter"]
        self.pixel_loss = getattr(losses, PIXEL_LOSSES[config.loss])
        weights = [w for w in self.segmenter.parameters() if w.requires_grad]  # not the fixed ones
        self.phases = (Phase("segmenter", _adam(weights, config.lr, (0.9, 0.999)), self.loss),)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """The chosen loss over the pixels that count."""
        loss = self.pixel_loss(self.segmenter(batch.images).float(), batch.masks)
        return loss, {"loss/segmentation": loss.detach()}

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """Agreement with the masks of the validation images."""
        return inspect_masks(averaged["segmenter"], preview)


class Classification:
    """Tell an image's class, by the cross-entropy of its label."""

    averaged = ("classifier",)

    def __init__(self, modules: Mapping[str, nn.Module], config: ClassificationConfig) -> None:
        self.modules, self.classifier = modules, modules["classifier"]
        weights = self.classifier.parameters()
        self.phases = (Phase("classifier", _adam(weights, config.lr, (0.9, 0.999)), self.loss),)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """−log p(label|image) in nats."""
        logits = self.classifier(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels)
        return loss, {
            "loss/classifier": loss.detach(),
            "classifier/accuracy": accuracy(logits, batch),
        }

    def inspect(self, averaged: Mapping[str, nn.Module], preview: Batch) -> Inspection:
        """Accuracy on the preview images."""
        found = accuracy(averaged["classifier"](preview.images), preview)
        return Inspection(metrics={"classifier/held_accuracy": float(found)})


def accuracy(logits: Tensor, batch: Batch) -> Tensor:
    """Share of images whose largest logit is their label's, 0-d."""
    return (logits.argmax(1) == batch.labels).float().mean()


def build_objective(config: RunConfig, modules: Mapping[str, nn.Module]) -> Objective:
    """The objective of a run over its networks: of `GANConfig` the class `GAN`."""
    name = type(config.objective).__name__.removesuffix("Config")
    return globals()[name](modules, config.objective)
