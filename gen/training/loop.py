"""The one training loop: data, networks, turns, averages, logs and snapshots; no model's name."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen import distributed
from gen.config import RunConfig
from gen.data.datasets import DATASETS, Batch, Dataset, load_dataset
from gen.data.sampler import batches, noise_seed
from gen.device import pick_device
from gen.files import write_atomically
from gen.images import to_float, to_uint8
from gen.signals import caught_signals
from models.build import build_modules

from .checkpoint import save_checkpoint
from .log import Progress, RunLog, Silence
from .objectives import Metrics, Objective, Phase, build_objective

HELD = 64  # images that every snapshot looks at


class TrainingError(Exception):
    """Training cannot go on; one line that says what, where and what is left."""


def train_only(phase: Phase, among: Sequence[Phase]) -> None:
    """Let gradients flow to this phase's weights alone, so that frozen players cost nothing."""
    for other in among:
        for group in other.optimizer.param_groups:
            for weight in group["params"]:
                weight.requires_grad_(other is phase)


def gradients(phase: Phase) -> list[Tensor]:
    """What the last backward pass left for this phase's weights."""
    weights = (weight for group in phase.optimizer.param_groups for weight in group["params"])
    return [weight.grad for weight in weights if weight.grad is not None]


def train_step(
    objective: Objective,
    batch: Batch,
    step: int,
    autocast: contextlib.AbstractContextManager,
    share: float = 1.0,
) -> Metrics:
    """Give every phase that is due its turn; returns the metrics of all.

    Args:
        objective: whose turns.
        batch: this process's part of the step's images, in [−1, 1] on the device.
        step: counted from 0.
        autocast: what the losses are computed under.
        share: of all images of the step, those in `batch`; weighs the mean of gradients.
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
        distributed.average(gradients(phase), share)
        phase.optimizer.step()
        metrics |= seen
    return metrics


class Means:
    """Averages of metrics since the last reading; they stay on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Metrics) -> None:
        """Add one step's metrics."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, share: float = 1.0) -> dict[str, float]:
        """The means as numbers, over all processes, of whose images this one saw `share`."""
        distributed.average(list(self.sums.values()), share)
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.__init__()
        return means


class Trainer:
    """A run in memory: everything that a checkpoint holds, and the means to write one."""

    def __init__(self, config: RunConfig, dataset: Dataset, folder: Path) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        training = config.training
        self.device = pick_device(training.device)
        self.step = 0

        # Of each step's images this process sees a part; gradients are means over all images.
        self.part = distributed.share(training.batch_size)
        self.share = (self.part.stop - self.part.start) / training.batch_size

        # Networks, with weights from the seed; the noise of training continues its stream. Beside
        # the first, processes have streams of their own.
        torch.manual_seed(training.seed)
        memory = torch.channels_last if training.channels_last else torch.contiguous_format
        self.modules = {
            name: module.to(self.device, memory_format=memory)
            for name, module in build_modules(config.model).items()
        }
        self.objective = build_objective(config, self.modules)
        if distributed.rank():
            torch.manual_seed(noise_seed(training.seed, distributed.rank(), 0))
        buffers = (buffer for module in self.modules.values() for buffer in module.buffers())
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]

        # The average of weights and batch-norm buffers that snapshots look at. Averaging
        # once per step, a half-life of h images is a decay of 2^(−B/h).
        half_life = training.ema_half_life
        decay = 2 ** (-training.batch_size / half_life) if half_life else 0.0
        self.live = nn.ModuleDict({name: self.modules[name] for name in self.objective.averaged})
        self.average = AveragedModel(
            self.live, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        ).requires_grad_(False)
        self.average.eval()
        if training.compile:
            for module in self.modules.values():
                module.compile()

    def load(self, content: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        for name, module in self.modules.items():
            module.load_state_dict(content["modules"][name])
        for phase in self.objective.phases:
            phase.optimizer.load_state_dict(content["optimizers"][phase.name])
        self.average.module.load_state_dict(content["ema"])
        self.average.n_averaged.fill_(content["step"])
        self.step = content["step"]
        self.load_noise(content["rng"])

    def load_noise(self, states: list[dict[str, Tensor]]) -> None:
        """Go on with the noise of this process, of which a checkpoint holds one state each."""
        rank, world = distributed.rank(), distributed.world()
        if len(states) != world and rank == 0:
            print(
                f"Warning: {world} process(es) go on with a run of {len(states)}: it learns alike, "
                "but is not bitwise what it would have been",
                file=sys.stderr,
            )
        if rank >= len(states):
            torch.manual_seed(noise_seed(self.config.training.seed, rank, self.step))
            return
        torch.set_rng_state(states[rank]["cpu"])
        if self.device.type == "cuda" and "cuda" in states[rank]:
            torch.cuda.set_rng_state(states[rank]["cuda"], self.device)

    def save(self) -> Path:
        """Write checkpoints/step-NNNNNNNN.pt; all processes take part, the first writes."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        states = distributed.gather(rng)
        phases = self.objective.phases
        path = self.folder / "checkpoints" / f"step-{self.step:08d}.pt"
        if distributed.rank():
            return path
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(
            path,
            {
                "config": self.config.to_dict(),
                "step": self.step,
                "modules": {name: m.state_dict() for name, m in self.modules.items()},
                "ema": self.average.module.state_dict(),
                "ema_names": list(self.objective.averaged),
                "optimizers": {phase.name: phase.optimizer.state_dict() for phase in phases},
                "rng": states,
            },
        )
        return path

    def held(self) -> Batch:
        """The images that every snapshot looks at, spread evenly over the set."""
        count = min(HELD, len(self.dataset))
        spread = [index * len(self.dataset) // count for index in range(count)]
        return self.to_device(self.dataset.fetch(spread))

    def snapshot(self, log: RunLog, progress: Progress, values: dict[str, float]) -> None:
        """Checkpoint; then log `values` and what the objective shows of the averaged networks."""
        self.save()
        if distributed.rank():
            return
        with torch.inference_mode():
            seen = self.objective.inspect(self.average.module, self.held())
        warnings = seen.warnings if self.step else []  # of untrained networks none is meant
        log.metrics(self.step, {**values, **seen.metrics}, warnings)
        for warning in warnings:
            progress.say(f"Warning at step {self.step}: {warning}")
        for name, images in seen.pictures.items():
            log.pictures(name, images, self.step)

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
        """Train to the last step; returns the signal that ended the run early, or 0."""
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
        means = Means()
        log: RunLog = Silence()
        progress: Progress = Silence()
        if distributed.rank() == 0:
            text = json.dumps(self.config.to_dict(), indent=2) + "\n"
            write_atomically(self.folder / "config.json", text.encode())
            log = RunLog(self.folder, self.step)
            progress = Progress(training.steps, self.step, "step")
        with (
            contextlib.closing(stream),
            contextlib.closing(log),
            contextlib.closing(progress),
            caught_signals() as caught,
        ):
            if self.step == 0:
                log.pictures("real", to_uint8(self.held().images).cpu(), 0)
                self.snapshot(log, progress, {})
            since, clock = self.step, time.perf_counter()
            stopping = 0
            while self.step < training.steps and not stopping:
                batch = self.to_device(next(stream))
                means.add(train_step(self.objective, batch, self.step, autocast, self.share))
                distributed.average(self.statistics, self.share)
                self.average.update_parameters(self.live)
                self.step += 1
                progress.advance()

                # Reading metrics waits for the device, so it happens at the logging rhythm.
                # Signals are looked at once a step: one that comes later is saved by the next.
                # One that any process caught stops all after the same step.
                stopping = distributed.largest(caught[0] if caught else 0)
                last = self.step == training.steps or stopping
                snapshot = last or self.step % training.snapshot_every == 0
                if snapshot or self.step % training.log_every == 0:
                    values = means.read(self.share)
                    self.check_finite(values)
                    now = time.perf_counter()
                    rate = (self.step - since) * training.batch_size / (now - clock)
                    since, clock = self.step, now
                    progress.show(self.step, {"img/s": rate, **values})
                    values["speed/images_per_second"] = rate
                    if snapshot:
                        self.snapshot(log, progress, values)
                        clock = time.perf_counter()
                    else:
                        log.metrics(self.step, values)
            return distributed.largest(caught[0] if caught else 0)

    def check_finite(self, values: dict[str, float]) -> None:
        """Stop before a bad state is saved.

        Raises:
            TrainingError: a metric is NaN or infinite.
        """
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{', '.join(bad)} not finite by step {self.step}; the last good checkpoint stays "
                f"in {self.folder / 'checkpoints'}. Try a lower --lr or --precision fp32"
            )


def open_dataset(config: RunConfig) -> Dataset:
    """The images of a run, checked against its batch size.

    Of several processes the first loads a named set alone, so that it downloads alone.

    Raises:
        ValueError: unknown set, fewer images than one batch, or others on another process.
    """
    from tqdm import tqdm

    check_batch_size(config.training.batch_size)
    quiet = True if distributed.rank() else None
    named = config.data.data in DATASETS
    with (
        distributed.first_goes_first() if named else contextlib.nullcontext(),
        tqdm(desc=config.data.data, unit="img", disable=quiet, leave=False) as progress,
    ):

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        dataset = load_dataset(
            config.data.data,
            root=Path(config.data.data_root),
            size=config.model.size,
            channels=config.model.channels,
            workers=config.data.workers,
            on_progress=show,
        )
    if config.training.batch_size > len(dataset):
        raise ValueError(
            f"batch_size is {config.training.batch_size}, but {dataset.name} holds only "
            f"{len(dataset)} images; use --batch-size {len(dataset)} or less"
        )
    counts = distributed.gather(len(dataset))
    if len(set(counts)) > 1:
        raise ValueError(
            f"{dataset.name} holds {', '.join(map(str, counts))} images as the processes see it; "
            "give all of them the same files"
        )
    return dataset


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError where several processes get less than two images of a step each."""
    world = distributed.world()
    if batch_size < 2 * world and world > 1:
        raise ValueError(
            f"batch_size is {batch_size}, but each of {world} processes needs 2 images of it; "
            f"use --batch-size {2 * world} or more"
        )
