"""Numbers → one static HTML page that a person reads in a minute: verdict first, then the evidence.

The page holds its style and pictures itself: no script, no network. The numbers lie next to it as
measurement.json.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from gen.analysis.report.page import (
    ABOUT,
    CAPTIONS,
    GLOSSARY,
    HEADS,
    LOW_CONTRAST,
    STYLE,
    TABLE_NOTE,
)
from gen.analysis.report.summary import Step, headline, next_steps
from gen.analysis.report.tables import (
    LINE_HEADINGS,
    Table,
    escape,
    line_cells,
    periods_table,
    typeset,
)
from gen.system.errors import InputError
from gen.system.files import is_unfinished, read_regular, write_all
from gen.system.signals import uninterrupted

if TYPE_CHECKING:
    import numpy as np

    from gen.analysis.measure.result import MeasuredLine, Measurement, PeriodDifference

MARK = '<meta name="generator" content="gen checkerboard report">'
THUMBNAIL_SIDE = 256
_OLD_PICTURES = re.compile(  # reports of version 0.1 held each picture twice
    r"((levels|history|spectrum(-(reference|radial))?)|(replica|pattern|place|image)-\d+)\.png"
)


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption and its alt text."""

    name: str
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What a command adds to the page: sentences, then tables, then pictures; and its terms."""

    heading: str
    sentences: Sequence[str]
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    glossary: Mapping[str, str] = field(default_factory=dict)


def check_folder(folder: Path) -> None:
    """Raise ValueError unless a report may go there: new, empty, or holding an earlier report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; a report is a folder")
    index = folder / "index.html"
    earlier = index.is_file() and MARK.encode() in read_regular(index)
    if not earlier and not all(map(is_unfinished, folder.iterdir())):
        raise InputError(f"{folder}: holds other files; give a new or empty folder")


def write_report(
    measurement: Measurement,
    folder: Path,
    thumbnails: np.ndarray | None = None,
    title: str = "Checkerboards",
    command: str = "",
    more: Sequence[Section] = (),
    steps: Sequence[Step] | None = None,
) -> Path:
    """Write index.html, which holds its pictures, and measurement.json; returns the page's path.

    Args:
        measurement: Spectra are left out where it has no `pictures` (from JSON).
        folder: New, empty, or with an earlier report, which is replaced.
        thumbnails: Sample images, uint8 (n, C, H, W); shown at whole multiples of their pixels.
        title: Heading of the page.
        command: What made the report, printed under the heading.
        more: Sections to put after the verdict.
        steps: What to do, with commands; by default what the measurement alone suggests.

    Raises:
        ValueError: The folder holds files of others.
    """
    check_folder(folder)
    pictures, samples = draw_pictures(measurement), draw_thumbnails(thumbnails)
    plain = json.dumps(measurement.to_dict(), indent=2, allow_nan=False)
    steps = next_steps(measurement) if steps is None else steps
    page = render(measurement, pictures, samples, title, command, more, steps)
    # The page takes its name first: it holds its pictures, so it is whole whatever comes next.
    files = {"measurement.json": f"{plain}\n".encode(), "index.html": page.encode()}
    with uninterrupted():  # an earlier report stays until this one is on the disk
        folder.mkdir(parents=True, exist_ok=True)
        write_all(folder, files)
        for old in folder.iterdir():
            if _OLD_PICTURES.fullmatch(old.name):
                old.unlink()
    return folder / "index.html"


def draw_pictures(measurement: Measurement) -> list[Picture]:
    """All figures that this measurement allows, in reading order."""
    from matplotlib import rc_context

    from gen.analysis.report import figures

    defined = [n for n, period in measurement.periods.items() if not period.undefined]
    if not defined:
        return []
    made: list[Picture] = []

    def add(name: str, png: bytes, key: str, **words: object) -> None:
        alt, caption = (text.format(**words) for text in CAPTIONS[key])
        made.append(Picture(f"{name}.png", png, alt, caption))

    with rc_context(figures.STYLE):
        add("levels", figures.draw_levels(measurement), "levels")
        for number in defined:
            png, factor = figures.draw_pattern(measurement, number)
            add(f"pattern-{number}", png, "pattern", period=number, factor=factor)
        if measurement.pictures is None:
            return made
        limits = figures.spectrum_range(measurement)
        add("spectrum", figures.draw_spectrum(measurement, limits), "spectrum")
        reference = measurement.reference
        if reference and reference.pictures:
            png = figures.draw_spectrum(reference, limits)
            add("spectrum-reference", png, "spectrum-reference")
        add("spectrum-radial", figures.draw_radial(measurement), "spectrum-radial")
    return made


def draw_thumbnails(images: np.ndarray | None) -> list[Picture]:
    """Images (n, C, H, W), uint8, as PNGs of their own pixels; large ones show their top left."""
    if images is None:
        return []
    from matplotlib.image import imsave

    made = []
    for number, image in enumerate(images[..., :THUMBNAIL_SIDE, :THUMBNAIL_SIDE]):
        color = image[:3] if len(image) >= 3 else image[[0, 0, 0]]
        buffer = io.BytesIO()
        imsave(buffer, color.transpose(1, 2, 0).copy(), format="png")
        made.append(Picture(f"image-{number}.png", buffer.getvalue(), f"image {number}", ""))
    return made


def render(
    measurement: Measurement,
    pictures: list[Picture],
    samples: list[Picture],
    title: str,
    command: str,
    more: Sequence[Section] = (),
    steps: Sequence[Step] = (),
) -> str:
    """The page as text."""
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.name.split("-")[0].removesuffix(".png"), []).append(picture)
    sections = [
        f'<section class="verdict" aria-label="Verdict">{_verdicts(measurement)}</section>',
        _section("What to do", _steps(steps)) if steps else "",
        *(_section(added.heading, _body(added)) for added in more),
        _section("How to read this", _figures(groups.pop("levels", []), f"<p>{ABOUT}</p>")),
        periods_table(measurement).to_html(),
        *(_section(HEADS[key], _figures(group)) for key, group in groups.items()),
        _section("Samples", _samples(samples)) if samples else "",
        _section("Every lattice line", _table(measurement)) if measurement.lines else "",
        _section("Glossary", _glossary(GLOSSARY)),
    ]
    # A span per argument: browsers would break lines inside `--option`.
    words = " ".join(f"<span>{escape(word)}</span>" for word in command.split(" "))
    made_by = f"<p><code>{words}</code></p>" if command else ""
    head = takewhile(lambda row: not row.startswith("period"), str(measurement).splitlines())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{MARK}
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{typeset(". ".join(head))}.</p>{made_by}</header>
<main>
{chr(10).join(filter(None, sections))}
</main>
</body>
</html>
"""


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _body(added: Section) -> str:
    said = "".join(f"<p>{typeset(sentence)}</p>" for sentence in added.sentences)
    tables = "".join(table.to_html() for table in added.tables if table.rows)
    return said + tables + _glossary(added.glossary) + _figures([*added.pictures])


def _verdicts(measurement: Measurement) -> str:
    """One sentence per period, and what the reference adds."""
    items = []
    for number, period in measurement.periods.items():
        kind = "undefined" if period.undefined else "found" if period.detected else "clean"
        items.append(f'<li class="{kind}">{typeset(measurement.verdict(number))}</li>')
    difference, compared = measurement.difference, ""
    if difference:
        changes = [
            f"period {number} {_change(change)} (p = {change.p_value:.2g})"
            for number, change in difference.periods.items()
        ]
        if difference.radial_db is not None:
            low, high = difference.radial_low_db, difference.radial_high_db
            changes.append(
                f"radial spectra {difference.radial_db:.1f} dB apart [{low:.1f}, {high:.1f}]"
            )
        compared = f'<p class="note">Against the reference: {typeset("; ".join(changes))}.</p>'
    first = f'<p class="headline">{typeset(headline(measurement))}</p>'
    if measurement.low_contrast:
        words = LOW_CONTRAST.format(contrast=measurement.contrast)
        first += f'<p class="warning">{words}</p>'
    return f"{first}<ul>{''.join(items)}</ul>{compared}"


def _steps(steps: Sequence[Step]) -> str:
    shown = (
        f"<li>{typeset(step.text)}"
        + (f"<pre><code>{escape(step.command)}</code></pre>" if step.command else "")
        + "</li>"
        for step in steps
    )
    return f"<ol>{''.join(shown)}</ol>"


def _change(change: PeriodDifference) -> str:
    if change.level_db is not None:
        return f"{change.level_db:+.1f} dB"
    from gen.analysis.measure.statistics import SIGNIFICANT

    return "differs" if change.p_value < SIGNIFICANT else "does not differ measurably"


def _image(picture: Picture, attributes: str = "") -> str:
    data = base64.b64encode(picture.png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}"{attributes}>'


def _figures(pictures: list[Picture], text: str = "") -> str:
    shown = (f"<figure>{_image(p)}<figcaption>{p.caption}</figcaption></figure>" for p in pictures)
    return f'<div class="figures">{text}{"".join(shown)}</div>'


def _samples(samples: list[Picture]) -> str:
    shown = "".join(_image(picture, f' width="{_width(picture)}"') for picture in samples)
    return f'<div class="samples">{shown}</div>'


def _width(picture: Picture) -> int:
    """CSS pixels: a whole multiple (1 to 4) of the image's own, 160 at most if more than 1."""
    width, height = (int.from_bytes(picture.png[i : i + 4], "big") for i in (16, 20))  # IHDR
    return width * min(4, max(1, 160 // max(width, height)))


def _table(measurement: Measurement) -> str:
    body = _rows(measurement.lines)
    if measurement.channel_lines:
        rest = _rows(measurement.channel_lines)
        body += f"<details><summary>The same lines of each channel</summary>{rest}</details>"
    return f"<p>{TABLE_NOTE}</p>{body}"


def _rows(lines: tuple[MeasuredLine, ...]) -> str:
    return Table(LINE_HEADINGS, [line_cells(line) for line in lines]).to_html()


def _glossary(terms: Mapping[str, str]) -> str:
    pairs = "".join(f"<dt>{a}</dt><dd>{b}</dd>" for a, b in terms.items())
    return f"<dl>{pairs}</dl>" if pairs else ""
