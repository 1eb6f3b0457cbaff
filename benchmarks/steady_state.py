"""Lines that `steady_state` predicts against lines measured in images, over networks and lines.

    python benchmarks/steady_state.py [RUN …] --plot docs/steady-state.png

Untrained decoders (latents of DCGAN and VAE, kernels 3 to 5, three seeds; batch statistics from 20
passes) and the runs given. For a line of exact period P the layer whose final period is P is fed
with constants, drawn from what it receives; everything after it runs as it is. That is compared
with the mean Fourier coefficient of 1024 images at the same line and channel. Lines that the images
do not show beyond doubt (p ≥ 0.001) are left out, as their measured value is noise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gen.models.decoder import Decoder

from gen.analysis.layers.blame import images_with
from gen.analysis.layers.trace import steady_state, trace
from gen.analysis.measure.meter import measure
from gen.runs.open import load
from gen.sampling.seeds import draw_latents

IMAGES = 1024
CERTAIN = 1e-3


def untrained(kernel: int, latent: int, seed: int) -> Decoder:
    """A decoder at initialisation, with the batch statistics that a first epoch gives it."""
    torch.manual_seed(seed)
    network = Decoder(latent, (48, 48), 3, 16, "transposed", kernel)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(64, latent))
    return network.eval()


def pairs(network: Decoder) -> list[tuple[complex, complex]]:
    """(predicted, measured) amplitude in grey levels of every line and channel that is found."""
    latents = draw_latents(range(IMAGES), network.latent)
    measurement = measure(images_with(network, latents, {}), value_range=(-1, 1))
    found = []
    for traced in trace(network, latents[:256]).layers:
        period = traced.layer.period
        if period not in measurement.periods or measurement.periods[period].undefined:
            continue
        lines = steady_state(network, traced.layer, traced.local_means, latents[:1]).mean(0)
        for line in measurement.channel_lines:
            if line.period == period and line.line.p_value < CERTAIN:
                row, column = (round(f * period) % period for f in line.frequency)
                predicted = complex(lines[row, column, int(line.channel)]) * 127.5
                found.append((predicted, line.line.amplitude))
    return found


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    networks = {
        f"untrained k{kernel} latent {latent} seed {seed}": untrained(kernel, latent, seed)
        for kernel in (3, 4, 5)
        for latent in (100, 20)
        for seed in (0, 1, 2)
    }
    networks |= {f"trained {path.name}": load(path, device="cpu") for path in given.runs}
    groups: dict[str, list[tuple[complex, complex]]] = {"untrained": [], "trained": []}
    for name, network in networks.items():
        own = pairs(network)
        groups[name.split()[0]] += own
        print(f"{name}: {len(own)} lines{correlations(own)}", flush=True)
    everything = [pair for own in groups.values() for pair in own]
    for name, own in (*groups.items(), ("all", everything)):
        print(f"{name}: {len(own)} lines{correlations(own)}")
    if given.plot:
        draw(groups, given.plot)


def correlations(own: list[tuple[complex, complex]]) -> str:
    """Pearson's r of amplitudes and of their logarithms; cosine of the complex amplitudes."""
    if len(own) < 3:
        return ""
    predicted, measured = np.array(own).T
    logs = np.corrcoef(np.log(np.abs(predicted)), np.log(np.abs(measured)))[0, 1]
    norms = np.linalg.norm(predicted) * np.linalg.norm(measured)
    cosine = np.vdot(predicted, measured).real / norms
    plain = np.corrcoef(np.abs(predicted), np.abs(measured))[0, 1]
    return f", r of amplitudes {plain:.3f}, of their logarithms {logs:.3f}, complex {cosine:.3f}"


def draw(groups: dict[str, list[tuple[complex, complex]]], path: Path) -> None:
    """Scatter plot, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, own), color in zip(groups.items(), ("#56B4E9", "#D55E00"), strict=True):
        if own:
            predicted, measured = np.abs(np.array(own)).T
            axes.loglog(predicted, measured, "o", ms=4, color=color, label=name, alpha=0.7)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.5", lw=0.8)
    axes.set(xlabel="predicted amplitude (grey levels)", ylabel="measured amplitude (grey levels)")
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
