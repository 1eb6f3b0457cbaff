"""The model card of an exported folder: what it is, how it was made, how good it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gen.commands.options import command_line
from gen.config.run import MODELS

if TYPE_CHECKING:
    from gen.analysis.measure.results import Measurement
    from gen.quality.distances import Quality
    from gen.sampling import Run

SAMPLES = "samples.png"


def logged(run: Run) -> dict[str, float]:
    """The numbers that training logged at the step of a checkpoint; empty where none are found."""
    rows = run.path.parent.parent / "metrics.jsonl"
    found: dict[str, float] = {}
    if rows.is_file():
        for row in map(json.loads, rows.read_text().splitlines()):
            if row.get("step") == run.step:
                found |= {name: v for name, v in row.items() if isinstance(v, float)}
    return {k: v for k, v in found.items() if k.split("/")[0] not in ("checkerboard", "speed")}


def write_card(
    name: str,
    run: Run,
    averaged: bool,
    files: dict[str, str],
    numbers: dict[str, float],
    measurement: Measurement | None,
    quality: Quality | None,
    arguments: str,
) -> str:
    """The text of README.md.

    Args:
        name: The folder's, as the commands in the card call it.
        run: What is exported, as it is read again.
        averaged: Whether the weights are the moving average.
        files: Name → what it holds.
        numbers: What training logged in the end.
        measurement: Of the checkerboards in samples or logit maps, where there are such.
        quality: Distances of samples from a reference, where they were measured.
        arguments: Those of `analyze.py quality`, for samples.
    """
    model, data = run.config.model, run.config.data
    weights = "moving average of the weights" if averaged else "last weights, not averaged"
    parts = [
        f"---\nlibrary_name: gen\ntags:\n- {model.model}\n---",
        f"# {name}",
        f"{model.model}, {model}; trained on `{data.data}` for {run.step} steps; {weights}.",
    ]
    if SAMPLES in files:
        parts.append(f"![Samples of seeds 0 to 63]({SAMPLES})")
    use = f"python {MODELS[model.model].use.format(run=name)}"
    load = (
        f'from gen.share.export import from_pretrained\n\nnetworks = from_pretrained("{name}")'
        f"  # {', '.join(run.averaged)}"
    )
    parts += ["## Use", _block(use), _block(load, "python")]
    parts += ["## Training", _block(command_line(run.config))]
    if numbers:
        told = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        parts.append(f"Logged at step {run.step}: {told}.")
    if measurement:
        what = f"$ python analyze.py images {name}\n" if run.draws else "Logit maps: "
        parts += ["## Checkerboards", _block(f"{what}{measurement}"), READING]
    if run.draws:
        told = f"python analyze.py quality {name} {arguments}"
        parts.append("## Quality")
        parts.append(_block(f"$ {told}\n{quality}") if quality else f"Not measured; `{told}` does.")
    parts += ["## Files", "\n".join(f"- `{file}`: {text}" for file, text in files.items())]
    return "\n\n".join(parts) + "\n"


READING = (
    "Levels are in dBc: 0 would be a grid as strong as the images' own contrast. `upper` bounds "
    "the level from above with 95 % confidence; what is not detected lies below `limit`, which "
    "would be found nine times out of ten; p is corrected for every test in the report."
)


def _block(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"
