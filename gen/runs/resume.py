"""Going on with a run: which one, and as what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gen.config.run import RunConfig, without_slash
from gen.runs.checkpoint import CheckpointError, check_content, run_checkpoints
from gen.runs.folder import run_number
from gen.runs.open import read_file, read_newest
from gen.system.errors import InputError
from gen.system.files import read_regular

# What may differ without --override: it does not shape what the run becomes.
FREE_OPTIONS = {"steps", "data_root", "workers", "device", "keep"}


def find_latest_run(outdir: Path, model: str, data: str) -> Path | None:
    """The run of this model and data with the highest number that has a checkpoint."""
    folders = outdir.iterdir() if outdir.is_dir() else ()
    for folder in sorted(folders, key=run_number, reverse=True):
        try:
            stored = json.loads(read_regular(folder / "config.json"))
            kind, images = stored["model"]["model"], stored["data"]["data"]
            alike = run_number(folder) >= 0 and (kind, without_slash(images)) == (model, data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # killed before it began, or no run
        if alike and run_checkpoints(folder):
            return folder
    return None


def open_to_resume(path: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and checkpoint of a run to resume; `path` is the run or its newest checkpoint.

    Raises:
        CheckpointError: nothing to resume, or resuming would overwrite later checkpoints.
    """
    file, content = read_newest(path)
    folder = file.resolve().parent.parent
    files = run_checkpoints(folder)
    if file.resolve() not in [f.resolve() for f in files]:
        raise CheckpointError(f"{file}: lies in no run; --resume takes RUN or RUN/checkpoints/FILE")
    for later in files[files.index(folder / "checkpoints" / file.name) + 1 :]:
        try:
            read_file(later)
        except CheckpointError:
            continue  # damaged: it will be written again
        raise CheckpointError(
            f"{file}: {later.name} is later, and resuming from here would overwrite it; "
            "move it and those after it away, or resume the run"
        )
    return folder, check_content(file, content)


def merge_config(
    content: dict[str, Any], given: dict[str, Any], overrides: dict[str, Any]
) -> RunConfig:
    """The configuration to resume with.

    Args:
        content: of the checkpoint.
        given: field → value that the user gives.
        overrides: field → value that may differ from the checkpoint's.

    Raises:
        ValueError: something else differs; the line names all that does.
    """
    stored = content["config"]
    fields = {name: value for part in stored.to_dict().values() for name, value in part.items()}
    differing = [
        f"{name} {fields.get(name, 'absent')} → {value}"
        for name, value in given.items()
        if name not in FREE_OPTIONS and fields.get(name) != value
    ]
    if differing:
        raise InputError(
            f"it was trained otherwise: {', '.join(sorted(differing))}; leave that out, or say "
            "--override NAME=VALUE to change it on the way"
        )
    if unknown := sorted(set(overrides) - set(fields)):
        raise InputError(f"has no {', '.join(unknown)} to override; it has {', '.join(fields)}")
    free = {name: given.get(name) for name in FREE_OPTIONS}
    run = RunConfig.from_dict(stored.to_dict(), {**free, **overrides})
    if run.training.steps < content["step"]:
        raise InputError(f"steps is {run.training.steps}, but it has taken {content['step']}")
    return run
