"""Does bf16 train as well as fp32? `python benchmarks/precision.py --data-root DIR`.

Trains small DCGANs on real digits, both precisions from the same seeds, and scores 10,000 samples
of each by a classifier, as `benchmarks/quality.py` does: the precisions may differ by no more than
seeds do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from quality import ROOT, classifier_score, train_classifier

OPTIONS = ["--size", "32", "--width", "16", "--lr", "2e-3", "--steps", "900"]


def score(given: argparse.Namespace, network, precision: str, seed: int) -> float:
    """Classifier score of one run; a run that is there is scored again, not trained again."""
    folder = given.outdir / f"{precision}-{seed}"
    if not list(folder.glob("*/checkpoints/step-00000900.pt")):
        command = [sys.executable, "train.py", "dcgan", "--data", "mnist", *OPTIONS]
        command += ["--precision", precision, "--seed", str(seed), "--outdir", str(folder)]
        subprocess.run([*command, "--data-root", str(given.data_root)], cwd=ROOT, check=True)
    return classifier_score(network, max(folder.glob("0*")))[0]


def main() -> None:
    """Train what is not there yet, score, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "precision")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.data_root, given.outdir = given.data_root.resolve(), given.outdir.resolve()
    network = train_classifier(given.data_root, epochs=1)
    scores: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in range(given.seeds):
        for precision, values in scores.items():
            values.append(score(given, network, precision, seed))
            print(f"{precision} seed {seed}: {values[-1]:.2f}", flush=True)
    for precision, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{precision}: mean {statistics.mean(values):.2f}, between seeds ±{spread:.2f}")
    (given.outdir / "precision.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
