"""What a file of weights holds, as a tree of names, shapes, and types."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from gen.runs.checkpoint import CheckpointError, Stored, fitting, is_ours, stored_in
from gen.runs.formats import SAFETENSORS, format_of
from gen.runs.open import read_newest, stack_in
from gen.runs.pretrained import read_header
from gen.runs.weights import list_networks, named_parts
from gen.system.errors import InputError
from gen.system.text import shorten

SHOWN = 200  # lines of a tree


def describe_file(path: Path | str, key: str | None = None) -> str:
    """What a file holds: a summary line, its metadata, and the tree of what is in it.

    Args:
        path: a file, or a folder with one.
        key: the part to show, with all its lines.

    Raises:
        CheckpointError: missing, damaged, or something that cannot be read safely.
    """
    path, content = read_newest(path)
    if key:
        try:
            ((place, part), *_) = named_parts(list(list_networks(content)), key)
        except InputError as error:
            raise CheckpointError(f"{path}: {error}") from error
        return "\n".join([f"{path}: {shorten(place)}", *_tree(part)])
    if is_ours(content):
        return _describe_run(path, content)
    tensors = [value for value in _leaves(content) if isinstance(value, torch.Tensor)]
    values = sum(tensor.numel() for tensor in tensors)
    lines = [f"{path}: {len(tensors)} tensors, {values:,} values", _use(path, content)]
    if format_of(path) == SAFETENSORS:
        about = read_header(path).get("__metadata__", {})
        lines += [f"metadata {shorten(name)}: {shorten(text)}" for name, text in about.items()]
    tree = list(_tree(content if isinstance(content, dict | list | tuple) else [content]))
    more = f"  … and {len(tree) - SHOWN} more lines (--key NAME shows all of a part)"
    return "\n".join([*lines, *tree[:SHOWN], *[more] * (len(tree) > SHOWN)])


def _describe_run(path: Path, content: Any) -> str:
    """A checkpoint or an export of ours, in a few lines."""
    stored: Stored = stored_in(path, content)
    model = stored.config.model
    lines = [f"{path}: {model.model} of this toolkit after {stored.step} steps", str(model)]
    with fitting(path):
        for part, networks in (("last", stored.last), ("averaged", stored.averaged)):
            lines += [f"{name}, {part}: {_count(w)} values" for name, w in networks.items()]
    return "\n".join(lines)


def _use(path: Path, content: Any) -> str:
    """What commands make of the file."""
    try:
        stack = stack_in(path, content)
    except CheckpointError as error:
        return str(error).removeprefix(f"{path}: ")
    size = "x".join(map(str, stack.sizes[-1]))
    widths = " → ".join(map(str, stack.widths[1:]))
    return (
        f"DCGAN generator: latent {stack.latent} → {widths} channels, images of {size}; every "
        "command takes it"
    )


def _tree(content: Any, depth: int = 1) -> Iterator[str]:
    """One line for each value: its name, and its shape and type or a few characters of it."""
    indent = "  " * depth
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in items:
        if isinstance(value, Namespace | SimpleNamespace):
            value = vars(value)
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            yield f"{indent}{shorten(name)} {tuple(value.shape)} {dtype}"
        elif isinstance(value, dict | list | tuple) and any(map(_branches, _children(value))):
            yield f"{indent}{shorten(name)}: {len(value)} entries"
            yield from _tree(value, depth + 1)
        else:
            yield f"{indent}{shorten(name)} = {shorten(_plain(value))}"


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _branches(value: Any) -> bool:
    return isinstance(value, torch.Tensor | dict | list | tuple)


def _plain(value: Any) -> str:
    """A plain value, or the first of a long list of them."""
    few = value[:40] if isinstance(value, str | list | tuple) else value
    return f"{few!r}" + " …" * (few is not value and len(few) < len(value))


def _leaves(content: Any) -> Iterator[Any]:
    if not isinstance(content, dict | list | tuple):
        yield content
        return
    for value in _children(content):
        yield from _leaves(value)


def _count(weights: dict[str, torch.Tensor]) -> str:
    return f"{sum(value.numel() for value in weights.values()):,}"
