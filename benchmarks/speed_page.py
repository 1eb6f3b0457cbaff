"""docs/performance.md and its plot, from one run of benchmarks/performance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timing import Row, markdown

PAGE = """# Performance

Written by `python benchmarks/performance.py --write-docs` in {seconds} s (`make bench` prints the
same table and leaves this page alone). {processor}, {threads} threads, torch {torch}, load {load}
before the start, {gpu}. Counted: {clock}; start-up, folders of samples and data always in
wall-clock time. Matrix products reach {fp32:,.0f} GFLOP/s in fp32 and {bf16:,.0f} in bf16 here, a
copy {copy:.0f} GB/s. Everything alternates with its baseline in one process (A B A B …), and
medians are compared; the machine is shared, so look at ratios. The last column says which targets
were met.

{table}

## How cost grows

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
  are logged. `--precision bf16` on a processor that multiplies bf16 itself. Convolutions are nine
  tenths of a step at 64×64; they are oneDNN's in both loops, so in fp32 there is little left to
  win beside the passes that frozen players save. Not in: malloc settings that keep memory (the
  system takes 1–4 % of a step in fp32 and none in bf16, and it was to be 10 % to be worth it);
  {weight_gradient}; torch.compile, which adds nothing on this processor.
- **Sampling**: `sample.py --fast fp32|bf16` folds batch norm into the weights, computes the stem
  as one matrix product in the right memory order and the last layer as four interleaved
  convolutions. fp32 stays within 1e-5 of the plain decoder and bf16 within 4 grey levels on
  random weights (`tests/test_fast_sampling.py`); an image is a function of its seed alone in each
  mode. It is asked for and not the default, since files of the two differ in single grey levels
  and a folder must be continued as it was begun. {transposed}
- **A folder of samples**: one batch is encoded and written while the next is drawn. Files are
  written beside and renamed; the disk is waited for once, at the end, as two fsyncs took longer
  than encoding an image (0.67 of 1.3 ms), and a folder that is continued checks what it holds.
  Drawing on all cores leaves none for the encoder: the row drawn on one thread shows how well the
  two overlap.
- **Measuring**: a part of the images per core, merged at the end; real transforms of the half
  plane; low-passed images by short transforms of the baseband's columns and a matrix product; the
  cosine transform of a quarter plane for the weights; rings of the radial profile by indexed
  addition, where a matrix took gigabytes at 1024×1024. Sums over images stay float64 and are the
  same to 1e-9 for any split; they, and starting some 300 small operations per chunk of 2¹⁷
  pixels, are what stands between a core and the transforms' own speed.
- **Data**: sets that fit are uint8 in memory; a batch is one indexed copy.

## Precision

{precision}

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
    for row in rows:
        if "processes" in row.section:
            curve = {"x": [1, 2], "y": [row.baseline, row.ours]}
            grown = {**grown, "training: img/s against processes": curve}
    (docs / "performance.md").write_text(PAGE.format(table=markdown(rows), **machine))
    if grown:
        plot(docs / "img" / "performance.png", grown)


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
