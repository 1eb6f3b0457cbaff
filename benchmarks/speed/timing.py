"""Timing side by side: on a shared machine only ratios of alternating runs mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: what a user would run instead, ours, and what they are held to.

    `least` is the target for ours / baseline; `share` is ours as part of a limit of this machine,
    measured in the same run, `share_least` its target.
    """

    section: str
    name: str
    ours: float
    baseline: float | None = None
    least: float | None = None
    share: float | None = None
    share_least: float | None = None
    unit: str = "img/s"

    @property
    def ratio(self) -> float | None:
        """Ours over the baseline."""
        return self.ours / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether every target of the row is; None without any."""
        pairs = [(self.ratio, self.least), (self.share, self.share_least)]
        pairs = [(value, least) for value, least in pairs if least is not None]
        return all(value >= least for value, least in pairs) if pairs else None


class Clock:
    """Wall-clock time, or on a machine busy with other work the processor time of this process.

    With one thread the second tells what the work itself costs; of several threads it is the sum.
    """

    now = staticmethod(time.perf_counter)


def alternate(
    *functions: Callable[[], object], repeats: int = 5, warm: bool = True, wall: bool = False
) -> list[float]:
    """Median seconds of each function; they run in turn, A B A B …, after one round unmeasured.

    `wall` asks for wall-clock time whatever the clock: of what other processes take part in.
    """
    now = time.perf_counter if wall else Clock.now
    taken: list[list[float]] = [[] for _ in functions]
    for repeat in range(-warm, repeats):
        for function, times in zip(functions, taken, strict=True):
            start = now()
            function()
            if repeat >= 0:
                times.append(now() - start)
    return [statistics.median(times) for times in taken]


def markdown(rows: list[Row]) -> str:
    """The table."""

    def number(value: float | None, form: str = "{:.2f}×") -> str:
        return "" if value is None else form.format(value)

    lines = [
        "| | ours | baseline | ratio | target | share of limit | target | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(f"| **{section}** | | | | | | | |")
        plain = "{:,.0f} " + row.unit if row.ours >= 100 else "{:.3g} " + row.unit
        cells = [
            row.name,
            plain.format(row.ours),
            number(row.baseline, "{:,.0f}" if (row.baseline or 0) >= 100 else "{:.3g}"),
            number(row.ratio),
            number(row.least, "≥ {:g}×"),
            number(row.share, "{:.0%}"),
            number(row.share_least, "≥ {:.0%}"),
            {True: "yes", False: "**no**", None: ""}[row.met],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
