"""The model card of an exported folder: what it is, how it was made, how good it is."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gen.config.run import MODELS, RunConfig
from gen.system.files import read_rows
from gen.system.text import code, markdown, printable

if TYPE_CHECKING:
    from gen.analysis.measure.result import Measurement
    from gen.quality.distances import Quality
    from gen.runs.open import Run

SAMPLES = "samples.png"


def read_logged(run: Run) -> dict[str, float]:
    """The numbers that training logged at the step of a checkpoint; empty where none are found."""
    rows = run.path.parent.parent / "metrics.jsonl"
    found: dict[str, float] = {}
    if rows.is_file():
        for row in read_rows(rows):
            if row["step"] == run.step:
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
    license_id: str = "unknown",
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
        arguments: Those of `gen quality`, for samples.
        license_id: The license's name on the Hub.
    """
    model, data = run.config.model, run.config.data
    weights = "moving average of the weights" if averaged else "last weights, not averaged"
    parts = [
        f"---\n{describe(name, run, measurement, quality, license_id)}\n---",
        f"# {markdown(name)}",
        f"{model.model}, {model}; trained on {code(data.data)} for {run.step} steps; {weights}.",
    ]
    if SAMPLES in files:
        parts.append(f"![Samples of seeds 0 to 63]({SAMPLES})")
    run_name = shlex.quote(printable(name))
    use = f"gen {MODELS[model.model].use.format(run=run_name)}"
    load = (
        f"from gen import from_pretrained\n\nnetworks = from_pretrained({json.dumps(name)})"
        f"  # {', '.join(run.averaged)}"
    )
    parts += ["## Use", _block(use), _block(load, "python")]
    parts += ["## Training", _block(command_line(run.config))]
    if numbers:
        told = ", ".join(f"{markdown(key)} {value:.4g}" for key, value in numbers.items())
        parts.append(f"Logged at step {run.step}: {told}.")
    if measurement:
        what = f"$ gen images {run_name}\n" if run.draws_images else "Logit maps: "
        parts += ["## Checkerboards", _block(f"{what}{measurement}"), READING]
    if run.draws_images:
        told = f"gen quality {run_name} {arguments}"
        parts.append("## Quality")
        parts.append(
            _block(f"$ {told}\n{quality}") if quality else f"Not measured; {code(told)} does."
        )
    parts += ["## Files", "\n".join(f"- `{file}`: {text}" for file, text in files.items())]
    return "\n\n".join(parts) + "\n"


def describe(
    name: str,
    run: Run,
    measurement: Measurement | None,
    quality: Quality | None,
    license_id: str,
) -> str:
    """What the Hub reads of a card, as YAML; without its library (extra `hub`) no results."""
    about = {
        "license": license_id,
        "library_name": "gen",
        "pipeline_tag": pipeline_tag(run),
        "tags": [run.config.model.model, "checkerboard-artifacts"],
    }
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        plain = (f"{key}: {value}" for key, value in about.items() if isinstance(value, str))
        return "\n".join([*plain, "tags:", *(f"- {tag}" for tag in about["tags"])])
    data, title = (
        html.escape(printable(text), quote=False)  # readers without YAML take it for Markdown
        for text in (Path(run.config.data.data).name, name)
    )
    place = {"task_type": about["pipeline_tag"], "dataset_type": data, "dataset_name": data}
    found = [
        EvalResult(**place, metric_type=kind, metric_name=words, metric_value=round(value, 4))
        for kind, words, value in results(measurement, quality)
    ]
    shown = {"model_name": title, "eval_results": found} if found else {}
    return ModelCardData(**about, **shown).to_yaml().strip()


def results(
    measurement: Measurement | None, quality: Quality | None
) -> Iterator[tuple[str, str, float]]:
    """Identifier, name and value of each number of the card."""
    for number, period in (measurement.periods if measurement else {}).items():
        level = period.bound_dbc
        if not period.undefined and level is not None:
            kind = "detected" if period.detected else "not detected, upper bound"
            yield f"checkerboard_period_{number}", f"Checkerboard, dBc ({kind})", level
    if quality and quality.frechet is not None:
        yield "frechet_distance", f"Fréchet distance ({quality.features} features)", quality.frechet


def pipeline_tag(run: Run) -> str:
    """The Hub's name for what a model does."""
    if run.predicts_masks:
        return "image-segmentation"
    return "unconditional-image-generation" if run.draws_images else "image-classification"


READING = (
    "Levels are in dBc: 0 would be a grid as strong as the images' own contrast. `upper` bounds "
    "the level from above with 95 % confidence; what is not detected lies below `limit`, which "
    "would be found nine times out of ten; p is corrected for every test in the report."
)


def _block(text: str, language: str = "") -> str:
    shown = printable(text, keep="\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{language}\n{shown}\n{fence}"


def command_line(config: RunConfig) -> str:
    """The command that trains such a run, of options that differ from their defaults.

    A path of images is given by its last name, and `--data-root`, which is a place, not at all.
    """
    model = config.model.model
    plain = RunConfig.from_dict({"model": {"model": model}})
    words = ["gen", "train", model]
    for section in RunConfig.sections(model):
        given, default = getattr(config, section), getattr(plain, section)
        for field in dataclasses.fields(given):
            value = getattr(given, field.name)
            if value == getattr(default, field.name) or not field.metadata.get("help"):
                continue
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif field.name != "data_root":
                text = str(value)
                if isinstance(value, tuple):
                    text = ("x" if len(value) == 2 else ",").join(map(str, value))
                words += [f"--{flag}", Path(text).name if flag == "data" else text]
    return shlex.join(map(printable, words))
