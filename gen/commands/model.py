"""`gen model`: level per period, table per layer, blame and advice for any generator."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.gate import Gate, gate_options
from gen.commands.images import check_arguments
from gen.commands.options import (
    Command,
    GroupedOption,
    Parsed,
    compute_options,
    network_options,
    parse_periods,
    spell_network,
)
from gen.commands.output import own_command, provenance, say, say_notes, write_json
from gen.system.errors import InputError

if TYPE_CHECKING:
    from gen.analysis.layers.blame import Blame, Share
    from gen.analysis.layers.steps import Layer
    from gen.analysis.layers.trace import Trace
    from gen.analysis.measure.result import Measurement
    from gen.inputs import LoadedNetwork
    from gen.sampling.adapt import Inputs


def source_options() -> list[click.Parameter]:
    """What names a network, shared by the commands that take one."""
    return [
        click.Argument(["path"], metavar="[RUN_OR_CHECKPOINT]", required=False),
        *network_options(),
        *compute_options(),
        GroupedOption(["--num"], type=click.IntRange(128, 10**6), default=1024, group="Samples",
                      show_default=True, metavar="N", help="samples to draw, 128 or more"),
        GroupedOption(["--periods"], type=Parsed("P,P", parse_periods), group="Samples",
                      help="periods in pixels  [default: 2,4,8 and those of its layers, up to 32]"),
    ]  # fmt: skip


def explain_model(
    path: str | None,
    num: int,
    periods: tuple[int, ...] | None,
    report: Path | None,
    json_file: str | None,
    **network: Any,
) -> None:
    """Measure, trace, blame, advise, judge; `network` is for `open_network`, and the gate's."""
    check_arguments(None, 0, json_file, report)
    gate = Gate.taken_from(network)
    from gen.analysis.layers.advice import advise
    from gen.analysis.layers.blame import blame
    from gen.analysis.layers.trace import trace
    from gen.analysis.report.history import describe_onset, read_history
    from gen.inputs import open_network

    opened = open_network(path, **network)
    if opened.program == "ONNX":
        raise InputError(
            f"{opened.name}: an ONNX graph has no layers to explain; measure it by gen compare"
        )
    say_notes(opened)
    inputs = opened.draw(num)
    options = {"periods": periods, "batch_size": opened.adapted.batch_size}
    traced = trace(opened.network, inputs, **options)
    options |= {"value_range": opened.value_range, "pictures": report is not None}
    blamed = blame(opened.network, inputs, **options)
    measurement = blamed.images
    history = read_history(Path(path)) if path else []
    since, words = describe_onset(history), advise(measurement, traced, blamed)
    layers = f"{traced}\n\n{blamed}"
    parts = [str(measurement), layers, "\n".join(since), "\n".join(words)]
    text = "\n\n".join(filter(None, parts))
    say(text, err=json_file == "-")
    if json_file:
        plain = to_dict(traced, blamed) | {
            "measurement": measurement.to_dict(),
            "advice": words,
            **provenance([opened.name]),
        }
        write_json(plain, json_file)
    if report:
        command = spell_network(path, network)
        page = {"history": history, "since": since, "words": words, "command": command}
        _write_page(report, opened, inputs, traced, blamed, **page)
    gate.judge({opened.name: measurement})


def _write_page(
    report: Path,
    opened: LoadedNetwork,
    inputs: Inputs,
    traced: Trace,
    blamed: Blame,
    *,
    history: list[dict[str, Any]],
    since: list[str],
    words: list[str],
    command: str,
) -> None:
    """Write the HTML page."""
    from gen.analysis.report.history import draw_history
    from gen.analysis.report.html import Picture, Section, write_report
    from gen.analysis.report.layers import GLOSSARY, layers_table, shares_table
    from gen.analysis.report.summary import model_steps
    from gen.commands.measuring import THUMBNAILS

    pictures = []
    if history:
        alt = "Level per period over training steps"
        caption = (
            "<strong>Since when.</strong> Level of each period at every snapshot. Dots: "
            "detected; dashed: detection limit; dotted: imbalance of the last enlarging layer."
        )
        pictures.append(Picture("history.png", draw_history(history), alt, caption))
    tables = [layers_table(traced), shares_table(blamed)]
    section = Section("Which layer makes it", since, tables, pictures, GLOSSARY)
    steps = model_steps(words, command, _train_again(opened))
    thumbnails = opened.draw_images(inputs[:THUMBNAILS])[:THUMBNAILS].numpy()
    write_report(
        blamed.images, report, thumbnails, f"Checkerboards of {opened.name}", own_command(),
        (section,), steps,
    )  # fmt: skip
    say(f"Report: {report / 'index.html'}")


def _train_again(opened: LoadedNetwork) -> str:
    """The command that trains a run of ours with nearest enlargement; empty for others."""
    from gen.runs.checkpoint import is_ours, stored_in
    from gen.share.card import command_line

    if opened.read is None or not is_ours(opened.read[1]):
        return ""
    # The last of two options counts; kernel size 0 is the first that the upsampler takes.
    return f"{command_line(stored_in(*opened.read).config)} --upsample nearest --kernel-size 0"


def level_to_dict(measurement: Measurement | None, layer: Layer) -> dict[str, Any] | None:
    """Level at a layer's own period, as far as there is one."""
    if measurement is None:
        return None
    period = measurement.periods[math.lcm(*layer.stride)]
    level = {"level_dbc": period.level_dbc, "level_upper_dbc": period.level_upper_dbc}
    finite = {k: None if v is None or not math.isfinite(v) else v for k, v in level.items()}
    return finite | {"detected": period.detected, "undefined": period.undefined}


def to_dict(traced: Trace, blamed: Blame) -> dict[str, Any]:
    """Plain values of layers and shares for JSON (schema 2)."""
    layers = [
        {
            "name": t.layer.name, "kind": t.layer.kind, "stride": t.layer.stride,
            "small": t.layer.small, "large": t.layer.large, "period": t.layer.period,
            "weight": None if t.layer.weight is None else list(t.layer.weight.shape),
            "imbalance_db": t.imbalance_db, "predicted_dbc": t.predicted_dbc,
            "born": level_to_dict(t.output, t.layer),
            "passed_on": level_to_dict(t.passed_on, t.layer),
        }
        for t in traced.layers
    ]  # fmt: skip
    shares = {
        str(period): [
            {
                "layer": s.layer.name,
                "activations": share_to_dict(s.activations), "weights": share_to_dict(s.weights),
            }
            for s in parts
        ]
        for period, parts in blamed.periods.items()
    }  # fmt: skip
    notes = list(dict.fromkeys((*traced.notes, *blamed.notes)))
    rest = {str(period): value for period, value in blamed.rest.items()}
    return {
        "schema": 2, "layers": layers, "shares": shares, "rest": rest, "notes": notes,
        "unseen": list(traced.unseen),
    }  # fmt: skip


def share_to_dict(share: Share | None) -> dict[str, float] | None:
    """Plain values of one share."""
    return None if share is None else dataclasses.asdict(share)


model = Command(
    "model",
    help="Explain a generator's grid: which layer, which period, since when, what to do.",
    callback=explain_model,
    params=[
        *source_options(),
        GroupedOption(["--report"], metavar="DIR", group="Output", type=click.Path(path_type=Path),
                      help="write an HTML page with pictures"),
        GroupedOption(["--json", "json_file"], metavar="FILE|-", group="Output",
                      help="write JSON; - is stdout"),
        *gate_options(),
    ],
    examples="""
        gen model runs/00000-dcgan-shapes --report report/
        gen model netG_epoch_24.pth
        gen model vae.pt --script load_vae.py:build --range 0,1
    """,
)  # fmt: skip
