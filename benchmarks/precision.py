"""Does bf16 train as well as fp32? `python benchmarks/precision.py --data-root DIR`.

Trains DCGANs on real digits, both precisions from the same seeds, and scores 10,000 samples of each
by the classifier of `benchmarks/accuracy/quality.py`: the precisions may differ by no more than seeds do.
Prints the scores and writes them to precision.json; a run that is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from quality import CLASSIFIER, ROOT, score_run, trained

from gen.runs.open import open_run

RUN = (
    *("dcgan", "--size", "32", "--width", "16"),
    *("--lr", "2e-3", "--ema-half-life", "10000", "--steps", "900"),
)


def main() -> None:
    """Train what is not there yet, score, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "runs" / "precision")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.data_root, given.outdir = given.data_root.resolve(), given.outdir.resolve()
    given.precision = "fp32"
    run, _ = trained(given, "classifier", CLASSIFIER)
    network = open_run(run, device="cpu").modules["classifier"]
    scores: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in range(given.seeds):
        for given.precision, values in scores.items():
            name = f"{given.precision}-{seed}"
            run, minutes = trained(given, name, (*RUN, "--seed", str(seed)))
            values.append(score_run(network, run)["score"])
            print(f"{name}: score {values[-1]:.3f}, {minutes} minutes", flush=True)
    for precision, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{precision}: mean {statistics.mean(values):.3f}, between seeds ±{spread:.3f}")
    (given.outdir / "precision.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
