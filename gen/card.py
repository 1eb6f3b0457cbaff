"""The model card of an exported folder: what it is, how it was made, how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen.options import command_line

if TYPE_CHECKING:
    from gen.analysis.results import Measurement
    from gen.quality import Quality
    from gen.sampling import Run

SAMPLES = "samples.png"


def write_card(
    name: str,
    run: Run,
    averaged: bool,
    files: dict[str, str],
    measurement: Measurement | None,
    quality: Quality | None,
    reference: str,
) -> str:
    """The text of README.md.

    Args:
        name: The folder's, as the commands in the card call it.
        run: What is exported, as it is read again.
        averaged: Whether the weights are the moving average.
        files: Name → what it holds.
        measurement: Of the checkerboards in samples, where there are samples.
        quality: Distances from a reference, where they were measured.
        reference: The arguments of `analyze.py quality` behind the path.
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
    use = f"python sample.py {name} --grid grid.png\npython analyze.py model {name}"
    load = (
        "from gen.export import from_pretrained\nfrom gen.sampling import load, sample_images\n\n"
        f'images = sample_images(load("{name}"), seeds=range(64))  # uint8 (64, C, H, W)\n'
        f'networks = from_pretrained("{name}")  # {", ".join(run.averaged)}'
    )
    parts += ["## Use", _block(use), _block(load, "python")]
    parts += ["## Training", _block(command_line(run.config))]
    if measurement:
        told = f"$ python analyze.py images {name}\n{measurement}"
        parts += ["## Checkerboards", _block(told), READING]
    told = f"python analyze.py quality {name} {reference}"
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
