"""`gen compare`: runs, folders of images and measurements side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.gate import Gate, gate_options
from gen.commands.images import ON_BAD_IMAGE
from gen.commands.options import (
    Command,
    GroupedOption,
    Parsed,
    compute_options,
    network_options,
    parse_periods,
)
from gen.commands.output import check_file, provenance, say, write_json
from gen.commands.tables import rows, to_csv, to_npz
from gen.system import distributed
from gen.system.errors import InputError
from gen.system.text import shorten

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement, Period


def compare_sets(
    paths: tuple[Path, ...],
    num: int,
    periods: tuple[int, ...] | None,
    on_bad_image: str,
    csv_file: Path | None,
    json_file: str | None,
    plot: Path | None,
    spectra: Path | None,
    **network: Any,
) -> None:
    """Measure or read each, print a table, write files, judge.

    `network` holds the options of `open_network` and those of the gate.
    """
    check_file("--csv", csv_file)
    check_file("--json", json_file)
    check_file("--plot", plot, (".png",))
    check_file("--spectra", spectra, (".png", ".npz"))
    gate = Gate.taken_from(network)
    skip = on_bad_image == "skip"
    sets = [*_look(paths, periods, num, skip, spectra is not None, network)]
    measured = {each.label: each.measurement for each in sets}
    say(table(measured), err=json_file == "-")
    if distributed.rank() == 0:
        from gen.analysis.report.figures import draw_sets, draw_spectra

        drawn = spectra is not None and spectra.suffix.lower() == ".png"
        to_spectra = draw_spectra if drawn else to_npz
        _write(measured, {csv_file: to_csv, plot: draw_sets, spectra: to_spectra})
        if json_file:
            plain = {"schema": 1, **provenance(paths), "rows": rows(measured)}
            write_json(plain | {"sets": [each.to_dict() for each in sets]}, json_file)
    gate.judge(measured)


@dataclass(frozen=True)
class _Set:
    """A measured set, and how many images it has and which are left out."""

    label: str
    path: str
    measurement: Measurement
    source: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        measurement = self.measurement.to_dict()
        return {"set": self.label, "path": self.path, **self.source, "measurement": measurement}


def _look(
    paths: tuple[Path, ...],
    periods: tuple[int, ...] | None,
    num: int,
    skip_bad: bool,
    pictures: bool,
    network: dict[str, Any],
) -> Iterator[_Set]:
    """Measure or read each path; a network that needs no path comes last."""
    own = network["script"] or network["factory"] or network["diffusers"]
    if not paths and not own:
        raise click.UsageError("name paths to compare, or a network by --script")
    from gen.commands.measuring import measure_path
    from gen.data.stream import Selection
    from gen.inputs import is_built_from_weights, takes_weights

    takes, built, selection = takes_weights(network), False, Selection(skip_bad=skip_bad)
    options = {"periods": periods, "selection": selection, "num": num, "pictures": pictures}

    def measured(label: str, path: Path | None, through: dict[str, Any] | None) -> _Set:
        looked = measure_path(path, network=through, **options)
        return _Set(label, str(path or label), looked.measurement, looked.source)

    for label, path in _labels(paths).items():
        if path.suffix == ".json" and not path.name.endswith(".index.json"):
            if pictures:
                raise InputError(f"{path}: holds numbers and no spectra; name the images instead")
            yield _read_set(label, path)
            continue
        by_key = network["key"] and not own
        through = network if (takes or by_key) and is_built_from_weights(path) else None
        built |= through is not None
        yield measured(label, path, through)
    if own and not built:
        yield measured(str(own), None, network)


def _write(
    measured: dict[str, Measurement],
    files: dict[Path | None, Callable[[dict[str, Measurement]], bytes]],
) -> None:
    """Write what is asked for; all is made before the first file is written."""
    from gen.system.files import write_atomically

    made = {path: make(measured) for path, make in files.items() if path}
    for path, data in made.items():
        write_atomically(path, data)


def _labels(paths: tuple[Path, ...]) -> dict[str, Path]:
    """The shortest ends of the paths that tell them apart."""
    length = 1
    while len({p.parts[-length:] for p in paths}) < len(paths) and length < 64:
        length += 1
    return {"/".join(p.parts[-length:]): p for p in paths}


def _read_set(label: str, path: Path) -> _Set:
    from gen.analysis.measure.result import Measurement
    from gen.system.files import read_regular

    try:
        plain = json.loads(read_regular(path), parse_int=_number)
        found = Measurement.from_dict(plain.get("measurement", plain))
        return _Set(label, str(path), found, {"found": found.images, "left_out": []})
    except (ValueError, AttributeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def _number(text: str) -> int | float:
    """A whole number, as a float where it is too long for one, which gives infinity."""
    return int(text) if len(text) < 17 else float(text)


def cell(period: Period | None) -> str:
    """Level with *, or the limit it is below; - where the period was not measured."""
    if period is None:
        return "-"
    if period.undefined:
        return "undefined"
    shown = period.reading_dbc if period.detected else period.detection_limit_dbc
    number = "-" if shown is None else f"{shown:.1f}"
    return f"{number} *" if period.detected else f"< {number}"


def table(measured: dict[str, Measurement]) -> str:
    """One row per set, one column per period."""
    periods = sorted({p for m in measured.values() for p in m.periods})
    labels = [shorten(label) for label in measured]
    width = max(map(len, labels)) + 2
    names = "".join(f"{f'period {p}':>13}" for p in periods)
    rows = [f"{'':<{width}}{'images':>8}{'size':>9}{names}"]
    for label, m in zip(labels, measured.values(), strict=True):
        cells = "".join(f"{cell(m.periods.get(p)):>13}" for p in periods)
        rows.append(f"{label:<{width}}{m.images:>8}{'x'.join(map(str, m.size)):>9}{cells}")
    return "\n".join([*rows, "* detected, level in dBc; < not detected, below this limit in dBc"])


compare = Command(
    "compare",
    help="Measure runs, folders or JSON files and show them side by side.",
    callback=compare_sets,
    params=[
        click.Argument(["paths"], nargs=-1, type=click.Path(path_type=Path)),
        *network_options(),
        *compute_options(),
        GroupedOption(["--num"], type=click.IntRange(1, 10**9), default=1024, show_default=True,
                      metavar="N", group="Images", help="samples to draw from a run"),
        GroupedOption(["--periods"], type=Parsed("P,P", parse_periods), group="Images",
                      help="periods in pixels  [default: 2,4,8 and those of a network's layers]"),
        ON_BAD_IMAGE,
        GroupedOption(["--csv", "csv_file"], type=click.Path(path_type=Path), metavar="FILE",
                      group="Output", help="write one row per set and period"),
        GroupedOption(["--json", "json_file"], metavar="FILE|-", group="Output",
                      help="write JSON; - is stdout"),
        GroupedOption(["--plot"], type=click.Path(path_type=Path), metavar="FILE.png",
                      group="Output", help="draw the table"),
        GroupedOption(["--spectra"], type=click.Path(path_type=Path), metavar="FILE.png|.npz",
                      group="Output", help="draw or write mean spectra and radial profiles"),
        *gate_options(),
    ],
    examples="""
        gen compare runs/00000-dcgan-shapes runs/00001-dcgan-shapes photos/
        gen compare vae.pt repaired.pt --script load_vae.py:build --range 0,1
        gen compare before.json after.json --plot change.png
        gen compare a/ b/ c/ --csv table.csv --spectra spectra.png
    """,
)  # fmt: skip
