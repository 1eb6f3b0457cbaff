"""The one training loop: data, networks, turns, averages, logs and snapshots; no model's name."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from gen.config.run import RunConfig
from gen.data.batches import batches
from gen.data.datasets import Batch, Dataset
from gen.images import to_float, to_uint8
from gen.runs.folder import write_status
from gen.system import distributed
from gen.system.files import lock_folder, remove_unfinished, write_atomically
from gen.system.progress import NoOutput, Progress
from gen.system.signals import caught_signals
from gen.training.log import RunLog

from .health import check_health
from .metrics import FiniteCheck
from .objectives import Metrics, Objective, Phase
from .state import State

PREVIEW_IMAGES = 64  # images that every snapshot looks at


def train_only(phase: Phase, among: Sequence[Phase]) -> None:
    """Let gradients flow to this phase's weights alone, so that frozen players cost nothing."""
    for other in among:
        for weight in other.weights:
            weight.requires_grad_(other is phase)


def train_step(
    objective: Objective,
    batch: Batch,
    step: int,
    autocast: contextlib.AbstractContextManager,
    weight: float = 1.0,
    finite_check: FiniteCheck | None = None,
) -> Metrics:
    """Give every phase that is due its turn; returns the metrics of all.

    Args:
        objective: whose turns.
        batch: this process's part of the step's images, in [−1, 1] on the device.
        step: counted from 0.
        autocast: what the losses are computed under.
        weight: of all images of the step, those in `batch`; weighs the mean of gradients.
        finite_check: looks at every turn's loss and weights.
    """
    metrics: Metrics = {}
    for phase in objective.phases:
        if step % phase.every:
            continue
        train_only(phase, among=objective.phases)
        phase.optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss, seen = phase.loss(batch, step)
        loss.backward()
        gradients = [w.grad for w in phase.weights if w.grad is not None]
        distributed.average(gradients, weight)
        metrics[f"grad/{phase.name}"] = nn.utils.get_total_norm(gradients)
        phase.optimizer.step()
        if finite_check:
            finite_check.update(phase.name, loss, phase.weights, step)
        metrics |= seen
    return metrics


class Trainer(State):
    """Takes a run from step to step, and leaves its traces in a folder."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, folder: Path, validation: Dataset | None = None
    ) -> None:
        super().__init__(config, dataset, folder)
        self.validation = validation

    def preview_batch(self) -> Batch:
        """What every snapshot looks at: the validation images, or some spread evenly over all."""
        if self.validation:
            return self.to_device(self.validation.fetch(range(len(self.validation))))
        count = min(PREVIEW_IMAGES, len(self.dataset))
        spread = [index * len(self.dataset) // count for index in range(count)]
        return self.to_device(self.dataset.fetch(spread))

    def snapshot(
        self, log: RunLog, progress: Progress, values: dict[str, float]
    ) -> dict[str, float]:
        """Log `values` and what the objective shows of the averaged networks; then save.

        Returns the numbers of health. In this order a process that is killed between the two writes
        its row again on resuming.
        """
        health = self.inspect(log, progress, values) if distributed.rank() == 0 else {}
        self.save()
        if distributed.rank() == 0:
            write_status(self.folder, "running", self.step)
        return health

    def inspect(
        self, log: RunLog, progress: Progress, values: dict[str, float]
    ) -> dict[str, float]:
        """Log `values` and what the objective shows of the averaged networks; return its health."""
        with torch.inference_mode():
            seen = self.objective.inspect(self.average.module, self.preview_batch())
        values = {**values, **seen.metrics}
        # Of a network that has learned nothing yet, nothing is expected.
        said = seen.warnings if self.step else []
        said = said + check_health(values, self.step * self.config.training.batch_size)
        log.metrics(self.step, values, said)
        for warning in said:
            progress.say(f"Warning at step {self.step}: {warning}")
        for name, images in seen.pictures.items():
            log.pictures(name, images, self.step)
        return {name: value for name, value in seen.metrics.items() if name.startswith("health/")}

    def to_device(self, batch: Batch) -> Batch:
        """uint8 on the CPU → [−1, 1] on the device, in the networks' memory format."""
        images = to_float(batch.images.to(self.device))
        if self.config.training.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels, masks = (
            None if part is None else part.to(self.device) for part in (batch.labels, batch.masks)
        )
        return Batch(images, labels, masks)

    def run(self) -> int:
        """Train to the last step; returns the signal that ended the run early, or 0.

        Raises:
            TrainingError: a loss or weight is not finite.
            OSError: nothing can be written any more, or another process trains here.
        """
        with caught_signals() as caught:
            if distributed.rank():
                return self.train(caught, NoOutput(), NoOutput())
            with lock_folder(self.folder):
                return self.run_and_record(caught)

    def run_and_record(self, caught: Sequence[int]) -> int:
        """Train, and leave in status.json how it ended."""
        for folder in (self.folder, *filter(Path.is_dir, self.folder.iterdir())):
            remove_unfinished(folder)
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        write_atomically(self.folder / "config.json", text.encode())
        write_status(self.folder, "running", self.step)
        first = self.step + 1 if self.step else 0  # the first step that is logged: 0 always is
        try:
            with (
                contextlib.closing(RunLog(self.folder, first)) as log,
                contextlib.closing(Progress(self.config.training.steps, self.step, "step")) as bar,
            ):
                number = self.train(caught, log, bar)
        except Exception as error:
            with contextlib.suppress(OSError):
                reason = " ".join(str(error).split()) or type(error).__name__
                write_status(self.folder, "failed", self.saved, reason)
            raise
        if number:
            write_status(self.folder, "interrupted", self.step, signal.Signals(number).name)
        else:
            write_status(self.folder, "finished", self.step)
        return number

    def train(self, caught: Sequence[int], log: RunLog, progress: Progress) -> int:
        """Take steps, log and save, until the last step or a signal; returns that, or 0."""
        training = self.config.training
        stream = batches(
            self.dataset,
            batch_size=training.batch_size,
            seed=training.seed,
            start_step=self.step,
            flip=self.config.data.flip,
            part=self.part,
        )
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=training.precision == "bf16"
        )
        with contextlib.closing(stream):
            if self.step == 0:
                log.pictures(
                    "real", to_uint8(self.preview_batch().images[:PREVIEW_IMAGES]).cpu(), 0
                )
                self.snapshot(log, progress, {})
            since, clock = self.step, time.perf_counter()
            stopping = 0
            while self.step < training.steps and not stopping:
                batch = self.to_device(next(stream))
                self.means.add(
                    train_step(
                        self.objective, batch, self.step, autocast, self.weight, self.finite_check
                    )
                )
                distributed.average(self.statistics, self.weight)
                self.average.update_parameters(self.live)
                self.step += 1
                progress.advance()

                # Reading metrics waits for the device, so it happens at the logging rhythm.
                snapshot = self.step == training.steps or self.step % training.snapshot_every == 0
                if snapshot or self.step % training.log_every == 0:
                    self.check_finite()
                    values = self.means.read(self.weight)
                    now = time.perf_counter()
                    rate = (self.step - since) * training.batch_size / (now - clock)
                    since, clock = self.step, now
                    logged = {**values, "speed/images_per_second": rate}
                    if snapshot:
                        values |= self.snapshot(log, progress, logged)
                        clock = time.perf_counter()
                    else:
                        log.metrics(self.step, logged)
                    progress.show(self.step, {"img/s": rate, **values}, snapshot)

                # A signal that any process caught stops all after the same step.
                stopping = distributed.largest(caught[0] if caught else 0)
            if self.step == training.steps:
                return 0
            self.save()  # and nothing else: what an unbroken run does not log is not logged
        return stopping
