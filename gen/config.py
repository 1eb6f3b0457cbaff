"""What a run is: frozen dataclasses that check themselves and go to and from plain dicts.

Every field carries its help, unit and rule; `gen.options` makes the command line from them. This
module imports neither torch nor the networks, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import sys
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from gen import distributed

# Kernel sizes each upsampler takes (the first is its default). Even kernels of an ordinary
# convolution would shift the image by half a pixel, so only transposed ones have them.
KERNEL_SIZES: dict[str, tuple[int, ...]] = {
    "transposed": (4, 2, 3, 5, 6),
    "balanced": (4, 2, 3, 5, 6),
    "nearest": (3, 5),
    "bilinear": (3, 5),
    "subpixel": (3, 5),
}
GAN_LOSSES = ("nonsaturating", "hinge", "lsgan", "wgan-gp")


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help text, unit and rule: low ≤ value ≤ high, value > above.

    A field without help is not offered on the command line.
    """
    rule = {"low": low, "high": high, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, **rule})


def _violation(value: Any, rule: Any) -> str | None:
    """What `rule` demands of `value`, or None where it is met."""
    if rule["choices"]:
        return None if value in rule["choices"] else "one of " + ", ".join(rule["choices"])
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            return "a finite number"
        if rule["low"] is not None and number < rule["low"]:
            return f"at least {rule['low']}"
        if rule["high"] is not None and number > rule["high"]:
            return f"at most {rule['high']}"
        if rule["above"] is not None and number <= rule["above"]:
            return f"above {rule['above']}"
    return None


class Checked:
    """Checks every field against its type and rule on construction.

    Raises:
        ValueError: `name is value; must be rule`.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if hints[field.name] is float and type(value) is int and abs(value) < 2**1023:
                object.__setattr__(self, field.name, value := float(value))
            if get_origin(hints[field.name]) is tuple and isinstance(value, list):
                object.__setattr__(self, field.name, value := tuple(value))
            if not _has_type(value, hints[field.name]):
                wanted = getattr(hints[field.name], "__name__", hints[field.name])
                raise ValueError(f"{field.name} is {reprlib.repr(value)}; must be of type {wanted}")
            demand = _violation(value, field.metadata) if field.metadata else None
            if demand:
                between = "x" if field.name == "size" else ","
                shown = between.join(map(str, value)) if isinstance(value, tuple) else value
                raise ValueError(f"{field.name} is {shown}; must be {demand}")


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and tuple(map(type, value)) == get_args(hint)
    return type(value) is hint


@dataclass(frozen=True)
class ModelConfig(Checked):
    """What all networks share."""

    model: str = "dcgan"
    size: tuple[int, int] = option(
        (64, 64), "image size, S or HxW", unit="pixels", low=8, high=4096
    )
    channels: int = option(0, "1 gray, 3 RGB, 4 RGBA; 0 takes the data's own", low=0, high=4)
    width: int = option(64, "channels of the finest inner map", low=1, high=4096)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels == 2:
            raise ValueError("channels is 2; must be 1 (gray), 3 (RGB) or 4 (RGBA)")

    @property
    def mask_classes(self) -> int:
        """Classes of pixels in the masks that training takes; 0: it takes none."""
        return 0

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        return f"{size}, {self.channels} channels, width {self.width}"


@dataclass(frozen=True)
class EnlargingConfig(ModelConfig):
    """Networks that enlarge maps."""

    upsample: str = option("transposed", "how maps are enlarged", choices=tuple(KERNEL_SIZES))
    kernel_size: int = option(
        0,
        "its kernel: transposed and balanced 2-6, others 3 or 5; 0 takes the usual one (4, or 3)",
        low=0,
        high=6,
    )
    antialias: bool = option(False, "binomial filter after each enlargement")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = KERNEL_SIZES[self.upsample]
        if self.kernel_size == 0:
            object.__setattr__(self, "kernel_size", sizes[0])
        if self.kernel_size not in sizes:
            offered = ", ".join(map(str, sorted(sizes)))
            raise ValueError(
                f"kernel_size is {self.kernel_size}; upsample {self.upsample} takes {offered}"
            )

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.upsample} k{self.kernel_size}"


@dataclass(frozen=True)
class GeneratorConfig(EnlargingConfig):
    """Networks that make images of latents."""

    latent: int = option(100, "length of the latent vector", low=1, high=65536)
    decoder_width: int = option(
        0, "width of the network that makes images; 0 takes --width", low=0, high=4096
    )
    conditional: bool = option(False, "learn one distribution per class of the data")
    classes: int = option(0, "", low=0, high=65536)  # the data's; 0 where not conditional

    def __str__(self) -> str:
        classes = f", {self.classes} classes" if self.conditional else ""
        return f"{super().__str__()}, latent {self.latent}{classes}"


@dataclass(frozen=True)
class AdversarialConfig(GeneratorConfig):
    """Networks with a discriminator."""

    spectral_norm: bool = option(False, "spectral normalization in the discriminator")
    batch_norm: str = option(
        "auto",
        "batch norm in it; auto: off with spectral norm and gradient penalties, else on",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class SegmenterConfig(EnlargingConfig):
    """Networks that give every pixel a class."""

    classes: int = option(
        0, "classes of pixels, background included; 0 counts them", low=0, high=255
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 0 or self.classes == 1:
            raise ValueError(f"classes is {self.classes}; must be at least 2, or 0 to count them")

    @property
    def mask_classes(self) -> int:
        """All of them."""
        return self.classes

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.classes} classes"


@dataclass(frozen=True)
class FCNConfig(SegmenterConfig):
    """A fully convolutional network."""

    head: str = option(
        "8s", "scores the maps of stride 32; 32 and 16; 32, 16 and 8", choices=("32s", "16s", "8s")
    )
    fixed_upsample: bool = option(False, "enlarging layers stay the interpolation they start as")

    def __str__(self) -> str:
        fixed = ", fixed enlargement" if self.fixed_upsample else ""
        return f"{super().__str__()}, head {self.head}{fixed}"


@dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    """A network that tells classes of images apart."""

    classes: int = option(0, "", low=0, high=65536)  # the data's

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.classes} classes"


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


@dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """What networks are trained for."""

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """The networks as this objective needs them.

        Raises:
            ValueError: they cannot serve it.
        """
        return networks


@dataclass(frozen=True)
class AdversarialObjective(ObjectiveConfig):
    """What is trained against a discriminator."""

    @property
    def prices_slopes(self) -> bool:
        """Whether the loss has a gradient penalty."""
        return False

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """Settle batch norm, which makes an image's slope depend on the rest of the batch."""
        networks = super().fit(networks)
        if networks.batch_norm == "auto":
            off = self.prices_slopes or networks.spectral_norm
            return dataclasses.replace(networks, batch_norm="off" if off else "on")
        if networks.batch_norm == "on" and self.prices_slopes:
            raise ValueError(
                "batch_norm is on; loss wgan-gp and r1 ask for each image's own slope, so it must "
                "be off or auto"
            )
        return networks


@dataclass(frozen=True)
class GANConfig(AdversarialObjective):
    """The adversarial objective."""

    loss: str = option("nonsaturating", "GAN loss", choices=GAN_LOSSES)
    critic_steps: int = option(
        0, "discriminator's turns per turn of the generator; 0: 5 with wgan-gp, else 1", low=0,
        high=1000,
    )  # fmt: skip
    gradient_penalty: float = option(10.0, "λ of wgan-gp", low=0, high=1e6)
    r1: float = option(0.0, "γ of the R1 penalty on the discriminator's slope", low=0, high=1e6)
    lr: float = option(2e-4, "Adam's learning rate, both players", above=0, high=1)
    beta1: float = option(0.5, "Adam's momentum", low=0, high=0.9999)
    beta2: float = option(0.999, "Adam's second-moment decay", low=0, high=0.999999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.critic_steps:
            object.__setattr__(self, "critic_steps", 5 if self.loss == "wgan-gp" else 1)

    @property
    def prices_slopes(self) -> bool:
        """Whether the loss has a gradient penalty."""
        return self.loss == "wgan-gp" or self.r1 > 0


@dataclass(frozen=True)
class VAEConfig(ObjectiveConfig):
    """The evidence lower bound."""

    likelihood: str = option(
        "bernoulli", "p(x|z); gaussian fits its one variance", choices=("bernoulli", "gaussian")
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
    gamma: float = option(1e-2, "decoder's weight of likeness against deceit", low=0, high=1e6)
    lr: float = option(2e-4, "Adam's learning rate, all players", above=0, high=1)
    beta1: float = option(0.5, "Adam's momentum", low=0, high=0.9999)
    beta2: float = option(0.999, "Adam's second-moment decay", low=0, high=0.999999)

    def fit(self, networks: ModelConfig) -> ModelConfig:
        """Refuse classes."""
        if networks.conditional:
            raise ValueError("conditional is on; vaegan learns no classes, dcgan and vae do")
        return super().fit(networks)


@dataclass(frozen=True)
class SegmentationConfig(ObjectiveConfig):
    """Masks from images."""

    loss: str = option(
        "cross-entropy", "loss over pixels", choices=("cross-entropy", "dice", "both")
    )
    lr: float = option(2e-3, "Adam's learning rate", above=0, high=1)


@dataclass(frozen=True)
class ClassificationConfig(ObjectiveConfig):
    """Classes from images."""

    lr: float = option(1e-3, "Adam's learning rate", above=0, high=1)


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
        "newest checkpoints kept beside snapshots 0, 1, 2, 4, 8, …; 0 keeps all",
        low=0,
        high=10**9,
    )
    log_every: int = option(50, "logging rhythm", unit="steps", low=1, high=10**9)


@dataclass(frozen=True)
class ModelKind:
    """What the command line offers for one model, and where its defaults differ."""

    networks: type[ModelConfig]
    objective: type[ObjectiveConfig]
    help: str
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    use: str = "sample.py {run} --grid grid.png"  # what a finished run is for


_PREDICT = "sample.py {run} --images DIR --outdir DIR"
# No average: while a network learns fast, averaged batch-norm statistics do not fit its weights.
_SEGMENTERS = {"batch_size": 32, "ema_half_life": 0.0, "snapshot_every": 250}
MODELS: dict[str, ModelKind] = {
    "dcgan": ModelKind(AdversarialConfig, GANConfig, "Train a DCGAN (Radford et al. 2016)."),
    "vae": ModelKind(
        GeneratorConfig,
        VAEConfig,
        "Train a convolutional VAE (Kingma and Welling 2014).",
        {"latent": 20, "batch_size": 128},
    ),
    "vaegan": ModelKind(
        AdversarialConfig,
        VAEGANConfig,
        "Train a VAE judged by a GAN's discriminator (Larsen et al. 2016).",
        {"latent": 64},
    ),
    "unet": ModelKind(
        SegmenterConfig,
        SegmentationConfig,
        "Train a U-Net to segment images (Ronneberger et al. 2015).",
        _SEGMENTERS | {"width": 8, "steps": 300},
        _PREDICT,
    ),
    "fcn": ModelKind(
        FCNConfig,
        SegmentationConfig,
        "Train an FCN to segment images (Long et al. 2015).",
        _SEGMENTERS | {"width": 16, "steps": 500},
        _PREDICT,
    ),
    "classifier": ModelKind(
        ClassifierConfig,
        ClassificationConfig,
        "Train a classifier, for quality to be measured in its features.",
        {"width": 32, "batch_size": 128, "steps": 1000},
        "analyze.py quality RUN --reference DATA --features classifier:{run}",
    ),
}


# Options of earlier versions, by section. Runs that name them still load, without them.
REMOVED = {"objective": ("grid_penalty",)}


@functools.cache
def _report_removed(name: str) -> None:
    """Print once that an option is ignored."""
    if not distributed.started_as():
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
            raise ValueError(f"model is {reprlib.repr(model)}; must be one of {names}")
        return {
            "model": MODELS[model].networks,
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
            raise ValueError("a configuration is an object of objects: model, data, …")
        model = values.get("model", {}).get("model", "dcgan")
        sections = cls.sections(model)
        if unknown := sorted(set(values) - set(sections)):
            raise ValueError(f"unknown {', '.join(unknown)}; sections are {', '.join(sections)}")
        parts = {}
        for name, kind in sections.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            given = dict(values.get(name, {}))
            for removed in REMOVED.get(name, ()):
                if removed in given:
                    del given[removed]
                    _report_removed(removed)
            if unknown := sorted(set(given) - set(fields)):
                raise ValueError(f"{name} has no {', '.join(unknown)}; it has {', '.join(fields)}")
            defaults = {
                key: MODELS[model].defaults[key] for key in MODELS[model].defaults if key in fields
            }
            given |= {key: flags[key] for key in fields if flags and flags.get(key) is not None}
            parts[name] = kind(**{**defaults, **given})
        return cls(**parts)

    def with_networks(self, **values: Any) -> RunConfig:
        """This run with fields of its networks settled, such as channels."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, **values))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values; `from_dict` gives the same run back."""
        return dataclasses.asdict(self)
