"""Dataclass fields with help, unit and rule, and the class that checks them."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from typing import Any, get_args, get_origin, get_type_hints

from gen.system.errors import InputError


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help text, unit and rule: low ≤ value ≤ high, value > above.

    A field without help is not offered on the command line.
    """
    rule = {"low": low, "high": high, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, **rule})


def _violation(value: Any, rule: Any) -> str | None:
    """What `rule` demands of `value`, or None where it is met."""
    if rule["choices"]:
        return None if value in rule["choices"] else "one of " + ", ".join(rule["choices"])
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            return "a finite number"
        if rule["low"] is not None and number < rule["low"]:
            return f"at least {rule['low']}"
        if rule["high"] is not None and number > rule["high"]:
            return f"at most {rule['high']}"
        if rule["above"] is not None and number <= rule["above"]:
            return f"above {rule['above']}"
    return None


class Checked:
    """Checks every field against its type and rule on construction.

    Raises:
        ValueError: `name is value; must be rule`.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if hints[field.name] is float and type(value) is int and abs(value) < 2**1023:
                object.__setattr__(self, field.name, value := float(value))
            if get_origin(hints[field.name]) is tuple and isinstance(value, list):
                object.__setattr__(self, field.name, value := tuple(value))
            if not _has_type(value, hints[field.name]):
                wanted = getattr(hints[field.name], "__name__", hints[field.name])
                raise InputError(f"{field.name} is {reprlib.repr(value)}; must be of type {wanted}")
            demand = _violation(value, field.metadata) if field.metadata else None
            if demand:
                between = "x" if field.name == "size" else ","
                shown = between.join(map(str, value)) if isinstance(value, tuple) else value
                raise InputError(f"{field.name} is {shown}; must be {demand}")


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and tuple(map(type, value)) == get_args(hint)
    return type(value) is hint
