"""The first words of a report: what was found, how strong, how sure, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement, Period

ODDS = 1_000_000  # rarer chances are not worth their digits


class Step(NamedTuple):
    """Something to do, and the command that does it."""

    text: str
    command: str = ""


def headline(measurement: Measurement) -> str:
    """One or two sentences for a reader who reads no more."""
    periods = measurement.periods
    detected = {n: p for n, p in periods.items() if p.detected}
    defined = {n: p for n, p in periods.items() if not p.undefined}
    if not defined:
        return f"Nothing could be measured: {next(iter(periods.values())).undefined}."
    if detected:
        number = max(detected, key=lambda n: _level(detected[n]))
        strongest = min(detected.values(), key=lambda p: p.p_value)
        more = [f"{n} at {_level(p):.1f} dBc" for n, p in detected.items() if n != number]
        also = f" (also period {', '.join(more)})" if more else ""
        return (
            f"These images carry a checkerboard{_words(detected[number])}: period {number} at "
            f"{_level(detected[number]):.1f} dBc{also}. Chance gives as much in "
            f"{_odds(strongest.p_value)} sets without one.{_in_reference(measurement, detected)}"
        )
    limits = {n: p.detection_limit_dbc for n, p in defined.items()}
    known = [f"{limit:.1f} dBc (period {n})" for n, limit in limits.items() if limit is not None]
    found = f" One of {' or '.join(known)} is found nine times out of ten." if known else ""
    blind = [str(n) for n, limit in limits.items() if limit is None]
    hidden = f" Period {', '.join(blind)} cannot be judged on every line." if blind else ""
    others = [str(n) for n, p in defined.items() if p.found]
    aside = (
        f" Period {', '.join(others)} shows in excess or trace: resizing, JPEG, or a pattern that "
        "changes from image to image."
    )
    return f"No checkerboard was found.{found}{hidden}{aside if others else ''}"


def next_steps(
    measurement: Measurement, images: str = "IMAGES", network: str = "RUN_OR_CHECKPOINT"
) -> list[Step]:
    """What to do about it, with commands.

    Args:
        measurement: of the images.
        images: the path that was measured and how it is cut, quoted.
        network: the one that made them, quoted.
    """
    if all(period.undefined for period in measurement.periods.values()):
        return [Step("Measure more images, or larger ones.", f"gen images {images}")]
    if not measurement.detected:
        return [
            Step("Ten times as many images lower the limits by 10 dB."),
            Step(
                "Let a script check it: exit code 3 above −40 dBc, 4 where it takes more images.",
                f"gen images {images} --fail-above -40",
            ),
        ]
    steps = []
    if measurement.reference is None:
        steps.append(
            Step(
                "Measure the training images too. Cameras and JPEG leave patterns, and a generator "
                "learns them.",
                f"gen images {images} --reference TRAINING_IMAGES --report compared/",
            )
        )
    return [
        *steps,
        Step(
            "Find the layer that makes it, and what to change there.",
            f"gen model {network} --report model-report/",
        ),
        Step(
            "Check a kernel before you train with it again.",
            "gen layer --kernel 4 --stride 2 --padding 1",
        ),
    ]


def model_steps(advice: Sequence[str], network: str, again: str = "") -> list[Step]:
    """What to do about a network.

    Args:
        advice: sentences of `gen.analysis.layers.advice`.
        network: what names it on the command line, quoted.
        again: the command that trains it without transposed convolutions, where that is known.
    """
    steps = [Step(sentence) for sentence in advice]
    if again and any("rain again" in sentence for sentence in advice):
        steps.append(Step("Train the same network again, with nearest enlargement.", again))
    if any("gen repair" in sentence for sentence in advice):
        repair = "Repair the weights without training. Where that would do harm, it is refused."
        steps.append(Step(repair, f"gen repair {network} -o repaired.pt"))
    return steps


def _level(period: Period) -> float:
    return -300.0 if period.reading_dbc is None else period.reading_dbc


def _words(period: Period) -> str:
    if not period.severity:
        return ""
    instruments = period.severity == "for instruments only"
    return " that only instruments see" if instruments else f" that is {period.severity}"


def _odds(p: float) -> str:
    """A p-value as a share: `about 1 of 40`."""
    return f"fewer than 1 of {ODDS:,}" if p * ODDS < 1 else f"about 1 of {round(1 / p):,}"


def _in_reference(measurement: Measurement, detected: dict[int, Period]) -> str:
    changes = measurement.difference.periods if measurement.difference else {}
    shared = [str(n) for n in detected if n in changes and changes[n].in_reference]
    return f" The reference carries period {', '.join(shared)} too." if shared else ""
