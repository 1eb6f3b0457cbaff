"""The main job in one command (`make demo`): train, sample and measure a DCGAN and a VAE."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shell(*arguments: str) -> None:
    """Run one of our commands as a user would, and show it."""
    print(f"\n$ python {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def precision() -> str:
    """bf16 where the processor multiplies it natively, else fp32."""
    import torch

    if torch.cuda.is_available():
        return "bf16"
    abilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "fp32"


def main() -> None:
    """Train, sample, measure; end with where to look and what to try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outdir", default="runs/demo", help="parent of the two runs")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[2200, 1000], metavar=("DCGAN", "VAE")
    )
    given = parser.parse_args()
    clock = time.perf_counter()

    common = ["--size", "32", "--width", "32", "--precision", precision(), "--outdir", given.outdir]
    dcgan = [*common, "--lr", "1e-3", "--steps", str(given.steps[0])]
    vae = [*common, "--steps", str(given.steps[1])]
    runs = {}
    for model, options in (("dcgan", dcgan), ("vae", vae)):
        shell("train.py", model, *options)
        run = max((ROOT / given.outdir).glob(f"*-{model}-shapes"))
        runs[model] = run.relative_to(ROOT) if run.is_relative_to(ROOT) else run
        shell("sample.py", str(runs[model]), "--grid", str(runs[model] / "grid.png"))
    trained = time.perf_counter() - clock
    for run in runs.values():
        shell("analyze.py", "images", str(run), "--report", str(run / "report"))

    print(
        f"\nTrained in {trained:.0f} s, measured in {time.perf_counter() - clock - trained:.0f} s."
    )
    print("Pictures and reports:")
    for run in runs.values():
        print(f"  {run / 'grid.png'}  {run / 'report' / 'index.html'}")
    print(
        "Try next:\n"
        f"  python sample.py {runs['dcgan']} --seeds 0-999 --outdir samples/\n"
        f"  python train.py dcgan --data DIR_OF_YOUR_IMAGES --size 64\n"
        f"  {Path(sys.prefix).name}/bin/tensorboard --logdir {given.outdir}"
    )


if __name__ == "__main__":
    main()
