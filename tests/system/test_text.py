"""Text of unknown origin: a terminal, a page or a font shows it and obeys none of it."""

import re

import markdown as reference  # which comes with TensorBoard
import pytest

from gen.system.text import code, markdown, printable, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – dBc ≤ 5 µs → 日本語", None),
        ("\x1b[31mred\x07\x7f", r"\x1b[31mred\x07\x7f"),
        ("c1 \x85\x9b31m", r"c1 \x85\x9b31m"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("gnp.\u202eexe \u2066x\u2069 \u200f", r"gnp.\u202eexe \u2066x\u2069 \u200f"),
        ("\u2028\u2029\ufeff\u200b", r"\u2028\u2029\ufeff\u200b"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_obeyed_is_escaped(text, shown):
    assert printable(text) == (shown or text)
    printable(text).encode()


def test_lines_of_a_text_stay_where_asked():
    assert printable("a\nb\r\x1b", keep="\n") == "a\nb\\r\\x1b"


@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 5000])
def test_long_names_are_shortened(length):
    text = "".join(chr(0x61 + index % 26) for index in range(length))
    shown = shorten(text)
    assert len(shown) == min(length, 80)
    assert shown[:40] == text[:40] and shown[-39:] == text[-39:]
    assert ("…" in shown) == (length > 80)


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=y>", "[a](http://x)", "*a* __b__ `c`", "# h", "a & b", "![x](y)", "\\*a*"],
)
def test_markdown_shows_a_text_as_it_is(text):
    for made in (markdown(text), code(text)):
        html = reference.markdown(f"It is {made}.")
        assert set(re.findall(r"</?(\w+)", html)) <= {"p", "code"}
        assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in html
