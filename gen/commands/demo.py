"""`gen demo`: train, sample and measure a DCGAN and a VAE, from nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import click

from gen.commands.options import Command, GroupedOption, invocation


def shell(*arguments: str) -> None:
    """Run one of our commands as a user would, and show it."""
    click.echo(f"\n$ gen {shlex.join(arguments)}")
    code = subprocess.run([sys.executable, "-m", "gen", *arguments], check=False).returncode
    if code:
        sys.exit(code)


def precision() -> str:
    """bf16 where the processor multiplies it natively, else fp32."""
    import torch

    if torch.cuda.is_available():
        return "bf16"
    abilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "fp32"


def run_demo(outdir: Path, steps: tuple[int, int]) -> None:
    """Train, sample, measure; end with where to look and what to try."""
    clock = time.perf_counter()
    click.echo("Four minutes on two CPU cores; each line below says what is left of its run.")
    common = ["--size", "32", "--precision", precision(), "--outdir", str(outdir)]
    options = {"dcgan": ["--width", "32", "--lr", "1e-3"], "vae": ["--width", "32"]}
    runs = {}
    for (model, own), count in zip(options.items(), steps, strict=True):
        shell("train", model, *common, *own, "--steps", str(count))
        runs[model] = run = max(outdir.glob(f"*-{model}-shapes"))
        shell("sample", str(run), "--grid", str(run / "grid.png"))
    trained = time.perf_counter() - clock
    for run in runs.values():
        shell("images", str(run), "--report", str(run / "report"))
    measured = time.perf_counter() - clock - trained
    click.echo(f"\nTrained in {trained:.0f} s, measured in {measured:.0f} s.")
    click.echo("Pictures and reports:")
    for run in runs.values():
        click.echo(f"  {run / 'grid.png'}  {run / 'report' / 'index.html'}")
    click.echo("Try next:")
    for command in (
        f"sample {runs['dcgan']} --seeds 0-999 --outdir samples/",
        "train dcgan --data DIR_OF_YOUR_IMAGES --size 64",
    ):
        click.echo(f"  {invocation(command)}")
    click.echo(f"  tensorboard --logdir {outdir}")


demo = Command(
    "demo",
    help="Train, sample and measure a DCGAN and a VAE: minutes on a laptop, no data needed.",
    callback=run_demo,
    params=[
        GroupedOption(["--outdir"], type=click.Path(path_type=Path), default="runs/demo",
                      show_default=True, metavar="DIR", help="parent of the two runs"),
        GroupedOption(["--steps"], type=(click.IntRange(1), click.IntRange(1)),
                      default=(1600, 600), show_default=True, metavar="DCGAN VAE",
                      help="lengths of the two runs"),
    ],
    examples="gen demo",
)  # fmt: skip
