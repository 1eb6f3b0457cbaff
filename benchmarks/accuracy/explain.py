"""Print how well grids are explained and repaired: every figure next to what it should be.

    python benchmarks/accuracy/explain.py               all tables, about 6 minutes on one core
    python benchmarks/accuracy/explain.py --only marked  one table: marked, predicted

*marked*: random networks of three layers of which one was made uneven; blame must name it.
*predicted*: networks of every upsampler, random and trained, and published ones of
../shared/data/weights where that is there. The change that blame predicts for balancing a layer
against the change that balanced weights make on fresh latents, and what `repair` writes, judged on
fresh latents by the paired test.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.models.decoder import Decoder
from gen.models.kinds import UPSAMPLERS

from gen.analysis.layers.blame import Amplitudes, Blame, Layer, blame, generate
from gen.analysis.layers.repair import Trials, Weights, find_parameters, repair, replaced
from gen.analysis.layers.steps import find_layers, list_periods
from gen.data.datasets import load_dataset
from gen.system.errors import InputError
from tests import foreign_networks
from tests.analysis.layers import networks, test_blame

WEIGHTS = ROOT.parent / "shared" / "data" / "weights"
NUM = 256  # latents of the prediction, and as many fresh ones
STEPS = 400  # of training


@dataclass
class Case:
    """A network, how its inputs are drawn, and its values of black and white."""

    name: str
    network: nn.Module
    draw: Callable[[int], Tensor]
    value_range: tuple[float, float] = (-1.0, 1.0)


def normal(latent: int) -> Callable[[int], Tensor]:
    """draw(n): the same normal latents, of which the first n are taken."""
    return lambda count: torch.randn(4 * NUM, latent, generator=torch.Generator().manual_seed(0))[
        :count
    ]


def train(decoder: nn.Module, images: Tensor, latent: int) -> nn.Module:
    """Fit a decoder to images, each with a random projection of its pixels as latent."""
    torch.manual_seed(0)
    flat = images.flatten(1) - images.flatten(1).mean(0)
    latents = flat @ torch.randn(flat.shape[1], latent)
    latents = latents / latents.std(0)
    optimizer = torch.optim.Adam(decoder.parameters(), 2e-3)
    for step in range(STEPS):
        at = torch.arange(32) + 32 * step
        at = at % len(images)
        loss = (decoder(latents[at]) - images[at]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.eval()


def cases() -> Iterator[Case]:
    """Networks of every upsampler, random and trained; others; published ones."""
    data = load_dataset("shapes", root="data", size=(32, 32), channels=3, count=512)
    images = data.fetch(range(512)).images.float() / 127.5 - 1
    kinds = [(upsample, kind.kernel_sizes[0]) for upsample, kind in UPSAMPLERS.items()]
    for upsample, kernel in [*kinds, ("transposed", 3), ("transposed", 5)]:
        for trained in (False, True):
            torch.manual_seed(1)
            decoder = Decoder(16, (32, 32), 3, 16, upsample, kernel)
            decoder = train(decoder, images, 16) if trained else warm(decoder)
            how = "trained" if trained else "random"
            yield Case(f"{upsample} k{kernel}, {how}", decoder.eval(), normal(16))
    torch.manual_seed(0)
    for name in ("unet", "super_resolution", "autoencoder", "tokens", "wavelet", "frames"):
        network, draw = getattr(networks, name)()
        yield Case(f"{name}, random", network.eval(), draw)
    for file, build, value_range in (
        ("dcgan_mnist_ryhan.pth", foreign_networks.dcgan_mnist, (-1.0, 1.0)),
        ("vae_celeba_yanndubs.pt", foreign_networks.vae_celeba, (0.0, 1.0)),
        ("cwgangp_resize_mnist_hayato.pth", foreign_networks.resize_mnist, (-1.0, 1.0)),
    ):
        if not (WEIGHTS / file).is_file():
            print(f"{file}: skipped, {WEIGHTS} is not there")
            continue
        made = build(WEIGHTS / file)
        network, draw = made if isinstance(made, tuple) else (made, normal(made.latent))
        yield Case(file.rpartition(".")[0], network.eval(), draw, value_range)


def warm(decoder: nn.Module) -> nn.Module:
    """Batch statistics of normal latents."""
    with torch.no_grad():
        for _ in range(20):
            decoder(torch.randn(64, decoder.latent))
    return decoder


def marked() -> None:
    """In how many of 20 networks blame names the layer that was made uneven."""
    found = np.array([test_blame.named(seed) for seed in range(20)])
    ways = ("activations", "weights")
    print("\nmarked layer named, of 20 networks (must: 20)")
    for way, count in zip(ways, found.sum(0), strict=True):
        print(f"  by {way:<12}{count}")


def changed(case: Case, layer: Layer, inputs: Any, way: str, periods: Any) -> dict[int, float]:
    """Change in dB of every period, on some inputs, when a layer is balanced."""
    reading = Amplitudes(periods, case.value_range)
    before = reading(generate(case.network, inputs))
    after = None
    if way == "weights":
        try:
            names = find_parameters(case.network, layer)
        except InputError:
            pass  # computed weights: the counterfactual is all that there is
        else:
            weights = dict(zip(names, layer.balanced(), strict=False))
            with replaced(case.network, weights):
                after = reading(generate(case.network, inputs))
    if after is None:
        after = reading(generate(case.network, inputs, layers=[layer], way=way))
    owner = np.array(reading.period)
    power = {
        p: [float((np.abs(u.mean(0)[owner == p]) ** 2).sum()) for u in (before, after)]
        for p in dict.fromkeys(reading.period)
    }
    return {p: 10 * np.log10(b / a) for p, (a, b) in power.items()}


def predict(case: Case, found: Blame, fresh: Any) -> Iterator[tuple[str, float, float]]:
    """Predicted and measured change of every share that is certain, by way of balancing.

    Both predictions are compared with balanced weights, where a layer has such.
    """
    for layer in {s.layer for shares in found.periods.values() for s in shares}:
        rows = [
            (period, way, share)
            for period, shares in found.periods.items()
            if found.images.periods[period].detected
            for s in shares
            if s.layer is layer
            for way, share in s.ways.items()
            if share.low > 0 or share.high < 0
        ]
        if not rows:
            continue
        way = "weights" if any(w == "weights" for _, w, _ in rows) else "activations"
        measured = changed(case, layer, fresh, way, [*found.periods])
        for period, predicted_by, share in rows:
            yield predicted_by, share.balanced_db, measured[period]


def judge(case: Case, inputs: Any, fresh: Any, periods: Any) -> tuple[str, bool, bool]:
    """What repair does, whether a file would be written, and whether that is worse."""
    try:
        found = repair(case.network, inputs, None, case.value_range, periods)
    except InputError as error:
        return f"none: {error}"[:90], False, False
    if found.refused:
        return f"refused: {found.refused}"[:90], False, False
    weights: Weights = found.weights
    trial = Trials(case.network, fresh, periods, case.value_range, 64).run(weights)
    grown = [p for p, change in trial.changes.items() if change.growth]
    period = found.layer.period
    levels = [found.before, found.after, trial.after]
    shown = [m.periods[period].level_dbc for m in levels]
    text = " → ".join("none" if v is None else f"{v:.1f}" for v in shown[:2])
    last = "none" if shown[2] is None else f"{shown[2]:.1f}"
    text = f"period {period}: {text}, fresh {last} dBc"
    for number in grown:
        change = trial.changes[number]
        gain = 10 * np.log10(1 + change.growth / change.before)
        text += f"; period {number} gains {gain:.2f} dB"
    return text, True, bool(trial.worse)


def predicted() -> None:
    """Predicted against measured changes, and repairs on fresh latents."""
    points: dict[str, list[tuple[float, float]]] = {"activations": [], "weights": []}
    written = harmed = 0
    print("\nnetwork: certain shares, predicted → measured change in dB; repair")
    for case in cases():
        everything = case.draw(2 * NUM)
        inputs, fresh = everything[:NUM], everything[NUM:]
        layers = find_layers(case.network, inputs[:2]).layers
        periods = list_periods(layers)
        found = blame(case.network, inputs, case.value_range, periods)
        rows = list(predict(case, found, fresh))
        for way, a, b in rows:
            points[way].append((a, b))
        shown = ", ".join(f"{way[0]} {a:+.1f} → {b:+.1f}" for way, a, b in rows) or "none"
        text, wrote, worse = judge(case, inputs, fresh, periods)
        written, harmed = written + wrote, harmed + worse
        print(f"  {case.name}: {shown}\n    {text}", flush=True)
    print("\npredicted against measured change (must: correlation ≥ 0.9)")
    for way, pairs in points.items():
        a, b = np.array(pairs).T
        same = float((np.sign(a) == np.sign(b))[np.maximum(abs(a), abs(b)) > 1].mean())
        print(
            f"  by {way:<12}{len(pairs)} changes, correlation {np.corrcoef(a, b)[0, 1]:.3f}, "
            f"RMS difference {np.sqrt(np.mean((a - b) ** 2)):.1f} dB, sign right in {same:.0%} of "
            "those above 1 dB"
        )
    print(f"\nrepairs written {written}, worse on fresh latents (must: 0) {harmed}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = {"marked": marked, "predicted": predicted}
    parser.add_argument("--only", choices=tables, help="one table")
    chosen = parser.parse_args().only
    start = time.process_time()
    for name, table in tables.items():
        if chosen in (None, name):
            table()
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
