"""What a run is: frozen dataclasses that check themselves and go to and from plain dicts.

Every field carries its help, unit and rule; `gen.commands.options` makes options of them.
This module imports neither torch nor networks, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import sys
from dataclasses import dataclass
from typing import Any

from gen.config.fields import Checked, option
from gen.config.networks import (
    AdversarialConfig,
    ClassifierConfig,
    FCNConfig,
    GeneratorConfig,
    ModelConfig,
    SegmenterConfig,
)
from gen.config.objectives import (
    ClassificationConfig,
    GANConfig,
    ObjectiveConfig,
    SegmentationConfig,
    VAEConfig,
    VAEGANConfig,
)
from gen.system import distributed
from gen.system.errors import InputError


def without_slash(path: str) -> str:
    """`photos/` → `photos`, the same folder."""
    return path.rstrip("/") or path


@dataclass(frozen=True)
class DataConfig(Checked):
    """The images."""

    data: str = option("shapes", "data set by name, or a folder, .npy or .npz file")
    data_root: str = option("data", "where named sets lie or are downloaded to")
    flip: bool = option(False, "mirror half of the images left to right")
    workers: int = option(2, "threads that decode images", low=0, high=256)
    on_bad_image: str = option(
        "error", "stop at an unreadable file, or leave it out", choices=("error", "skip")
    )
    max_image_pixels: int = option(
        178_956_970, "larger files are bad images", unit="pixels", low=1, high=2**40
    )
    background: tuple[int, int, int] = option(
        (255, 255, 255), "color under transparent pixels", low=0, high=255
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "data", without_slash(self.data))


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """The loop."""

    steps: int = option(5000, "total length of the run", unit="steps", low=1, high=10**9)
    batch_size: int = option(64, "images per step", unit="images", low=2, high=65536)
    seed: int = option(0, "seed of weights, order and noise", low=0, high=2**63 - 1)
    ema_half_life: float = option(
        10_000.0,
        "half-life of the weight average; 0 averages nothing",
        unit="images",
        low=0,
        high=1e12,
    )
    precision: str = option(
        "fp32",
        "arithmetic of networks; bf16: twice as fast where the processor multiplies it",
        choices=("fp32", "bf16"),
    )
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    compile: bool = option(False, "compile the networks (torch.compile)")
    channels_last: bool = option(True, "memory format of the networks")
    snapshot_every: int = option(
        1000, "checkpoint and sample rhythm", unit="steps", low=1, high=10**9
    )
    keep: int = option(
        3,
        "newest checkpoints to keep, in addition to snapshots 0, 1, 2, 4, 8, …; 0 keeps all",
        low=0,
        high=10**9,
    )
    log_every: int = option(50, "logging rhythm", unit="steps", low=1, high=10**9)


@dataclass(frozen=True)
class ModelKind:
    """A kind of run: its networks, what they are trained for, and what the command line says.

    Attributes:
        networks: Name in a checkpoint → function of `gen.models.build` that makes the network.
        model: Settings of the networks.
        objective: Settings of the objective; `GANConfig` is for `gen.training.objectives.GAN`.
        help: One line for `--help`.
        defaults: Option → default that differs from that of the settings.
        use: The command that a finished run is for.
    """

    networks: dict[str, str]
    model: type[ModelConfig]
    objective: type[ObjectiveConfig]
    help: str
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    use: str = "sample {run} --grid grid.png"


_AUTOENCODER = {"encoder": "encoder", "decoder": "decoder"}
_DISCRIMINATOR = {"discriminator": "discriminator"}
_PREDICT = "sample {run} --images DIR --outdir DIR"
# No average: while a network learns fast, averaged batch-norm statistics do not fit its weights.
_SEGMENTERS = {"batch_size": 32, "ema_half_life": 0.0, "snapshot_every": 250}
MODELS: dict[str, ModelKind] = {
    "dcgan": ModelKind(
        networks={"generator": "decoder"} | _DISCRIMINATOR,
        model=AdversarialConfig,
        objective=GANConfig,
        help="Train a DCGAN (Radford et al. 2016).",
    ),
    "vae": ModelKind(
        networks=_AUTOENCODER,
        model=GeneratorConfig,
        objective=VAEConfig,
        help="Train a convolutional VAE (Kingma and Welling 2014).",
        defaults={"latent": 20, "batch_size": 128},
    ),
    "vaegan": ModelKind(
        networks=_AUTOENCODER | _DISCRIMINATOR,
        model=AdversarialConfig,
        objective=VAEGANConfig,
        help="Train a VAE judged by a GAN's discriminator (Larsen et al. 2016).",
        defaults={"latent": 64},
    ),
    "unet": ModelKind(
        networks={"segmenter": "unet"},
        model=SegmenterConfig,
        objective=SegmentationConfig,
        help="Train a U-Net to segment images (Ronneberger et al. 2015).",
        defaults=_SEGMENTERS | {"width": 8, "steps": 300},
        use=_PREDICT,
    ),
    "fcn": ModelKind(
        networks={"segmenter": "fcn"},
        model=FCNConfig,
        objective=SegmentationConfig,
        help="Train an FCN to segment images (Long et al. 2015).",
        defaults=_SEGMENTERS | {"width": 16, "steps": 500},
        use=_PREDICT,
    ),
    "classifier": ModelKind(
        networks={"classifier": "classifier"},
        model=ClassifierConfig,
        objective=ClassificationConfig,
        help="Train a classifier, for quality to be measured in its features.",
        defaults={"width": 32, "batch_size": 128, "steps": 1000},
        use="quality RUN --reference DATA --features classifier:{run}",
    ),
}


# Options of earlier versions, by section. Runs that name them still load, without them.
REMOVED = {"objective": ("grid_penalty",)}


@functools.cache
def _report_removed(name: str) -> None:
    """Print once that an option is ignored."""
    if not distributed.launch_rank():
        print(f"Note: {name} is no longer an option of gen; it is ignored", file=sys.stderr)


@dataclass(frozen=True)
class RunConfig:
    """One training run, whole."""

    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.objective.fit(self.model))

    @staticmethod
    def sections(model: str) -> dict[str, type[Checked]]:
        """Section name → its dataclass, for one model."""
        if not isinstance(model, str) or model not in MODELS:
            names = ", ".join(MODELS)
            raise InputError(f"model is {reprlib.repr(model)}; must be one of {names}")
        return {
            "model": MODELS[model].model,
            "data": DataConfig,
            "objective": MODELS[model].objective,
            "training": TrainingConfig,
        }

    @classmethod
    def from_dict(
        cls, values: dict[str, dict[str, Any]], flags: dict[str, Any] | None = None
    ) -> RunConfig:
        """Build and check a run from plain values; what is not given takes the model's default.

        Args:
            values: section → field → value, as in a run's config.json. Options that earlier
                versions had are ignored, with one line on stderr.
            flags: field → value, over `values` where not None; names are unique over sections.

        Raises:
            ValueError: a section or key that does not exist, or a value against its rule.
        """
        if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
            raise InputError("a configuration is an object of objects: model, data, …")
        model = values.get("model", {}).get("model", "dcgan")
        sections = cls.sections(model)
        if unknown := sorted(set(values) - set(sections)):
            raise InputError(f"unknown {', '.join(unknown)}; sections are {', '.join(sections)}")
        parts = {}
        for name, kind in sections.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            given = dict(values.get(name, {}))
            for removed in REMOVED.get(name, ()):
                if removed in given:
                    del given[removed]
                    _report_removed(removed)
            if unknown := sorted(set(given) - set(fields)):
                raise InputError(f"{name} has no {', '.join(unknown)}; it has {', '.join(fields)}")
            defaults = {
                key: MODELS[model].defaults[key] for key in MODELS[model].defaults if key in fields
            }
            given |= {key: flags[key] for key in fields if flags and flags.get(key) is not None}
            parts[name] = kind(**{**defaults, **given})
        return cls(**parts)

    @property
    def networks(self) -> dict[str, str]:
        """What `gen.models.build` makes of it: name in a checkpoint → maker."""
        return MODELS[self.model.model].networks

    def with_model(self, **values: Any) -> RunConfig:
        """This run with settings of its networks replaced, such as channels."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, **values))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values; `from_dict` gives the same run back."""
        return dataclasses.asdict(self)
