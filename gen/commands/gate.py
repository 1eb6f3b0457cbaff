"""`--fail-above`: is every period proven to be below a level? Exit code 3 is no, 4 is unknown."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.options import LEVEL, GroupedOption, grouped
from gen.commands.output import check_file, own_command, say
from gen.system import distributed
from gen.system.errors import InputError
from gen.system.text import printable

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement, Period

ABOVE, UNKNOWN = 3, 4


@dataclass(frozen=True)
class Gate:
    """The options of a gate; without `limit` there is none."""

    limit: float | None
    allow_inconclusive: bool
    junit: Path | None

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Gate:
        """Take the gate's own out of the options of a command; raises click.UsageError."""
        gate = cls(*(options.pop(name) for name in ("fail_above", "allow_inconclusive", "junit")))
        if gate.limit is None and (gate.junit or gate.allow_inconclusive):
            raise click.UsageError("--junit and --allow-inconclusive need --fail-above")
        check_file("--junit", gate.junit)
        return gate

    def judge(self, sets: Mapping[str, Measurement]) -> None:
        """Say what is not below the limit, write the JUnit file, and exit unless all is well."""
        if self.limit is None:
            return
        verdicts = [v for label, m in sets.items() for v in judge(label, m, self.limit)]
        if self.junit and distributed.rank() == 0:
            from gen.system.files import write_atomically

            write_atomically(self.junit, junit(verdicts, self.limit, self.allow_inconclusive))
        for outcome, word in (("above", "Above"), ("inconclusive", "Inconclusive")):
            for verdict in (v for v in verdicts if v.outcome == outcome):
                label = f"{verdict.label}: " if len(sets) > 1 else ""
                say(f"{word}: {label}period {verdict.period}: {verdict.words}")
        outcomes = {verdict.outcome for verdict in verdicts}
        if "above" in outcomes:
            sys.exit(ABOVE)
        if "inconclusive" in outcomes and not self.allow_inconclusive:
            sys.exit(UNKNOWN)


def gate_options() -> list[GroupedOption]:
    """The options of every command with a gate."""
    group = "Gate"
    return [
        grouped(group, "--fail-above", type=LEVEL, metavar="DBC",
                help="exit 3 if a detected level is above this, 4 if none is proven to be below"),
        grouped(group, "--allow-inconclusive", is_flag=True,
                help="exit 0 where more images would be needed for a proof"),
        grouped(group, "--junit", type=click.Path(path_type=Path), metavar="FILE",
                help="write a test case per period, as JUnit XML"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One period of one set against a limit: "above", "inconclusive" or "below", and why."""

    label: str
    period: int
    outcome: str
    words: str


def judge(label: str, measurement: Measurement, limit: float) -> Iterator[Verdict]:
    """A verdict per period.

    Raises:
        InputError: No period could be measured, so that silence would mean nothing.
    """
    if all(period.undefined for period in measurement.periods.values()):
        raise InputError(
            f"{label}: no period could be measured, so nothing can be held against {limit:g} dBc"
        )
    for number, period in measurement.periods.items():
        if period.detected and period.level_dbc is not None and period.level_dbc > limit:
            p = f"p = {period.p_value:.2g}"
            words = f"level {period.level_dbc:.1f} dBc is above {limit:g} ({p})"
            yield Verdict(label, number, "above", words)
        elif period.below(limit):
            words = f"level and limit are below {limit:g} dBc"
            yield Verdict(label, number, "below", words)
        else:
            words = _why(period, limit, measurement.images)
            yield Verdict(label, number, "inconclusive", words)


def _why(period: Period, limit: float, images: int) -> str:
    """Why a period is not proven to be below a limit, and how many images would prove it."""
    if period.undefined:
        return f"undefined ({period.undefined}); name the periods to judge with --periods"
    reach = period.detection_limit_dbc
    if reach is None:
        return "a class of its lines cannot be judged; more or larger images may do"
    if period.detected and reach < limit:
        return f"the level's upper end {period.level_upper_dbc:.1f} dBc is above {limit:g}"
    name, worst = max(
        ("limit", reach), ("upper end", period.level_upper_dbc or reach), key=lambda pair: pair[1]
    )
    # The power that hides falls with their number, and varies from set to set: twice as many are
    # enough in four of five sets.
    needed = 2 * images * 10 ** ((worst - limit) / 10)
    number = f"{float(f'{needed:.2g}'):,.0f}" if needed < 1e9 else "a billion"
    return f"{name} {worst:.1f} dBc is above {limit:g}; about {number} images would do"


def junit(verdicts: list[Verdict], limit: float, allow_inconclusive: bool) -> bytes:
    """Verdicts as JUnit XML."""
    kinds = {"above": "failure", "inconclusive": "skipped" if allow_inconclusive else "failure"}
    counts = {
        kind: str(sum(kinds.get(v.outcome) == kind for v in verdicts))
        for kind in ("failure", "skipped")
    }
    numbers = {"tests": str(len(verdicts)), "failures": counts["failure"], "errors": "0"}
    suite = ET.Element("testsuite", name="gen", **numbers, skipped=counts["skipped"])
    properties = ET.SubElement(suite, "properties")
    ET.SubElement(properties, "property", name="command", value=printable(own_command()))
    for verdict in verdicts:
        name = f"period {verdict.period} below {limit:g} dBc"
        case = ET.SubElement(suite, "testcase", classname=printable(verdict.label), name=name)
        words = printable(verdict.words)
        if kind := kinds.get(verdict.outcome):
            ET.SubElement(case, kind, type=verdict.outcome, message=words)
        else:
            ET.SubElement(case, "system-out").text = words
    suites = ET.Element("testsuites", **numbers)
    suites.append(suite)
    return ET.tostring(suites, encoding="utf-8", xml_declaration=True)
