"""ModelConfig → networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .classifier import Classifier
from .dcgan import Discriminator
from .decoder import Decoder
from .fcn import FCN
from .unet import UNet
from .vae import Encoder


def _decoder(config: Any) -> Decoder:
    return Decoder(
        config.latent,
        config.size,
        config.channels,
        config.decoder_width or config.width,
        config.upsample,
        config.kernel_size,
        config.antialias,
        config.classes,
    )


def _discriminator(config: Any) -> Discriminator:
    return Discriminator(
        config.size,
        config.channels,
        config.width,
        config.classes,
        config.batch_norm != "off",
        config.spectral_norm,
    )


def _dcgan(config: Any) -> dict[str, nn.Module]:
    return {
        "generator": _decoder(config),
        "discriminator": _discriminator(config),
    }


def _vaegan(config: Any) -> dict[str, nn.Module]:
    return {**_vae(config), "discriminator": _discriminator(config)}


def _vae(config: Any) -> dict[str, nn.Module]:
    return {
        "encoder": Encoder(
            config.latent, config.size, config.channels, config.width, config.classes
        ),
        "decoder": _decoder(config),
    }


def _unet(config: Any) -> dict[str, nn.Module]:
    enlargement = config.upsample, config.kernel_size, config.antialias
    return {
        "segmenter": UNet(config.size, config.channels, config.classes, config.width, *enlargement)
    }


def _fcn(config: Any) -> dict[str, nn.Module]:
    heads = config.head, config.fixed_upsample
    enlargement = config.upsample, config.kernel_size, config.antialias
    return {"segmenter": FCN(config.channels, config.classes, config.width, *heads, *enlargement)}


def _classifier(config: Any) -> dict[str, nn.Module]:
    return {"classifier": Classifier(config.size, config.channels, config.classes, config.width)}


MODELS: dict[str, Callable[[Any], dict[str, nn.Module]]] = {
    "dcgan": _dcgan,
    "vae": _vae,
    "vaegan": _vaegan,
    "unet": _unet,
    "fcn": _fcn,
    "classifier": _classifier,
}


MOST_WEIGHTS = 2 * 10**9  # 8 GB of float32, and three times that again with gradients and Adam


def build_shapes(config: Any) -> dict[str, nn.Module]:
    """The networks of `config.model` on torch's meta device: shapes without memory.

    `config` is the model's section of a run, of the class that `gen.config.run.MODELS` names.

    Raises:
        ValueError: more weights than any memory holds.
    """
    with torch.device("meta"):
        modules = MODELS[config.model](config)
    weights = sum(weight.numel() for m in modules.values() for weight in m.parameters())
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"the networks would have {weights:.1e} weights, and {MOST_WEIGHTS:.0e} is the most; "
            "take a smaller width, latent or size"
        )
    return modules


def build_modules(config: Any) -> dict[str, nn.Module]:
    """The initialized networks of `config.model`, by the names a checkpoint knows them by.

    Weights are drawn from torch's global RNG. Arguments and errors as `build_shapes`.
    """
    build_shapes(config)  # refuses what no memory holds before any is taken
    return MODELS[config.model](config)
