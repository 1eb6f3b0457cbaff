"""Feed damaged files to all that reads files, and count what comes back other than one clear line.

    python tests/slow/fuzz.py --minutes 10 --target decode --target checkpoint --target json

Real files are made, then bytes, structures or values of them changed at random (from --seed and
the number of the input, so that a finding can be repeated). Structures are those of the format:
records of a zip archive, opcodes of a pickle, the header of a safetensors file, rows of JSON,
chunks of PNG and WebP, fields of TIFF, blocks of GIF. Whatever is raised beside the one error
that the reader promises, takes over ten seconds of processor time or a gibibyte of memory more than
before, is a finding; its input is kept in --outdir, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import pickletools
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SECONDS, GIBIBYTE = 10, 1 << 20  # of processor time per input; of ru_maxrss, in kibibytes
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**64, 10**400, 1e308, float("nan"), float("inf"), -0.5, "", "x",
    "1", "\ud800", [], [1], [1, 2], {}, {"a": 1}, [[]], "é" * 1000,
)  # fmt: skip
Reader = Callable[[Path], str | None]


# Files


def images() -> Iterator[tuple[str, bytes]]:
    """Image files of every format, depth and extra that `decode` has a branch for."""
    from PIL import Image

    rng = np.random.default_rng(0)
    color, deep = rng.integers(0, 256, (12, 16, 3), np.uint8), rng.integers(0, 65536, (12, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "rgb": Image.fromarray(color), "gray": Image.fromarray(color[..., 0]),
        "palette": Image.fromarray(color).quantize(16), "bits": Image.fromarray(color[..., 0] > 99),
        "rgba": Image.fromarray(np.dstack([color, color[..., :1]])),
        "la": Image.fromarray(color[..., :2]), "deep": Image.fromarray(deep.astype(np.uint16)),
        "cmyk": Image.fromarray(color).convert("CMYK"),
        "float": Image.fromarray(color[..., 0] / np.float32(255)),
    }  # fmt: skip
    kinds = {
        "png": ("rgb", "gray", "palette", "bits", "rgba", "la", "deep"),
        "tiff": ("rgb", "gray", "palette", "bits", "rgba", "deep", "cmyk", "float"),
        "jpeg": ("rgb", "gray", "cmyk"), "webp": ("rgb", "rgba"), "bmp": ("rgb", "palette"),
    }  # fmt: skip
    options = {"tiff": ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}),
               "jpeg": ({}, {"progressive": True}), "webp": ({}, {"lossless": True})}  # fmt: skip
    for kind, names in kinds.items():
        for name in names:
            for option in options.get(kind, ({},)):
                if option.get("compression") == "jpeg" and name not in ("rgb", "gray"):
                    continue
                buffer = io.BytesIO()
                with_exif = {} if kind == "bmp" else {"exif": exif}
                made[name].save(buffer, kind, **option, **with_exif)
                yield f"{name}.{kind}", buffer.getvalue()
    for count, color_type in ((3, 2), (2, 4), (4, 6)):
        rows = b"".join(b"\0" + rng.bytes(10 * count) for _ in range(4))
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, color_type, 0, 0, 0))]
        chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        yield f"deep{count}.png", _png(chunks)
    for name, array in (("bytes", color[None]), ("floats", color[None] / np.float32(255))):
        for suffix, save in (("npy", np.save), ("npz", np.savez_compressed)):
            buffer = io.BytesIO()
            save(buffer, array)
            yield f"{name}.{suffix}", buffer.getvalue()
    buffer = io.BytesIO()
    made["palette"].save(buffer, "gif", save_all=True, append_images=[made["palette"]])
    yield "gif.png", buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, images=color[None], labels=np.array([2]))
    yield "labels.npz", buffer.getvalue()


def archives() -> Iterator[tuple[str, bytes]]:
    """Archives of four images in two folders, as .zip, stored and deflated, and as .tar."""
    pictures = [(f"{n % 2}/{n}.png", dict(images())["rgb.png"]) for n in range(4)]
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for member, data in pictures:
                archive.writestr(member, data)
        yield f"{name}.zip", buffer.getvalue()
    for name, layout in (("ustar", tarfile.USTAR_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
            for member, data in pictures:
                info = tarfile.TarInfo("ü" * (name == "pax") + member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        yield f"{name}.tar", buffer.getvalue()


def checkpoints(folder: Path) -> Iterator[tuple[str, bytes]]:
    """A checkpoint of each model, and weights in the layout of PyTorch's example."""
    import torch

    from gen.config.run import MODELS, RunConfig
    from gen.data.datasets import load_dataset
    from gen.training.loop import Trainer
    from tests.foreign_networks import ExampleGenerator

    plain = {"size": [16, 16], "channels": 3, "width": 4}
    data = load_dataset("shapes", root=folder, size=(16, 16), channels=3, count=16)
    for model in ("dcgan", "vae"):
        assert model in MODELS
        values = {
            "model": {"model": model, **plain, "latent": 6},
            "training": {"steps": 1, "batch_size": 8, "device": "cpu"},
        }
        run = folder / model
        run.mkdir()
        Trainer(RunConfig.from_dict(values), data, run).run()
        yield f"{model}.pt", sorted((run / "checkpoints").glob("*.pt"))[-1].read_bytes()
    for name, zipped in (("example", True), ("old", False)):
        buffer, weights = io.BytesIO(), ExampleGenerator((6, 8, 4, 3)).state_dict()
        torch.save(weights, buffer, _use_new_zipfile_serialization=zipped)
        yield f"{name}.pth", buffer.getvalue()
    buffer = io.BytesIO()
    nested = {f"generator.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": nested, "optimizer_states": [{}]}, buffer)
    yield "nested.pth", buffer.getvalue()


def exports(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The weights of an exported run; its configuration lies in the folder of the inputs."""
    from gen.share.export import save_pretrained

    list(checkpoints(folder))
    save_pretrained(folder / "dcgan", folder / "new")
    yield "dcgan.safetensors", (folder / "new" / "model.safetensors").read_bytes()


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Configurations, a measurement, a log, and the index of a sharded checkpoint."""
    from gen.analysis.measure.meter import measure
    from gen.config.run import MODELS, RunConfig

    for model in MODELS:
        plain = RunConfig.from_dict({"model": {"model": model}}).to_dict()
        yield f"{model}.config", json.dumps(plain).encode()
    noise = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), np.uint8)
    measured = measure(noise, (2, 4), noise[::-1].copy(), (0, 255))
    yield "plain.measurement", json.dumps(measured.to_dict()).encode()
    names = [
        f"checkerboard/period{p}_{v}" for p in (2, 4) for v in ("dbc", "detected", "limit_dbc")
    ]
    rows = [{"step": s, "loss/vae": 0.5, **dict.fromkeys(names, 1.0)} for s in range(4)]
    yield "plain.log", "\n".join(map(json.dumps, rows)).encode()
    places = {name: f"{name}.safetensors" for name in ("one", "two")}
    yield "plain.index", json.dumps({"metadata": {"total_size": 8}, "weight_map": places}).encode()


# Damage


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [
            struct.pack(">I", len(data)),
            kind,
            data,
            struct.pack(">I", zlib.crc32(kind + data)),
        ]
    return b"".join(parts)


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove, repeat or cut some bytes."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        size = len(content)
        if not size:
            return bytes(content)
        place = rng.randrange(min(size, 400)) if rng.random() < 0.5 else rng.randrange(size)
        length = rng.choice((1, 2, 4, 16, 200))
        what = rng.randrange(7)
        if what == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(NUMBERS) % 256**width
            content[place : place + width] = number.to_bytes(width, order)
        elif what == 2:
            content[place : place + length] = rng.randbytes(length)
        elif what == 3:
            content[place:place] = rng.randbytes(length)
        elif what == 4:
            del content[place : place + length]
        elif what == 5:
            content[place:place] = content[place : place + length]
        else:
            del content[place:]
    return bytes(content)


def damage_inside(data: bytes, rng: random.Random) -> bytes:
    """The same within a chunk of PNG or a member of a zip, with checksums that fit again."""
    if data.startswith(b"\x89PNG"):
        chunks, place = [], 8
        while place < len(data):
            (length,) = struct.unpack(">I", data[place : place + 4])
            chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
            place += length + 12
        index = rng.randrange(len(chunks))
        kind, held = chunks[index]
        if kind == b"IDAT" and rng.random() < 0.5:
            held = zlib.compress(damage(zlib.decompress(held), rng))
        else:
            held = damage(held or b"\0", rng)
        chunks[index] = kind, held
        return _png(chunks)
    if data.startswith(b"PK") and rng.random() < 0.4:
        return damage_records(data, rng)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        # Of a checkpoint's members all but one hold nothing but numbers.
        weights = [20 if name.endswith((".pkl", ".npy")) else 1 for name, _ in members]
        (index,) = rng.choices(range(len(members)), weights)
        name, held = members[index]
        opcodes = name.endswith(".pkl") and rng.random() < 0.8
        members[index] = name, (damage_opcodes if opcodes else damage)(held, rng)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, held in members:
                archive.writestr(name, held)
        return buffer.getvalue()
    if data.startswith(b"\x80\2"):
        return damage_opcodes(data, rng)
    if data[8:9] == b"{":
        return damage_header(data, rng)
    if data.startswith((b"RIFF", b"II*\0", b"MM\0*", b"GIF8")):
        return damage_fields(data, rng)
    return damage(data, rng)


RECORDS = {b"PK\3\4": "HHHHHLLLHH", b"PK\1\2": "HHHHHHLLLHHHHHLL", b"PK\5\6": "HHHHLLH",
           b"PK\6\6": "QHHLLQQQQ", b"PK\6\7": "LQL", b"PK\7\x08": "LLL"}  # fmt: skip


def damage_records(data: bytes, rng: random.Random) -> bytes:
    """Numbers of a zip archive's records, or a record that is repeated, removed, moved or new."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = [(content.find(sign), sign) for sign in RECORDS if sign in content]
        places += [(content.rfind(sign), sign) for _, sign in places]
        if not places:
            break
        place, sign = rng.choice(places)
        layout = "<" + RECORDS[sign]
        size = struct.calcsize(layout)
        if len(content) < place + 4 + size:
            break
        values = list(struct.unpack_from(layout, content, place + 4))
        what = rng.random()
        if what < 0.6:
            field = rng.randrange(len(values))
            width = {"H": 2, "L": 4, "Q": 8}[RECORDS[sign][field]]
            near = (values[field] + rng.choice((-1, 1, 2, 22))) % 256**width
            other = rng.choice(values) % 256**width
            values[field] = rng.choice((near, other, rng.choice(NUMBERS) % 256**width))
            struct.pack_into(layout, content, place + 4, *values)
        elif what < 0.75:
            del content[place : place + 4 + size]
        else:
            record = content[place : place + 4 + size]
            target = rng.choice((0, place, len(content), rng.randrange(len(content))))
            content[target:target] = record
    return bytes(content)


OPCODES = (
    b"]", b"}", b")", b"(", b"N", b"t", b"\x85", b"\x86", b"\x87", b"e", b"a", b"s", b"u", b"b",
    b"R", b"Q", b"\x81", b"\x8f", b".", b"0", b"2", b"q\0", b"h\0", b"h\1", b"h\5",
    b"r\xff\xff\xff\xff", b"K\0", b"K\xff",
    b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\0",
    b"G\x7f\xf8\0\0\0\0\0\0", b"X\0\0\0\0", b"X\1\0\0\0a", b"U\1a", b"\x80\4", b"]" * 50,
    b"h\0h\0\x86q\0" * 40, b"ccollections\nOrderedDict\n", b"cbuiltins\nbytearray\n",
    b"cbuiltins\nset\n", b"ccollections\nCounter\n", b"ctorch\nSize\n", b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch\nfloat16\n", b"cos\nsystem\n",
    b"ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadataK\1sb",
)  # fmt: skip


def damage_opcodes(data: bytes, rng: random.Random) -> bytes:
    """Opcodes of pickles repeated, removed, exchanged, moved, or new; what follows them stays."""
    starts, end = [], 0
    with contextlib.suppress(ValueError, IndexError):
        while end < len(data) and data[end : end + 1] == b"\x80":
            stream = io.BytesIO(data[end:])
            starts += [end + place for _, _, place in pickletools.genops(stream)]
            end += stream.tell()
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        what = rng.randrange(6)
        if what == 0:
            parts[place] = parts[other]
        elif what == 1:
            parts[place], parts[other] = parts[other], parts[place]
        elif what == 2:
            parts[place] = b""
        elif what == 3:
            parts[place] *= rng.choice((2, 3, 1000))
        elif what == 4:
            parts[place] = rng.choice(OPCODES)
        else:
            parts[place] += rng.choice(OPCODES)
    return b"".join(parts) + data[end:]


def damage_header(data: bytes, rng: random.Random) -> bytes:
    """Values of a safetensors header; often with the digest that then fits."""
    from safetensors.torch import load

    from gen.runs.pretrained import digest

    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    what = rng.random()
    if what < 0.6:
        plain = json.loads(header)
        for _ in range(rng.choice((1, 1, 2, 5))):
            entry = rng.choice([value for name, value in plain.items() if name[:2] != "__"])
            field = rng.choice(("dtype", "shape", "data_offsets"))
            if field == "dtype":
                entry[field] = rng.choice(
                    ("BF16", "F8_E4M3", "F8_E5M2", "F64", "U8", "BOOL", "I64")
                )
            elif entry[field]:
                index = rng.randrange(len(entry[field]))
                entry[field][index] += rng.choice((-4, -1, 1, 4, *NUMBERS))
        header = json.dumps(plain).encode()
    else:
        header = (damage_values if what < 0.8 else damage)(header.rstrip(), rng)
    if rng.random() < 0.2:
        rest = damage(rest, rng)
    made = struct.pack("<Q", len(header)) + header + rest
    if rng.random() < 0.7:
        with contextlib.suppress(Exception):  # what cannot be read has no digest
            plain, sha256 = json.loads(header), digest(load(made))
            about = json.loads(plain["__metadata__"]["gen"]) | {"sha256": sha256}
            plain["__metadata__"]["gen"] = json.dumps(about)
            header = json.dumps(plain).encode()
            made = struct.pack("<Q", len(header)) + header + rest
    return made


def damage_fields(data: bytes, rng: random.Random) -> bytes:
    """A field of TIFF's directory, a chunk of WebP or a block of GIF: its kind, size or place."""
    content = bytearray(data)
    order = ">" if data[:2] == b"MM" else "<"
    if data[:4] == b"RIFF":
        places, place = [], 12
        while place + 8 <= len(data):
            places.append(place)
            place += 8 + (int.from_bytes(data[place + 4 : place + 8], "little") + 1) // 2 * 2
        layout, skip = "<4sL", 0
    elif data[:4] == b"GIF8":
        places = [6, *(i for i in range(len(data) - 10) if data[i : i + 1] in (b",", b"!"))]
        layout, skip = "<HHHHB", 0
    else:
        (first,) = struct.unpack_from(order + "L", data, 4)
        (count,) = struct.unpack_from(order + "H", data, first)
        places = [first + 2 + 12 * index for index in range(count)]
        layout, skip = order + "HHLL", 0
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.choice(places) + skip
        if place + struct.calcsize(layout) > len(content):
            continue
        values = list(struct.unpack_from(layout, content, place))
        field = rng.randrange(len(values))
        if isinstance(values[field], bytes):
            values[field] = rng.choice(
                (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF")
            )
        else:
            width = {"B": 1, "H": 2, "L": 4}[layout.strip("<>").replace("4s", "s")[field]]
            near = (values[field] + rng.choice((-1, 1, 7))) % 256**width
            values[field] = rng.choice((near, rng.choice(NUMBERS) % 256**width))
        struct.pack_into(layout, content, place, *values)
    if rng.random() < 0.2:
        place = rng.choice(places)
        content[place:place] = content[place : place + rng.choice((8, 12, 40))]
    return bytes(content)


def damage_archive(data: bytes, rng: random.Random) -> bytes:
    """Change fields of a tar header, with a checksum that fits again; zips as `damage_inside`."""
    if data.startswith(b"PK"):
        return damage_inside(data, rng)
    content = bytearray(data)
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for at in rng.sample(heads, min(len(heads), rng.choice((1, 1, 2)))):
        first, length = rng.choice(
            ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (345, 155))
        )
        values = b"../x", b"/etc/passwd", b"77777777777", b"-1", b"5", b"2", b"x", b"L", b"S", b"0"
        value = rng.choice((*values, b"a" * length, rng.randbytes(length), b"\x80" + b"\xff" * 11))
        content[at + first : at + first + length] = value[:length].ljust(length, b"\0")
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return bytes(content)


def damage_values(data: bytes, rng: random.Random) -> bytes:
    """Put hostile values, or values from elsewhere, into places of a JSON text; or drop some."""
    lines = data.decode().split("\n")
    row = rng.randrange(len(lines))
    plain = json.loads(lines[row])
    for _ in range(rng.choice((1, 1, 2, 5))):
        holder: Any = {"root": plain}
        key: Any = "root"
        while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
            holder = holder[key]
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if holder.keys() == {"root"} if isinstance(holder, dict) else False:
            plain = copy.deepcopy(rng.choice(VALUES))
        elif isinstance(holder, dict) and rng.random() < 0.2:
            del holder[key]
        elif isinstance(holder, dict) and rng.random() < 0.1:
            holder[rng.choice(("x", "schema", "2", ""))] = copy.deepcopy(rng.choice(VALUES))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    lines[row] = json.dumps(plain)
    return "\n".join(lines).encode()


# Readers: each gives the promised error as its first look met it, or None; all else is raised


def _looked(looks: list[Callable[[], Any]], promised: tuple[type[Exception], ...]) -> str | None:
    met = []
    for look in looks:
        try:
            look()
            met.append(None)
        except promised as error:
            met.append(str(error))
    return met[0]


def read_image(path: Path) -> str | None:
    """Decode, check and look into the header; or open and read an array."""
    from gen.data.arrays import open_array
    from gen.data.decode import DataError, check, decode, read_headers

    def pixels() -> None:
        levels = decode(path, max_pixels=1 << 20)
        assert 0 <= levels.min() <= levels.max() <= 255, "levels outside 0 … 255"

    def array() -> None:
        images = open_array(path)
        images.read(np.arange(len(images.pixels))[:2])

    others = [lambda: check(path, max_pixels=1 << 20), lambda: read_headers(path)]
    return _looked([array] if path.suffix in (".npy", ".npz") else [pixels, *others], (DataError,))


def read_archive(path: Path) -> str | None:
    """Read all images of an archive."""
    from gen.data.decode import DataError
    from gen.data.stream import Selection, open_stream
    from gen.system.errors import InputError

    def read() -> None:
        for batch in open_stream(path, Selection(max_pixels=1 << 20, workers=1)).batches:
            assert 0 <= batch.min() <= batch.max() <= 255, "levels outside 0 … 255"

    return _looked([read], (DataError, InputError, OSError))


def read_checkpoint(path: Path) -> str | None:
    """Load a decoder as sample.py does, a whole run as --resume does, and a network of others."""
    from gen.runs.checkpoint import CheckpointError
    from gen.runs.describe import describe_file
    from gen.runs.open import load, load_checkpoint, read_file
    from gen.runs.weights import fill_network
    from gen.system.errors import InputError
    from tests.foreign_networks import ExampleGenerator

    looks = [
        lambda: load(path, device="cpu"),
        lambda: load_checkpoint(path),
        lambda: describe_file(path),
        lambda: fill_network(ExampleGenerator((6, 8, 4, 3)), read_file(path)),
    ]
    return _looked(looks, (CheckpointError, InputError))


def read_text(path: Path) -> str | None:
    """Read a configuration, a measurement to compare, the log of a run, or shards by an index."""
    import click
    import torch
    from safetensors.torch import save_file

    from gen.analysis.report.history import describe_onset, draw_history, read_history
    from gen.commands.compare import _read_measurement, table
    from gen.commands.train import new_config
    from gen.runs.checkpoint import CheckpointError
    from gen.runs.open import read_file
    from gen.system.files import read_rows

    def configuration() -> None:
        new_config(path.stem.split("-")[0], str(path), {})

    def measurement() -> None:
        as_json = path.with_suffix(".json")
        as_json.write_bytes(path.read_bytes())
        table({"a": _read_measurement(as_json)})

    def log() -> None:
        (path.parent / "metrics.jsonl").write_bytes(path.read_bytes())
        read_rows(path)
        rows = read_history(path.parent)
        describe_onset(rows)
        if zlib.crc32(path.read_bytes()) % 50 == 0:  # slow
            draw_history(rows)

    def index() -> None:
        for name in ("one", "two"):
            save_file({name: torch.ones(1)}, path.with_name(f"{name}.safetensors"))
        read_file(path)

    looks = {".config": configuration, ".measurement": measurement, ".log": log, ".index": index}
    return _looked([looks[path.suffix]], (ValueError, click.UsageError, CheckpointError))


TARGETS: dict[str, tuple[Callable[[Path], Iterator[tuple[str, bytes]]], Reader, Any]] = {
    "decode": (lambda _: images(), read_image, damage_inside),
    "archive": (lambda _: archives(), read_archive, damage_archive),
    "checkpoint": (checkpoints, read_checkpoint, damage_inside),
    "safetensors": (exports, read_checkpoint, damage_inside),
    "json": (texts, read_text, damage_values),
}


def _too_long(*_: Any) -> None:
    raise BaseException("over ten seconds")


def fuzz(target: str, seed: int, seconds: float, outdir: Path) -> int:
    """Try inputs for so long; prints their number and each kind of finding once."""
    make, read, inside = TARGETS[target]
    warnings.simplefilter("ignore")  # decoders warn of damage that they can live with
    signal.signal(signal.SIGPROF, _too_long)
    found: dict[str, Path] = {}
    tried = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made").mkdir()
        originals = list(make(folder / "made"))
        for config in (folder / "made").glob("new/config.json"):  # safetensors need theirs
            for place in (folder, outdir):
                (place / config.name).write_bytes(config.read_bytes())
        for original, data in originals:  # undamaged, all can be read
            path = folder / original
            path.write_bytes(data)
            if (said := read(path)) and not original.startswith("gif"):  # a GIF is no input
                sys.exit(f"{original} is undamaged, but: {said}")
        high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rng = random.Random(seed * 10**9 + tried)
            tried += 1
            original, data = rng.choice(originals)
            data = (inside if rng.random() < 0.6 else damage)(data, rng)
            stem, _, suffix = original.partition(".")
            path = outdir / f"{stem}-{os.getpid()}.{suffix}"  # stays where the process dies
            path.write_bytes(data)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            kind = None
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # warnings of rows left out
                    read(path)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                trace = error.__traceback__
                while trace and trace.tb_next:
                    trace = trace.tb_next
                where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
                kind = f"{type(error).__name__} at {where}: {error}"[:200]
            signal.setitimer(signal.ITIMER_PROF, 0)
            if (now := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > high + GIBIBYTE:
                kind, high = f"{(now - high) >> 10} MiB of memory", now
            if kind and (place := kind.split(": ")[0]) not in found:
                found[place] = outdir / f"{target}-{len(found)}-{stem}.{suffix}"
                path.rename(found[place])
                print(f"{target}: {kind} ({found[place]})", flush=True)
            path.unlink(missing_ok=True)
    print(f"{target}: {tried:,} inputs tried in {seconds / 60:g} minutes, {len(found)} findings")
    return len(found)


def main() -> None:
    """Parse and try."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="per target")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--outdir", type=Path, default=Path("runs/fuzz"), help="for findings")
    given = parser.parse_args()
    given.outdir.mkdir(parents=True, exist_ok=True)
    targets = given.target or list(TARGETS)
    found = [fuzz(t, given.seed, 60 * given.minutes, given.outdir) for t in targets]
    sys.exit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
