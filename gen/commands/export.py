"""`gen export`: a run as a folder to share."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import click

from gen.commands.options import Command, grouped
from gen.commands.output import say
from gen.commands.quality import FEATURES, check_features, quality_of

ONNX = "model.onnx"


def export_run(
    source: str,
    outdir: Path,
    ema: bool,
    onnx: bool,
    reference: str | None,
    features: str,
    num: int,
    data_root: Path,
    license_id: str,
    push: str | None,
) -> None:
    """Write weights, then what they give when they are read again, then the card; push all."""
    from gen.runs.hub import check_push, push_folder
    from gen.share.export import check_new

    check_push(push)

    try:
        check_new(outdir)
    except FileExistsError as error:
        raise click.UsageError(f"--outdir {error}") from error
    from gen.commands.measuring import measure_path
    from gen.images import make_grid, save_png
    from gen.runs.open import open_own_run
    from gen.sampling.seeds import sample_images
    from gen.share.card import SAMPLES, read_logged, write_card
    from gen.share.export import last_name, write, write_onnx
    from gen.system.files import atomic_folder, write_atomically
    from gen.system.text import printable

    given = open_own_run(source, ema=ema, device="cpu")
    if reference and not given.draws_images:
        raise click.UsageError(f"--reference: {source} draws no images to compare")
    shown, outdir, quality = outdir, outdir.absolute(), None
    files = {"config.json": "the run's configuration", "model.safetensors": "the weights"}
    with atomic_folder(outdir) as folder:
        write(given, folder)
        run = open_own_run(folder, device="cpu")
        if run.draws_images:
            save_png(folder / SAMPLES, make_grid(sample_images(run.decoder, range(64))), 9)
            files[SAMPLES] = "images of seeds 0 to 63"
        if onnx:
            files[ONNX] = write_onnx(run, folder / ONNX)
        # A segmenter is shown its validation images, and the export does not say where they lie.
        looked_at = folder if run.draws_images else given.path
        shows = run.draws_images or (run.predicts_masks and ema)
        measurement = measure_path(looked_at).measurement if shows else None
        if reference:
            settings = {"num": num, "data_root": data_root}
            quality = quality_of(str(folder), reference, features=features, **settings)
            quality = dataclasses.replace(
                quality, samples=printable(outdir.name), features=last_name(features)
            )
        flags = ["--reference", last_name(reference or "DATA"), "--features", last_name(features)]
        arguments = f"{shlex.join(map(printable, flags))} --num {num}"
        measured = measurement, quality, arguments
        text = write_card(outdir.name, run, ema, files, read_logged(given), *measured, license_id)
        write_atomically(folder / "README.md", text.encode())
    say(f"{', '.join(files)}, README.md → {shown}")
    if push:
        say(f"Pushed: {push_folder(outdir, push)}. Load it: gen.load('hf-hub:{push}')")


def check_license(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """An identifier such as `mit` or `cc-by-4.0`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", value):
        raise click.BadParameter(f"{value!r}; write an identifier such as mit or cc-by-4.0")
    return value


_WHAT, _CARD, _PATH = "What", "Model card", click.Path(path_type=Path)
# fmt: off
export = Command(
    "export",
    help="Write weights, configuration and a model card into a new folder, to be shared.",
    callback=export_run,
    params=[
        click.Argument(["source"], metavar="RUN_OR_CHECKPOINT"),
        grouped(_WHAT, "--outdir", type=_PATH, required=True, metavar="DIR",
                help="new or empty folder"),
        grouped(_WHAT, "--ema/--no-ema", default=True,
                help="averaged weights or the last  [default: ema]"),
        grouped(_WHAT, "--onnx", is_flag=True, help=f"write {ONNX} as well (gen[onnx])"),
        grouped(_WHAT, "--push", metavar="USER/NAME",
                help="upload the folder to the Hugging Face Hub as well (gen[hub])"),
        grouped(_CARD, "--license", "license_id", default="unknown", show_default=True,
                callback=check_license, metavar="ID",
                help="license of the weights as the Hub names it, such as mit"),
        grouped(_CARD, "--reference", metavar="DATA",
                help="measure quality against these images (gen[metrics])"),
        grouped(_CARD, "--features", default="random", show_default=True,
                callback=check_features, metavar="|".join(FEATURES),
                help="the network whose features are compared"),
        grouped(_CARD, "--num", type=click.IntRange(1, 10**9), default=10_000, show_default=True,
                metavar="N", help="images from each side, at most"),
        grouped(_CARD, "--data-root", type=_PATH, default="data", show_default=True,
                help="where named sets lie or are downloaded to"),
    ],
    examples="""
        gen export runs/00000-dcgan-shapes --outdir shapes-dcgan
        gen export runs/00000-dcgan-mnist --outdir digits --reference mnist --onnx
        gen export runs/00000-dcgan-mnist --outdir digits --license mit --push user/digits
    """,
)
# fmt: on
