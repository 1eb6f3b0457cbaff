"""Where the commands of analyze.py write their numbers."""

from __future__ import annotations

import json
from typing import Any

import click


def write_json(plain: dict[str, Any], target: str, indent: int | None = 2) -> None:
    """Write to a file, whole or not at all, or to stdout for `-`; NaN is an error, not JSON."""
    from gen.files import write_atomically

    text = json.dumps(plain, indent=indent, allow_nan=False)
    if target == "-":
        click.echo(text)
    else:
        write_atomically(target, f"{text}\n".encode())
