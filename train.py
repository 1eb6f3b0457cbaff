"""Train an image generator: `python train.py dcgan --data shapes`. See `--help` of each model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from gen import distributed
from gen.commands.output import say
from gen.config import MODELS, RunConfig
from gen.options import ChoiceGroup, Command, GroupedOption, options_of

GROUPS = {"model": "Networks", "data": "Data", "objective": "Objective", "training": "Training"}


@click.group(cls=ChoiceGroup, help=__doc__)
def main() -> None:
    """Hold one command per model."""


def new_config(model: str, file: str | None, flags: dict[str, Any]) -> RunConfig:
    """Defaults < file < flags."""
    try:
        values = json.loads(Path(file).read_text()) if file else {}
        if file and values.get("model", {}).get("model", model) != model:
            raise ValueError(f"is of model {values['model']['model']}, not {model}")
        values["model"] = {**values.get("model", {}), "model": model}
        return RunConfig.from_dict(values, flags)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise click.UsageError(f"{f'--config {file}: ' if file else ''}{error}") from error


def stored_config(path: str, model: str, flags: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """A checkpoint's configuration and content; only --steps may differ from it."""
    from gen.training.checkpoint import load_checkpoint

    content = load_checkpoint(path)
    stored = content["config"]
    for section in stored.to_dict().values():
        for name, value in section.items():
            wanted = model if name == "model" else flags.get(name)
            if name != "steps" and wanted not in (None, value):
                raise click.UsageError(f"--resume {path}: its {name} is {value}, not {wanted}")
    return RunConfig.from_dict(stored.to_dict(), {"steps": flags["steps"]}), content


def fit_to_data(run: RunConfig) -> RunConfig:
    """The run with as many channels as its data have, and classes where they matter."""
    from gen.data.datasets import natural_channels, natural_classes

    if not run.model.channels:
        run = run.with_networks(channels=natural_channels(run.data.data))
    if getattr(run.model, "conditional", False):
        run = run.with_networks(classes=natural_classes(run.data.data))
    return run


def train(
    model: str,
    config: str | None,
    resume: str | None,
    outdir: str,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Parse, build, run."""
    if config and resume:
        raise click.UsageError("--config and --resume exclude each other")
    content: dict[str, Any] = {}
    if resume:
        run, content = stored_config(resume, model, flags)
    else:
        run = new_config(model, config, flags)
        run = fit_to_data(run)
    if dry_run:
        from gen.training.summary import describe

        say(describe(run), err=False)
        return
    from gen.training.checkpoint import find_checkpoint
    from gen.training.log import new_run_folder
    from gen.training.loop import Trainer, open_dataset

    dataset = open_dataset(run)
    if content:
        folder = find_checkpoint(resume).resolve().parent.parent
    else:
        name = f"{model}-{Path(run.data.data).stem or 'data'}"
        first = distributed.rank() == 0
        folder = distributed.broadcast(new_run_folder(Path(outdir), name) if first else None)
    trainer = Trainer(run, dataset, folder)
    if content:
        trainer.load(content)
    where = f"{trainer.device}{distributed.described()}"
    say(f"{model} on {dataset.name}: {len(dataset)} images, {where} → {folder}")
    stopped_by = trainer.run()
    if stopped_by:
        say(f"Stopped and saved at step {trainer.step}; --resume {folder} goes on.")
        sys.exit(128 + stopped_by)
    say(f"Done: {folder}. Next: python sample.py {folder} --grid grid.png")


def _run_option(flag: str, text: str, **settings: Any) -> GroupedOption:
    return GroupedOption([flag], group="Run", help=text, **settings)


RUN_OPTIONS = [
    _run_option("--outdir", "parent of the run directory  [default: runs]", default="runs"),
    _run_option("--config", "JSON such as a run's config.json; flags win", metavar="FILE"),
    _run_option("--resume", "go on with a run or checkpoint, in place", metavar="RUN"),
    _run_option("--dry-run", "print networks and counts; write nothing", is_flag=True),
]


def command(model: str) -> Command:
    """The command of one model, with its own options and no others."""
    options = [
        option
        for section, kind in RunConfig.sections(model).items()
        for option in options_of(kind, GROUPS[section], MODELS[model].defaults)
    ]
    return Command(
        model,
        help=MODELS[model].help,
        short_help=MODELS[model].help,
        params=[*options, *RUN_OPTIONS],
        callback=lambda **given: train(model, **given),
        examples=f"""
            python train.py {model}
            python train.py {model} --data mnist --size 32 --steps 5000
            python train.py {model} --data photos/ --size 64 --upsample nearest
            python train.py {model} --resume runs/00000-{model}-shapes --steps 10000
        """,
    )


for _model in MODELS:
    main.add_command(command(_model))

if __name__ == "__main__":
    main()
