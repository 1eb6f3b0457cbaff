"""Quality on real digits.

    python benchmarks/accuracy/quality.py mnist --data-root DIR [--only NAME …]

Trains a classifier, then every objective of ROWS through train.py as a user would, and prints

- classifier score exp(E KL(p(y|x) ‖ p(y))) of 10,000 samples (Salimans et al. 2016, with this
  classifier in place of Inception; 10 is the most that ten classes allow), the rarest class's share
  and the processor time of training on one thread; the test digits' own score stands first;
- of conditional ones, the share of samples that the classifier gives the class asked for;
- `elbo`: a VAE's −ELBO in nats per image on the 10,000 test images (one latent sample each).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.models.build import build_modules

from gen.config.run import RunConfig
from gen.data.datasets import Dataset, load_dataset
from gen.images import to_float
from gen.runs.open import load, load_checkpoint, open_run
from gen.sampling.seeds import sample_batches
from gen.training.objectives import VAE

SAMPLES = 10_000
CLASSIFIER = ("classifier", "--size", "32", "--batch-size", "128", "--steps", "3744")
ELBO = ("vae", "--size", "28", "--batch-size", "128", "--steps", "4680")
_COMMON = ("--size", "32", "--width", "32")
_DCGAN = ("dcgan", *_COMMON, "--lr", "2e-3", "--ema-half-life", "30000", "--steps", "4685")
_VAE = ("vae", *_COMMON, "--steps", "2340")
# Five epochs each, but for wgan-gp, whose generator has a fifth of the turns.
ROWS = {
    "nonsaturating": _DCGAN,
    "hinge": (*_DCGAN, "--loss", "hinge"),
    "lsgan": (*_DCGAN, "--loss", "lsgan"),
    "wgan-gp": (
        *("dcgan", *_COMMON, "--loss", "wgan-gp", "--lr", "1e-3", "--beta1", "0", "--beta2", "0.9"),
        *("--ema-half-life", "60000", "--steps", "9370"),
    ),
    "r1": (*_DCGAN, "--r1", "0.05"),
    "spectral-norm": (*_DCGAN, "--loss", "hinge", "--spectral-norm"),
    "conditional": (*_DCGAN, "--conditional"),
    "vaegan": (
        *("vaegan", *_COMMON, "--latent", "32", "--beta", "4", "--gamma", "5e-4", "--lr", "1e-3"),
        *("--ema-half-life", "20000", "--steps", "4685"),
    ),
    "vae": _VAE,
    "conditional-vae": (*_VAE, "--conditional"),
}


def digits(root: Path, split: str, size: tuple[int, int] = (32, 32)) -> Dataset:
    """MNIST as this toolkit loads it."""
    return load_dataset("mnist", root=root, size=size, channels=1, split=split)


@torch.inference_mode()
def accuracy(network: nn.Module, root: Path) -> float:
    """Share of test digits named rightly."""
    test = digits(root, "test")
    hits = 0
    for start in range(0, len(test), 500):
        batch = test.fetch(range(start, start + 500))
        hits += int((network(to_float(batch.images)).argmax(1) == batch.labels).sum())
    return hits / len(test)


@torch.inference_mode()
def score(network: nn.Module, batches: Iterable[Tensor]) -> tuple[dict[str, float], Tensor]:
    """exp(E KL(p(y|x) ‖ p(y))) over 8-bit images and the rarest class's share; classes (N,)."""
    p = torch.cat([network(to_float(batch)).softmax(1) for batch in batches]).double()
    kl = (p * (p.clamp_min(1e-12).log() - p.mean(0).clamp_min(1e-12).log())).sum(1).mean()
    named = p.argmax(1)
    rarest = float(named.bincount(minlength=10).min() / len(p))
    return {"score": float(kl.exp()), "rarest": rarest}, named


def score_run(network: nn.Module, run: Path) -> dict[str, float]:
    """Score of a run's samples; of a conditional one also the agreement with the class asked."""
    decoder = load(run)
    found, named = score(network, sample_batches(decoder, range(SAMPLES), 500))
    if decoder.classes:  # the class asked for is seed modulo classes
        asked = torch.arange(SAMPLES) % decoder.classes
        found["agreement"] = float((named == asked).double().mean())
    return found


@torch.inference_mode()
def test_negative_elbo(run: Path, root: Path) -> float:
    """−ELBO in nats per test image, averaged weights, eval mode."""
    content = load_checkpoint(run)
    config: RunConfig = content["config"]
    modules = build_modules(config.networks, config.model)
    nn.ModuleDict({name: modules[name] for name in VAE.averaged}).load_state_dict(content["ema"])
    objective = VAE({name: module.eval() for name, module in modules.items()}, config.objective)
    torch.manual_seed(0)
    test, total = digits(root, "test", config.model.size), 0.0
    for start in range(0, len(test), 500):
        batch = test.fetch(range(start, start + 500))
        batch = dataclasses.replace(batch, images=to_float(batch.images))
        nll, dimensions = objective.negative_elbo(batch)
        total += float(nll + dimensions.sum()) * len(batch.images)
    return total / len(test)


def trained(given: argparse.Namespace, name: str, arguments: Sequence[str]) -> tuple[Path, float]:
    """Run directory of a model trained by train.py, and the minutes of processor time it took.

    One that is finished is taken as it is; its minutes are read from where they were noted.
    """
    folder = given.outdir / name
    note = folder / "minutes.txt"
    if not note.exists():
        command = ["train.py", *arguments, "--data", "mnist", "--precision", given.precision]
        print("$ python", *command, flush=True)
        command += ["--snapshot-every", "100000", "--data-root", str(given.data_root)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        command += ["--outdir", str(folder)]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env=one)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        note.write_text(f"{used / 60:.1f}\n")
    return max(folder.glob("*-mnist")), float(note.read_text())


def row(name: str, found: dict[str, float]) -> str:
    """One line of the table."""
    return f"{name:<16} " + "  ".join(f"{key} {value:.4g}" for key, value in found.items())


def main() -> None:
    """Train what is not there yet, score, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["mnist"])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "elbo"], default=[*ROWS, "elbo"])
    given = parser.parse_args()
    given.data_root, given.outdir = given.data_root.resolve(), given.outdir.resolve()
    if not (given.data_root / "MNIST").is_dir():
        sys.exit(f"{given.data_root}: holds no MNIST folder; name its parent with --data-root")

    run, _ = trained(given, "classifier", CLASSIFIER)
    network = open_run(run, device="cpu").modules["classifier"]
    figures: dict[str, Any] = {"classifier_accuracy": accuracy(network, given.data_root)}
    test = digits(given.data_root, "test")
    real = (test.fetch(range(start, start + 500)).images for start in range(0, len(test), 500))
    figures["test digits"], _ = score(network, real)
    print(f"classifier: {figures['classifier_accuracy']:.2%} of test digits right", flush=True)
    print(row("test digits", figures["test digits"]), flush=True)
    for name in given.only:
        if name == "elbo":
            run, _ = trained(given, name, ELBO)
            figures[name] = test_negative_elbo(run, given.data_root)
            print(f"vae: test −ELBO {figures[name]:.2f} nats per image", flush=True)
            continue
        run, minutes = trained(given, name, ROWS[name])
        figures[name] = score_run(network, run) | {"minutes": minutes}
        print(row(name, figures[name]), flush=True)
    (given.outdir / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
