"""Imports point one way: models ← data, training, sampling; analysis knows none of them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STANDARD = {"torch", "numpy", "scipy", "matplotlib"}

# Room → what of ours it may import beside itself.
ALLOWED = {
    "models": set(),
    "gen/images.py": {"gen.files"},
    "gen/config.py": {"gen.distributed"},
    "gen/distributed.py": set(),
    "gen/device.py": {"gen.distributed"},
    "gen/signals.py": {"gen.distributed"},
    "gen/options.py": {"gen.config", "gen.distributed", "gen.signals"},
    "gen/data": set(),
    "gen/analysis": {"gen.files", "gen.signals"},
    "gen/training": {
        "gen.config", "gen.data", "gen.device", "gen.distributed", "gen.files", "gen.images",
        "gen.sampling", "gen.signals", "gen.analysis", "models",
    },
    "gen/sampling": {
        "gen.config", "gen.data", "gen.device", "gen.distributed", "gen.files", "gen.images",
        "gen.signals", "gen.training.checkpoint", "gen.training.log", "models",
    },
    "gen/predicting.py": {
        "gen.config", "gen.data", "gen.device", "gen.files", "gen.images", "gen.sampling",
        "gen.training",
    },
    "gen/networks.py": {"gen.predicting", "gen.sampling"},
    "gen/measuring.py": {
        "gen.analysis", "gen.data", "gen.distributed", "gen.predicting", "gen.sampling",
        "gen.training.checkpoint",
    },
    "gen/features.py": {"gen.data", "gen.images", "gen.sampling", "models"},
    "gen/quality.py": {
        "gen.data", "gen.features", "gen.sampling", "gen.training.checkpoint",
    },
}  # fmt: skip


def imports_of(path):
    """Absolute names of the modules of ours that a file imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"gen.{alias.name}" for alias in node.names] if name == "gen" else [name]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("gen", "models"))


@pytest.mark.parametrize("room", ALLOWED)
def test_no_arrow_points_back(room):
    path = ROOT / room
    files = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert files
    own = room.removesuffix(".py").replace("/", ".")
    for file in files:
        for name in imports_of(file):
            allowed = {own, *ALLOWED[room]}
            assert any(name == a or name.startswith(a + ".") for a in allowed), f"{file}: {name}"


def test_the_test_sees_arrows(tmp_path):
    names = set(imports_of(ROOT / "gen" / "training" / "loop.py"))
    assert {"gen.data.sampler", "gen.training.state", "gen.training.objectives"} <= names


def test_the_loop_knows_no_models_name():
    text = (ROOT / "gen" / "training" / "loop.py").read_text().lower()
    names = (
        "dcgan",
        "vae",
        "generator",
        "discriminator",
        "coder",
        "latent",
        "sampl",
        "grid",
        "segment",
        "unet",
        "fcn",
    )
    assert not [name for name in names if name in text.replace("data.sampler", "")]


@pytest.mark.parametrize("name", ["train.py", "sample.py", "analyze.py"])
def test_commands_stay_thin(name):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} comes later")
    assert len(path.read_text().splitlines()) < 160
