"""docs/performance.md and its plot, from one run of benchmarks/speed/performance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timing import Row, markdown

PAGE = """# Performance

Written by `python benchmarks/speed/performance.py --write-docs` in {seconds} s (`make bench` prints the
same table and leaves this page alone). {processor}, {threads} threads, torch {torch}, load {load}
before the start, {gpu}. Counted: {clock}; start-up, folders of samples and data always in
wall-clock time. Matrix products reach {fp32:,.0f} GFLOP/s in fp32 and {bf16:,.0f} in bf16 here, a
copy {copy:.0f} GB/s. Everything alternates with its baseline in one process (A B A B …), and
medians are compared; the machine is shared, so look at ratios. The last column says which targets
were met.

{table}

{beyond}## How cost grows

![Time and memory against size, log-log](img/performance.png)

Lines of slope 1 are dotted. {memory}Of a stream nothing is kept but 16 bytes per image and 8 per
lattice line. The two processes of the table share this machine with the one that they are
compared with: on two cores, one process of two threads has the same to work with.

## What makes it fast, and what stands in the way

Figures without a row above come from single trials while this was written, in processor time of
one thread on a busy machine.

- **Start**: half the time to the first step is importing torch and the step itself. `shapes` are
  drawn when they are fetched (20,000 at the start took 2 s), and Adam leaves out the guards that
  import torch.compile (1.3 s). The snapshot at step 0 stays: it finds a full disk before anything
  is trained, and begins the history of the grid.
- **Training**: `channels_last`, frozen players, fused Adam; metrics stay on the device until they
  are logged. `--precision bf16` on a processor that multiplies bf16 itself. Layers with many
  weights and small maps train as matrix products of our own (`models/strided.py`), where oneDNN
  takes 1.3–1.5 times as long in fp32 and 2–5 times in bf16: before it the rows of 64×64 stood at
  2.54× in bf16 and 1.06× in fp32. Other layers keep oneDNN's. Gradients of the last map keep its
  memory order, which is a twentieth of a step in bf16 at 32×32. The example needs as many products
  as we do: it draws images once per step, we draw them anew for the generator's turn, and that is
  the pass which frozen weights save. Not in, since they buy nothing or next to it: malloc
  settings that keep memory (the system takes under 3 % of a step), torch.compile, the image's own
  layer as interleaved convolutions (faster forward, slower backward).
- **Sampling**: `sample.py --fast fp32|bf16` folds batch norm into the weights, computes the stem
  as one matrix product in the right memory order and the last layer as four interleaved
  convolutions. fp32 stays within 1e-5 of the plain decoder and bf16 within 4 grey levels on
  random weights (`tests/test_fast_sampling.py`); an image is a function of its seed alone in each
  mode. It is asked for and not the default, since files of the two differ in single grey levels
  and a folder must be continued as it was begun. What is left are the large transposed
  convolutions, which are oneDNN's as they stand.
- **A folder of samples**: one batch is encoded and written while the next is drawn. Files are
  written beside and renamed; the disk is waited for once, at the end, as two fsyncs took longer
  than encoding an image (0.67 of 1.3 ms), and a folder that is continued checks what it holds.
  Drawing leaves one core to the encoder: on two cores 946 images per second instead of 730.
- **Measuring**: a part of the images per core, merged at the end; real transforms of the half
  plane; low-passed images by two matrix products from the baseband's bins; of the even map u·r_B
  the upper half; the windows of the traces inside the matrices that fold them; float64 sums by
  numpy's `einsum`, which converts in parts that stay in the cache, and of the mean spectrum by one
  conversion for its sum and its rings; chunks of 2¹⁸ pixels, since starting some 150 operations
  takes a millisecond; rings by indexed addition, where a matrix took gigabytes at 1024×1024. Sums
  over images are the same to 1e-9 for any split. Against the version before, alternating, medians:
  the full measurement 1.3–1.5× at 32×32, 1.4× at 64×64 and 1.5× at 256×256, the mean spectrum
  1.2×, 1.2× and 1.3×. One core does 2.8–3.1×, 1.4–1.6× and 1.1–1.2× of the azimuthal loop. What
  stands in the way of 8×, timed line by line:

  | full measurement, µs per image, one core | 32×32 | 64×64 |
  |---|---|---|
  | float64 sums over images, which buy the 1e-9 | 10.4 | 45.6 |
  | low-passed images, their products with the whitened one | 6.4 | 28.4 |
  | traces | 4.6 | 18.4 |
  | whitened image and u: two inverse transforms | 4.6 | 16.4 |
  | input, checks for NaN, copies and flatness, mean, window | 3.7 | 13.8 |
  | folding and coefficients | 1.5 | 8.8 |
  | power, logarithm, fit, weights | 2.3 | 8.6 |
  | taps around the lines | 2.0 | 7.4 |
  | radial profile | 1.7 | 6.2 |
  | rfft2 | 1.4 | 6.1 |

  The loop takes 122 and 260 µs, of which 8× leaves 15 and 32. In the mean spectrum, squares,
  conversion, sum and rings each pass over as much memory as the transform, which is a third of it.
  A folder of 64×64 PNG files costs 181 µs of one core per image to read, and 179 to measure.
- **Data**: sets that fit are uint8 in memory; a batch is one indexed copy.

## Where a step's time goes

`python benchmarks/step_profile.py --precision fp32` and `bf16`: 32×32, width 32, batch 64, one
thread, in % of a step of 1,594 and 1,791 operations.

| | fp32 | bf16 |
|---|---|---|
| convolutions and matrix products | 74.9 | 59.2 |
| activations | 6.7 | 12.3 |
| batch norm | 8.1 | 9.7 |
| copies, casts, patches | 2.1 | 4.9 |
| optimizer | 1.5 | 2.6 |
| data | 0.9 | 1.5 |
| norms of gradients and weights | 0.5 | 0.9 |
| average of weights | 0.3 | 0.5 |
| all else: starting operations, losses | 5.0 | 8.4 |

In bf16 two fifths of a step are no matrix product. What a user has beyond the networks, averages,
norms and data, is 3 % of it.

## Precision

`python benchmarks/precision.py` trains DCGANs on MNIST (32×32, width 16, 900 steps) from the same
seeds in both precisions and scores 10,000 samples of each by a classifier (10 is the most; these by
one of two epochs, where `quality.py` now takes eight):

| seed | 0 | 1 | 2 | mean |
|---|---|---|---|---|
| fp32 | 5.98 | 5.89 | 5.53 | 5.80 ± 0.24 |
| bf16 | 5.80 | 5.74 | 5.73 | 5.76 ± 0.04 |

The means differ by less than seeds do; ± is the standard deviation between them. These are short
runs of a small network, three of each: no loss was found, and a small one is not ruled out. The
networks of [quality](quality.md) train in bf16.

fp32 stays the default, although it is the slower: with bf16 where the processor has it, the same
command would train another network on another machine, and most of what the tests hold to the
last bit is fp32. Where the processor multiplies bf16 itself (`lscpu` shows avx512_bf16 or
amx_bf16), ask for `--precision bf16`; `make demo` does.

## Not measured here

A GPU: none was at hand. The code paths are the same (`--device`, `--precision bf16`, `--compile`,
pinned to nothing) and are exercised on the CPU.
"""
MEMORY = "measuring: MiB above the start against N"


def write(docs: Path, machine: dict[str, Any], rows: list[Row], grown: dict) -> None:
    """Write the page and the plot."""
    machine = machine | {"gpu": machine["gpu"] or "no GPU", "memory": ""}
    if curve := grown.get(MEMORY):
        amounts = [f"{n:,} {mib:.1f} MiB" for n, mib in zip(curve["x"], curve["y"], strict=True)]
        said = "Measuring a stream of 32×32 images adds to a process, by their number: "
        machine["memory"] = f"{said}{', '.join(amounts)}. "
    machine["beyond"] = beyond(rows)
    for row in rows:
        if "processes" in row.section:
            curve = {"x": [1, 2], "y": [row.baseline, row.ours]}
            grown = {**grown, "training: img/s against processes": curve}
    (docs / "performance.md").write_text(PAGE.format(table=markdown(rows), **machine))
    if grown:
        plot(docs / "img" / "performance.png", grown)


def beyond(rows: list[Row]) -> str:
    """Say which targets lie above the limit of this machine that their own row was held to."""
    shares = {row: row.least * row.share / row.ratio for row in rows if row.least and row.share}
    above = [f"{row.least:g}× in “{row.name}” {x:.0%}" for row, x in shares.items() if x > 1]
    if not above:
        return ""
    return f"Targets above this machine's limit, as shares of it: {', '.join(above)}.\n\n"


def plot(path: Path, grown: dict) -> None:
    """One panel per curve, both axes logarithmic."""
    grown = {name: curve for name, curve in grown.items() if min(curve["y"]) > 0}
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = (len(grown) + 1) // 2
    figure, axes = plt.subplots(2, columns, figsize=(3.2 * columns, 5.4), layout="tight")
    for axis in axes.flat[len(grown) :]:
        axis.remove()
    for axis, (name, curve) in zip(axes.flat, grown.items(), strict=False):
        xs, ys = curve["x"], curve["y"]
        axis.loglog(xs, ys, "o-")
        axis.loglog(xs, [ys[0] * x / xs[0] for x in xs], ":", color="grey")
        what, _, where = name.partition(": ")
        axis.set_title(what, fontsize=9)
        axis.set_xlabel(where.partition("against ")[2], fontsize=8)
        axis.set_ylabel(where.partition(" against")[0], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.minorticks_off()
    figure.savefig(path, dpi=80)
    plt.close(figure)
