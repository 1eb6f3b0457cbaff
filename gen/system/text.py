"""Text of unknown origin, made fit to print."""

from __future__ import annotations

import html
import re
import unicodedata

# What terminals, browsers and fonts obey instead of showing: control characters and escape
# sequences, marks that reorder or hide text, line ends, halves of surrogate pairs.
_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: object, keep: str = "") -> str:
    r"""A text with an escape such as `\x1b` or `\u202e` for each character that is not shown.

    Args:
        text: a name, a path or a message; made a string.
        keep: characters that stay, such as a newline in a text of several lines.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        char if char in keep or unicodedata.category(char) not in _OBEYED else _escape(char)
        for char in shown
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def shorten(text: object, most: int = 80) -> str:
    """A printable text of at most `most` characters, with an ellipsis for its middle."""
    shown = printable(text)
    head = most // 2
    return shown if len(shown) <= most else f"{shown[:head]}…{shown[head + 1 - most :]}"


def describe_error(error: Exception) -> str:
    """Kind and message of what other people's code raised, in one short line."""
    return f"{type(error).__name__}: {shorten(' '.join(str(error).split()), 160)}"


def markdown(text: object) -> str:
    """A text as Markdown shows it: nothing in it is markup or HTML."""
    shown = html.escape(printable(text), quote=False)
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", shown)


def code(text: object) -> str:
    """A text as a code span of Markdown."""
    shown = printable(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{ticks} {shown} {ticks}" if "`" in shown else f"`{shown}`"
