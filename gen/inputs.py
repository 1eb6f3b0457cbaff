"""A path, or a network of the user -> a stream of images, or a network with its inputs.

Networks come from a run, a checkpoint, weights of others, the user's code (`--factory`,
`--script`), a TorchScript or ONNX file (`--script`), or a diffusers folder (`--diffusers`). The
user's callable returns

- a network with an attribute `latent`, the length of its latent vectors; or
- (network, draw), where draw(n) gives n inputs, always the same ones: a tensor or array (n, …), a
  tuple of these for several arguments, or batches of either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen.data.archives import is_archive
from gen.data.arrays import ArrayImages, array_images
from gen.data.decode import DataError
from gen.data.stream import ImageStream, Selection, open_stream, stream_array
from gen.images import to_uint8
from gen.runs.formats import TORCH, format_of, holds_network
from gen.runs.open import read_file
from gen.sampling import builders
from gen.sampling.adapt import Adapted, Inputs, adapt
from gen.sampling.builders import (
    Draw,
    OnnxNetwork,
    build_from_code,
    build_from_diffusers,
    build_from_program,
    draw_for,
)
from gen.sampling.crops import draw_crops
from gen.sampling.samples import Samples
from gen.system.device import pick_device
from gen.system.errors import InputError


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in eval mode, and what it takes; it maps `Inputs` to images (N, C, H, W).

    Attributes:
        name: what the user called it.
        adapted: the network, and what is known of its images.
        draw: n → at most n inputs, always the same ones.
        value_range: values of black and white.
        read: the file that it came from and what that holds, or None for the user's own.
        notes: lines for the user.
        program: "TorchScript" or "ONNX" for a program from a file, which cannot be changed.
    """

    name: str
    adapted: Adapted
    draw: Draw
    value_range: tuple[float, float]
    read: tuple[Path, Any] | None = None
    notes: tuple[str, ...] = ()
    program: str | None = None

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.adapted.network

    @torch.inference_mode()
    def draw_images(self, inputs: Inputs) -> Tensor:
        """uint8 images (N, C, H, W) of inputs, on the CPU, as they are written to files.

        Passes have one fixed number of inputs, the last filled with copies: products of matrices
        round differently for others.
        """
        size, (low, high) = self.adapted.batch_size, self.value_range
        parts = []
        for batch in inputs.split(size):
            count = len(batch)
            rows = [*batch.rows, *[batch.rows[-1]] * (size - count)]
            images = self.network(Inputs(rows, batch.take))[: count * self.adapted.frames]
            parts.append(to_uint8((images - low) * (2 / (high - low)) - 1).cpu())
        return torch.cat(parts)

    def stream(self, count: int, part: Callable[[int], slice] = slice) -> ImageStream:
        """The images of the first `count` inputs, or of a part of them, batch by batch."""
        inputs = self.draw(count)
        total = len(inputs) * self.adapted.frames
        mine = inputs[part(len(inputs))].split(self.adapted.batch_size)
        batches = (self.draw_images(batch).numpy() for batch in mine)
        return ImageStream(self.adapted.shape, total, batches)

    def samples(self, seeds: Sequence[int]) -> Samples:
        """The images of inputs by number, named by them; of video each frame is an image.

        Raises:
            InputError: there are not so many inputs.
        """
        inputs, frames = self.draw(max(seeds) + 1), self.adapted.frames
        if len(inputs) <= max(seeds):
            raise InputError(f"{self.name}: has {len(inputs)} inputs, and none of {max(seeds)}")

        def draw(indices: Sequence[int]) -> Tensor:
            rows = list(dict.fromkeys(seeds[index // frames] for index in indices))
            images = self.draw_images(Inputs(rows, inputs.take)).unflatten(0, (-1, frames))
            place = {row: number for number, row in enumerate(rows)}
            return images[
                [place[seeds[index // frames]] for index in indices],
                [index % frames for index in indices],
            ]

        def name(index: int) -> str:
            frame = f"-{index % frames:04d}" if frames > 1 else ""
            return f"{seeds[index // frames]:08d}{frame}"

        columns = frames if frames > 1 else None
        return Samples(len(seeds) * frames, draw, name, columns, f"inputs of {self.name}")


def open_network(
    path: str | None = None,
    *,
    factory: str | None = None,
    script: str | None = None,
    diffusers: Path | None = None,
    key: str | None = None,
    inputs: Path | None = None,
    crop: tuple[int, int] | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    device: str = "cpu",
    batch_size: int | None = None,
) -> LoadedNetwork:
    """A network that makes images, tried on two inputs.

    Args:
        path: a run, a checkpoint, or weights; with `factory` or `script` it is theirs to load.
        factory: `package.module:callable`.
        script: `file.py:callable`, or a TorchScript or ONNX file.
        diffusers: a folder of an AutoencoderKL or a VQModel.
        key: the part of a file of weights, such as `g_ema`.
        inputs: a folder of images for a network that takes images. Of a segmenter the network gives
            the logit maps, of these or of its validation images.
        crop: (H, W) of these images; by default what their sizes allow.
        value_range: values of black and white, in its images and in those that it takes.
        device: as in `gen.system.device.pick_device`.
        batch_size: inputs of one pass; by default as the size of its images allows.

    Raises:
        InputError: not exactly one source, or a network that cannot be run; what came and what is
            wanted.
        CheckpointError: as `gen.runs.open.load`.
    """
    own = _check_source(path, factory, script, diffusers)
    place, read, notes, program = pick_device(device), None, [], None
    if factory or (script and ":" in Path(script).name):
        network, draw = build_from_code(factory or script, not factory, path, key)
    elif script:
        network, draw = build_from_program(Path(script))
        program, notes = _about_program(network, script)
    elif diffusers:
        network, draw = build_from_diffusers(diffusers, images=inputs is not None)
    else:
        network, draw, read = _open_ours(path, key, inputs, place)
        inputs = None  # a segmenter's draw shows them
    name = str(path or own)
    given = {"value_range": value_range, "device": place, "batch_size": batch_size}
    try:
        if inputs:
            adapted, draw, note = _adapt_to_images(network, inputs, crop, given)
            notes.append(note)
        else:
            draw = draw or draw_for(network, name)
            adapted = adapt(network, draw, **given)
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    return LoadedNetwork(
        name=name, adapted=adapted, draw=draw, value_range=value_range, read=read,
        notes=tuple(notes), program=program,
    )  # fmt: skip


def _check_source(path: str | None, *given: str | Path | None) -> str | Path | None:
    """What names the user's own network, or None; raises InputError unless one source is given."""
    named = [source for source in given if source is not None]
    if len(named) > 1:
        raise InputError("--factory, --script, and --diffusers exclude each other")
    if not named and path is None:
        raise InputError(
            "name a run or checkpoint, or a network by --factory, --script, or --diffusers"
        )
    return named[0] if named else None


def _about_program(network: nn.Module, script: str) -> tuple[str, list[str]]:
    """Its kind, and what the user should know of it."""
    if not isinstance(network, OnnxNetwork):
        return "TorchScript", []
    return "ONNX", [f"{script}: an ONNX graph; it makes images, and its layers are not seen"]


def _adapt_to_images(
    network: nn.Module, folder: Path, crop: tuple[int, int] | None, given: dict[str, Any]
) -> tuple[Adapted, Draw, str]:
    """A network that takes a folder's images: in their own channels, or else gray or in color."""
    draw, note = draw_crops(folder, crop, given["value_range"])
    try:
        return adapt(network, draw, **given), draw, note
    except InputError as error:
        (images,) = draw(2).tensors()
        draw, note = draw_crops(folder, crop, given["value_range"], 4 - images.shape[1])
        try:
            return adapt(network, draw, **given), draw, note
        except InputError:
            raise error from None


def _open_ours(
    path: str, key: str | None, inputs: Path | None, device: torch.device
) -> tuple[nn.Module, Draw, tuple[Path, Any]]:
    """The decoder of a run, or the logit maps of its segmenter, and the file that was read."""
    from gen.runs.open import open_run, read_newest
    from gen.sampling.adapt import collect
    from gen.sampling.masks import open_logit_maps
    from gen.sampling.seeds import draw_inputs

    read = read_newest(path)
    run = open_run(path, device=device.type, key=key, read=read)
    if run.predicts_masks:
        maps, draw = open_logit_maps(run, inputs)
        return maps, lambda count: collect(draw(count), count), read
    if inputs:
        raise DataError(f"{path}: takes latents; --inputs is for networks that take images")
    decoder = run.decoder

    def take(rows: Sequence[int]) -> tuple[Tensor, ...]:
        return (draw_inputs(decoder, rows),)

    return decoder, lambda count: Inputs(range(count), take), read


def takes_weights(options: dict[str, Any]) -> bool:
    """Whether the user's callable in the options of `open_network` builds from a file of weights.

    Raises:
        InputError: as `open_network`.
    """
    named, script = options["factory"] or options["script"], options["script"]
    code = named and ":" in Path(named).name
    return bool(code) and builders.takes_weights(builders.find_callable(named, named == script))


def is_built_from_weights(path: Path) -> bool:
    """Whether a path holds weights of others; raises CheckpointError for what cannot be read."""
    from gen.runs.checkpoint import is_ours
    from gen.runs.open import read_newest
    from gen.runs.weights import list_parts

    if not holds_network(path):
        return False
    content = read_newest(path)[1]
    return not is_ours(content) and any(list_parts(content))


def open_images(
    paths: Sequence[Path],
    selection: Selection,
    num: int,
    inputs: Path | None = None,
    network: dict[str, Any] | None = None,
    key: str | None = None,
) -> ImageStream:
    """Images of paths, or what a run or a checkpoint makes: `num` samples, or logit maps.

    Maps are those of `inputs`, or of the run's validation images. A file of torch that holds a
    tensor is an array of images. With `network`, options of `open_network`, the images are those
    of a network of others. `key` names the part of a file of weights of others. Raises as
    `measure_path`.
    """
    if network is not None:
        opened = open_network(str(paths[0]) if paths else None, **network)
        stream = opened.stream(min(num, selection.max_images or num), selection.part)
        stream.notes.extend(opened.notes)
        stream.periods = lambda: _periods(opened.network, opened.draw(2))
        return stream
    runs = [path for path in paths if not is_archive(path) and holds_network(path)]
    if runs and len(paths) > 1:
        raise DataError(f"{runs[0]}: a run is measured alone; `gen compare` takes several")
    if not runs:
        if inputs:
            raise DataError(f"{paths[0]}: no run of a segmenter, which alone is shown --inputs")
        return open_stream(paths, selection)
    if array := _open_tensor(runs[0]):
        return stream_array(runs[0], array, selection)
    return _open_samples(runs[0], selection, num, inputs, key)


def _open_tensor(path: Path) -> ArrayImages | None:
    """The images of a file that `torch.save` wrote of one tensor; None for anything else."""
    if not path.is_file() or format_of(path) != TORCH:
        return None
    held = read_file(path)
    if not isinstance(held, Tensor):
        return None
    held = held.detach()
    return array_images(path, (held.float() if held.dtype == torch.bfloat16 else held).numpy())


def _open_samples(
    path: Path, selection: Selection, num: int, inputs: Path | None, key: str | None
) -> ImageStream:
    """What a run or a checkpoint makes."""
    from gen.runs.open import open_run
    from gen.sampling.masks import BATCH, map_batches, open_logit_maps
    from gen.sampling.seeds import draw_inputs, sample_batches, sample_images

    if selection.sheet:
        raise DataError(f"{path}: a run draws whole samples; leave the tile size out")
    # The key may be for the reference alone.
    run = open_run(path, key=key if key and is_built_from_weights(path) else None)
    if inputs and not run.predicts_masks:
        raise DataError(f"{path}: no run of a segmenter, which alone is shown images (--inputs)")
    number = min(num, selection.max_images or num)
    if run.predicts_masks:
        maps, draw = open_logit_maps(run, inputs)
        batches = draw(number).split(BATCH)  # passes of one process, as they round
        shape = next(map_batches(maps, batches[0][:1])).shape[1:]
        mine = (map_batches(maps, batch) for batch in batches[selection.part(len(batches))])
        return ImageStream(shape, sum(map(len, batches)), chain.from_iterable(mine))
    shape = tuple(sample_images(run.decoder, [0]).shape[1:])
    seeds = range(number)[selection.part(number)]
    samples = (batch.numpy() for batch in sample_batches(run.decoder, seeds))

    def periods() -> tuple[int, ...]:
        return _periods(run.decoder, draw_inputs(run.decoder, range(2)))

    return ImageStream(shape, number, samples, periods=periods)


def _periods(network: nn.Module, inputs: Any) -> tuple[int, ...]:
    from gen.analysis.layers.steps import find_layers, list_periods

    return list_periods(find_layers(network, inputs).layers)
