"""Configuration of the networks, one class per family."""

from __future__ import annotations

from dataclasses import dataclass

from gen.config.fields import Checked, option
from gen.models.kinds import UPSAMPLERS
from gen.system.errors import InputError


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
            raise InputError("channels is 2; must be 1 (gray), 3 (RGB) or 4 (RGBA)")

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

    upsample: str = option(
        "transposed",
        "how maps are enlarged: "
        + ", ".join(
            f"{name} ({kind.help}; kernel {' '.join(map(str, kind.kernel_sizes))})"
            for name, kind in UPSAMPLERS.items()
        ),
        choices=tuple(UPSAMPLERS),
    )
    kernel_size: int = option(
        0, "kernel size, one of the upsampler's; 0 takes the first", low=0, high=6
    )
    antialias: bool = option(False, "binomial filter after each enlargement")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = UPSAMPLERS[self.upsample].kernel_sizes
        if self.kernel_size == 0:
            object.__setattr__(self, "kernel_size", sizes[0])
        if self.kernel_size not in sizes:
            offered = ", ".join(map(str, sorted(sizes)))
            raise InputError(
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
            raise InputError(f"classes is {self.classes}; must be at least 2, or 0 to count them")

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
