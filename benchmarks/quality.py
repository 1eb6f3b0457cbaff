"""Quality on real digits: `python benchmarks/quality.py mnist --data-root DIR`.

Trains a classifier, a DCGAN and a VAE through train.py as a user would, and prints

- classifier score exp(E KL(p(y|x) ‖ p(y))) of 10,000 DCGAN samples (Salimans et al. 2016, with this
  classifier in place of Inception; 10 is the most that ten classes allow), and each class's share;
- the VAE's −ELBO in nats per image on the 10,000 test images (one latent sample each).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gen.config import RunConfig  # noqa: E402
from gen.data.datasets import Dataset, load_dataset  # noqa: E402
from gen.images import to_float  # noqa: E402
from gen.sampling import load, open_run, sample_batches  # noqa: E402
from gen.training.checkpoint import load_checkpoint  # noqa: E402
from gen.training.objectives import VAE  # noqa: E402
from models.build import build_modules  # noqa: E402

SAMPLES = 10_000


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
def classifier_score(network: nn.Module, run: Path) -> tuple[float, Tensor]:
    """exp(E KL(p(y|x) ‖ p(y))) over samples, and the share of each class by argmax."""
    batches_ = sample_batches(load(run), range(SAMPLES), 500)
    p = torch.cat([network(to_float(b)).softmax(1) for b in batches_]).double()
    kl = (p * (p.clamp_min(1e-12).log() - p.mean(0).clamp_min(1e-12).log())).sum(1).mean()
    return float(kl.exp()), p.argmax(1).bincount(minlength=10) / len(p)


@torch.inference_mode()
def test_negative_elbo(run: Path, root: Path) -> float:
    """−ELBO in nats per test image, averaged weights, eval mode."""
    content = load_checkpoint(run)
    config: RunConfig = content["config"]
    modules = build_modules(config.model)
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


def trained(given: argparse.Namespace, model: str, size: int, batch: int, *options: str) -> Path:
    """Run directory of a model trained by train.py; one that is finished is taken as it is."""
    epochs = dict(zip(("classifier", "dcgan", "vae"), given.epochs, strict=True))[model]
    steps = str(epochs * (60_000 // batch))
    options = ("--size", str(size), "--batch-size", str(batch), "--steps", steps, *options)
    options = (*options, "--precision", given.precision)
    folder = given.outdir / "-".join([model, *(option.lstrip("-") for option in options)])
    for run in folder.glob(f"*/checkpoints/step-{int(steps):08d}.pt"):
        return run.parent.parent
    command = ["train.py", model, "--data", "mnist", *options, "--snapshot-every", "100000"]
    print("$ python", *command, flush=True)
    command += ["--data-root", str(given.data_root), "--outdir", str(folder)]
    clock = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    print(f"{time.perf_counter() - clock:.0f} s")
    return max(folder.iterdir())


def main() -> None:
    """Train what is not there yet, score, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["mnist"])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument(
        "--epochs", type=int, nargs=3, default=[2, 5, 10], metavar=("CLASSIFIER", "DCGAN", "VAE")
    )
    given = parser.parse_args()
    given.data_root, given.outdir = given.data_root.resolve(), given.outdir.resolve()
    if not (given.data_root / "MNIST").is_dir():
        sys.exit(f"{given.data_root}: holds no MNIST folder; name its parent with --data-root")

    run = trained(given, "classifier", 32, 128)
    network = open_run(run, device="cpu").modules["classifier"]
    figures = {"classifier_accuracy": accuracy(network, given.data_root)}
    print(f"classifier: {figures['classifier_accuracy']:.2%} of test digits right", flush=True)

    run = trained(given, "dcgan", 32, 64, "--lr", "2e-3", "--ema-half-life", "30000")
    score, shares = classifier_score(network, run)
    figures |= {"dcgan_score": score, "dcgan_shares": shares.tolist()}
    print(f"dcgan: score {score:.2f} of 10, rarest class {shares.min():.1%}", flush=True)

    run = trained(given, "vae", 28, 128)
    figures["vae_negative_elbo"] = test_negative_elbo(run, given.data_root)
    print(f"vae: test −ELBO {figures['vae_negative_elbo']:.2f} nats per image")
    (given.outdir / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
