"""What a file is, by its first bytes: names and suffixes decide nothing."""

from __future__ import annotations

import json
from pathlib import Path

from gen.system.files import open_regular

TORCH, SAFETENSORS, INDEX, ONNX = "torch", "safetensors", "index", "ONNX"
HUB = "hf-hub:"  # begins the address of a folder on the Hugging Face Hub
# Weights in a folder of the Hub, in the order in which they are looked for.
PUBLISHED = (
    "model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a file of torch before 1.6
_MAX_HEADER = 100 << 20  # bytes; what safetensors itself reads

_SCRIPT = "build its network with --script FILE.py:FUNCTION"
# Formats that hold networks but cannot be read: what they are, and what to do.
FOREIGN = {
    "pickle": f"holds a pickle, which is code; save a state_dict() of it with torch.save, or "
    f"{_SCRIPT}",
    ONNX: "holds an ONNX graph; run it with --script FILE (it draws images and has no layers)",
    "LFS": "holds a pointer of Git LFS, not the file itself; run `git lfs pull`",
    "HDF5": "holds HDF5, as Keras writes it; convert it to safetensors",
    "GGUF": "holds GGUF; convert it to safetensors",
    "tar": "holds a tar archive, as torch wrote it before 0.1.10; unpack it or save it anew",
    "gzip": "is compressed by gzip; unpack it",
    "HTML": "holds an HTML page; the download failed",
}  # fmt: skip
_STARTS = {
    LEGACY: TORCH,
    b"\x80": "pickle",
    b"version https://git-lfs": "LFS",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"GGUF": "GGUF",
    b"\x1f\x8b": "gzip",
    b"<!DOCTYPE html": "HTML",
    b"<html": "HTML",
}


def format_of(path: Path) -> str | None:
    """The format of a file that holds a network: a key of `FOREIGN`, TORCH, SAFETENSORS, or INDEX.

    None for everything else, such as images and arrays. It reads a few bytes; whether the rest is
    sound is for its reader to say.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        start = file.read(4096)
        size = file.seek(0, 2)
    for signature, name in _STARTS.items():
        if start.startswith(signature):
            return name
    if start.startswith(b"PK\3\4"):
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        return None if first.endswith(b".npy") or b"/" not in first else TORCH
    if start[257:262] == b"ustar":
        return "tar"
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 8 + header <= size and header <= _MAX_HEADER:
        return SAFETENSORS
    if start.lstrip().startswith(b"{") and b'"weight_map"' in start + _end(path):
        return INDEX
    # An ONNX model begins with its version, a small number, and then a text or its graph.
    onnx = start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in (b"\x12", b":")
    return ONNX if onnx else None


def holds_network(path: Path) -> bool:
    """Whether a path is a file of weights, read or not, or a folder that holds one, not images."""
    if str(path).startswith(HUB):
        return True
    if path.is_dir():
        return any((path / name).exists() for name in ("checkpoints", *PUBLISHED))
    return path.is_file() and format_of(path) not in (None, "tar", "gzip", "HTML")


def _end(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(1 << 24)


def read_index(path: Path) -> dict[str, list[str]]:
    """The files of a sharded checkpoint, each with the names of its tensors.

    Raises:
        ValueError: no index, or one that names files elsewhere.
    """
    with open_regular(path) as file:
        places = json.loads(file.read(1 << 26)).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError("no weight_map")
    files: dict[str, list[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise ValueError(f"{str(shard)[:60]!a} is no name of a file in this folder")
        files.setdefault(shard, []).append(name)
    return files
