"""Open any generator for analysis: a run, a checkpoint, or the user's own network.

Own networks come from a callable that the user names (`--factory package.module:callable`,
`--script file.py:callable`); this runs the user's own code by their explicit choice, as no
checkpoint ever can. It is called with the path, if one was given, and returns

- a network with an attribute `latent`, the length of its latent vectors (B, latent); or
- (network, draw), where draw(n) gives n latents or maps.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gen.data.decode import DataError
from gen.data.stream import ImageStream, Selection, open_stream
from gen.runs.open import is_run
from gen.system.errors import InputError


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in eval mode, and what it takes: `draw(n)` gives n inputs, always the same ones.

    `read` is the file that it came from and what that file holds, or None for the user's own.
    """

    name: str
    network: nn.Module
    draw: Callable[[int], Tensor]
    read: tuple[Path, Any] | None = None


def open_network(
    path: str | None, factory: str | None = None, script: str | None = None
) -> LoadedNetwork:
    """The network of a run or checkpoint, or what the user's callable makes.

    Of a segmenter it gives the logit maps, of its validation images.

    Raises:
        ValueError: Not exactly one source, or a callable that is not there or returns no network.
        CheckpointError: As `gen.runs.open.load`.
    """
    from gen.runs.open import open_run, read_newest
    from gen.sampling.masks import open_logit_maps
    from gen.sampling.seeds import draw_inputs, draw_latents

    read = None

    if factory and script:
        raise InputError("--factory and --script exclude each other")
    if not (factory or script):
        if path is None:
            raise InputError("name a run or checkpoint, or a network by --factory or --script")
        read = read_newest(path)
        run = open_run(path, device="cpu", read=read)
        if run.predicts_masks:
            made: Any = open_logit_maps(run)
        else:
            made = run.decoder, lambda count: draw_inputs(run.decoder, range(count))
    else:
        call = _from_module(factory) if factory else _from_file(script)
        try:
            made = call(path) if path is not None else call()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise InputError(f"{factory or script} failed: {text} (--debug shows where)") from error
    network, draw = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    name = factory or script or path
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returned {type(network).__name__}; it must return an nn.Module")
    if draw is None:
        latent = getattr(network, "latent", None)
        if type(latent) is not int:
            raise InputError(
                f"{name}: the network has no whole number `latent`; return (network, draw) "
                "where draw(n) gives n latents or maps"
            )

        def draw(count: int) -> Tensor:
            return draw_latents(range(count), latent)

    return LoadedNetwork(str(path or name), network.eval().requires_grad_(False), draw, read)


def _split(named: str, form: str) -> tuple[str, str]:
    place, colon, function = named.rpartition(":")
    if not colon or not place or not function:
        raise InputError(f"{named!r}; write {form}")
    return place, function


def _put_first(folder: Path) -> None:
    """Let the user's modules import one another, whatever else has their names."""
    sys.path.insert(0, str(folder))


def _from_module(named: str) -> Callable[..., Any]:
    place, function = _split(named, "--factory package.module:callable")
    _put_first(Path.cwd())
    try:
        return _callable(importlib.import_module(place), function, named)
    except ModuleNotFoundError as error:
        raise InputError(f"--factory {named}: {error}") from error


def _from_file(named: str) -> Callable[..., Any]:
    place, function = _split(named, "--script file.py:callable")
    if not Path(place).is_file():
        raise InputError(f"--script {place}: no such file")
    spec = importlib.util.spec_from_file_location("gen_user_script", place)
    if spec is None or spec.loader is None:
        raise InputError(f"--script {place}: is no Python file")
    _put_first(Path(place).resolve().parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    spec.loader.exec_module(module)
    return _callable(module, function, named)


def _callable(module: Any, function: str, named: str) -> Callable[..., Any]:
    found = getattr(module, function, None)
    if not callable(found):
        raise InputError(f"{named}: has no callable {function!r}")
    return found


def open_images(
    path: Path, selection: Selection, num: int, inputs: Path | None = None
) -> ImageStream:
    """Images of a path, or what a run or a checkpoint makes: `num` samples, or logit maps.

    Maps are those of `inputs`, or of the run's validation images. Raises as `measure_path`.
    """
    from gen.runs.open import open_run
    from gen.sampling.masks import BATCH, map_batches, open_logit_maps
    from gen.sampling.seeds import sample_batches, sample_images

    if is_run(path) and selection.sheet:
        raise DataError(f"{path}: a run draws whole samples; leave the tile size out")
    run = open_run(path) if is_run(path) else None
    if inputs and not (run and run.predicts_masks):
        raise DataError(f"{path}: no run of a segmenter, which alone is shown images (--inputs)")
    if run is None:
        return open_stream(path, selection)
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
    return ImageStream(shape, number, samples)
