"""Numbers kept on the device between two readings: means of metrics, first failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gen.system import distributed

_NEVER = 2**62  # a step that no run reaches


class Means:
    """Averages of metrics since the last reading; they stay on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add one step's metrics."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, weight: float = 1.0) -> dict[str, float]:
        """The means as numbers, over all processes, of whose images this one saw `weight`."""
        distributed.average(list(self.sums.values()), weight)
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.__init__()
        return means

    def state(self) -> dict[str, dict[str, Any]]:
        """What `load` takes: a run that is interrupted between two readings loses none of it."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load(self, state: dict[str, dict[str, Any]], device: torch.device) -> None:
        """Go on from a `state`."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])


class Failure(NamedTuple):
    """Where numbers first ceased to be finite: the step counted from 0, the phase, what."""

    step: int
    phase: str
    what: str  # "loss" or "weights"


class FiniteCheck:
    """Remembers the first step in which a phase's loss, or weights after its turn, were not finite.

    It does so on the device: nothing waits for it until `first_failure` is read.
    """

    def __init__(self, phases: Sequence[str], device: torch.device) -> None:
        self.phases = tuple(phases)
        self.first = torch.full((len(self.phases), 2), _NEVER, device=device)

    def update(self, phase: str, loss: Tensor, weights: Sequence[Tensor], step: int) -> None:
        """Look at one turn: the norm of weights is finite just where all are, and below 10¹⁹."""
        norm = torch.nn.utils.get_total_norm(weights)
        good = torch.stack([loss.detach().float(), norm.detach().float()]).isfinite()
        row = self.first[self.phases.index(phase)]
        row.copy_(torch.where(good, row, row.clamp(max=step)))

    def first_failure(self) -> Failure | None:
        """The first failure, or None; of one step the earlier phase, and loss before weights."""
        step, place = self.first.flatten().min(0)
        if step == _NEVER:
            return None
        phase, weights = divmod(int(place), 2)
        return Failure(int(step), self.phases[phase], "weights" if weights else "loss")
