"""`gen model`: level per period, table per layer, blame and advice for any generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.images import check_arguments
from gen.commands.options import (
    Command,
    GroupedOption,
    compute_options,
    network_options,
    spell_network,
)
from gen.commands.output import own_command, say, say_notes, write_json

if TYPE_CHECKING:
    from gen.analysis.layers.blame import Blame
    from gen.analysis.layers.calls import Layer
    from gen.analysis.layers.trace import Trace
    from gen.analysis.measure.result import Measurement

EXPLAINED = 256  # inputs for layers and blame, which run the network many times


def source_options() -> list[click.Parameter]:
    """What names a network, shared by the commands that take one."""
    return [
        click.Argument(["path"], metavar="[RUN_OR_CHECKPOINT]", required=False),
        *network_options(),
        *compute_options(),
        GroupedOption(["--num"], type=click.IntRange(128, 10**6), default=1024, group="Samples",
                      show_default=True, metavar="N", help="samples to draw, 128 or more"),
    ]  # fmt: skip


def explain_model(
    path: str | None, num: int, report: Path | None, json_file: str | None, **network: Any
) -> None:
    """Measure, trace, blame, advise; `network` is for `open_network`."""
    check_arguments(None, 0, json_file, report)
    from gen.analysis.layers.advice import advise
    from gen.analysis.layers.blame import blame, generate_with
    from gen.analysis.layers.trace import trace
    from gen.analysis.measure.meter import measure
    from gen.analysis.report.history import describe_onset, read_history
    from gen.inputs import open_network

    opened = open_network(path, **network)
    value_range = opened.value_range
    say_notes(opened)
    inputs = opened.draw(num)
    images = generate_with(opened.network, inputs, {})
    measurement = measure(images, value_range=value_range, pictures=report is not None)
    traced = trace(opened.network, inputs[:EXPLAINED])
    blamed = blame(opened.network, inputs[:EXPLAINED], value_range)
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
        }
        write_json(plain, json_file)
    if report:
        from gen.analysis.report.history import draw_history
        from gen.analysis.report.html import Picture, Section, write_report
        from gen.analysis.report.layers import GLOSSARY, layers_table, shares_table
        from gen.analysis.report.summary import model_steps

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
        steps = model_steps(measurement, words, spell_network(path, network))
        low, high = value_range
        thumbnails = ((images[:24] - low) * (255 / (high - low))).round().clamp(0, 255)
        write_report(
            measurement, report, thumbnails.byte().numpy(), f"Checkerboards of {opened.name}",
            own_command(), (section,), steps,
        )  # fmt: skip
        say(f"Report: {report / 'index.html'}")


def own_level(measurement: Measurement, layer: Layer) -> dict[str, Any]:
    """Level at a layer's own period, as far as there is one."""
    period = measurement.periods[math.lcm(*layer.stride)]
    level = {"level_dbc": period.level_dbc, "level_upper_dbc": period.level_upper_dbc}
    finite = {k: None if v is None or not math.isfinite(v) else v for k, v in level.items()}
    return finite | {"detected": period.detected, "undefined": period.undefined}


def to_dict(traced: Trace, blamed: Blame) -> dict[str, Any]:
    """Plain values of layers and shares for JSON (schema 1)."""
    layers = [
        {
            "name": t.layer.name, "kind": t.layer.kind, "stride": t.layer.stride,
            "small": t.layer.small, "large": t.layer.large, "period": t.layer.period,
            "weight": None if t.layer.weight is None else list(t.layer.weight.shape),
            "imbalance_db": t.imbalance_db, "predicted_dbc": t.predicted_dbc,
            "born": own_level(t.output, t.layer), "passed_on": own_level(t.passed_on, t.layer),
        }
        for t in traced.layers
    ]  # fmt: skip
    shares = {
        str(period): [
            {
                "layer": s.layer.name, "share": s.share, "low": s.low, "high": s.high,
                "balanced_db": s.balanced_db, "control_db": s.control_db,
            }
            for s in parts
        ]
        for period, parts in blamed.periods.items()
    }  # fmt: skip
    notes = list(dict.fromkeys((*traced.notes, *blamed.notes)))
    return {"schema": 1, "layers": layers, "shares": shares, "notes": notes}


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
    ],
    examples="""
        gen model runs/00000-dcgan-shapes --report report/
        gen model netG_epoch_24.pth
        gen model vae.pt --script load_vae.py:build --range 0,1
    """,
)  # fmt: skip
