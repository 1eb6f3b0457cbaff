"""docs/performance.md and its plot, from one run of benchmarks/performance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timing import Row, markdown

PAGE = """# Performance

Written by `python benchmarks/performance.py --write-docs` (`make bench` prints the same without
writing this page), in parts put together by `--join`, in {seconds} s; threads:
{threads}, {processor}, torch {torch}, load {load}
before the start, {gpu}. Counted: {clock}; start-up and data in wall-clock time. Matrix products
reach {fp32:,.0f} GFLOP/s in fp32 and {bf16:,.0f} in bf16 here, a copy {copy:.0f} GB/s.
Everything alternates with its baseline in one process (A B A B …), and medians are compared; the
machine is shared, so look at ratios. Start-up was timed while a dozen other processes ran: those
two rows say nothing about a free machine. Two cores at once are still to be measured on one.

{table}

## How cost grows

![Time and memory against size, log-log](img/performance.png)

Lines of slope 1 are dotted. Measuring 16,384 images of 32×32 took no more memory than 512.
Time goes with the number of images, of pixels and of weights; of a
stream nothing is kept but 16 bytes per image and 8 per lattice line.

## What makes it fast, and what each trick buys

Figures without a row above come from single trials while this was written, in processor time.

- **Training**: `channels_last`, frozen players, fused Adam, against the PyTorch example's loop in
  processor time of one thread, without logging, one trial each: 1.26× at 64×64 and 1.24× at 32×32
  (width 32); `--precision bf16`, on a processor that multiplies bf16 itself: 2.9× and 2.4×. The
  targets are 1.35×, 1.4×, 2.3× and 2.5×: one of four is met. Where the table has no rows for
  training, the machine was too busy to alternate whole runs. Not in: malloc settings that keep
  memory, as the system spends 3 % of a step or less on it (they were to win 10 %); an own weight
  gradient of strided convolutions, for want of a trial; torch.compile.
- **Sampling**: `sample.py --fast fp32|bf16` folds batch norm into the weights, computes the stem as
  one matrix product in the right memory order and the last layer as four interleaved convolutions.
  fp32 stays within 1e-5 of the plain decoder and bf16 within 4 grey levels on random weights
  (`tests/test_fast_sampling.py`); an image is a function of its seed alone in each mode. It is
  asked for and not the default, since files of the two differ in single grey levels and a folder
  must be continued as it was begun. One batch is encoded and written while the next is drawn.
- **Measuring**: a part of the images per core, merged at the end; real
  transforms of the half plane; low-passed images by short transforms of the baseband's columns and
  a matrix product; the cosine transform of a quarter plane for the weights; rings of the radial
  profile by indexed addition, where a matrix took gigabytes at 1024×1024. Sums over images stay
  float64 and are the same to 1e-9 for any split; they, and starting some 300 small operations
  per chunk of 2¹⁷ pixels, are what stands between a core and the transforms' own speed.
  Against the version before, one trial each on a busy machine, not alternating: 1.3× at 32×32 and
  1.5× at 64×64 in processor time of one core; whether two cores double it was not measured.
- **Data**: sets that fit are uint8 in memory; a batch is one indexed copy.

## Precision

fp32 is the default; `--precision bf16` is asked for. That bf16 trains as well is to be shown by
`python benchmarks/precision.py` (the same seeds in both precisions, scored by a classifier of real
digits). It has not been run to its end yet, so no default rests on it.

## Not measured here

A GPU: none was at hand. The code paths are the same (`--device`, `--precision bf16`, `--compile`,
pinned to nothing) and are exercised on the CPU. Several processes: `torchrun` is tested for equal
results on two; no speed is claimed on two cores that they would share.
"""


def write(docs: Path, machine: dict[str, Any], rows: list[Row], grown: dict) -> None:
    """Write the page and the plot."""
    machine = machine | {"gpu": machine["gpu"] or "no GPU"}
    page = PAGE.format(table=markdown(rows), **machine)
    (docs / "performance.md").write_text(page)
    if grown:
        plot(docs / "img" / "performance.png", grown)


def plot(path: Path, grown: dict) -> None:
    """One panel per curve, both axes logarithmic."""
    grown = {name: curve for name, curve in grown.items() if min(curve["y"]) > 0}
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(grown), figsize=(3.2 * len(grown), 2.8), layout="tight")
    for axis, (name, curve) in zip(axes, grown.items(), strict=True):
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
