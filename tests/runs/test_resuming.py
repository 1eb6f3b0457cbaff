"""`--resume` as its user meets it: which run, on what terms, and what is refused in one line."""

import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

import train
from gen.runs.checkpoint import run_checkpoints
from gen.runs.open import load_checkpoint
from gen.system.files import lock_folder
from tests.equality import run_differences

SMALL = ["--size", "16", "--width", "4", "--latent", "4", "--batch-size", "8", "--device", "cpu"]
RHYTHM = ["--snapshot-every", "2", "--log-every", "1"]


def run(*arguments):
    result = CliRunner().invoke(train.main, [str(a) for a in arguments])
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (result.exit_code != 0), result.output
    return result


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    import numpy as np

    file = tmp_path_factory.mktemp("data") / "photos.npy"
    np.save(file, np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8))
    return file


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    """A run of four steps; tests copy it."""
    outdir = tmp_path_factory.mktemp("runs")
    assert run("vae", "--data", photos, *SMALL, *RHYTHM, "--steps", 4, "--outdir", outdir)
    return outdir / "00000-vae-photos"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs" / made.name)


def test_auto_begins_goes_on_and_ends(photos, made, tmp_path):
    again = [*SMALL, *RHYTHM, "--outdir", tmp_path, "--resume", "auto"]
    command = ["vae", "--data", photos, *again]
    assert run(*command, "--steps", 3).exit_code == 0
    (tmp_path / "00001-vae-photos").mkdir()  # one that was killed before it saved
    shutil.copy(tmp_path / "00000-vae-photos" / "config.json", tmp_path / "00001-vae-photos")
    result = run(*command, "--steps", 4)
    assert result.exit_code == 0 and "from step 3" in result.output
    assert run_checkpoints(tmp_path / "00000-vae-photos")[-1].name == "step-00000004.pt"
    assert run(*command, "--steps", 4).exit_code == 0  # it is finished: nothing more to do
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "00000-vae-photos").rename(tmp_path / "123456-vae-photos")
    result = run(*command, "--steps", 5)  # numbers of six digits come after those of five
    assert result.exit_code == 0 and "123456-vae-photos, from step 4" in result.output
    (tmp_path / "123456-vae-photos").rename(tmp_path / "00000-vae-photos")
    other = photos.with_name("others.npy")
    shutil.copy(photos, other)
    assert run("vae", "--data", other, *again, "--steps", 1).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir())[-1] == "00002-vae-others"


def test_a_folder_is_the_same_with_and_without_a_slash(tmp_path):
    (tmp_path / "photos").mkdir()
    for n in range(8):
        Image.new("RGB", (16, 16), (30 * n, 0, 9)).save(tmp_path / "photos" / f"{n}.png")
    command = ["vae", *SMALL, *RHYTHM, "--outdir", tmp_path / "runs", "--resume", "auto"]
    assert run(*command, "--data", f"{tmp_path}/photos", "--steps", 3).exit_code == 0
    result = run(*command, "--data", f"{tmp_path}/photos/", "--steps", 4)
    assert result.exit_code == 0 and "from step 3" in result.output, result.output


def test_steps_is_the_total_and_the_configuration_is_the_runs_own(folder, photos, tmp_path):
    assert run("vae", "--resume", folder, "--steps", 6).exit_code == 0
    whole = ["vae", "--data", photos, *SMALL, *RHYTHM, "--steps", 6, "--outdir", tmp_path / "whole"]
    assert run(*whole).exit_code == 0
    # It ended at a snapshot, so the longer run is what it would have been at once.
    differing = run_differences(folder, tmp_path / "whole" / "00000-vae-photos")
    assert {d.partition(":")[2] for d in differing} == {"/config/training/steps"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--lr", "0.5", "--width", "8"], "lr 0.001 → 0.5, width 4 → 8; leave that out"),
        (["--flip"], "flip False → True"),
        (["--steps", "3"], "steps is 3, but it has taken 4"),
        (["--override", "lr"], "write NAME=VALUE"),
        (["--override", "outdir=x"], "has no outdir to override"),
        (["--override", "loss=hinge"], "--override loss=hinge"),
        (["--override", "lr=fast"], "'fast' is not a valid float"),
        (["--override", "lr=nan"], "lr is nan"),
        (["--config", "{config}"], "seed 0 → 7"),
    ],
)
def test_other_values_are_refused_in_one_line(folder, tmp_path, given, said):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"training": {"seed": 7, "batch_size": 8}}))
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    result = run("vae", "--resume", folder, *[g.format(config=config) for g in given])
    assert result.exit_code == 2 and said in result.output
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_another_model_is_refused(folder):
    result = run("dcgan", "--resume", folder)
    assert result.exit_code == 2 and "model vae → dcgan" in result.output


def test_the_same_values_and_those_that_do_not_matter_are_taken(folder):
    result = run(
        "vae", "--resume", folder, *SMALL, *RHYTHM, "--lr", "1e-3", "--workers", 0, "--keep", 1,
        "--data-root", "elsewhere", "--steps", 5, "--config", folder / "config.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_an_override_holds_from_there_on(folder):
    result = run("vae", "--resume", folder, "--override", "lr=0.25", "--override", "log-every=5")
    assert result.exit_code == 0, result.output
    assert run("vae", "--resume", folder, "--override", "lr=0.5", "--steps", 5).exit_code == 0
    assert json.loads((folder / "config.json").read_text())["objective"]["lr"] == 0.5
    content = load_checkpoint(folder)
    assert content["config"].objective.lr == 0.5
    assert content["optimizers"]["elbo"]["param_groups"][0]["lr"] == 0.5
    assert load_checkpoint(folder / "checkpoints/step-00000002.pt")["config"].objective.lr == 1e-3


def test_an_override_that_fits_no_weights_is_one_line(folder):
    result = run("vae", "--resume", folder, "--override", "width=8", "--steps", 6)
    assert result.exit_code == 1 and "weights do not fit" in result.output
    assert load_checkpoint(folder)["step"] == 4


def test_an_override_needs_a_run(photos, tmp_path):
    command = ["vae", "--data", photos, "--outdir", tmp_path / "runs", "--override", "lr=1"]
    for more in ([], ["--resume", "auto"]):
        result = run(*command, *more)
        assert result.exit_code == 2 and "there is none" in result.output
    assert not (tmp_path / "runs").exists()


def test_later_checkpoints_are_never_overwritten(folder):
    older = folder / "checkpoints" / "step-00000002.pt"
    result = run("vae", "--resume", older, "--steps", 6)
    assert result.exit_code == 1 and "step-00000004.pt is later" in result.output
    (folder / "checkpoints" / "step-00000004.pt").write_bytes(b"damaged")
    assert run("vae", "--resume", older, "--steps", 6).exit_code == 0
    assert load_checkpoint(folder)["step"] == 6


def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(folder, made):
    newest = folder / "checkpoints" / "step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    result = run("vae", "--resume", folder)
    assert result.exit_code == 0, result.output
    assert "Warning" in result.output and "from step 2" in result.output
    assert run_differences(folder, made) == []


def test_a_file_that_lies_in_no_run_is_refused(folder, tmp_path):
    lone = shutil.copy(folder / "checkpoints" / "step-00000004.pt", tmp_path / "lone.pt")
    result = run("vae", "--resume", lone, "--steps", 6)
    assert result.exit_code == 1 and "lies in no run" in result.output


def test_two_processes_never_train_one_run(folder):
    pytest.importorskip("fcntl", reason="gen locks no directory where the system has no flock")
    with lock_folder(folder):
        result = run("vae", "--resume", folder, "--steps", 6)
    assert result.exit_code == 1 and "another process is training here" in result.output
    assert load_checkpoint(folder)["step"] == 4
