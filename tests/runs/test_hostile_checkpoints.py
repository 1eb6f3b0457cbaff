"""Checkpoints that nobody should trust: cut anywhere, flipped, foreign, or made to run code."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import random
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import analyze
import sample
import train
from gen.runs.checkpoint import CheckpointError, run_checkpoints
from gen.runs.describe import describe_file
from gen.runs.open import load, load_checkpoint
from gen.training.loop import Trainer
from tests.conftest import small_config

READERS = (load, load_checkpoint, describe_file)


@pytest.fixture(scope="module")
def content(tmp_path_factory, small_dataset):
    """A checkpoint of a small run, as bytes."""
    folder = tmp_path_factory.mktemp("run")
    assert Trainer(small_config(steps=1), small_dataset, folder).run() == 0
    return run_checkpoints(folder)[-1].read_bytes()


def refused(path: Path, *said: str, readers=READERS) -> None:
    for read in readers:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
        assert not said or any(part in text for part in said), text


def test_cut_at_every_kibibyte(content, tmp_path):
    path = tmp_path / "cut.pt"
    for length in range(0, len(content), 1024):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt: damaged, or no checkpoint"):
            load_checkpoint(path)


def test_a_flipped_bit_in_every_region(content, tmp_path):
    """In every member's data and name, in the directory and in its end."""
    path = tmp_path / "flipped.pt"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        starts = [(entry.header_offset, entry.filename) for entry in archive.infolist()]
        directory = archive.start_dir
    rng = random.Random(0)
    edges = [start for start, _ in starts] + [directory]
    places = [rng.randrange(a, b) for a, b in itertools.pairwise(edges)]
    places += [rng.randrange(directory, len(content)) for _ in range(12)]
    path.write_bytes(content)
    whole = load_checkpoint(path)["modules"]
    found = 0
    for place in places:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        )
        try:
            read = load_checkpoint(path)["modules"]
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            found += 1
            continue
        for name, weights in whole.items():  # a bit that means nothing, such as padding
            assert all(torch.equal(weights[key], read[name][key]) for key in weights)
    assert found > len(places) / 3


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil(canary: Path) -> dict[str, object]:
    command = f"touch {canary}"
    return {
        "os.system": Call(os.system, command),
        "subprocess": Call(subprocess.check_call, ["touch", str(canary)]),
        "eval": Call(eval, f"__import__('os').system({command!r})"),
        "exec": Call(exec, f"open({str(canary)!r}, 'w')"),
        "open": Call(open, str(canary), "w"),
        "torch.load": Call(torch.load, str(canary)),
        "array": Call(np.load, str(canary)),
        "torch.save": Call(torch.save, [1], str(canary)),
    }


@pytest.mark.parametrize("how", sorted(evil(Path())))
def test_no_pickle_runs_code(content, tmp_path, how):
    """Alone, in a checkpoint's place, in its weights, or as one more value of a whole one."""
    canary = tmp_path / "canary"
    value = evil(canary)[how]
    whole = torch.load(io.BytesIO(content), weights_only=True)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(value))
    torch.save(value, tmp_path / "zip.pt")
    torch.save(value, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(whole | {"config": value}, tmp_path / "config.pt")
    torch.save(whole | {"more": value}, tmp_path / "more.pt")
    torch.save({"weight": torch.ones(2), "bias": value}, tmp_path / "weights.pt")
    for name in ("plain", "zip", "old", "config", "more", "weights"):
        refused(tmp_path / f"{name}.pt", "holds code", "holds a pickle, which is code")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Call(open, str(canary), "w"))).close()
    assert canary.exists()  # it would have been seen


def foreign() -> dict[str, bytes]:
    """Files that are something else, by what they are."""
    made = {"nothing": b"", "text": b"hello\n", "html": b"<html>404</html>", "zeros": bytes(4096)}
    made["pickle"] = pickle.dumps({"config": {}, "step": 1})
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((2, 8, 8)))
    made["npz"] = buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    made["tar"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    made["docx"] = buffer.getvalue()
    for name, value in {
        "tensor": torch.ones(3), "list": [1, 2], "other": {"epoch": 1, "model": {}}, "number": 5,
        "optimizer": torch.optim.Adam([torch.ones(1, requires_grad=True)]).state_dict(),
    }.items():  # fmt: skip
        buffer = io.BytesIO()
        torch.save(value, buffer)
        made[name] = buffer.getvalue()
    return made


@pytest.mark.parametrize("kind", sorted(foreign()))
def test_foreign_files(tmp_path, kind):
    path = tmp_path / "foreign.pt"
    path.write_bytes(foreign()[kind])
    said = ["damaged, or no checkpoint", "no checkpoint of gen", "holds a"]
    refused(path, *said, readers=(load, load_checkpoint))
    if kind in ("tensor", "list", "other", "number", "optimizer"):
        assert "no weights of a network" in describe_file(path)
    else:
        refused(path, *said, readers=(describe_file,))


def test_safetensors_named_as_a_checkpoint(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "no checkpoint of gen", readers=(load, load_checkpoint))
    assert "weight (2,) float32" in describe_file(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change",
    [{"width": 8}, {"latent": 7}, {"size": (32, 32)}, {"upsample": "nearest"}, {"channels": 1}],
)
def test_weights_of_another_architecture(content, tmp_path, change):
    whole = torch.load(io.BytesIO(content), weights_only=True)
    whole["config"]["model"] |= {"kernel_size": 0, **change}
    torch.save(whole, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="weights do not fit the stored configuration"):
        load(tmp_path / "other.pt")


def test_every_command_refuses_a_pickle_that_runs_code(tmp_path):
    """All commands that read a checkpoint: one line each, exit 1, and no canary."""
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    torch.save(evil(canary)["os.system"], path)
    for command, *words in (
        [sample.main, path, "--grid", tmp_path / "grid.png"],
        [analyze.main, "images", path],
        [train.main, "dcgan", "--resume", path],
    ):
        result = CliRunner().invoke(command, [str(word) for word in words])
        assert result.exit_code == 1, result.stderr
        assert result.stderr.count("Error: ") == 1 and "Traceback" not in result.stderr
        assert result.stderr.strip().splitlines()[-1].startswith(f"Error: {path}: holds code")
    assert not canary.exists() and not (tmp_path / "grid.png").exists()
