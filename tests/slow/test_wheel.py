"""The wheel in an empty folder: one top-level name, every command, no checkout nearby."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--size", "16", "--width", "4", "--steps", "2", "--batch-size", "8")
USER = """
import torch
from models.mine import Network

def build(path=None):
    return Network(), lambda count: torch.randn(count, 4)
"""
NETWORK = """
from torch import nn

class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Unflatten(1, (4, 1, 1)), nn.ConvTranspose2d(4, 1, 16, 16), nn.Tanh())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a copy as pip does, without asking the network for the build's requirements."""
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("copy")
    for name in ("gen", "models"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-q", "-w", folder, copy], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment that holds the wheel, and sees what it depends on but no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = next(path for path in folder.glob("*/python*") if path.is_file())
    places = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    site = Path(places.stdout.strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    subprocess.run([*command, wheel], check=True, capture_output=True)
    return python


def run(python, folder, *command):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    words = [str(word) for word in command]
    if words[0] == "gen":
        words[0] = str(python.parent / "gen")
    else:
        words = [str(python), *words]
    result = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (words, result.stdout, result.stderr)
    return result.stdout


def test_it_holds_one_name_and_every_module(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {
        "gen",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    ours = {f"gen/{p.relative_to(ROOT / 'gen')}" for p in (ROOT / "gen").rglob("*.py")}
    ours |= {f"gen/models/{p.name}" for p in (ROOT / "models").glob("*.py")} | {"gen/py.typed"}
    ours |= {f"gen/{path}/schema.json" for path in ("analysis/measure", "commands")}
    assert ours == {name for name in names if name.startswith("gen/")}


def test_every_use_in_an_empty_folder(python, tmp_path):
    assert run(python, tmp_path, "gen", "--version").startswith("gen, version ")
    run(python, tmp_path, "gen", "train", "dcgan", *SHORT)
    folder = tmp_path / "runs" / "00000-dcgan-shapes"
    run(python, tmp_path, "gen", "sample", folder, "--num", 8, "--outdir", "samples")
    run(python, tmp_path, "gen", "images", "samples", "--periods", 2)
    run(python, tmp_path, "gen", "model", folder, "--num", 128)
    names = "import gen; from gen import measure, load, sample_images; print(gen.__version__)"
    assert run(python, tmp_path, "-c", names).strip()


def test_the_demo_needs_no_checkout(python, tmp_path):
    said = run(python, tmp_path, "gen", "demo", "--steps", 2, 2)
    assert "Try next:\n  gen sample " in said
    assert len(list(tmp_path.glob("runs/demo/*/report/index.html"))) == 2


@pytest.mark.parametrize("door", [("--script", "load.py:build"), ("--factory", "load:build")])
def test_a_project_with_models_of_its_own(python, tmp_path, door):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "models" / "mine.py").write_text(NETWORK)
    (tmp_path / "load.py").write_text(USER)
    assert "128 images of 16×16" in run(python, tmp_path, "gen", "model", *door, "--num", 128)


def test_measuring_imports_neither_torchvision_nor_tensorboard(python, tmp_path):
    code = "import sys, gen; gen.measure; print(*sys.modules)"
    loaded = run(python, tmp_path, "-c", code).split()
    assert not {"torchvision", "tensorboard", "matplotlib", "click"} & {*loaded}
