"""Train an image generator: `python train.py dcgan --data shapes`. See `--help` of each model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from gen.config import MODELS, Checked, RunConfig
from gen.options import ChoiceGroup, Command, GroupedOption, options_of

GROUPS = {"model": "Networks", "data": "Data", "objective": "Objective", "training": "Training"}


@click.group(cls=ChoiceGroup, help=__doc__)
def main() -> None:
    """Hold one command per model."""


def read_config_file(path: str) -> dict[str, dict[str, Any]]:
    """Sections of a JSON file such as a run's config.json."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--config {path}: {error}") from error


def merged_config(model: str, file: str | None, given: dict[str, Any]) -> RunConfig:
    """Defaults < file < flags."""
    values = read_config_file(file) if file else {}
    try:
        if values.setdefault("model", {}).setdefault("model", model) != model:
            raise ValueError(f"--config {file} is of model {values['model']['model']}, not {model}")
        for section, names in RunConfig.field_names(model).items():
            flags = {name: given[name] for name in names if given.get(name) is not None}
            values.setdefault(section, {}).update(flags)
        return RunConfig.from_dict(values)
    except (ValueError, AttributeError) as error:
        raise click.UsageError(str(error)) from error


def resumed(path: str, model: str, given: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """A checkpoint's configuration and content; only --steps may differ from it."""
    from gen.training.checkpoint import load_checkpoint

    content = load_checkpoint(path)
    stored = content["config"].to_dict()
    for section, names in RunConfig.field_names(stored["model"]["model"]).items():
        for name in names:
            wanted = given.get(name)
            if name != "steps" and wanted is not None and wanted != stored[section][name]:
                raise click.UsageError(
                    f"--resume: {name} is {stored[section][name]} in {path}, not {wanted}"
                )
    if stored["model"]["model"] != model:
        raise click.UsageError(f"--resume: {path} is a {stored['model']['model']}, not a {model}")
    stored["training"]["steps"] = given["steps"] or stored["training"]["steps"]
    return RunConfig.from_dict(stored), content


def train(
    model: str, config: str | None, resume: str | None, outdir: str, dry_run: bool, **given: Any
) -> None:
    """Parse, build, run."""
    if config and resume:
        raise click.UsageError("--config and --resume exclude each other")
    run, content = (
        resumed(resume, model, given) if resume else (merged_config(model, config, given), None)
    )
    if not run.model.channels:
        from gen.data.datasets import natural_channels

        run = run.with_channels(natural_channels(run.data.data))
    if dry_run:
        from gen.training.summary import describe

        click.echo(describe(run))
        return
    from gen.training.checkpoint import find_checkpoint
    from gen.training.log import new_run_folder
    from gen.training.loop import Trainer, open_dataset, write_config

    dataset = open_dataset(run)
    if content:
        folder = find_checkpoint(resume).resolve().parent.parent
    else:
        name = Path(run.data.data).stem or "data"
        folder = new_run_folder(Path(outdir), f"{model}-{name}")
    trainer = Trainer(run, dataset, folder)
    if content:
        trainer.load(content)
    write_config(run, folder)
    click.echo(
        f"{model} on {dataset.name}: {len(dataset)} images, {trainer.device} → {folder}", err=True
    )
    stopped_by = trainer.run()
    if stopped_by:
        click.echo(
            f"Stopped and saved at step {trainer.step}; --resume {folder} goes on.", err=True
        )
        sys.exit(128 + stopped_by)
    click.echo(f"Done: {folder}. Next: python sample.py {folder} --grid grid.png", err=True)


def add_command(model: str) -> None:
    """One command with the options of this model and no others."""
    kind = MODELS[model]
    sections: dict[str, type[Checked]] = RunConfig.sections(model)
    options = [
        option
        for section, cls in sections.items()
        for option in options_of(cls, GROUPS[section], kind.defaults)
    ]
    run_options = [
        GroupedOption(
            ["--outdir"],
            default="runs",
            group="Run",
            help="parent of the run directory  [default: runs]",
        ),
        GroupedOption(
            ["--config"],
            group="Run",
            metavar="FILE",
            help="JSON such as a run's config.json; flags win",
        ),
        GroupedOption(
            ["--resume"],
            group="Run",
            metavar="RUN",
            help="go on with a run or checkpoint, in place",
        ),
        GroupedOption(
            ["--dry-run"],
            is_flag=True,
            group="Run",
            help="print networks and counts; write nothing",
        ),
    ]
    main.add_command(
        Command(
            model,
            help=kind.help,
            params=[*options, *run_options],
            callback=lambda **given: train(model, **given),
            examples=f"""
                python train.py {model}
                python train.py {model} --data mnist --size 32 --channels 1 --steps 5000
                python train.py {model} --data photos/ --size 64 --upsample nearest
                python train.py {model} --resume runs/00000-{model}-shapes --steps 10000
            """,
        )
    )


for _model in MODELS:
    add_command(_model)

if __name__ == "__main__":
    main()
