"""Speed against what a user would run instead: `make bench` runs this script.

Prints one table and writes it as JSON to runs/performance.json. Functions alternate (A B A B …) and
medians are compared: on a shared machine a single figure means little.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.speed import analysis as speed_analysis
from benchmarks.speed import networks as speed_networks
from benchmarks.speed.timing import Clock, Row, alternate, markdown


def limits() -> dict[str, float]:
    """What this machine can do at most: GFLOP/s of matrix products, GB/s of a copy."""
    found = {}
    for name, dtype, side in (("fp32", torch.float32, 1536), ("bf16", torch.bfloat16, 2048)):
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        (seconds,) = alternate(lambda a=a, b=b: a @ b, repeats=7)
        found[name] = 2 * side**3 / seconds / 1e9
    source = torch.ones(2**25)
    target = torch.empty_like(source)
    (seconds,) = alternate(lambda: target.copy_(source), repeats=7)
    return found | {"copy": 2 * source.nbytes / seconds / 1e9}


SECTIONS = {
    "training": speed_networks.training,
    "processes": speed_networks.processes,
    "sampling": speed_networks.sampling,
    "measuring": speed_analysis.measuring,
    "data": speed_analysis.data,
    "start": speed_networks.start,
}


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Everything of one run: the machine and the rows."""
    start, load = time.perf_counter(), Path("/proc/loadavg")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "clock": "processor time" if given.processor_time else "time",
        "torch": torch.__version__,
        "load": load.read_text().split()[0] if load.exists() else "unknown",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **limits(),
    }
    print(machine, flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, section in SECTIONS.items():
            if not given.only or name in given.only:
                rows += section(machine, Path(folder))
                print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    machine["seconds"] = round(time.perf_counter() - start)
    return {"machine": machine, "rows": [asdict(row) for row in rows]}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(SECTIONS), action="append")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "performance.json")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that is busy")
    given = parser.parse_args()
    if given.processor_time:
        Clock.now = staticmethod(time.process_time)
        torch.set_num_threads(1)
    content = measured(given)
    print(markdown([Row(**row) for row in content["rows"]]))
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
