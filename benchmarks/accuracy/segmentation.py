"""U-Net and FCN with every upsampler: mean IoU, time, and the grid in their logit maps.

    python benchmarks/accuracy/segmentation.py --outdir runs/segmentation

Each network is trained on `shapes` by the real command, with its defaults, and its logit maps of
512 images that it has not seen are measured. One JSON line per network goes to
OUTDIR/results.jsonl; what stands there is not run again, and several processes may share the work
(`--only U-Net`). Prints the table of docs/segmentation.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.commands.demo import precision
from gen.commands.measuring import measure_path
from gen.data.datasets import load_dataset
from gen.images import colorize, encode, make_grid
from gen.sampling.masks import load_segmenter, predict
from gen.system.files import write_atomically

UPSAMPLERS = {
    "transposed k4": ["--upsample", "transposed", "--kernel-size", "4"],
    "transposed k3": ["--upsample", "transposed", "--kernel-size", "3"],
    "balanced k4": ["--upsample", "balanced"],
    "nearest": ["--upsample", "nearest"],
    "bilinear": ["--upsample", "bilinear"],
    "subpixel": ["--upsample", "subpixel"],
}
# Name → model, options.
NETWORKS = (
    {f"U-Net, {name}": ("unet", options) for name, options in UPSAMPLERS.items()}
    | {f"FCN-8s, {name}": ("fcn", options) for name, options in UPSAMPLERS.items()}
    | {
        "FCN-8s, transposed k4, fixed": ("fcn", ["--fixed-upsample"]),
        "FCN-16s, transposed k4": ("fcn", ["--head", "16s"]),
        "FCN-32s, transposed k4": ("fcn", ["--head", "32s"]),
    }
)
PERIODS = (2, 4, 8)
PICTURED = ("FCN-32s", "FCN-16s", "FCN-8s", "U-Net")


def core_seconds() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(name: str, outdir: Path) -> dict[str, Any]:
    """Train one network as a user would; its figures."""
    model, options = NETWORKS[name]
    parent = outdir / name.lower().replace(",", "").replace(" ", "-")
    command = ["train.py", model, *options, "--precision", precision(), "--outdir", str(parent)]
    before = core_seconds()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    run, seconds = max(parent.iterdir()), core_seconds() - before
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    measurement = measure_path(run, periods=PERIODS, num=512).measurement
    levels = {
        str(number): {
            "level_dbc": period.level_dbc,
            "detected": period.detected,
            "limit_dbc": period.detection_limit_dbc,
        }
        for number, period in measurement.periods.items()
    }
    scores = {key: last[f"val/{key}"] for key in ("mean_iou", "pixel_accuracy")}
    return {
        "name": name,
        "run": str(run.relative_to(outdir)),
        "core_seconds": seconds,
        **scores,
        "levels": levels,
    }


def shown(level: dict[str, Any]) -> str:
    """A level where a grid was found, else the limit below which it would not have been, if any."""
    if level["detected"]:
        return f"{level['level_dbc']:.1f}"
    limit = level["limit_dbc"]
    return "undefined" if limit is None else f"none above {limit:.1f}"


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a row per network."""
    heads = " | ".join(f"period {period}, dBc" for period in PERIODS)
    rows = [
        f"| network | mean IoU | pixel accuracy | core seconds | {heads} |",
        "|---|---|---|---|" + "---|" * len(PERIODS),
    ]
    for r in results:
        levels = " | ".join(shown(r["levels"][str(period)]) for period in PERIODS)
        rows.append(
            f"| {r['name']} | {r['mean_iou']:.3f} | {r['pixel_accuracy']:.3f} | "
            f"{r['core_seconds']:.0f} | {levels} |"
        )
    return "\n".join(rows)


def draw(results: list[dict[str, Any]], outdir: Path, path: Path) -> None:
    """Image, truth and predictions of four networks, three images in rows, doubled in size."""
    by_name = {result["name"]: outdir / result["run"] for result in results}
    options = {"root": Path(), "size": (64, 64), "channels": 3, "mask_classes": 4}
    batch = load_dataset("shapes", split="test", count=16, **options).fetch([0, 6, 1])
    tiles = [batch.images, colorize(batch.masks)]
    for name in PICTURED:
        network, config = load_segmenter(by_name[f"{name}, transposed k4"], device="cpu")
        masks = [predict(network, config.model.size, image) for image in batch.images]
        tiles.append(colorize(torch.stack(masks)))
    rows = torch.stack(tiles, 1).flatten(0, 1)  # image after image, each with its masks
    doubled = rows.repeat_interleave(2, -1).repeat_interleave(2, -2)
    write_atomically(path, encode(make_grid(doubled, len(tiles)), ".png", 9))


def main() -> None:
    """Train what is missing, print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outdir", type=Path, default=Path("runs/segmentation"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--only", default="", help="train those whose name contains this, no table")
    given = parser.parse_args()
    outdir = given.outdir.resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    file = outdir / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    results = {line["name"]: line for line in map(json.loads, lines)}
    for name in NETWORKS:
        if name not in results and given.only in name:
            results[name] = train(name, outdir)
            with file.open("a") as target:
                target.write(json.dumps(results[name]) + "\n")
    if given.only:
        return
    print(table([results[name] for name in NETWORKS]))
    if given.picture:
        draw([*results.values()], outdir, given.picture)


if __name__ == "__main__":
    main()
