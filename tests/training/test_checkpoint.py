"""Checkpoints: whole or not there, and nothing foreign is trusted."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from gen.sampling import load
from gen.training.checkpoint import CheckpointError, find_checkpoint, load_checkpoint


@pytest.fixture
def checkpoint(finished_run):
    return find_checkpoint(finished_run[1])


def test_newest_is_found(finished_run):
    assert find_checkpoint(finished_run[1]).name == "step-00000006.pt"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_file_is_one_line(checkpoint, tmp_path, share):
    data = checkpoint.read_bytes()
    short = tmp_path / "short.pt"
    short.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"short\.pt: damaged, or no checkpoint") as error:
        load_checkpoint(short)
    assert "\n" not in str(error.value)


def test_pickle_that_runs_code_is_refused(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    torch.save({"config": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    assert not canary.exists()


def test_foreign_torch_file(tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of gen"):
        load_checkpoint(tmp_path / "foreign.pt")


def test_weights_of_another_architecture(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["model"]["width"] = 8
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="do not fit"):
        load(tmp_path / "other.pt")


@pytest.mark.parametrize("value", [10**9, "64", None, -1])
def test_configuration_is_checked_before_anything_is_built(checkpoint, tmp_path, value):
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["model"]["width"] = value
    torch.save(content, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match="width"):
        load(tmp_path / "wide.pt")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_run_there(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / name)


def test_temporary_files_do_not_stay(finished_run):
    names = {p.name for p in Path(finished_run[1]).rglob("*")}
    assert not [name for name in names if name.startswith(".")]
