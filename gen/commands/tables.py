"""Measured sets as rows for programs: CSV, JSON and NumPy files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gen.system.text import printable

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement

COLUMNS = (
    "level_dbc", "level_low_dbc", "level_upper_dbc", "detection_limit_dbc", "best_limit_dbc",
    "p_value", "detected", "severity", "excess_db", "trace_depth", "undefined",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how spreadsheets begin what they run


def rows(sets: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    """One row per set and period: the set, its images, and the numbers of the period."""
    return [
        {
            "set": label, "period": number, "images": m.images, "height": m.size[0],
            "width": m.size[1], "channels": m.channels,
            **{name: getattr(period, name) for name in COLUMNS},
        }
        for label, m in sets.items()
        for number, period in m.periods.items()
    ]  # fmt: skip


def to_csv(sets: Mapping[str, Measurement]) -> bytes:
    """`rows` as CSV with a header; a text that a spreadsheet would run gets an apostrophe."""
    found = rows(sets)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*found[0]], lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def to_npz(sets: Mapping[str, Measurement]) -> bytes:
    """Mean spectra and radial profiles; set number N has the arrays that end in `_N`.

    `labels` names the sets. `spectrum_N` (H, W) has DC at (H//2, W//2), `frequency_N` is in cycles
    per pixel, and `power_N`, `low_N` and `high_N` are the profile with its 95 % band. All are in dB
    re one gray level².
    """
    import numpy as np

    arrays: dict[str, Any] = {"labels": np.array([printable(label) for label in sets])}
    for number, measurement in enumerate(sets.values()):
        pictures = measurement.pictures
        profile = pictures.profile()
        low, high = profile.band()
        spectrum = 10 * np.log10(np.maximum(pictures.spectrum()[0], 1e-20))
        found = (spectrum, profile.frequency, profile.db, low, high)
        names = ("spectrum", "frequency", "power", "low", "high")
        arrays |= {f"{name}_{number}": v for name, v in zip(names, found, strict=True)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
