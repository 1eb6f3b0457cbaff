"""train.py as its user meets it: real processes, exit codes, one line for what went wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import train
from gen.runs.open import load_checkpoint
from tests.conftest import imported

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--size", "16", "--width", "4", "--steps", "4", "--batch-size", "8", "--device", "cpu"]


SLOW_TO_IMPORT = {"torch", "torchvision", "tensorboard", "numpy", "scipy", "matplotlib", "PIL"}


def run(*arguments):
    return CliRunner().invoke(train.main, [str(a) for a in arguments])


@pytest.fixture
def photos(tmp_path):
    """Twelve real PNG files in a folder of their own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "--help"],
        ["train.py", "dcgan", "--help"],
        ["train.py", "vae", "--lr", "nan"],
        ["train.py", "gan"],
        ["sample.py", "--help"],
        ["sample.py", "x", "--seeds", "y", "--grid", "g.png"],
        ["analyze.py", "--help"],
        ["analyze.py", "images", "--help"],
        ["analyze.py", "images", "x", "--gap", "1"],
        ["analyze.py", "quality", "x", "--reference", "y", "--features", "z"],
    ],
)
def test_help_and_usage_errors_answer_at_once(arguments):
    """By construction: nothing that takes long is imported."""
    result, modules = imported(*arguments)
    assert result.returncode == (0 if "--help" in arguments else 2)
    assert "click" in modules and not modules & SLOW_TO_IMPORT


def test_each_model_has_only_its_own_options():
    gan, vae = (run(model, "--help").output for model in ("dcgan", "vae"))
    assert "--loss" in gan and "--likelihood" not in gan
    assert "--likelihood" in vae and "--loss" not in vae
    for text in (gan, vae):
        assert "Examples:" in text and "Networks:" in text
        assert "[default: 2]" in text


def test_a_run_on_a_folder_of_photographs(photos, tmp_path):
    """tests/slow/test_wheel.py starts one from a shell."""
    result = run("vae", "--data", photos, *SMALL, "--outdir", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    assert "step 4/4" in result.stderr
    folder = tmp_path / "runs" / "00000-vae-photos"
    assert load_checkpoint(folder)["step"] == 4
    assert json.loads((folder / "config.json").read_text())["model"]["channels"] == 3


def test_numbers_count_up_and_resume_goes_on_in_place(photos, tmp_path):
    arguments = ["dcgan", "--data", photos, *SMALL, "--outdir", tmp_path / "runs"]
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 0
    folders = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert folders == ["00000-dcgan-photos", "00001-dcgan-photos"]
    first = tmp_path / "runs" / folders[0]
    result = run("dcgan", "--resume", first, "--steps", 6)
    assert result.exit_code == 0, result.output
    assert load_checkpoint(first)["step"] == 6
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == folders
    result = run("dcgan", "--resume", first, "--lr", 0.1)
    assert result.exit_code == 2 and "lr 0.0002 → 0.1" in result.output
    assert run("vae", "--resume", first).exit_code == 2


def test_file_gives_way_to_flags(photos, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model": {"width": 4, "size": [16, 16]}, "training": {"steps": 9}}))
    result = run("dcgan", "--config", file, "--steps", 2, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "width 4" in result.output and "2 steps of 64" in result.output


def test_dry_run_counts_what_torch_counts():
    result = run("dcgan", "--dry-run", "--size", 32, "--width", 32)
    assert "generator" in result.output and "discriminator" in result.output
    # Stem 100·4·4·128 + norm 256; 128·64·16 + 128; 64·32·16 + 64; 32·3·16 + 3.
    assert f"{204_800 + 256 + 131_072 + 128 + 32_768 + 64 + 1_536 + 3:,}" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gan"], 2, "'gan' is not one of "),
        (["dcgan", "--data", "nowhere"], 1, "choose shapes, mnist"),
        (["dcgan", "--upsample", "cubic"], 2, "'transposed', 'balanced', 'nearest'"),
        (["dcgan", "--upsample", "nearest", "--kernel-size", "4"], 2, "takes 3, 5"),
        (["dcgan", "--size", "7"], 2, "at least 8"),
        (["dcgan", "--size", "8x-1"], 2, "height x width"),
        (["dcgan", "--channels", "2"], 2, "channels is 2"),
        (["dcgan", "--lr", "nan"], 2, "lr is nan"),
        (["dcgan", "--lr", "inf"], 2, "lr is inf"),
        (["dcgan", "--lr", "0"], 2, "above 0"),
        (["vae", "--steps", "0"], 2, "at least 1"),
        (["dcgan", "--steps", str(2**64)], 2, "steps"),
        (["dcgan", "--data", "{photos}", "--batch-size", "13"], 1, "holds only 12 images"),
        (["dcgan", "--data", "{tmp}/empty"], 1, "holds no images"),
        (["dcgan", "--data", "{tmp}/text"], 1, "holds no images"),
        (["dcgan", "--data", "{tmp}/spoiled"], 1, "notes.png"),
        (["dcgan", "--config", "{tmp}/none.json"], 2, "none.json"),
        (["dcgan", "--config", "{tmp}/text/notes.txt"], 2, "notes.txt"),
        (["dcgan", "--resume", "{tmp}/none"], 1, "no such run or checkpoint"),
        (["dcgan", "--resume", "{tmp}/spoiled/notes.png"], 1, "damaged, or no checkpoint"),
        (["dcgan", "--data", "{photos}", *SMALL, "--outdir", "{tmp}/file"], 1, "{tmp}/file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(photos, tmp_path, arguments, code, said):
    for name in ("empty", "text", "spoiled"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    (tmp_path / "spoiled" / "a.png").write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "spoiled" / "notes.png").write_text("no image")
    (tmp_path / "file").write_text("precious")
    names = {"photos": photos, "tmp": tmp_path}
    before = sorted(tmp_path.rglob("*"))
    if "--outdir" not in arguments:
        arguments = [*arguments, "--outdir", "{tmp}/runs"] if len(arguments) > 1 else arguments
    result = run(*[a.format(**names) for a in arguments])
    assert result.exit_code == code, result.output
    assert said.format(**names) in result.output
    errors = [line for line in result.output.splitlines() if "Error" in line]
    assert len(errors) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "precious"


def test_debug_shows_where(tmp_path):
    result = run("dcgan", "--data", "nowhere", "--debug")
    assert isinstance(result.exception, ValueError)
