"""Measure the lattice artifacts of upsampling in sets of images: `measure`, `Meter`.

Images become tiles (tiles.py), tiles sums (sums.py), sums estimates (estimates.py, excess.py,
trace.py), estimates a result (level.py, conclude.py, result.py). The package imports torch, numpy
and scipy.special, and nothing else of this project.
"""

from .errors import MeasurementError
from .meter import PERIODS, Meter, measure, range_of_maps
from .result import Measurement

__all__ = ["PERIODS", "Measurement", "MeasurementError", "Meter", "measure", "range_of_maps"]
