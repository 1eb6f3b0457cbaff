"""Share a trained network: `python -m gen.share.export RUN --outdir DIR`.

from gen.share.export import from_pretrained
networks = from_pretrained("DIR")  # by name, in eval mode; gen.sampling.load("DIR") samples
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.options import Command, GroupedOption
from gen.commands.quality import FEATURES, check_features, quality_of

if TYPE_CHECKING:
    from torch import nn

    from gen.sampling import Run

ONNX = "model.onnx"


def save_pretrained(source: Path | str, folder: Path | str, *, ema: bool = True) -> None:
    """Write config.json and model.safetensors of a run or checkpoint.

    Args:
        source: as `gen.sampling.open_run`.
        folder: new or empty.
        ema: take the moving average of the weights instead of the last ones.

    Raises:
        CheckpointError: as `gen.sampling.open_run`.
        OSError: `folder` holds something, or cannot be written.
    """
    from gen.sampling import open_run

    run = open_run(source, ema=ema, device="cpu")
    with new_folder(Path(folder)) as target:
        _write(run, target)


def from_pretrained(folder: Path | str, *, device: str = "auto") -> nn.ModuleDict:
    """The networks of an exported folder by name, such as `generator`, in eval mode.

    Raises:
        CheckpointError: missing, damaged, foreign, or its configuration breaks a rule.
        ValueError: the device asked for is not there.
    """
    from torch import nn

    from gen.sampling import open_run

    return nn.ModuleDict(open_run(folder, device=device).modules).eval()


def _write(run: Run, folder: Path) -> None:
    from gen.runs.pretrained import write_pretrained

    if run.config is None:
        raise ValueError(f"{run.path}: weights from elsewhere, no configuration to export")
    # Where the images lay on this machine is nobody else's business.
    data = dataclasses.replace(run.config.data, data=_name(run.config.data.data), data_root="data")
    networks = {name: run.modules[name] for name in run.averaged}
    write_pretrained(folder, dataclasses.replace(run.config, data=data), networks, run.step)


def _name(path: str) -> str:
    """The last name of a path, also behind `classifier:`."""
    kind, colon, place = path.rpartition(":")
    return f"{kind}{colon}{Path(place).name}"


def check_new(folder: Path) -> None:
    """Raise FileExistsError unless the folder is new or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists; give a new or empty folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well and else is not there."""
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield made
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        made.rename(folder)  # fails where files have come in between
    except BaseException:
        shutil.rmtree(made)
        raise


def write_onnx(run: Run, file: Path) -> str:
    """Write the network that a run is for as ONNX, for any number B of inputs.

    Decoders take `latents`, float32 (B, Z), and where they have classes `labels`, int64 (B,), and
    give `images` in [−1, 1]; others take such `images` and give `logits`.

    Returns:
        What the file holds, in words.

    Raises:
        ValueError: the extra is missing.
    """
    import torch

    network = run.decoder if run.draws else run.modules[run.averaged[0]]
    if run.draws:
        inputs, output = {"latents": torch.zeros(2, network.latent)}, "images"
        if network.classes:
            inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    else:
        model = run.config.model
        inputs, output = {"images": torch.zeros(2, model.channels, *model.size)}, "logits"
    try:
        program = torch.onnx.export(
            network, tuple(inputs.values()), dynamo=True, verbose=False,
            input_names=list(inputs), output_names=[output],
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}] * len(inputs),
        )  # fmt: skip
    except ModuleNotFoundError as error:
        raise ValueError(
            "ONNX needs two packages: pip install onnx onnxscript (extra gen[onnx])"
        ) from error
    program.save(str(file), external_data=False)
    return f"{', '.join(inputs)} → {output}, for batches of any size"


def export(
    source: str,
    outdir: Path,
    ema: bool,
    onnx: bool,
    reference: str | None,
    features: str,
    num: int,
    data_root: Path,
) -> None:
    """Write weights, then what they give when they are read again, then the card."""
    try:
        check_new(outdir)
    except FileExistsError as error:
        raise click.UsageError(f"--outdir {error}") from error
    from gen.commands.measuring import measure_path
    from gen.images import make_grid, save_png
    from gen.sampling import open_run, sample_images
    from gen.share.card import SAMPLES, logged, write_card
    from gen.system.files import write_atomically

    given = open_run(source, ema=ema, device="cpu")
    if reference and not given.draws:
        raise click.UsageError(f"--reference: {source} draws no images to compare")
    shown, outdir, quality = outdir, outdir.absolute(), None
    files = {"config.json": "the run's configuration", "model.safetensors": "the weights"}
    with new_folder(outdir) as folder:
        _write(given, folder)
        run = open_run(folder, device="cpu")
        if run.draws:
            save_png(folder / SAMPLES, make_grid(sample_images(run.decoder, range(64))), 9)
            files[SAMPLES] = "images of seeds 0 to 63"
        if onnx:
            files[ONNX] = write_onnx(run, folder / ONNX)
        # A segmenter is shown its validation images, and the export does not say where they lie.
        looked_at = folder if run.draws else given.path
        measurement = measure_path(looked_at)[0] if run.draws or (run.masks and ema) else None
        if reference:
            settings = {"num": num, "data_root": data_root}
            quality = quality_of(str(folder), reference, features=features, **settings)
            quality = dataclasses.replace(quality, samples=outdir.name, features=_name(features))
        compared = f"--reference {_name(reference or 'DATA')} --features {_name(features)}"
        arguments = f"{compared} --num {num}"
        measured = measurement, quality, arguments
        text = write_card(outdir.name, run, ema, files, logged(given), *measured)
        write_atomically(folder / "README.md", text.encode())
    click.echo(f"{', '.join(files)}, README.md → {shown}", err=True)


def _option(group: str, *names: str, **settings: Any) -> GroupedOption:
    return GroupedOption(list(names), group=group, **settings)


_WHAT, _CARD, _PATH = "What", "Model card", click.Path(path_type=Path)
# fmt: off
main = Command(
    "python -m gen.share.export",
    help="Write weights, configuration and a model card into a new folder, to be shared.",
    callback=export,
    params=[
        click.Argument(["source"], metavar="RUN_OR_CHECKPOINT"),
        _option(_WHAT, "--outdir", type=_PATH, required=True, metavar="DIR",
                help="new or empty folder"),
        _option(_WHAT, "--ema/--no-ema", default=True,
                help="averaged weights or the last  [default: ema]"),
        _option(_WHAT, "--onnx", is_flag=True, help=f"write {ONNX} as well (gen[onnx])"),
        _option(_CARD, "--reference", metavar="DATA",
                help="measure quality against these images (gen[metrics])"),
        _option(_CARD, "--features", default="random", show_default=True,
                callback=check_features, metavar="|".join(FEATURES),
                help="the network whose features are compared"),
        _option(_CARD, "--num", type=click.IntRange(1, 10**9), default=10_000, show_default=True,
                metavar="N", help="images from each side, at most"),
        _option(_CARD, "--data-root", type=_PATH, default="data", show_default=True,
                help="where named sets lie or are downloaded to"),
    ],
    examples="""
        python -m gen.share.export runs/00000-dcgan-shapes --outdir shapes-dcgan
        python -m gen.share.export runs/00000-dcgan-mnist --outdir digits --reference mnist --onnx
    """,
)
# fmt: on

if __name__ == "__main__":
    main(prog_name="python -m gen.share.export")
