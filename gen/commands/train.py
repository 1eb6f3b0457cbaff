"""`gen train`: one command per model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gen.commands.options import (
    ChoiceGroup,
    Command,
    GroupedOption,
    invocation,
    options_of,
    read_config,
    read_overrides,
)
from gen.commands.output import say
from gen.config.networks import EnlargingConfig, SegmenterConfig
from gen.config.run import MODELS, RunConfig
from gen.system import distributed

GROUPS = {"model": "Networks", "data": "Data", "objective": "Objective", "training": "Training"}


def new_config(
    model: str, file: str | None, flags: dict[str, Any]
) -> tuple[RunConfig, dict[str, Any]]:
    """Defaults < file < flags; and what was given of it, by name."""
    try:
        values = read_config(model, file)
        run = RunConfig.from_dict(values, flags)
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise click.UsageError(f"{f'--config {file}: ' if file else ''}{error}") from error
    names = {name for section in values.values() for name in section}
    names |= {name for name, value in flags.items() if value is not None}
    plain = {name: v for section in run.to_dict().values() for name, v in section.items()}
    return run, {name: plain[name] for name in names & plain.keys()}


def train_model(
    model: str,
    config: str | None,
    resume: str | None,
    override: tuple[str, ...],
    init_from: str | None,
    outdir: str,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Parse, build, run."""
    run, given = new_config(model, config, flags)
    folder, content = None, {}
    if resume == "auto":
        from gen.runs.resume import find_latest_run

        found = find_latest_run(Path(outdir), model, run.data.data)
        resume = str(found) if found else None
    if init_from and resume:
        raise click.UsageError(
            "--init-from starts a new run, --resume continues one; give only one"
        )
    if override and not resume:
        raise click.UsageError("--override changes a run that is resumed, and there is none")
    if resume:
        from gen.runs.resume import merge_config, open_to_resume

        folder, content = open_to_resume(Path(resume))
        try:
            run = merge_config(content, given, read_overrides(override))
        except ValueError as error:
            raise click.UsageError(f"--resume {resume}: {error}") from error
    else:
        from gen.runs.data import fit_to_data

        run = fit_to_data(run)
    if dry_run:
        from gen.training.summary import describe_run

        say(describe_run(run), err=False)
        return
    from gen.runs.data import open_dataset, open_validation
    from gen.runs.folder import make_run_folder
    from gen.runs.transfer import load_fitting_weights
    from gen.training.loop import Trainer

    weights, report = load_fitting_weights(init_from, run) if init_from else ({}, "")
    if report:
        say(report)
    dataset, validation = open_dataset(run), open_validation(run)
    for note in [*dataset.notes, *(validation.notes if validation else [])]:
        say(note)
    if not folder:
        name = f"{model}-{Path(run.data.data).stem or 'data'}"
        first = distributed.rank() == 0
        folder = distributed.broadcast(make_run_folder(Path(outdir), name) if first else None)
    trainer = Trainer(run, dataset, folder, validation)
    trainer.load(content) if content else trainer.load_weights(weights)
    where = f"{trainer.device}{distributed.describe()} → {folder}"
    where += f", from step {trainer.step}" if content else ""
    say(f"{model} on {dataset.name}: {len(dataset)} images, {where}")
    stopped_by = trainer.run()
    if stopped_by:
        say(f"Stopped and saved at step {trainer.step}; --resume {folder} continues.")
        sys.exit(128 + stopped_by)
    say(f"Done: {folder}. Next: {invocation(MODELS[model].use.format(run=folder))}")


def _run_option(flag: str, text: str, **settings: Any) -> GroupedOption:
    return GroupedOption([flag], group="Run", help=text, **settings)


RUN_OPTIONS = [
    _run_option("--outdir", "parent of the run directory  [default: runs]", default="runs"),
    _run_option("--config", "JSON such as a run's config.json; flags win", metavar="FILE"),
    _run_option(
        "--resume",
        "continue a run in place; auto: the newest of this model and data, or a new one",
        metavar="RUN|auto",
    ),
    _run_option("--init-from", "start from the weights of a run that fit", metavar="RUN"),
    _run_option("--override", "change a resumed run's option", metavar="NAME=VALUE", multiple=True),
    _run_option("--dry-run", "print networks and counts; write nothing", is_flag=True),
]


def command(model: str) -> Command:
    """The command of one model, with its own options and no others."""
    options = [
        option
        for section, kind in RunConfig.sections(model).items()
        for option in options_of(kind, GROUPS[section], MODELS[model].defaults)
    ]
    networks = MODELS[model].model
    masked = issubclass(networks, SegmenterConfig)
    nearest = " --upsample nearest" * issubclass(networks, EnlargingConfig)
    elsewhere = "voc --size 128" if masked else "mnist --size 32"
    folder = "DIR_OF_IMAGES_AND_MASKS" if masked else "photos/"
    return Command(
        model,
        help=MODELS[model].help,
        short_help=MODELS[model].help,
        params=[*options, *RUN_OPTIONS],
        callback=lambda **given: train_model(model, **given),
        examples=f"""
            gen train {model}
            gen train {model} --data {elsewhere} --steps 5000
            gen train {model} --data {folder} --size 64{nearest}
            gen train {model} --resume runs/00000-{model}-shapes --steps 10000
        """,
    )


train = ChoiceGroup(
    "train",
    {model: command(model) for model in MODELS},
    help="Train an image generator: `gen train dcgan --data shapes`. See `--help` of each model.",
)
