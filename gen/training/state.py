"""The state of a run: networks, averages, optimizers, noise; to and from a checkpoint, exactly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen.config.run import RunConfig
from gen.data.datasets import Dataset
from gen.data.order import noise_seed
from gen.models.build import build_modules
from gen.runs.checkpoint import fitting, save_checkpoint
from gen.system import distributed
from gen.system.device import pick_device
from gen.system.errors import GenError
from gen.system.text import printable

from .metrics import FiniteCheck, Means
from .objectives import build_objective


class TrainingError(GenError):
    """Training cannot continue; one line that says what happened, where, and what is saved."""


class State:
    """A run in memory: everything that shapes its future, to and from a checkpoint."""

    def __init__(self, config: RunConfig, dataset: Dataset, folder: Path) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        training = config.training
        self.device = pick_device(training.device)
        self.step = self.saved = 0

        # Of each step's images this process sees a part; gradients are means over all images.
        self.part = distributed.own_slice(training.batch_size)
        self.weight = (self.part.stop - self.part.start) / training.batch_size

        # Networks, with weights from the seed; the noise of training continues its stream. Beside
        # the first, processes have streams of their own.
        torch.manual_seed(training.seed)
        memory = torch.channels_last if training.channels_last else torch.contiguous_format
        self.modules = {
            name: module.to(self.device, memory_format=memory)
            for name, module in build_modules(config.networks, config.model).items()
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
        self.means = Means()
        self.finite_check = FiniteCheck(
            [phase.name for phase in self.objective.phases], self.device
        )
        if training.compile:
            for module in self.modules.values():
                module.compile()

    def load(self, content: dict[str, Any]) -> None:
        """Take over the state of a checkpoint; settings of optimizers stay the configuration's.

        A line on stderr names what is not as it was, so that the run may end otherwise.

        Raises:
            CheckpointError: the state is not one of these networks.
        """
        with fitting(self.folder):
            for name, module in self.modules.items():
                module.load_state_dict(content["modules"][name])
            for phase in self.objective.phases:
                fresh, kept = phase.optimizer.state_dict(), content["optimizers"][phase.name]
                phase.optimizer.load_state_dict({**fresh, "state": kept["state"]})
            self.average.module.load_state_dict(content["ema"])
            self.average.n_averaged.fill_(content["step"])
            self.step = self.saved = content["step"]
            self.load_process_state(content["processes"])
            before, now = content["conditions"], self.conditions()
            changed = [f"{k} {before[k]} → {now[k]}" for k in now if before[k] != now[k]]
        if changed and not distributed.rank():
            text = f"Warning: {', '.join(changed)}; the run continues, but not bitwise equal"
            print(printable(text), file=sys.stderr)

    def load_weights(self, weights: dict[str, dict[str, torch.Tensor]]) -> None:
        """Start from weights of networks by name; the average starts from them as well."""
        for name, tensors in weights.items():
            self.modules[name].load_state_dict(tensors, strict=False)
        if weights:
            self.average.module.load_state_dict(self.live.state_dict())

    def process_state(self) -> dict[str, Any]:
        """What of the state is this process's alone."""
        cuda = self.device.type == "cuda"
        return {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "means": self.means.state(),
        }

    def load_process_state(self, states: list[dict[str, Any]]) -> None:
        """Go on with what is this process's alone, of which a checkpoint holds one state each."""
        rank = distributed.rank()
        if rank >= len(states):
            torch.manual_seed(noise_seed(self.config.training.seed, rank, self.step))
            return
        if len(states) == distributed.world_size():  # else some would hold means that others lack
            self.means.load(states[rank]["means"], self.device)
        torch.set_rng_state(states[rank]["cpu"])
        if self.device.type == "cuda" and states[rank]["cuda"] is not None:
            torch.cuda.set_rng_state(states[rank]["cuda"], self.device)

    def conditions(self) -> dict[str, str | int]:
        """What must stay for a resumed run to end bitwise as one that was never stopped."""
        cuda = self.device.type == "cuda"
        unit = torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability()
        return {
            "torch": str(torch.__version__),
            "device": f"{self.device.type} {unit}",
            "threads": torch.get_num_threads(),
            "processes": distributed.world_size(),
            "images": len(self.dataset),
        }

    def save(self) -> None:
        """Write checkpoints/step-NNNNNNNN.pt; all processes take part, the first writes.

        Raises:
            TrainingError, CheckpointError: something is not finite, so nothing is written.
        """
        self.check_finite()
        states = distributed.gather(self.process_state())
        if distributed.rank() == 0:
            content = {
                "config": self.config.to_dict(),
                "step": self.step,
                "modules": {name: m.state_dict() for name, m in self.modules.items()},
                "ema": self.average.module.state_dict(),
                "ema_names": list(self.objective.averaged),
                "optimizers": {p.name: p.optimizer.state_dict() for p in self.objective.phases},
                "processes": states,
                "conditions": self.conditions(),
            }
            rhythm, keep = self.config.training.snapshot_every, self.config.training.keep
            save_checkpoint(self.folder / "checkpoints", content, rhythm, keep)
        self.saved = self.step

    def check_finite(self) -> None:
        """Stop before a bad state is saved.

        Raises:
            TrainingError: a loss or weight has been NaN or infinite.
        """
        failure = self.finite_check.first_failure()
        if failure is None:
            return
        lr = getattr(self.config.objective, "lr", 0.0)
        other = " or precision=fp32" if self.config.training.precision != "fp32" else ""
        raise TrainingError(
            f"{failure.what} of phase {failure.phase} not finite in step {failure.step + 1}; step "
            f"{self.saved} is saved and good. To continue from it with a smaller learning rate: "
            f"--resume {self.folder} --override lr={lr / 2:g}{other}"
        )
