"""`gen repair`: balance the last enlarging layer of a trained generator, or refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    path: str | None,
    num: int,
    periods: tuple[int, ...] | None,
    output: Path,
    target: float | None,
    **network: Any,
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
    if opened.program:
        raise InputError(
            f"{opened.name}: holds a {opened.program} program, which cannot be changed; repair the "
            "network that it was made from"
        )
    file, content = opened.read or _read(path)
    if isinstance(content, Stored):
        raise InputError(f"{file}: an exported folder; repair the run, then export it again")
    serialize = serializer(file)  # a run in training may remove the file meanwhile
    options = {"periods": periods, "batch_size": opened.adapted.batch_size}
    found = repair(opened.network, opened.draw(num), target, value_range, **options)
    say(found, err=False)
    if found.refused:
        raise InputError("not repaired, nothing written")
    pictures = before_after(opened, found, value_range)
    if content is None or not fill(content, found):
        found.apply(opened.network)
        content, file, serialize = opened.network.state_dict(), None, serializer(None)
    write_atomically(output, serialize(content))
    if path:
        _check_written(output, found, opened, network)
    save_png(picture, make_grid(pictures, columns=SHOWN))
    kind = "" if file else " It holds the state_dict() of your network."
    say(f"{output}: repaired.{kind} {picture}: before, after, ten times the difference.")


def _read(source: str | None) -> tuple[Path, Any] | tuple[None, None]:
    """The file that the user's own code was given and what it holds, where it can be read."""
    from gen.runs.checkpoint import CheckpointError
    from gen.runs.open import read_file

    try:
        return (Path(source), read_file(Path(source))) if source else (None, None)
    except CheckpointError:
        return None, None


def before_after(opened: LoadedNetwork, found: Repair, value_range: tuple[float, float]) -> Tensor:
    """Three rows of images, uint8: before, after, 10 × the difference around gray."""
    import torch

    from gen.analysis.layers.calls import run_network
    from gen.analysis.layers.repair import replaced
    from gen.images import MID_GREY

    inputs, (low, high) = opened.draw(SHOWN), value_range
    scale = 255 / (high - low)
    before = (run_network(opened.network, inputs).cpu() - low) * scale
    with replaced(opened.network, found.weights):
        after = (run_network(opened.network, inputs).cpu() - low) * scale
    difference = MID_GREY + 10 * (after - before)
    return torch.cat([before, after, difference]).round().clamp(0, 255).byte()


def fill(content: Any, found: Repair) -> bool:
    """Put the new weights where a file's content holds the old ones; False if it does not.

    Keys, types, and layout stay; of a run only the averaged weights change, which are sampled.
    """
    content = content["ema"] if isinstance(content, dict) and "ema" in content else content
    filled = []
    for name, old in found.old.items():
        same = [t for key, t in _tensors(content) if _holds(t, old)]
        own = [t for key, t in _tensors(content) if _holds(t, old) and _ends(key, name)]
        for tensor in own or same:
            tensor.copy_(found.weights[name])
        filled.append(bool(same))
    return all(filled)


def _tensors(content: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers, with their keys joined by dots."""
    import torch

    if isinstance(content, torch.Tensor):
        yield key, content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _tensors(value, f"{key}.{name}")
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _tensors(value, key)


def _holds(tensor: Tensor, old: Tensor) -> bool:
    """Whether a stored tensor has these values, as its type holds them."""
    return tensor.shape == old.shape and bool((tensor == old.to(tensor)).all())


def _ends(key: str, name: str) -> bool:
    return f".{key}".endswith(f".{name}")


def _check_written(
    output: Path, found: Repair, opened: LoadedNetwork, options: dict[str, Any]
) -> None:
    """Fail, and remove the file, unless it loads to the network that was measured."""
    from gen.analysis.layers.calls import run_network
    from gen.analysis.layers.repair import replaced
    from gen.inputs import open_network

    inputs = opened.draw(SHOWN)
    with replaced(opened.network, found.weights):
        promised = run_network(opened.network, inputs)
    loaded = run_network(open_network(str(output), **options).network, inputs)
    if not (loaded - promised).abs().max() <= 1e-3 * promised.abs().max():
        output.unlink()
        raise InputError(
            f"{output}: removed, as it does not load to the repaired network: the weights are not "
            "read from where they were found; repair the network in your own code (gen.analysis."
            "layers.repair)"
        )


def serializer(file: Path | None) -> Callable[[Any], bytes]:
    """What writes content in the format of a file, or as torch writes it."""
    import io

    import torch

    from gen.runs.formats import INDEX, SAFETENSORS, format_of
    from gen.runs.pretrained import read_safetensors

    kind = format_of(file) if file else None
    if kind == INDEX:
        raise InputError(f"{file}: a checkpoint in several files; save it in one, then repair that")
    if kind == SAFETENSORS:
        from safetensors.torch import save

        metadata = read_safetensors(file)[1] or None
        return lambda content: save(content, metadata)

    def write(content: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    return write


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
