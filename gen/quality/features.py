"""The networks in whose features quality is measured, as torch-fidelity takes them.

This module needs the extra `gen[metrics]`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from gen.data.decode import DataError
from gen.images import to_float
from gen.models.classifier import Classifier
from gen.runs.open import open_own_run
from gen.system.errors import InputError

SEED = 2020  # of random weights, and of every choice of images


@dataclass(frozen=True)
class Features:
    """The network whose features are compared, as torch-fidelity takes it.

    Attributes:
        extractor: Its name in torch-fidelity's registry.
        dimension: Features per image.
        description: What it is and what its numbers are good for.
        settings: More arguments for `calculate_metrics`.
        channels: Those it wants; 0 takes any.
    """

    name: str
    extractor: str
    dimension: int
    description: str
    settings: dict[str, Any]
    channels: int = 0


class RandomFeatures(nn.Module):
    """Images uint8 (B, C, H, W) → (B, 256): convolutions with He-normal weights of a fixed seed.

    Means over quadrants of 64 maps with a field of view of 18 pixels. Naeem et al. (2020) find
    that random networks rank generators; their numbers compare within one setting only.
    """

    num_features = 256

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 64, 3, 1, 1), nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(SEED)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, 0.2, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 256)."""
        return self.layers(to_float(images))


class ClassifierFeatures(nn.Module):
    """Images uint8 (B, C, H, W) → what the last layer of a classifier sees of them."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.num_features = classifier, classifier.head.in_features

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.classifier.features(to_float(images))


def classifier_features(path: str, shape: tuple[int, int, int]) -> Features:
    """Those of a run of `gen train classifier`.

    Raises:
        CheckpointError: as `gen.runs.open.open_own_run`.
        ValueError: a run of something else, or of images of another shape.
    """
    run = open_own_run(path, device="cpu")
    classifier = run.modules.get("classifier")
    if classifier is None:
        raise InputError(f"{path}: holds {', '.join(run.modules)}, no classifier")
    model, data = run.config.model, Path(run.config.data.data).name
    if (model.channels, *model.size) != shape:
        raise InputError(
            f"{path}: takes {_shape(model.channels, *model.size)}, and these images are "
            f"{_shape(*shape)}; train one with --size {shape[1]}x{shape[2]} --channels {shape[0]}"
        )
    description = f"a classifier of {model.classes} classes of {data}, {run.step} steps"
    network = ClassifierFeatures(classifier)
    return _of_module(f"classifier:{path}", network, description)


def _shape(channels: int, height: int, width: int) -> str:
    return f"{height}×{width}, {channels} channel(s)"


class ModuleFeatures(FeatureExtractorBase):
    """Any network of ours behind torch-fidelity's interface: uint8 images → features (B, D)."""

    def __init__(self, name: str, features_list: list[str], network: nn.Module, **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """The one layer there is."""
        return (self.network(images),)

    @staticmethod
    def get_provided_features_list() -> tuple[str]:
        """Names of the layers."""
        return ("features",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The layer of every metric."""
        return "features"


register_feature_extractor("gen-module", ModuleFeatures)


def open_features(text: str, shape: tuple[int, int, int]) -> Features:
    """The features of this name, for images of this shape.

    Raises:
        ValueError: They do not take such images.
        DataError: Inception's weights are neither here nor to be had.
    """
    if text == "inception":
        if shape[0] not in (1, 3):
            raise InputError(f"inception takes gray or RGB images; these have {shape[0]} channels")
        settings = {"feature_extractor_weights_path": str(inception_weights())}
        return Features(
            name="inception", extractor="inception-v3-compat", dimension=2048,
            description="Inception v3 as FID has it, on ImageNet", settings=settings, channels=3,
        )  # fmt: skip
    name, _, run = text.partition(":")
    if name == "classifier":
        return classifier_features(run, shape)
    description = "random weights of a fixed seed, for tracking one project only"
    return _of_module("random", RandomFeatures(shape[0]), description)


def _of_module(name: str, network: RandomFeatures | ClassifierFeatures, text: str) -> Features:
    return Features(
        name=name, extractor="gen-module", dimension=network.num_features, description=text,
        settings={"network": network},
    )  # fmt: skip


def inception_weights() -> Path:
    """The file of FID's own Inception weights, fetched once to torch's hub folder.

    Raises:
        DataError: It cannot be fetched, or is not what it should be.
    """
    name = URL_INCEPTION_V3.rpartition("/")[2]
    file = Path(torch.hub.get_dir(), "checkpoints", name)
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            print(f"Downloading {URL_INCEPTION_V3} (95 MB)", file=sys.stderr)
            digest = file.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), digest, sys.stderr.isatty())
        # torch-fidelity unpickles the file freely; what loads in this way holds tensors alone.
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"no Inception weights: {' '.join(str(error).split())}; put {URL_INCEPTION_V3} at "
            f"{file}, or take --features random or classifier:RUN"
        ) from error
    return file
