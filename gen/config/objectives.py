"""Configuration of the objectives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gen.config.fields import Checked, option
from gen.config.networks import ModelConfig
from gen.system.errors import InputError

# Choices of losses → their names in `gen.training.losses`, which needs torch.
GAN_LOSSES = {
    "nonsaturating": "NONSATURATING",
    "hinge": "HINGE",
    "lsgan": "LEAST_SQUARES",
    "wgan-gp": "WASSERSTEIN",
}
LIKELIHOODS = {"bernoulli": "bernoulli_nll", "gaussian": "gaussian_nll"}
PIXEL_LOSSES = {
    "cross-entropy": "pixel_cross_entropy",
    "dice": "dice_loss",
    "both": "cross_entropy_and_dice",
}


@dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """What networks are trained for: `XConfig` is for `X` of `gen.training.objectives`."""

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """The networks as this objective needs them.

        Raises:
            ValueError: they cannot serve it.
        """
        return networks


@dataclass(frozen=True)
class AdversarialObjective(ObjectiveConfig):
    """What is trained against a discriminator."""

    lr: float = option(2e-4, "Adam's learning rate, all players", above=0, high=1)
    beta1: float = option(0.5, "Adam's momentum", low=0, high=0.9999)
    beta2: float = option(0.999, "Adam's second-moment decay", low=0, high=0.999999)

    @property
    def has_gradient_penalty(self) -> bool:
        """Whether the loss has a gradient penalty."""
        return False

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """Settle batch norm, which makes an image's slope depend on the rest of the batch."""
        networks = super().fit(networks)
        if networks.batch_norm == "auto":
            off = self.has_gradient_penalty or networks.spectral_norm
            return dataclasses.replace(networks, batch_norm="off" if off else "on")
        if networks.batch_norm == "on" and self.has_gradient_penalty:
            raise InputError(
                "batch_norm is on; loss wgan-gp and r1 ask for each image's own slope, so it must "
                "be off or auto"
            )
        return networks


@dataclass(frozen=True)
class GANConfig(AdversarialObjective):
    """The adversarial objective."""

    loss: str = option("nonsaturating", "GAN loss", choices=tuple(GAN_LOSSES))
    critic_steps: int = option(
        0, "discriminator's turns per turn of the generator; 0: 5 with wgan-gp, else 1", low=0,
        high=1000,
    )  # fmt: skip
    gradient_penalty: float = option(10.0, "λ of wgan-gp", low=0, high=1e6)
    r1: float = option(0.0, "γ of the R1 penalty on the discriminator's slope", low=0, high=1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.critic_steps:
            object.__setattr__(self, "critic_steps", 5 if self.loss == "wgan-gp" else 1)

    @property
    def has_gradient_penalty(self) -> bool:
        """Whether the loss has a gradient penalty."""
        return self.loss == "wgan-gp" or self.r1 > 0


@dataclass(frozen=True)
class VAEConfig(ObjectiveConfig):
    """The evidence lower bound."""

    likelihood: str = option(
        "bernoulli", "p(x|z); gaussian fits its one variance", choices=tuple(LIKELIHOODS)
    )
    beta: float = option(1.0, "weight of KL, per image against summed likelihood", low=0, high=1e6)
    free_bits: float = option(
        0.0, "KL per latent dimension below which it costs the same", unit="nats", low=0, high=100
    )
    warmup: int = option(
        0, "beta rises linearly from 0 over this many", unit="steps", low=0, high=10**9
    )
    lr: float = option(1e-3, "Adam's learning rate", above=0, high=1)


@dataclass(frozen=True)
class VAEGANConfig(AdversarialObjective):
    """The evidence lower bound in the discriminator's eyes, and the adversarial objective."""

    beta: float = option(1.0, "weight of KL, per image", low=0, high=1e6)
    gamma: float = option(
        1e-2, "weight of the decoder's feature NLL against its adversarial loss", low=0, high=1e6
    )

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """Refuse classes."""
        if networks.conditional:
            raise InputError("conditional is on; vaegan learns no classes, dcgan and vae do")
        return super().fit(networks)


@dataclass(frozen=True)
class SegmentationConfig(ObjectiveConfig):
    """Masks from images."""

    loss: str = option("cross-entropy", "loss over pixels", choices=tuple(PIXEL_LOSSES))
    lr: float = option(2e-3, "Adam's learning rate", above=0, high=1)


@dataclass(frozen=True)
class ClassificationConfig(ObjectiveConfig):
    """Classes from images."""

    lr: float = option(1e-3, "Adam's learning rate", above=0, high=1)
