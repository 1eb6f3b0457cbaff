"""Train, kill at random, resume, sample, analyze, for an hour; check that nothing is ever lost.

    python tests/slow/soak.py --minutes 60

Each round starts train.py with `--resume auto` and ends it by a signal at a random moment (on
starting, between steps, while it saves), or lets its files grow to a random size only, as on a full
disk. After each round every checkpoint must
be whole, those that an unbroken run of the same seed has as well must equal its own bit by bit, and
so must the rows of metrics.jsonl. In between samples are drawn and measured by processes that are
killed and started again. A run that came to its end must equal the unbroken one in every file.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.config.run import MODELS
from gen.runs.checkpoint import run_checkpoints
from gen.runs.open import load, read_file
from gen.sampling.seeds import sample_images
from tests.equality import content_differences, rows, run_differences

SMALL = ["--size", "16", "--width", "4", "--batch-size", "8", "--device", "cpu", "--flip"]
SMALL += ["--snapshot-every", "60", "--log-every", "7"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
SIGNALS += [signal.SIGKILL, signal.SIGUSR2]


class Lost(Exception):
    """Something that was saved is not there, or not what it was."""


def require(fact: bool, text: str) -> None:
    """Raise Lost unless `fact`."""
    if not fact:
        raise Lost(text)


class Soak:
    """One hour of trouble in one folder."""

    def __init__(self, folder: Path, steps: int, seed: int) -> None:
        self.folder, self.steps = folder, steps
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        (folder / "data").mkdir()
        images = np.random.default_rng(0).integers(0, 256, (61, 16, 16, 3), np.uint8)
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / "data" / f"{index:02d}.png")

    def command(self, model: str, outdir: str, *more: str) -> list[str]:
        """train.py for one small run."""
        return [
            sys.executable, "train.py", model, "--data", str(self.folder / "data"), *SMALL,
            "--steps", str(self.steps), "--outdir", str(self.folder / outdir), *more,
        ]  # fmt: skip

    def broken(self, command: list[str], longest: float, ready: str = "") -> int:
        """Run a command and end it at a random moment; returns its exit code.

        Three times in four the clock starts when `ready` is on its stderr; once in six, the disk is
        full.
        """
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        full = self.random.random() < 1 / 6
        if full:  # also while files of TensorBoard, rows, checkpoints and samples grow
            size = self.random.choice([1, 20, 60, 200])  # KiB
            command = ["bash", "-c", f'ulimit -f {size}; exec "$@"', "-", *command]
        process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        said = ""
        if ready and self.random.random() < 0.75:
            for line in process.stderr:
                said += line
                if ready in line:
                    break
        try:
            said += process.communicate(timeout=self.random.uniform(0, longest))[1]
        except subprocess.TimeoutExpired:
            number = self.random.choice(SIGNALS)
            process.send_signal(number)
            if self.random.random() < 0.1:  # some users press twice
                process.send_signal(number)
            said += process.communicate()[1]
            self.counts[number.name] += 1
        require("Traceback" not in said or process.returncode < 0, said)
        good = {0, *(-number for number in SIGNALS), *(128 + number for number in SIGNALS)}
        if full and process.returncode == 1:
            self.counts["disk full"] += 1
            require("File too large" in said, said)
            return 1
        require(process.returncode in good, f"{command} exited {process.returncode}: {said}")
        return process.returncode

    def whole(self, command: list[str]) -> None:
        """Run a command that must succeed."""
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        require(result.returncode == 0, f"{command[1]}: {result.stderr}")

    def check_run(self, run: Path, reference: Path) -> None:
        """Every file is whole, and is what the unbroken run has where both have it."""
        for file in run_checkpoints(run):
            content, twin = read_file(file), reference / "checkpoints" / file.name
            self.counts["checkpoints read"] += 1
            if twin.exists():
                ours, theirs = ({**c, "config": None} for c in (content, read_file(twin)))
                wrong = content_differences(ours, theirs)
                require(not wrong, f"{file} differs in {wrong[:3]}")
                self.counts["checkpoints equal"] += 1
        if (run / "metrics.jsonl").exists():
            ours, theirs = rows(run), rows(reference)
            require(ours == theirs[: len(ours)], f"{run}/metrics.jsonl is not that of {reference}")

    def sample_and_measure(self, run: Path) -> None:
        """Samples and a report by processes that are ended and started again."""
        if not run_checkpoints(run):
            return
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        sample = [sys.executable, "sample.py", str(run), "--seeds", "0-63", "--device", "cpu"]
        analyze = [sys.executable, "analyze.py", "images", str(run), "--num", "128"]
        analyze += ["--report", str(folder / "report")]
        for command in ([*sample, "--npy", str(folder / "samples.npy")], analyze):
            for _ in range(self.random.randint(0, 3)):
                if not self.broken(command, 8.0):
                    break
                for file in folder.glob("*.npy"):  # killed when it was as good as done
                    require(len(np.load(file)) == 64, "half-written samples")
            self.whole(command)  # over what is there, whole or not at all
            self.counts[f"{command[1]} done"] += 1
        images = sample_images(load(run, device="cpu"), range(64)).permute(0, 2, 3, 1).numpy()
        require(np.array_equal(np.load(folder / "samples.npy"), images), "samples differ")
        require((folder / "report" / "index.html").is_file(), "no report")

    def one_run(self, model: str, number: int, until: float) -> None:
        """Bring one run to its end through kills."""
        reference = next((self.folder / f"whole-{model}").glob("*"))
        outdir = f"{number:03d}-{model}"
        killed = 1
        while killed:
            workers = str(self.random.choice([0, 2]))
            command = self.command(model, outdir, "--resume", "auto", "--workers", workers)
            self.counts["rounds"] += 1
            killed = self.broken(command, 5.0, ready="→") if time.time() < until else 0
            if not killed:
                self.whole(command)
            runs = sorted((self.folder / outdir).glob("*"))
            for run in runs:
                self.check_run(run, reference)
            if runs and self.random.random() < 0.2:
                self.sample_and_measure(runs[-1])
        wrong = [w for w in run_differences(runs[-1], reference) if "config" not in w]
        require(not wrong, f"{runs[-1]} ends otherwise than {reference}: {wrong[:5]}")
        self.counts["runs ended equal"] += 1

    def run(self, minutes: float, models: list[str]) -> None:
        """Unbroken runs to compare with, then trouble until the time is over."""
        until = time.time() + 60 * minutes
        for model in models:
            self.whole(self.command(model, f"whole-{model}"))
        number = 0
        while time.time() < until:
            self.one_run(models[number % len(models)], number, until)
            number += 1
            told = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
            print(f"{time.strftime('%H:%M:%S')} {told}", flush=True)


def main() -> None:
    """Parse, soak, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=1500, help="length of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument(
        "--models", nargs="+", default=["dcgan", "vae", "vaegan"], choices=list(MODELS)
    )
    arguments = parser.parse_args()
    clock = time.time()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), arguments.steps, arguments.seed)
        soak.run(arguments.minutes, arguments.models)
    kills = sum(count for name, count in soak.counts.items() if name.startswith("SIG"))
    minutes = (time.time() - clock) / 60
    print(f"{soak.counts['rounds']} rounds, {kills} kills in {minutes:.0f} minutes; nothing lost")


if __name__ == "__main__":
    main()
