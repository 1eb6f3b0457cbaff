"""`gen quality`: distances of samples from real images, in a network's features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.images import check_arguments
from gen.commands.options import SIZE, Command, grouped, key_option
from gen.commands.output import provenance, say, write_json
from gen.system.errors import InputError

if TYPE_CHECKING:
    from gen.quality.distances import Quality

FEATURES = ("inception", "classifier:RUN", "random")


def check_features(_ctx: Any, _param: Any, text: str) -> str:
    """A name of the table, with a run behind `classifier:`."""
    name, _, run = text.partition(":")
    if text not in ("inception", "random") and not (name == "classifier" and run):
        raise click.BadParameter(f"{text!r}; write {', '.join(FEATURES[:-1])} or {FEATURES[-1]}")
    return text


def quality_of(path: str, reference: str, features: str, **settings: Any) -> Quality:
    """`gen.quality.distances.measure_quality`, or one line on how to get what it needs."""
    try:
        from gen.quality.distances import measure_quality
    except ModuleNotFoundError as error:
        if error.name != "torch_fidelity":
            raise
        raise InputError(
            "quality metrics need torch-fidelity: pip install torch-fidelity (extra gen[metrics])"
        ) from error
    return measure_quality(path, reference, features, **settings)


def print_quality(path: str, reference: str, json_file: str | None, **settings: Any) -> None:
    """Measure, print, write."""
    check_arguments(None, 0, json_file, None)
    found = quality_of(path, reference, **settings)
    say(found, err=json_file == "-")
    if json_file:
        write_json(found.to_dict() | provenance([path, reference]), json_file)


_HOW, _WHAT = "Measurement", "Images"
# fmt: off
REFERENCE = grouped(_WHAT, "--reference", required=True, metavar="DATA",
                    help="real images: a data set by name, a folder, .npy or .npz")
FEATURES_OPTION = grouped(_HOW, "--features", default="random", callback=check_features,
                          metavar="|".join(FEATURES), show_default=True,
                          help="the network whose features are compared")
quality = Command(
    "quality",
    help="Fréchet and kernel distance, precision and recall of a run's samples or of images.",
    callback=print_quality,
    params=[
        click.Argument(["path"], metavar="RUN_OR_IMAGES"),
        REFERENCE,
        grouped(_WHAT, "--data-root", default="data", type=click.Path(path_type=Path),
                show_default=True, help="where named sets lie or are downloaded to"),
        grouped(_WHAT, "--num", type=click.IntRange(1, 10**9), default=10_000, show_default=True,
                metavar="N", help="images from each side, at most"),
        key_option(_WHAT),
        grouped(_WHAT, "--size", type=SIZE, help="for a data set's name instead of a run"),
        FEATURES_OPTION,
        grouped(_HOW, "--batch-size", type=click.IntRange(1, 65536), default=64, show_default=True,
                metavar="N", help="images that the features' network takes at once"),
        grouped("Output", "--json", "json_file", metavar="FILE|-",
                help="write JSON; - is stdout"),
    ],
    examples="""
        gen quality runs/00000-dcgan-mnist --reference mnist --features inception
        gen quality samples/ --reference photos/ --num 50000
        gen quality mnist --size 32 --reference mnist     # what real images score
    """,
)
# fmt: on
