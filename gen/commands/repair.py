"""`gen repair`: balance the last enlarging layer of a trained generator, or refuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.model import source_options
from gen.commands.options import LEVEL, Command, GroupedOption
from gen.commands.output import check_file, say, say_notes
from gen.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gen.analysis.layers.repair import Repair
    from gen.inputs import LoadedNetwork

SHOWN = 8


def repair_model(
    path: str | None, num: int, output: Path, target: float | None, **network: Any
) -> None:
    """Find the repair, print before and after, write the weights and a picture."""
    picture = output.with_suffix(".png")
    for written in (output, picture):
        check_file("-o", written, new=True)
    from gen.analysis.layers.repair import repair
    from gen.images import make_grid, save_png
    from gen.inputs import open_network
    from gen.runs.checkpoint import Stored
    from gen.system.files import write_atomically

    opened = open_network(path, **network)
    value_range = opened.value_range
    say_notes(opened)
    file, content = opened.read or (None, None)
    if isinstance(content, Stored):
        raise InputError(f"{file}: an exported folder; repair the run, then export it again")
    found = repair(opened.network, opened.draw(num), target, value_range)
    say(found, err=False)
    if found.refused:
        raise InputError("not repaired, nothing written")
    write_atomically(output, repaired_file(content, found) if file else state_of(opened, found))
    save_png(picture, make_grid(before_after(opened, found, value_range), columns=SHOWN))
    say(f"{output}: repaired. {picture}: before, after, ten times the difference.")


def before_after(opened: LoadedNetwork, found: Repair, value_range: tuple[float, float]) -> Tensor:
    """Three rows of images, uint8: before, after, 10 × the difference around gray."""
    import torch

    from gen.analysis.layers.blame import generate_with
    from gen.images import MID_GREY

    inputs, (low, high) = opened.draw(SHOWN), value_range
    pair = [{}, {found.layer.enters: found.weight}]
    before, after = (
        (generate_with(opened.network, inputs, weights).cpu() - low) * (255 / (high - low))
        for weights in pair
    )
    difference = MID_GREY + 10 * (after - before)
    return torch.cat([before, after, difference]).round().clamp(0, 255).byte()


def repaired_file(content: dict[str, Any], found: Repair) -> bytes:
    """A file of this content with the new weight, which goes where the weight was read."""
    from gen.runs.checkpoint import is_ours
    from gen.runs.weights import list_parts

    weights = content["ema"] if is_ours(content) else next(w for _, w in list_parts(content))
    (name,) = (n for n in weights if n == found.parameter or n.endswith(f".{found.parameter}"))
    weights[name].copy_(found.weight)
    return _serialized(content)


def state_of(opened: LoadedNetwork, found: Repair) -> bytes:
    """State dict of the user's own network with the new weight."""
    found.apply(opened.network)
    return _serialized(opened.network.state_dict())


def _serialized(content: Any) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


repair = Command(
    "repair",
    help="Balance the last enlarging layer as little as the target needs, or refuse.",
    callback=repair_model,
    params=[
        *source_options(),
        GroupedOption(["-o", "--output"], required=True, type=click.Path(path_type=Path),
                      metavar="FILE", group="Repair", help="where the repaired weights go; new"),
        GroupedOption(["--target"], type=LEVEL, metavar="DBC", group="Repair",
                      help="level to reach  [default: 10 dB below the present one]"),
    ],
    examples="""
        gen repair runs/00000-dcgan-shapes -o repaired.pt
        gen repair netG.pth -o repaired.pth --target -50 --num 2048
    """,
)  # fmt: skip
