"""Settings → networks. `config` is a configuration of networks, of `gen.config.networks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .classifier import Classifier
from .dcgan import Discriminator
from .decoder import Decoder
from .fcn import FCN
from .unet import UNet
from .vae import Encoder


def decoder(config: Any) -> Decoder:
    """Latents → images."""
    return Decoder(
        latent=config.latent,
        size=config.size,
        channels=config.channels,
        width=config.decoder_width or config.width,
        classes=config.classes,
        **_enlarging(config),
    )


def encoder(config: Any) -> Encoder:
    """Images → latents."""
    return Encoder(config.latent, config.size, config.channels, config.width, config.classes)


def discriminator(config: Any) -> Discriminator:
    """Images → logits of being real."""
    return Discriminator(
        size=config.size,
        channels=config.channels,
        width=config.width,
        classes=config.classes,
        batch_norm=config.batch_norm != "off",
        spectral_norm=config.spectral_norm,
    )


def unet(config: Any) -> UNet:
    """Images → logits of each pixel's class."""
    return UNet(config.size, config.channels, config.classes, config.width, **_enlarging(config))


def fcn(config: Any) -> FCN:
    """Images → logits of each pixel's class."""
    return FCN(
        channels=config.channels,
        classes=config.classes,
        width=config.width,
        head=config.head,
        fixed=config.fixed_upsample,
        **_enlarging(config),
    )


def classifier(config: Any) -> Classifier:
    """Images → logits of their classes."""
    return Classifier(config.size, config.channels, config.classes, config.width)


def _enlarging(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("upsample", "kernel_size", "antialias")}


def _build(networks: Mapping[str, str], config: Any) -> dict[str, nn.Module]:
    return {name: globals()[maker](config) for name, maker in networks.items()}


MAX_WEIGHTS = 2 * 10**9  # 8 GB of float32, and three times that again with gradients and Adam


def build_shapes(networks: Mapping[str, str], config: Any) -> dict[str, nn.Module]:
    """Build networks on torch's meta device: shapes without memory.

    Args:
        networks: name in a checkpoint → function of this file, as `gen.config.run.MODELS` has it.
        config: the settings of all of them.

    Raises:
        ValueError: more weights than any memory holds.
    """
    with torch.device("meta"):
        modules = _build(networks, config)
    weights = sum(weight.numel() for m in modules.values() for weight in m.parameters())
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"the networks would have {weights:.1e} weights, and {MAX_WEIGHTS:.0e} is the most; "
            "take a smaller width, latent or size"
        )
    return modules


def build_modules(networks: Mapping[str, str], config: Any) -> dict[str, nn.Module]:
    """Build initialized networks, with weights from torch's global RNG.

    Arguments and errors as `build_shapes`.
    """
    build_shapes(networks, config)  # refuses what no memory holds before any is taken
    return _build(networks, config)
