"""What each of several processes does for tests/system/test_distributed.py: `worker.py FOLDER`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from click.testing import CliRunner

import sample
from gen.commands.measuring import measure_path
from gen.config.run import RunConfig
from gen.data.batches import batches
from gen.data.datasets import load_dataset
from gen.data.stream import Selection, Sheet
from gen.runs.data import open_dataset
from gen.runs.open import load_checkpoint
from gen.system import distributed
from gen.training import objectives
from gen.training.loop import Trainer, train_step
from gen.training.metrics import Means
from tests.conftest import small_config

BATCH = 9  # 4 + 5 over two processes


def shapes():
    return load_dataset("shapes", root=Path("data"), size=(16, 16), channels=3, count=64)


def noiseless_steps(model, dataset, folder):
    """Gradients of the first step, and metrics and weights after three: no noise, BN in eval."""
    trainer = Trainer(small_config(model, batch_size=BATCH), dataset, folder)
    for module in trainer.modules.values():
        module.eval()
    objective, metrics, first = trainer.objective, Means(), []
    if model == "dcgan":
        network = objective.generator
        objective.generate = lambda batch: (network(pixels(batch)[:, : network.latent]), None)
    stream = batches(dataset, batch_size=BATCH, seed=0, part=trainer.part)
    with (
        contextlib.closing(stream),
        patch.object(objectives, "reparametrize", lambda mean, _: mean),
    ):
        for step in range(3):
            batch = trainer.to_device(next(stream))
            no_cast = contextlib.nullcontext()
            metrics.add(train_step(objective, batch, step, no_cast, trainer.weight))
            if step == 0:
                first = [w.grad.clone() for phase in objective.phases for w in phase.weights]
    weights = [w.detach() for m in trainer.modules.values() for w in m.parameters()]
    return {"gradients": first, "weights": weights, "metrics": metrics.read(trainer.weight)}


def pixels(batch):
    """Images of a batch as rows of pixels."""
    return batch.images.flatten(1)


def digest(trainer):
    """A hash of everything that all processes must share to the last bit."""
    held = [m.state_dict() for m in trainer.modules.values()]
    held += [trainer.average.module.state_dict()]
    held += [
        s for p in trainer.objective.phases for s in p.optimizer.state_dict()["state"].values()
    ]
    tensors = [value for state in held for value in state.values()]
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def whole_and_resumed(dataset, folder):
    """Train 6 steps at once, and 3 and 3; returns digests. Each process has a folder of its own."""
    digests = []
    for name, parts in (("whole", (6,)), ("broken", (3, 6))):
        own = folder / f"{name}-{distributed.rank()}"
        own.mkdir()
        for number, steps in enumerate(parts):
            trainer = Trainer(small_config("dcgan", batch_size=BATCH, steps=steps), dataset, own)
            if number:
                trainer.load(load_checkpoint(folder / f"{name}-0"))
            assert trainer.run() == 0
            distributed.wait()
        digests.append(digest(trainer))
    return digests


def measured(folder):
    """Measurements and thumbnails of a folder with a reference, an array, a sheet and a run."""
    skip, sheet = Selection(skip_bad=True), Selection(sheet=Sheet((24, 24), 1), max_images=9)
    cases = [
        (folder / "photos", folder / "photos.npy", skip, 0),
        (folder / "sheets", None, sheet, 0),
        (folder / "few.npy", None, Selection(), 0),
        (folder / "whole-0", None, Selection(), 70),
    ]
    found = []
    for path, reference, selection, num in cases:
        measurement, first, _ = measure_path(path, reference, (2, 4), selection, num)
        found.append({"numbers": measurement.to_dict(), "first": first.tolist()})
    return found


def sampled(folder, name):
    """What the command says of twice drawing 70 samples: a folder that is continued, an array."""
    run = CliRunner().invoke
    own = folder / name
    said = []
    for arguments in (
        ["--num", "40", "--outdir", own / "folder"],
        ["--num", "70", "--outdir", own / "folder"],
        ["--num", "70", "--npy", own / "array.npy", "--batch-size", "9"],
    ):
        result = run(sample.main, [str(folder / "whole-0"), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        said.append(result.output.replace(name, ""))
    return said


def refused(folder, more=0, value=0):
    """What is said of sets with other images on process 1, by number or value; rank 0 speaks."""
    rank = distributed.rank()
    file = folder / f"own-{rank}.npy"
    np.save(file, np.full((9 + more * rank, 16, 16, 3), value * rank, np.uint8))
    plain = small_config("dcgan").to_dict()
    try:
        open_dataset(RunConfig.from_dict({**plain, "data": {"data": str(file)}}))
    except ValueError as error:
        return str(error)
    return ""


def main(folder):
    with distributed.joined():
        dataset = shapes()
        for model in ("dcgan", "vae"):
            (folder / model).mkdir(exist_ok=True)
            torch.save(
                noiseless_steps(model, dataset, folder / model),
                folder / model / f"{distributed.rank()}.pt",
            )
        result = {"digests": whole_and_resumed(dataset, folder), "measured": measured(folder)}
        result["sampled"] = sampled(folder, "shared")
        result["refused"] = refused(folder, more=1)
        result["other"] = [refused(folder, value=1), refused(folder)]
        number = distributed.rank()
        (folder / f"result-{number}.json").write_text(json.dumps(result))
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads-{number}").write_text("\n".join(threads))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
