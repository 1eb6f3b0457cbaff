"""Checkpoints: whole or not there, and nothing foreign is trusted."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from gen.runs.checkpoint import CheckpointError, run_checkpoints, save_checkpoint
from gen.runs.describe import describe_file
from gen.runs.open import find_checkpoint, load, load_checkpoint, read_file
from gen.training.loop import Trainer
from tests.conftest import small_config
from tests.equality import content_differences


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


def one_checkpoint(step=0, weight=1.0, **more):
    """The least that a checkpoint of a run holds."""
    weights = {"weight": torch.full((2, 2), weight)}
    return {"step": step, "modules": {"decoder": weights}, "ema": weights, **more}


def steps_in(folder):
    return [int(path.stem[5:]) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("stride", [37, pytest.param(5, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_read_as_something_else(tmp_path, stride):
    """Bits of a file of 1.9 kB in turn: refused, or padding that means nothing."""
    file = tmp_path / "file.pt"
    torch.save({"a": torch.arange(7.0), "b": {"c": torch.ones(3, 3), "d": [1, "x"]}}, file)
    data, whole = file.read_bytes(), read_file(file)
    refused = 0
    for place in range(0, 8 * len(data), stride):
        spoiled = bytearray(data)
        spoiled[place // 8] ^= 1 << place % 8
        file.write_bytes(spoiled)
        try:
            assert content_differences(read_file(file), whole) == [], place
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0.5 * 8 * len(data) / stride


def test_entries_that_torch_would_not_read_are_refused(tmp_path):
    """Marked as directories in the table of contents, tensors come out as any memory."""
    file = tmp_path / "file.pt"
    torch.save({"weight": torch.ones(12)}, file)
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        place = data.index(b"PK\x01\x02", archive.start_dir)
        while b"data/0" not in data[place + 46 : place + 70]:
            place = data.index(b"PK\x01\x02", place + 4)
    data[place + 38] ^= 0x10  # external attributes (APPNOTE.TXT 4.3.12)
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="directories"):
        read_file(file)


def repack(source, target, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def test_compressed_entries_are_refused(checkpoint, tmp_path):
    """A megabyte of them could hold a gigabyte of zeros."""
    repack(checkpoint, tmp_path / "plain.pt")
    assert content_differences(read_file(tmp_path / "plain.pt"), read_file(checkpoint)) == []
    repack(checkpoint, tmp_path / "packed.pt", zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed entries"):
        load_checkpoint(tmp_path / "packed.pt")


@pytest.mark.filterwarnings("ignore")
def test_tensors_larger_than_what_is_stored_are_refused(tmp_path):
    huge = {"strides": torch.zeros(1).expand(10**12), "meta": torch.zeros(10**12, device="meta")}
    huge["sparse"] = torch.sparse_coo_tensor(
        torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (10**12,), check_invariants=True
    )
    for name, tensor in huge.items():
        torch.save({"weights": [{"weight": tensor}]}, tmp_path / "huge.pt")
        assert (tmp_path / "huge.pt").stat().st_size < 10_000
        with pytest.raises(
            CheckpointError, match=r"larger than what is stored|no part of a tensor"
        ):
            read_file(tmp_path / "huge.pt")
        assert name


def test_content_that_holds_itself_ends(tmp_path):
    content = {"format": 1}
    content["again"] = content
    nested = []
    for _ in range(60):
        nested = [nested, nested]
    torch.save(content | {"config": nested}, tmp_path / "loop.pt")
    with pytest.raises(CheckpointError, match="nested over 32 deep"):
        load_checkpoint(tmp_path / "loop.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": 10**30}, "step is 1000"),
        ({"step": "3"}, "step is '3'"),
        ({"format": 2}, "format 2; this gen reads 1"),
        ({"format": torch.ones(2)}, "format tensor"),
        ({"config": {"model": {"model": ["vae"]}}}, "model is"),
        ({"config": 3}, "object of objects"),
    ],
)
def test_values_are_checked_before_use(checkpoint, tmp_path, change, said):
    torch.save(torch.load(checkpoint, weights_only=True) | change, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_channels_are_those_of_images(checkpoint, tmp_path, channels):
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["model"]["channels"] = channels
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=f"channels is {channels}"):
        load_checkpoint(tmp_path / "other.pt")


def test_networks_beyond_any_memory_are_refused_not_tried(checkpoint, tmp_path):
    """Each number is in its range; together they would take 39 terabytes."""
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["model"] |= {"width": 4096, "latent": 65536, "size": (4096, 4096)}
    torch.save(content, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match=r"e\+1\d weights, and 2e\+09 is the most"):
        load(tmp_path / "wide.pt")


def test_a_run_falls_back_to_its_newest_whole_checkpoint(finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run[1], tmp_path / "run")
    newest = run_checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:-200])
    assert load_checkpoint(run)["step"] == 3
    said = capsys.readouterr().err
    assert said.startswith(f"Warning: {newest}: damaged") and said.count("\n") == 1
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(newest)  # who names a file means that file
    for file in run_checkpoints(run):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-00000000"):
        load_checkpoint(run)


def test_what_is_kept(tmp_path):
    for step in range(0, 1001, 50):
        save_checkpoint(tmp_path, one_checkpoint(step), every=50, keep=3)
    assert steps_in(tmp_path) == [0, 50, 100, 200, 400, 800, 900, 950, 1000]
    save_checkpoint(tmp_path, one_checkpoint(1020), every=50, keep=3)  # an interruption
    assert steps_in(tmp_path) == [0, 50, 100, 200, 400, 800, 950, 1000, 1020]
    save_checkpoint(tmp_path, one_checkpoint(1050), every=50, keep=3)
    assert steps_in(tmp_path) == [0, 50, 100, 200, 400, 800, 950, 1000, 1050]
    save_checkpoint(tmp_path, one_checkpoint(1055), every=50, keep=0)
    save_checkpoint(tmp_path, one_checkpoint(1100), every=50, keep=0)
    assert steps_in(tmp_path)[-4:] == [1000, 1050, 1055, 1100]
    save_checkpoint(tmp_path, one_checkpoint(900), every=50, keep=1)  # later ones are not touched
    assert steps_in(tmp_path)[-6:] == [900, 950, 1000, 1050, 1055, 1100]


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    save_checkpoint(tmp_path, one_checkpoint(5))
    old = (tmp_path / "step-00000005.pt").read_bytes()
    for value in (float("nan"), float("inf")):
        with pytest.raises(CheckpointError, match=r"decoder.*not finite \(weight\)"):
            save_checkpoint(tmp_path, one_checkpoint(5, value))
    average = one_checkpoint(5) | {"ema": {"weight": torch.full((2, 2), float("nan"))}}
    with pytest.raises(CheckpointError, match="average"):
        save_checkpoint(tmp_path, average)
    assert (tmp_path / "step-00000005.pt").read_bytes() == old


@pytest.mark.parametrize("part", ["modules", "ema"])
def test_state_of_another_kind_is_one_line(checkpoint, tmp_path, part):
    torch.save(torch.load(checkpoint, weights_only=True) | {part: 3}, tmp_path / "other.pt")
    for read in (load, describe_file):
        with pytest.raises(CheckpointError, match="do not fit") as error:
            read(tmp_path / "other.pt")
        assert "\n" not in str(error.value)


def test_leftovers_of_a_killed_run_go_when_it_goes_on(finished_run, small_dataset, tmp_path):
    model, folder = finished_run
    run = shutil.copytree(folder, tmp_path / "run")
    for name in (
        ".config.json.01ab23cd.tmp",
        "checkpoints/.step-00000006.pt.01ab23cd.tmp",
        "samples/.a.01ab23cd.tmp",
    ):
        (run / name).write_bytes(b"half")
    trainer = Trainer(small_config(model), small_dataset, run)
    trainer.load(load_checkpoint(run))
    trainer.run()
    assert not list(run.rglob(".*"))
