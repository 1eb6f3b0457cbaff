"""Imports point one way: a room imports only from rooms below it; no files form a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. Files of one room may import one another, but in no circle.
FLOORS = (
    "gen.models", "gen.system", "gen.images", "gen.config", "gen.data", "gen.runs", "gen.sampling",
    "gen.analysis.measure", "gen.analysis.layers", "gen.analysis.report", "gen.metrics",
    "gen.training", "gen.quality", "gen.share", "gen.inputs", "gen.commands", "gen.__main__",
)  # fmt: skip
ALONE = ("gen.models", "gen.analysis.measure")  # they import nothing of ours


def files():
    """Modules of ours by name; models/ is gen.models."""
    paths = [path for top in ("gen", "models") for path in (ROOT / top).rglob("*.py")]
    named = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}
    names = {n: ("gen." if n.startswith("models") else "") + n for n in named}
    return {names[n].removesuffix(".__init__"): path for n, path in named.items()}


def imports(name, modules):
    """What of ours a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(modules[name].read_text())):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            inner = modules[name].name == "__init__.py"
            package = name.split(".")[: None if inner else -1]
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            found = [
                full if (full := f"{start}.{alias.name}") in modules else start
                for alias in node.names
            ]
        yield from (target for target in found if target in modules and target != "gen")


def floor(name):
    return next(i for i, room in enumerate(FLOORS) if f"{name}.".startswith(f"{room}."))


MODULES = files()
ARROWS = {name: set(imports(name, MODULES)) - {name} for name in MODULES if name != "gen"}


def test_no_arrow_points_up():
    rooms = [name for name in ARROWS if name != "gen.analysis"]
    up = [(a, b) for a in rooms for b in ARROWS[a] if floor(b) > floor(a)]
    alone = [(a, b) for a in rooms for b in ARROWS[a] if FLOORS[floor(a)] in ALONE]
    assert not up
    assert not [(a, b) for a, b in alone if floor(b) != floor(a)]


def test_no_circle():
    list(graphlib.TopologicalSorter(ARROWS).static_order())  # raises CycleError


def test_the_test_sees_arrows():
    assert {"gen.data.batches", "gen.training.state"} <= ARROWS["gen.training.loop"]
    assert "gen.models.upsample" in ARROWS["gen.models.decoder"]


def test_the_library_reads_no_command_line():
    library = [p for n, p in MODULES.items() if not n.startswith(("gen.commands", "gen.__main__"))]
    for path in library:
        text = path.read_text()
        assert "import click" not in text, path
        assert "ArgumentParser" not in text, path
        assert "sys.argv" not in text, path


def test_the_loop_knows_no_models_name():
    text = (ROOT / "gen" / "training" / "loop.py").read_text().lower()
    names = (
        "dcgan", "vae", "generator", "discriminator", "coder", "latent", "sampl", "grid", "segment",
        "unet", "fcn",
    )  # fmt: skip
    assert not [name for name in names if name in text]


@pytest.mark.parametrize("name", ["train.py", "sample.py", "analyze.py"])
def test_scripts_are_the_commands(name):
    assert len((ROOT / name).read_text().splitlines()) < 10
