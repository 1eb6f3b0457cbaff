"""`gen sample`: images from a trained generator, or masks with a segmenter."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.options import (
    DEVICE,
    Command,
    Number,
    Parsed,
    grouped,
    network_options,
    parse_label,
    parse_seeds,
)
from gen.commands.output import check_file, say, say_notes
from gen.system import distributed

if TYPE_CHECKING:
    from gen.sampling.samples import Samples
    from gen.sampling.write import Targets

# What is drawn → the options it takes, in addition to --ema, --batch-size and --device.
ANY = ("grid", "npy", "outdir", "format")
LATENT = ("class", "truncation", "bn", "precision")
TAKES: dict[str, tuple[str, ...]] = {
    "seeds": (*LATENT, *ANY),
    "num": (*LATENT, *ANY),
    "latents": ("class", "bn", "precision", *ANY),
    "interpolate": ("frames", *LATENT, "gif", "fps", *ANY),
    "walk": ("seeds", *LATENT, "gif", "fps", *ANY),
    "reconstruct": ANY,
    "images": ("outdir",),
}
NEEDS = {"format": ("outdir",), "fps": ("gif", "walk")}
PICTURES = (".png", ".jpg", ".jpeg")


def check_options(options: dict[str, Any]) -> str:
    """What is drawn; fails before any work, in one line, if the options do not go together."""
    given = {name for name, value in options.items() if value is not None}
    kind = next((kind for kind in reversed(TAKES) if kind in given), "seeds")
    if misplaced := sorted(given - {kind, *TAKES[kind]}):
        takes = ", ".join(f"--{name}" for name in TAKES[kind])
        raise click.UsageError(f"--{misplaced[0]} does not go with --{kind}, which takes {takes}")
    if not given & {"grid", "gif", "npy", "outdir"}:
        raise click.UsageError(
            "nothing to write: give --grid FILE, --gif FILE, --npy FILE or --outdir DIR"
        )
    for name, others in NEEDS.items():
        if name in given and not given & {*others}:
            raise click.UsageError(f"--{name} is for --{' or --'.join(others)}; give that too")
    check_file("--grid", options["grid"], PICTURES)
    check_file("--gif", options["gif"], (".gif",))
    check_file("--npy", options["npy"], (".npy",))
    if (folder := options["outdir"]) and folder.exists() and not folder.is_dir():
        raise click.UsageError(f"--outdir {folder}: is a file")
    return kind


def pick(cls: type, options: dict[str, Any]) -> Any:
    """The dataclass `cls` of those options that are its fields."""
    fields = (field.name for field in dataclasses.fields(cls))
    return cls(**{name: options[name] for name in fields if name in options})


def draw(
    source: str | None, ema: bool, batch_size: int | None, device: str, **options: Any
) -> None:
    """Load, draw, write."""
    others = {name: options.pop(name) for name in (option.name for option in network_options())}
    kind = check_options(options)
    if others["script"] or others["factory"] or others["diffusers"]:
        draw_others(source, kind, options, {**others, "batch_size": batch_size, "device": device})
        return
    if source is None:
        raise click.UsageError("name a run or checkpoint, or a network by --script")
    if others["inputs"] or others["crop"]:
        raise click.UsageError("--inputs and --crop are for a network of --script or --factory")
    if kind == "images":
        from gen.sampling.masks import predict_folder

        if distributed.rank() == 0:
            say(predict_folder(source, options["images"], options["outdir"], ema, device))
        return
    from gen.runs.open import open_run
    from gen.sampling.norm import set_statistics
    from gen.sampling.samples import SampleOptions, make_samples
    from gen.sampling.seeds import use_bf16
    from gen.sampling.targets import file_sha256
    from gen.sampling.write import Targets

    options = {name: value for name, value in options.items() if value is not None}
    wanted = pick(SampleOptions, options | {"label": options.get("class")})
    targets, statistics = pick(Targets, options), options.get("bn", "running")
    run = open_run(source, ema=ema, device=device, key=others["key"])
    set_statistics(run.decoder, statistics)
    if options.get("precision"):
        use_bf16(run.decoder)
    samples = make_samples(kind, run, wanted)
    record = {
        "checkpoint": file_sha256(run.path), "images": samples.description, "ema": ema,
        "device": next(run.decoder.parameters()).device.type, "class": wanted.label,
        "truncation": wanted.truncation, "bn": statistics, "precision": options.get("precision"),
    }  # fmt: skip
    write(samples, targets, record, batch_size or 64)


def draw_others(
    source: str | None, kind: str, options: dict[str, Any], network: dict[str, Any]
) -> None:
    """Draw the images of a network of others, whose inputs have numbers as seeds do."""
    from gen.inputs import open_network
    from gen.sampling.targets import file_sha256
    from gen.sampling.write import Targets

    given = {name for name, value in options.items() if value is not None}
    if misplaced := sorted(given - {"seeds", "num", *ANY}):
        takes = ", ".join(f"--{name}" for name in ("seeds", "num", *ANY))
        raise click.UsageError(f"--{misplaced[0]}: a network of others takes {takes}")
    opened = open_network(source, **network)
    say_notes(opened)
    seeds = options["seeds"] or range(options["num"] or min(64, len(opened.draw(64))))
    own = network["script"] or network["factory"] or str(network["diffusers"])
    files = [Path(file) for file in (source, own.rpartition(":")[0] or own) if file]
    record = {
        "checkpoint": [file_sha256(file) for file in files if file.is_file()], "network": own,
        **{name: network[name] and str(network[name]) for name in ("key", "inputs", "crop")},
        "range": list(opened.value_range), "device": network["device"],
    }  # fmt: skip
    targets = pick(Targets, {name: options[name] for name in given})
    write(opened.samples(seeds), targets, record, network["batch_size"] or 64)


def write(samples: Samples, targets: Targets, record: dict[str, Any], batch_size: int) -> None:
    """Draw and write, or say how far it came and exit as the signal asks."""
    from gen.sampling.write import Interrupted, write_images

    try:
        say(write_images(samples, targets, record, batch_size))
    except Interrupted as stopped:
        kept = "run the same command to continue" if targets.outdir else "nothing was written"
        say(f"{stopped}; {kept}")
        sys.exit(128 + stopped.signal)


_FILE, _SEED = click.Path(path_type=Path), click.IntRange(0, 2**63 - 1)
_WHAT, _HOW, _WHERE = "What is drawn (one of these)", "How", "Where to (any of these)"
# fmt: off
OPTIONS = [
    grouped(_WHAT, "--seeds", type=Parsed("SEEDS", parse_seeds),
            help="7, 0-63 or 0-3,8  [default: 0-63]"),
    grouped(_WHAT, "--num", type=click.IntRange(1, 2**63 - 1), metavar="N", help="seeds 0 to N-1"),
    grouped(_WHAT, "--latents", type=_FILE, metavar="FILE.npy", help="latents (N, Z)"),
    grouped(_WHAT, "--interpolate", type=(click.Choice(["lerp", "slerp"]), _SEED, _SEED),
            metavar="PATH A B", help="from seed A to seed B, on a line or a great circle"),
    grouped(_WHAT, "--walk", type=Number(0, 600, min_open=True), metavar="SECONDS",
            help="a loop through the seeds (one per second, or those of --seeds)"),
    grouped(_WHAT, "--reconstruct", type=_FILE, metavar="DIR",
            help="pairs: each image of a folder next to a VAE's copy of it"),
    grouped(_WHAT, "--images", type=_FILE, metavar="DIR",
            help="masks of the images of a folder, by a segmenter, into --outdir"),
    grouped(_HOW, "--class", "class", type=Parsed("K|all", parse_label),
            help="class of every image, if conditional; all: one row per class"
            "  [default: seed modulo classes]"),
    grouped(_HOW, "--bn", type=click.Choice(["running", "batch", "recalibrate"]),
            help="batch-norm statistics: running (training), batch (seeds 0-63), recalibrate"
            " (mean of seeds 0-2047)"
            "  [default: running]"),
    grouped(_HOW, "--frames", type=click.IntRange(2, 10_000), metavar="N",
            help="number of images of --interpolate, both ends included  [default: 9]"),
    grouped(_HOW, "--truncation", type=Number(0, 1), metavar="PSI",
            help="multiply latents by this: less variety, typical images  [default: 1]"),
    grouped(_HOW, "--fps", type=click.Choice(["5", "10", "20", "25", "50"]),
            callback=lambda _ctx, _param, value: value and int(value),
            help="frames per second of --walk and of --gif  [default: 20]"),
    grouped(_HOW, "--ema/--no-ema", default=True,
            help="averaged weights or the last  [default: ema]"),
    # Folders that were sampled before this option existed are of fp32, and record nothing.
    grouped(_HOW, "--precision", type=click.Choice(["fp32", "bf16"]),
            callback=lambda _ctx, _param, value: None if value == "fp32" else value,
            help="arithmetic of the network; bf16 is faster on CPUs with native bf16 support, and"
            " single gray levels differ  [default: fp32]"),
    grouped(_HOW, "--batch-size", type=click.IntRange(1, 65536), metavar="N",
            help="images held at once  [default: 64]"),
    grouped(_HOW, "--device", type=DEVICE, default="auto",
            help="where to compute  [default: auto]"),
    grouped(_WHERE, "--grid", type=_FILE, metavar="FILE", help="one sheet, .png or .jpg"),
    grouped(_WHERE, "--gif", type=_FILE, metavar="FILE",
            help="one GIF that loops, of --interpolate or --walk"),
    grouped(_WHERE, "--npy", type=_FILE, metavar="FILE", help="one uint8 array (N, H, W, C)"),
    grouped(_WHERE, "--outdir", type=_FILE, metavar="DIR",
            help="one file per image; an interrupted folder is continued"),
    grouped(_WHERE, "--format", type=click.Choice(["png", "jpg", "npy"]),
            help="format of the files in --outdir  [default: png]"),
]
# fmt: on
sample = Command(
    "sample",
    help="Draw images from a trained generator: image i is a function of seed i. Or predict masks.",
    callback=draw,
    params=[
        click.Argument(["source"], metavar="[RUN_OR_CHECKPOINT]", required=False),
        *OPTIONS,
        *network_options(),
    ],
    examples="""
        gen sample runs/00000-dcgan-shapes --grid grid.png
        gen sample runs/00000-dcgan-shapes --num 50000 --outdir samples/
        gen sample runs/00000-dcgan-shapes --interpolate slerp 3 8 --grid strip.png
        gen sample runs/00000-dcgan-shapes --walk 6 --gif walk.gif
        gen sample runs/00000-unet-shapes --images photos/ --outdir masks/
        gen sample vae.pt --script load_vae.py:build --range 0,1 --grid grid.png
        gen sample --script superresolve.py:build --inputs photos/ --outdir large/
        torchrun --nproc-per-node 2 --no-python -- gen sample RUN --num 50000 --outdir samples/
    """,
)
