"""Train image generators, sample them, and measure the checkerboards that upsampling leaves.

    >>> import gen
    >>> print(gen.measure(images))                       # uint8 (N, C, H, W)
    >>> decoder = gen.load("runs/00000-dcgan-shapes")
    >>> pixels = gen.sample_images(decoder, range(64))   # uint8 (64, C, H, W)

Names load what they need when they are first used, so that measuring imports neither torchvision
nor tensorboard.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen.analysis.measure.meter import Meter as Meter
    from gen.analysis.measure.meter import measure as measure
    from gen.analysis.measure.result import Measurement as Measurement
    from gen.runs.open import load as load
    from gen.sampling.seeds import sample_images as sample_images
    from gen.share.export import from_pretrained as from_pretrained

# A checkout keeps models/ at the top level, where its users look for it; installed, it lies here.
if not (Path(__file__).parent / "models").is_dir():
    _folder = Path(__file__).parents[1] / "models"
    _spec = spec_from_file_location(
        "gen.models", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    models = sys.modules["gen.models"] = module_from_spec(_spec)

_HOMES = {
    "measure": "gen.analysis.measure.meter",
    "Meter": "gen.analysis.measure.meter",
    "Measurement": "gen.analysis.measure.result",
    "load": "gen.runs.open",
    "sample_images": "gen.sampling.seeds",
    "from_pretrained": "gen.share.export",
}

try:
    __version__ = version("gen")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *_HOMES]
