"""Train image generators, sample them, and measure the checkerboards that upsampling leaves.

    >>> import gen
    >>> print(gen.measure(images))                       # uint8 (N, C, H, W)
    >>> decoder = gen.load("runs/00000-dcgan-shapes")
    >>> pixels = gen.sample_images(decoder, range(64))   # uint8 (64, C, H, W)

Names load what they need when they are first used, so that measuring imports neither torchvision
nor tensorboard.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# A checkout keeps models/ at the top level, where its users look for it; installed, it lies here.
if not (Path(__file__).parent / "models").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

_HOMES = {
    "measure": "gen.analysis.measure.meter",
    "Meter": "gen.analysis.measure.meter",
    "Measurement": "gen.analysis.measure.result",
    "load": "gen.runs.open",
    "sample_images": "gen.sampling.seeds",
    "from_pretrained": "gen.share.export",
}
__all__ = ["__version__", *_HOMES]

try:
    __version__ = version("gen")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
