"""Print how well grids are explained and repaired: every figure next to what it should be.

    python benchmarks/accuracy/explain.py               all tables, about 10 minutes of one core
    python benchmarks/accuracy/explain.py --only marked  one table: marked, predicted, finetune

*marked*: random networks of three layers of which one was made uneven; blame must name it.
*predicted*: networks of every upsampler, random and trained, and published ones of
../shared/data/weights where that is there. The change that blame predicts for balancing a layer
against the change that balanced weights make on fresh latents, and what `repair` writes, judged on
fresh latents by the paired test.
*finetune*: what fine-tuning the last enlarging layer does to networks that `repair` refuses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
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
from gen.analysis.layers.phases import decibels, smooth
from gen.analysis.layers.repair import (
    Repair,
    Trial,
    Trials,
    Weights,
    find_parameters,
    level,
    repair,
    replaced,
)
from gen.analysis.layers.steps import find_layers, list_periods
from gen.data.datasets import load_dataset
from gen.system.errors import InputError
from tests import foreign_networks
from tests.analysis.layers import networks, test_blame

WEIGHTS = ROOT.parent / "shared" / "data" / "weights"
TUNING, RATE, PENALTY = 300, 3e-3, 1.0  # steps; per standard deviation of weights; of changes
NUM = 256  # latents of the prediction, and as many fresh ones
STEPS = 400  # of training
REFUSED = (  # of those that hold a grid
    "transposed k4, random", "transposed k3, random", "transposed k3, trained",
    "transposed k5, random", "unet, random", "dcgan_mnist_ryhan",
)  # fmt: skip
AGAINST = "activations, against balanced weights"
SIGNS = {"activations": "a", AGAINST: "b", "weights": "w"}


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


def cases(seed: int = 1, names: Collection[str] = ()) -> Iterator[Case]:
    """Networks of every upsampler, random and trained; others; for seed 1, published ones.

    With `names`, those of these names.
    """

    def wanted(name: str) -> bool:
        return not names or name in names

    data = load_dataset("shapes", root="data", size=(32, 32), channels=3, count=512)
    images = data.fetch(range(512)).images.float() / 127.5 - 1
    kinds = [(upsample, kind.kernel_sizes[0]) for upsample, kind in UPSAMPLERS.items()]
    for upsample, kernel in [*kinds, ("transposed", 3), ("transposed", 5)]:
        for trained in (False, True):
            how = "trained" if trained else "random"
            name = f"{upsample} k{kernel}, {how}"
            if not wanted(name):
                continue
            torch.manual_seed(seed)
            decoder = Decoder(16, (32, 32), 3, 16, upsample, kernel)
            decoder = train(decoder, images, 16) if trained else warm(decoder)
            yield Case(name, decoder.eval(), normal(16))
    torch.manual_seed(seed - 1)
    for name in ("unet", "super_resolution", "autoencoder", "tokens", "wavelet", "frames"):
        network, draw = getattr(networks, name)()
        if not wanted(f"{name}, random"):
            continue
        yield Case(f"{name}, random", network.eval(), draw)
    if seed > 1:
        return
    for file, build, value_range in (
        ("dcgan_mnist_ryhan.pth", foreign_networks.dcgan_mnist, (-1.0, 1.0)),
        ("vae_celeba_yanndubs.pt", foreign_networks.vae_celeba, (0.0, 1.0)),
        ("cwgangp_resize_mnist_hayato.pth", foreign_networks.resize_mnist, (-1.0, 1.0)),
    ):
        if not wanted(Path(file).stem):
            continue
        if not (WEIGHTS / file).is_file():
            print(f"{file}: skipped, {WEIGHTS} is not there")
            continue
        made = build(WEIGHTS / file)
        network, draw = made if isinstance(made, tuple) else (made, normal(made.latent))
        yield Case(Path(file).stem, network.eval(), draw, value_range)


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
    """Predicted and measured change of every share that is certain, by what is compared.

    A prediction is compared with the same balancing of fresh latents, and that by activations also
    with balanced weights, where a layer has such.
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
        ways = dict.fromkeys(way for _, way, _ in rows)
        measured = {way: changed(case, layer, fresh, way, [*found.periods]) for way in ways}
        for period, way, share in rows:
            yield way, share.balanced_db, measured[way][period]
            if way == "activations":
                weights = measured.get("weights", measured[way])
                yield AGAINST, share.balanced_db, weights[period]


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
    points: dict[str, list[tuple[float, float]]] = {}
    written = harmed = 0
    print("\nnetwork: certain shares, predicted → measured change in dB; repair")
    print("a: by activations, b: against balanced weights, w: by weights")
    for case in cases():
        everything = case.draw(2 * NUM)
        inputs, fresh = everything[:NUM], everything[NUM:]
        layers = find_layers(case.network, inputs[:2]).layers
        periods = list_periods(layers)
        found = blame(case.network, inputs, case.value_range, periods)
        rows = list(predict(case, found, fresh))
        for way, a, b in rows:
            points.setdefault(way, []).append((a, b))
        shown = ", ".join(f"{SIGNS[way]} {a:+.1f} → {b:+.1f}" for way, a, b in rows) or "none"
        text, wrote, worse = judge(case, inputs, fresh, periods)
        written, harmed = written + wrote, harmed + worse
        print(f"  {case.name}: {shown}\n    {text}", flush=True)
    print("\npredicted against measured change (must: correlation ≥ 0.9)")
    for way, pairs in points.items():
        a, b = np.array(pairs).T
        same = float((np.sign(a) == np.sign(b))[np.maximum(abs(a), abs(b)) > 1].mean())
        print(
            f"  by {way:<38}{len(pairs)} changes, correlation {np.corrcoef(a, b)[0, 1]:.3f}, "
            f"RMS difference {np.sqrt(np.mean((a - b) ** 2)):.1f} dB, sign right in {same:.0%} of "
            "those above 1 dB"
        )
    print(f"\nrepairs written {written}, worse on fresh latents (must: 0) {harmed}")


def line_waves(trials: Trials, size: Sequence[int]) -> Tensor:
    """(K, H, W): exp(−2πj f·n) under a Hann window, for all lines that can be measured."""
    y, x = (torch.arange(side) for side in size)
    lines = dict.fromkeys(trials.reading.line)
    waves = [torch.exp(-2j * torch.pi * (fy * y[:, None] + fx * x)) for fy, fx in lines]
    window = torch.outer(*(torch.hann_window(side) for side in size))
    return torch.stack(waves) * (window / window.sum())


def tuned(case: Case, found: Repair, trials: Trials) -> Weights:
    """Fine-tune the last enlarging layer against the lines of its images of the trials' inputs.

    Minimized is the power of all lines, and of those that follow the brightness of the image, plus
    PENALTY times the power of all that changes in the images.
    """
    network, half, name = case.network, NUM // 2, next(iter(found.old))
    plain = torch.cat([*generate(network, trials.inputs)])
    light = smooth(plain, [max(trials.reading.period)] * 2)
    light = (light - light.mean((-2, -1), keepdim=True)) / light.std((-2, -1), keepdim=True)
    waves, contrast = line_waves(trials, plain.shape[-2:]), plain.var((-2, -1)).mean()
    weight = network.get_parameter(name).requires_grad_(True)
    optimizer = torch.optim.Adam([weight], RATE * float(found.old[name].std()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TUNING)
    for step in range(TUNING):
        at = slice(half * (step % 2), half * (step % 2) + half)
        images = network(trials.inputs[at])
        maps = torch.stack([images, images * light[at]]).mean(1).to(waves)
        power = torch.einsum("mchw,khw->mck", maps, waves).abs().square().sum() / maps.shape[1]
        loss = power + PENALTY * (images - plain[at]).square().mean()
        optimizer.zero_grad()
        (loss / contrast).backward()
        optimizer.step()
        schedule.step()
    new = weight.detach().clone()
    weight.detach().copy_(found.old[name])
    weight.requires_grad_(False)
    return {name: new}


def finetune() -> None:
    """What fine-tuning does to networks that `repair` refuses, on fresh latents.

    PENALTY was chosen for the networks of seed 1; those of seed 2 check it.
    """
    print("\nfine-tuned where repair refuses: levels in dBc on fresh latents, by the paired test")
    for seed in (1, 2):
        trials = [trial for case in cases(seed, REFUSED) if (trial := finetune_case(case))]
        kept = [trial for trial in trials if not trial.refusal]
        steady = [t for t in kept if not any(change.growth for change in t.changes.values())]
        print(
            f"seed {seed}: the paired test accepts {len(kept)} of {len(trials)}, and "
            f"{len(steady)} without any line that grows (must for a second way of repair: most)"
        )


def finetune_case(case: Case) -> Trial | None:
    """Fine-tune where `repair` refuses, print and return what that does to fresh latents."""
    everything = case.draw(2 * NUM)
    inputs, fresh = everything[:NUM], everything[NUM:]
    periods = list_periods(find_layers(case.network, inputs[:2]).layers)
    try:
        found = repair(case.network, inputs, None, case.value_range, periods)
    except InputError:
        return None  # no weights to change
    if not found.refused or not found.before.detected:
        return None
    weights = tuned(case, found, Trials(case.network, inputs, periods, case.value_range, 64))
    trials = Trials(case.network, fresh, periods, case.value_range, 64)
    trial = trials.run(weights)
    levels = [
        f"period {n} {level(trials.before, n):.1f} → {level(trial.after, n):.1f}"
        + (f" (a line gains {decibels(change.growth):.1f})" if change.growth else "")
        for n, change in trial.changes.items()
    ]
    removed = decibels(sum(change.removed for change in trial.changes.values()))
    other = decibels(trial.changed - trial.pattern)
    print(
        f"  {case.name}: {', '.join(levels)}; removed {removed:.1f}, other changes {other:.1f}: "
        f"{'refused' if trial.refusal else 'accepted'}",
        flush=True,
    )
    return trial


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = {"marked": marked, "predicted": predicted, "finetune": finetune}
    parser.add_argument("--only", choices=tables, help="one table")
    chosen = parser.parse_args().only
    start = time.process_time()
    for name, table in tables.items():
        if chosen in (None, name):
            table()
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
