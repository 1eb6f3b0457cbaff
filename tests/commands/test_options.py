"""Every option of every command at its edges; found by looking, so that new ones are covered."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analyze
import sample
import train
from gen.commands.export import export
from gen.commands.main import MEASURING
from gen.commands.options import to_click_error
from gen.config.run import MODELS, RunConfig

ROOT = Path(__file__).resolve().parents[2]
NEVER = ["nan", "inf", "-inf", str(2**64), str(-(2**64)), "1e999", "9" * 5000, "", "x"]
TEXT = (click.types.StringParamType, click.Path, click.Choice, click.types.BoolParamType)
SMALL = {"--kernel": "4", "--stride": "2", "--reference": "nowhere"}

COMMANDS: dict[str, tuple[click.Command, list[str]]] = {
    **{f"train {name}": (train.main, [name, "--dry-run"]) for name in train.main.commands},
    "sample": (sample.main, ["nowhere", "--grid", "grid.png"]),
    "export": (export, ["nowhere"]),
    **{f"analyze {name}": (analyze.main, [name]) for name in MEASURING},
}


def command_of(name: str) -> click.Command:
    main, words = COMMANDS[name]
    return main.get_command(None, words[0]) if isinstance(main, click.Group) else main


def base_of(name: str) -> list[str]:
    """Arguments with which the command gets as far as to its input, which is not there."""
    _, words = COMMANDS[name]
    for param in command_of(name).params:
        if isinstance(param, click.Argument) and "nowhere" not in words:
            words = [*words, "nowhere"]
        elif param.required and isinstance(param, click.Option):
            words = [*words, param.opts[-1], SMALL.get(param.opts[-1], "new.pt")]
    return words


def run(name: str, *arguments: str) -> click.testing.Result:
    return CliRunner().invoke(COMMANDS[name][0], [*base_of(name), *arguments])


def kinds_of(option: click.Option) -> tuple[click.ParamType, ...]:
    return option.type.types if isinstance(option.type, click.Tuple) else (option.type,)


def numeric() -> list[tuple[str, str]]:
    """(command, flag) of each option that is not a text, a path, a choice or a switch."""
    found, seen = [], set()
    for name in COMMANDS:
        for option in command_of(name).params:
            if not isinstance(option, click.Option) or option.is_flag:
                continue
            known = (name.split()[0], option.opts[-1], option.help)  # models share most options
            if all(isinstance(kind, TEXT) for kind in kinds_of(option)) or known in seen:
                continue
            seen.add(known)
            found.append((name, option.opts[-1]))
    return found


def one_usage_line(result: click.testing.Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.output
    assert any(text in lines[0] for text in said), lines[0]


def test_the_numeric_options_are_found():
    found = numeric()
    assert len(found) > 60
    expected = [("train dcgan", "--lr"), ("train vae", "--beta"), ("sample", "--interpolate")]
    expected += [("analyze images", "--tile"), ("analyze repair", "--target")]
    expected += [("analyze images", "--periods"), ("analyze model", "--range")]
    assert set(expected) <= set(found)


@pytest.mark.parametrize(("name", "flag"), numeric())
def test_numbers_that_are_none_or_have_no_end_are_usage_errors(name, flag):
    option = next(p for p in command_of(name).params if flag in p.opts)
    kinds = kinds_of(option)
    for place, kind in enumerate(kinds):
        if isinstance(kind, TEXT):
            continue
        for value in NEVER:
            texts = [k.choices[0] if isinstance(k, click.Choice) else "1" for k in kinds]
            texts[place] = value
            field = flag[2:].replace("-", "_")
            words = [f"{flag}={texts[0]}"] if len(texts) == 1 else [flag, *texts]
            one_usage_line(run(name, *words), flag, field)


def test_the_ends_of_ranges_are_kept_to():
    """The ends are taken, and what lies beyond them is not."""
    kept = 0
    for name, flag in numeric():
        option = next(p for p in command_of(name).params if flag in p.opts)
        kind = option.type
        if not isinstance(kind, click.types._NumberRangeBase):
            continue  # rules of gen.config.run, tested below, or a form of its own
        assert kind.min is not None and kind.max is not None, f"{flag}: a number without end"
        step = 1 if isinstance(kind, click.IntRange) else 1e-6 * max(1, abs(kind.max))
        for value in (kind.min - step, kind.max + step):
            one_usage_line(run(name, f"{flag}={value}"), flag)
        for value in (kind.max,) if kind.min_open else (kind.min, kind.max):
            assert kind.convert(str(value), option, None) == value
        kept += 1
    assert kept > 15


@pytest.mark.parametrize("model", MODELS)
def test_every_number_of_a_configuration_has_two_ends(model):
    """Also where it comes from a file or a checkpoint: type, range and finiteness, by name."""
    for section, kind in RunConfig.sections(model).items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            rule, hint = field.metadata, hints[field.name]
            several = get_origin(hint) is tuple
            number = get_args(hint)[0] if several else hint
            if number not in (int, float):
                continue
            low = rule["low"] if rule["above"] is None else rule["above"]
            assert low is not None and rule["high"] is not None, f"{field.name} has no end"
            beyond = [low - 1, rule["high"] + 1, -(2**64), math.nan, math.inf, -math.inf]
            beyond += [2**64, "1", None, True, [], {}, 10**400]
            beyond += [1.5] if number is int else []
            for value in beyond:
                value = [value] * len(get_args(hint)) if several else value
                values = {"model": {"model": model}}
                values[section] = {**values.get(section, {}), field.name: value}
                with pytest.raises(ValueError, match=field.name) as caught:
                    RunConfig.from_dict(values)
                assert len(str(caught.value)) < 1500 and "\n" not in str(caught.value)


WORDS = st.text(max_size=8) | st.sampled_from([*NEVER, "0", "1", "-1", "0.5", "2,4", "3x5", "-"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_words_after_a_command_end_in_help_or_one_line(data, tmp_path, monkeypatch):
    name = data.draw(st.sampled_from(sorted(set(COMMANDS) - {"analyze inspect"})))
    flags = [o for p in command_of(name).params for o in p.opts if o.startswith("-")]
    flags = [flag for flag in flags if flag not in ("--debug", "--outdir", "-o", "--output")]
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(flags), WORDS), max_size=4))
    words = [f"{flag}={word}" if data.draw(st.booleans()) else flag for flag, word in pairs]
    monkeypatch.chdir(tmp_path)  # where outputs may go
    result = run(name, *words)
    assert result.exit_code in (0, 1, 2), result.output
    if result.exit_code:
        assert isinstance(result.exception, SystemExit), (words, result.exception)
        assert "Traceback" not in result.output
        assert sum(line.startswith("Error: ") for line in result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "dcgan", "--lr", "nan"],
        ["sample.py", "x", "--grid", "g.png", "--num", str(2**64)],
        ["analyze.py", "images", "x", "--fail-above", "inf"],
    ],
)
def test_witnesses_in_real_processes(arguments):
    result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("Error: ") == 1 and "Traceback" not in result.stderr


def fill_memory():
    torch.empty(1 << 60, dtype=torch.uint8)


def fill_threads():
    before = threading.stack_size(1 << 46)
    try:
        threading.Thread(target=print).start()
    finally:
        threading.stack_size(before)


@pytest.mark.skipif(os.name == "nt", reason="a stack of any size is taken on POSIX only")
@pytest.mark.parametrize(
    ("exhaust", "said"), [(fill_memory, "out of memory"), (fill_threads, "no more threads")]
)
def test_a_machine_that_has_no_more_is_no_bug_of_ours(exhaust, said):
    with pytest.raises(RuntimeError) as raised:
        exhaust()
    assert said in to_click_error(raised.value).message
