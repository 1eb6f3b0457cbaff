"""The images of a run: what its networks must be for them, and the sets it reads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gen.config.networks import ClassifierConfig, SegmenterConfig
from gen.config.run import RunConfig
from gen.data.datasets import (
    DATASETS,
    Dataset,
    find_channels,
    find_classes,
    find_mask_classes,
    load_dataset,
)
from gen.system import distributed
from gen.system.errors import InputError
from gen.system.text import shorten

VALIDATION = 256


def fit_to_data(run: RunConfig) -> RunConfig:
    """The run with as many channels as its data have, and classes where they matter."""
    skip, limit = run.data.on_bad_image == "skip", run.data.max_image_pixels
    if not run.model.channels:
        channels = find_channels(run.data.data, skip_bad=skip, max_pixels=limit)
        run = run.with_model(channels=channels)
    if getattr(run.model, "conditional", False) or isinstance(run.model, ClassifierConfig):
        run = run.with_model(classes=find_classes(run.data.data))
    if isinstance(run.model, SegmenterConfig) and not run.model.classes:
        run = run.with_model(classes=find_mask_classes(run.data.data, skip_bad=skip))
    return run


def open_dataset(config: RunConfig) -> Dataset:
    """The images of a run, checked against its batch size.

    Of several processes the first loads a named set alone, so that it downloads alone.

    Raises:
        ValueError: unknown set, fewer images than one batch, or others on another process.
    """
    check_batch_size(config.training.batch_size)
    dataset = load_split(config)
    if config.training.batch_size > (count := len(dataset)):
        fix = f"use --batch-size {count} or less" if count > 1 else "training needs two or more"
        raise InputError(
            f"batch_size is {config.training.batch_size}, but {dataset.name} holds only "
            f"{count} image{'s' * (count > 1)}; {fix}"
        )
    digest = dataset.digest() if distributed.world_size() > 1 else ""
    seen = distributed.gather((len(dataset), digest))
    if len(set(seen)) > 1:
        counts = [count for count, _ in seen]
        what = f"{', '.join(map(str, counts))} images" if len(set(counts)) > 1 else "other files"
        raise InputError(
            f"{dataset.name} holds {what} as the processes see it; give all of them the same files"
        )
    return dataset


def open_validation(config: RunConfig) -> Dataset | None:
    """At most 256 images that training never sees, to compare what is known of them; or none.

    Segmenters have them of every set, classifiers of named ones, and generators need none.
    """
    named = config.data.data in DATASETS
    wanted = config.model.mask_classes or (named and isinstance(config.model, ClassifierConfig))
    return load_split(config, split="test", count=VALIDATION) if wanted else None


def load_split(config: RunConfig, **part: Any) -> Dataset:
    """The data set of a run; `part` chooses a split and a count, as in `load_dataset`."""
    from tqdm import tqdm

    quiet = True if distributed.rank() else None
    named = config.data.data in DATASETS
    with (
        distributed.rank_zero_first() if named else contextlib.nullcontext(),
        tqdm(desc=shorten(config.data.data), unit="img", disable=quiet, leave=False) as progress,
    ):

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        return load_dataset(
            config.data.data,
            root=Path(config.data.data_root),
            size=config.model.size,
            channels=config.model.channels,
            workers=config.data.workers,
            mask_classes=config.model.mask_classes,
            skip_bad=config.data.on_bad_image == "skip",
            background=config.data.background,
            max_pixels=config.data.max_image_pixels,
            on_progress=show,
            **part,
        )


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError where several processes get less than two images of a step each."""
    world = distributed.world_size()
    if batch_size < 2 * world and world > 1:
        raise InputError(
            f"batch_size is {batch_size}, but each of {world} processes needs 2 images of it; "
            f"use --batch-size {2 * world} or more"
        )
