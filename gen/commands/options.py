"""Dataclass fields that carry help → grouped click options; commands that err in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import click

from gen.config.fields import Checked
from gen.system import distributed
from gen.system.errors import InputError
from gen.system.files import read_regular
from gen.system.signals import interruptible
from gen.system.streams import guarded_streams
from gen.system.text import printable

SCRIPTS = ("train.py", "sample.py", "analyze.py")  # of a checkout


class Parsed(click.ParamType):
    """A text that `parse` makes a value of; its ValueError is the usage error."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self.parse = name, parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse a text; leave values as they are."""
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_size(text: str) -> tuple[int, int]:
    """`64` or `34x45` (height x width) → (H, W)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"\d{1,5}", part, re.ASCII) for part in parts):
        raise ValueError(f"{text!r} is not a size; write 64 or 34x45 (height x width)")
    return int(parts[0]), int(parts[-1])


def parse_seeds(text: str) -> Sequence[int]:
    """`0-63`, `7` or `0-3,8,20-23` → the seeds, as a range where they are one."""
    seeds: list[int] = []
    parts = text.split(",")
    for part in parts:
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(n.isascii() and n.isdigit() and len(n) < 20 for n in numbers):
            raise ValueError(f"{text!r}; write seeds as 7, 0-63 or 0-3,8")
        low, high = int(first), int(last or first)
        if high < low or high >= 2**63:
            raise ValueError(f"{part!r} is no range of seeds from 0 up")
        if len(parts) == 1:
            return range(low, high + 1)
        if len(seeds) + high - low >= 10**7:
            raise ValueError(f"{text!r} lists over 10 million seeds; give one range")
        seeds.extend(range(low, high + 1))
    return seeds


def parse_label(text: str) -> int | str:
    """`3` → 3, a class; `all` stays."""
    if text != "all" and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"{text!r}; write a class as a number from 0 up, or all")
    return text if text == "all" else int(text)


def parse_periods(text: str) -> tuple[int, ...]:
    """`2,4,8` → (2, 4, 8)."""
    parts = text.split(",")
    periods = tuple(int(p) for p in parts if re.fullmatch(r"\d{1,4}", p, re.ASCII))
    if len(periods) < len(parts) or min(periods) < 2 or len(set(periods)) < len(periods):
        raise ValueError(f"{text!r}; write whole pixels, 2 or more, each once: 2,4,8")
    return periods


def parse_range(text: str) -> tuple[float, float]:
    """`-1,1` → (-1.0, 1.0)."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r}; write the values of black and white: -1,1 or 0,1") from error
    if not -1e6 < low < high < 1e6:
        raise ValueError(f"{text!r}; black must be below white")
    return low, high


def parse_color(text: str) -> tuple[int, int, int]:
    """`255,255,255` (red, green, blue) → (R, G, B)."""
    match = re.fullmatch(r"(\d{1,3}),(\d{1,3}),(\d{1,3})", text, re.ASCII)
    color = tuple(map(int, match.groups())) if match else (256,)
    if max(color) > 255:
        raise ValueError(f"{text!r} is no color; write R,G,B from 0 to 255: 255,255,255")
    return color


SIZE, COLOR = Parsed("SIZE", parse_size), Parsed("R,G,B", parse_color)


class Number(click.FloatRange):
    """A finite number in a range; click's own takes nan."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Parse, or fail with the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


LEVEL = Number(-1000, 1000)  # dBc


class GroupedOption(click.Option):
    """An option that knows its heading in `--help`."""

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def grouped(group: str, *names: str, **settings: Any) -> GroupedOption:
    """One option under its heading."""
    return GroupedOption(list(names), group=group, **settings)


def invocation(command: str) -> str:
    """`sample RUN` → `gen sample RUN`, or `python sample.py RUN` where a checkout's script runs."""
    script, name = Path(sys.argv[0]).name, command.partition(" ")[0]
    if script not in SCRIPTS or name in ("export", "demo"):
        return f"gen {command}"
    return (
        f"python {command.replace(' ', '.py ', 1)}"
        if name in ("train", "sample")
        else (f"python analyze.py {command}")
    )


@contextlib.contextmanager
def usage_errors_once() -> Iterator[None]:
    """Leave it to the first of several processes to say that the arguments, those of all, err."""
    try:
        yield
    except click.UsageError as error:
        if distributed.launch_rank():
            sys.exit(error.exit_code)
        error.message = printable(error.message)
        raise


def key_option(group: str) -> GroupedOption:
    """What chooses a network in a file of weights of others; every command that opens one has it.

    Where it is left out, errors of `gen.runs.weights.choose` name it.
    """
    text = "part of a file of weights, such as g_ema"
    return grouped(group, "--key", metavar="NAME", help=text)


def network_options() -> list[click.Parameter]:
    """What names a network of others and its inputs: the keywords of `gen.inputs.open_network`."""
    option = partial(grouped, "Network of others")
    path = click.Path(path_type=Path)
    # fmt: off
    return [
        option("--script", metavar="FILE[:CALLABLE]",
               help="FILE.py:CALLABLE builds it; or a TorchScript or ONNX file; runs its code"),
        option("--factory", metavar="MODULE:CALLABLE",
               help="a callable of a package builds it: a.b:C.method; runs its code"),
        option("--diffusers", metavar="DIR", type=path,
               help="the AutoencoderKL or VQModel of a diffusers folder, offline"),
        key_option("Network of others"),
        option("--inputs", metavar="DIR", type=path, help="images for a network that takes images"),
        option("--crop", type=SIZE, help="their size, S or HxW pixels  [default: what fits all]"),
        option("--range", "value_range", metavar="LOW,HIGH", type=Parsed("LOW,HIGH", parse_range),
               default="-1,1", show_default=True, help="values of black and white in its images"),
    ]
    # fmt: on


def spell_network(path: str | None, options: dict[str, Any]) -> str:
    """A path and values of `network_options`, as one types them after a command."""
    words = [path] if path else []
    for option in network_options():
        value = options[option.name]
        if value is not None and spelled(value) != option.default:
            words += [option.opts[0], spelled(value)]
    return shlex.join(words)


def spelled(value: Any) -> str:
    """A value of an option, as one types it: a size `34x45`, a range `0,1`."""
    if not isinstance(value, tuple):
        return str(value)
    whole = all(isinstance(part, int) for part in value)
    return ("x" if whole else ",").join(f"{part:g}" for part in value)


def compute_options() -> list[click.Parameter]:
    """Where a network runs, and on how much at once."""
    return [
        grouped("Computing", "--device", type=DEVICE, default="auto", show_default=True,
                help="where to compute"),
        grouped("Computing", "--batch-size", type=click.IntRange(1, 65536), metavar="N",
                help="inputs at once  [default: at most 32, fewer for large images]"),
    ]  # fmt: skip


DEVICE = click.Choice(["auto", "cpu", "cuda", "mps"])


class Program(click.Command):
    """What a user starts: streams that may break."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as click does."""
        with guarded_streams():
            return super().main(*args, **kwargs)


class Command(Program):
    """Grouped help, `--debug`, and failures as one line: exit 2 for usage, 1 for anything else."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(
            GroupedOption(["--debug"], is_flag=True, group="Other", help="Show tracebacks.")
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One block per group, in order of appearance; runnable examples at the end."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):  # arguments are in the usage line
                group = getattr(param, "group", "Other")
                groups.setdefault(group, []).append(param.get_help_record(ctx))
        groups["Other"] = groups.pop("Other")  # --debug and --help come last
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    program, _, command = line.strip().partition("gen ")
                    formatter.write(f"  {program}{invocation(command)}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does."""
        with usage_errors_once():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, with all processes that torchrun started; what goes wrong is one line and a code."""
        debug = ctx.params.pop("debug", False)
        try:
            with distributed.joined(), interruptible():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = printable(error.message)
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            if not distributed.launch_rank():
                click.echo("Interrupted.", err=True)
            sys.exit(128 + error.args[0] if error.args else 130)
        except Exception as error:
            if debug:
                raise
            raise to_click_error(error) from error


def read_config(model: str, file: str | None) -> dict[str, dict[str, Any]]:
    """Sections of a configuration file, or of none, for this model."""
    values = json.loads(read_regular(file)) if file else {}
    if values.get("model", {}).get("model", model) != model:
        raise InputError(f"is of model {values['model']['model']}, not {model}")
    return {**values, "model": {**values.get("model", {}), "model": model}}


def read_overrides(given: tuple[str, ...]) -> dict[str, Any]:
    """`lr=1e-4` → {"lr": 0.0001}, read as the option of that name reads it."""
    context, values = click.get_current_context(), {}
    options = {param.name: param for param in context.command.params}
    for text in given:
        name, sign, value = text.partition("=")
        name = name.replace("-", "_")
        if not sign or name not in options:
            raise click.UsageError(f"--override {text}: write NAME=VALUE, such as lr=1e-4")
        values[name] = options[name].type_cast_value(context, value)
    return values


def to_click_error(error: Exception) -> click.ClickException:
    """What to print of an error, with its exit code: one line, whoever is to blame."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif _is_out_of_memory(error):
        text = f"out of memory; try fewer or smaller images at once ({text[:100]})"
    elif "can't start new thread" in text:
        text = "the system starts no more threads for this user; raise its limit (ulimit -u)"
    elif not hasattr(error, "exit_code"):
        text = (
            f"{type(error).__name__}: {text} (a bug in gen; --debug shows where: please report it)"
        )
    shown = click.ClickException(printable(text))
    shown.exit_code = getattr(error, "exit_code", 1)
    return shown


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch, CPU


class ChoiceGroup(Program, click.Group):
    """A group that answers an unknown command with the list of those there are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does."""
        with usage_errors_once():
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or fail with the choices."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            with usage_errors_once():
                ctx.fail(f"{args[0]!r} is not one of {', '.join(names)}.")
        return super().resolve_command(ctx, args)


def options_of(cls: type[Checked], group: str, defaults: dict[str, Any]) -> list[click.Option]:
    """One click option per field that carries help. Values not given arrive as None."""
    hints = get_type_hints(cls)
    made = []
    for field in dataclasses.fields(cls):
        if not field.metadata.get("help"):
            continue
        flag = "--" + field.name.replace("_", "-")
        default = defaults.get(field.name, field.default)
        text = f"{field.metadata['help']}  [{_default_text(field, default)}]"
        kind: Any = {"type": hints[field.name]}
        if hints[field.name] is bool:
            kind, flag = {}, f"{flag}/--no-{flag[2:]}"
        elif get_origin(hints[field.name]) is tuple:
            kind = {"type": SIZE if len(default) == 2 else COLOR}
        elif field.metadata["choices"]:
            kind = {"type": click.Choice(field.metadata["choices"])}
        made.append(GroupedOption([flag], default=None, help=text, group=group, **kind))
    return made


def _default_text(field: dataclasses.Field[Any], default: Any) -> str:
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    if isinstance(default, tuple):
        default = ("x" if len(default) == 2 else ",").join(map(str, default))
    if isinstance(default, bool):
        default = "on" if default else "off"
    return (
        f"default: {default:g}{unit}" if isinstance(default, float) else f"default: {default}{unit}"
    )
