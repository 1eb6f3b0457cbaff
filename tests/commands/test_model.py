"""`analyze.py model`, `repair` and `compare` on runs, on weights of others, on users' networks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import analyze
import train
from gen.analysis.layers.phases import phase_gains
from gen.analysis.report.history import describe_onset, read_history
from gen.runs.checkpoint import run_checkpoints
from gen.runs.folder import make_run_folder
from gen.runs.open import find_checkpoint, load
from gen.share.export import save_pretrained
from tests.conftest import make_pipe
from tests.equality import content_differences
from tests.foreign_networks import ExampleGenerator

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / ".." / "shared" / "data" / "weights"
FOREIGN = "tests/foreign_networks.py"


def run(*arguments):
    return CliRunner().invoke(analyze.main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A file in the example's layout whose last layer prints a grid on smooth images."""
    torch.manual_seed(0)
    network = ExampleGenerator((20, 16, 8, 3))
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    with torch.no_grad():
        for layer in network.main:
            if isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 2):
                layer.weight.copy_(torch.randn(*layer.weight.shape[:2], 1, 1) * tap.outer(tap))
        network.main[-2].weight.mul_(0.1)
        network.main[-2].weight[..., ::2, ::2] *= 1.3
        for _ in range(10):
            network(torch.randn(64, 20))
    file = tmp_path_factory.mktemp("uneven") / "netG.pth"
    torch.save(network.state_dict(), file)
    return file


def test_model_names_layer_period_and_fix(uneven, tmp_path):
    result = run(
        "model", uneven, "--num", 256, "--json", tmp_path / "m.json", "--report", tmp_path / "r"
    )
    assert result.exit_code == 0, result.output
    assert "Period 2: detected" in result.output
    assert "mostly main.6 (transposed, kernel 4, factor 2)" in result.output
    assert "gen repair tries to balance it" in result.output
    plain = json.loads((tmp_path / "m.json").read_text())
    assert [layer["name"] for layer in plain["layers"]] == ["main.3", "main.6"]
    assert [layer["period"] for layer in plain["layers"]] == [4, 2]
    shares = {s["layer"]: s["weights"]["share"] for s in plain["shares"]["2"]}
    assert shares["main.6"] > 0.8 and plain["measurement"]["periods"]["2"]["detected"]
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Which layer makes it" in page and "mostly main.6" in page


@pytest.mark.parametrize("finished_run", ["vae"], indirect=True)
def test_model_of_a_run_says_since_when(finished_run, tmp_path):
    folder = finished_run[1]
    result = run("model", folder, "--num", 128, "--json", "-", "--report", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["schema"] == 2
    assert "Period 2: " in result.stderr
    assert describe_onset(read_history(folder))[0] in result.stderr
    page = (tmp_path / "r" / "index.html").read_text()
    assert page.count('alt="Level per period over training steps"') == 1
    assert page.count('<td data-label="layer">') >= 2 and f"gen repair {folder} -o" in page


def test_since_when():
    def rows(*found):
        return [{"step": i, "checkerboard/period2_detected": f} for i, f in enumerate(found)]

    assert describe_onset(rows(0, 1, 0, 1, 1)) == ["Period 2: detected since step 3."]
    assert describe_onset(rows(0, 1, 0)) == ["Period 2: detected at 1 of 3 snapshots."]
    assert describe_onset(rows(0, 0)) == ["Period 2: never detected in 2 snapshots."]
    assert describe_onset([]) == []


def test_repair_writes_new_weights_that_every_command_takes(uneven, tmp_path):
    out = tmp_path / "repaired.pth"
    before = uneven.read_bytes()
    result = run("repair", uneven, "-o", out, "--num", 256)
    assert result.exit_code == 0, result.output
    assert "main.6: " in result.output and "PSNR" in result.output
    assert uneven.read_bytes() == before
    gains = [
        phase_gains(load(f, device="cpu").main.get_submodule("6").weight, 2, 1)
        for f in (uneven, out)
    ]
    spread = [float(g.flatten(0, 1).std(0).mean()) for g in gains]
    assert spread[1] < 0.7 * spread[0]
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size == (8 * 18 + 2, 3 * 18 + 2)
    again = run("repair", uneven, "-o", out)
    assert again.exit_code == 2 and "must be a new file" in again.output
    compared = run("compare", uneven, out, "--num", 256, "--plot", tmp_path / "c.png")
    assert compared.exit_code == 0, compared.output
    rows = {line.split()[0]: line for line in compared.output.splitlines() if ".pth" in line}
    assert "*" in rows["netG.pth"] and (tmp_path / "c.png").stat().st_size > 5000


def test_repair_of_a_run_goes_into_its_averaged_weights(finished_run, tmp_path, monkeypatch):
    from gen.analysis.layers import repair as module

    folder = finished_run[1]
    monkeypatch.setattr(module, "refuse", lambda *_: None)  # six steps leave nothing to repair
    result = run("repair", folder, "-o", tmp_path / "r.pt", "--num", 128)
    assert result.exit_code == 0, result.output
    old = torch.load(find_checkpoint(folder), weights_only=True)
    new = torch.load(tmp_path / "r.pt", weights_only=True)
    changed = [n for n in old["ema"] if not torch.equal(old["ema"][n], new["ema"][n])]
    assert len(changed) == 1 and changed[0].endswith("stages.1.weight")
    assert load(tmp_path / "r.pt", device="cpu").latent == 6


def test_repair_that_repairs_nothing_writes_nothing(tmp_path):
    argument = ["--script", f"{FOREIGN}:small"]
    result = run("repair", *argument, "-o", tmp_path / "x.pt", "--num", 128, "--target", "-1000")
    if result.exit_code == 0:  # the toy may be repaired; then its state dict is there
        assert (tmp_path / "x.pt").is_file()
    else:
        assert "Refused" in result.output and not (tmp_path / "x.pt").exists()


def test_compare_reads_json_of_images_and_of_models(uneven, tmp_path):
    assert run("images", uneven, "--num", 64, "--json", tmp_path / "a.json").exit_code == 0
    assert run("model", uneven, "--num", 128, "--json", tmp_path / "b.json").exit_code == 0
    result = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    assert "a.json" in result.output and "128" in result.output
    (tmp_path / "c.json").write_text("{}")
    plain = json.loads((tmp_path / "a.json").read_text())
    plain["periods"]["2"]["level_dbc"] = 10**400
    (tmp_path / "d.json").write_text(json.dumps(plain))
    bad = run("compare", tmp_path / "d.json")
    assert bad.exit_code == 1 and "d.json: " in bad.stderr and "bug" not in bad.stderr
    bad = run("compare", tmp_path / "c.json")
    assert bad.exit_code == 1 and "c.json: measurement has schema None" in bad.output


@pytest.mark.slow
def test_networks_of_users_by_module_and_by_file():
    for argument in (
        ("--script", f"{FOREIGN}:small"),
        ("--factory", "tests.foreign_networks:small"),
    ):
        result = run("model", *argument, "--num", 128)
        assert result.exit_code == 0, result.output
        assert "24×24, 3 channel(s)" in result.output and "transposed" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 1, "name a run or checkpoint, or a network by --factory, --script, or"),
        (["--script", "small"], 1, "write FILE.py:CALLABLE, or name a TorchScript"),
        (["--script", "nowhere.py:small"], 1, "nowhere.py: no such file"),
        (["--script", f"{FOREIGN}:absent"], 1, "has no callable 'absent'"),
        (["--script", f"{FOREIGN}:nothing"], 1, "returned str; it must return an nn.Module"),
        (["--script", f"{FOREIGN}:without_latent"], 1, "no whole number `latent`"),
        (["--factory", "no.such.module:x"], 1, "No module named"),
        (["--factory", "a:b", "--script", "c:d"], 1, "exclude each other"),
        (["{tmp}/none"], 1, "no such run or checkpoint"),
        (["--script", f"{FOREIGN}:small", "--range", "1,0"], 2, "black must be below white"),
        (["--script", f"{FOREIGN}:small", "--range", "nan,1"], 2, "black must be below white"),
        (["--script", f"{FOREIGN}:small", "--num", "5"], 2, "--num"),
        (["--script", f"{FOREIGN}:small", "--json", "no/where.json"], 2, "directory that exists"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, code, said):
    result = run("model", *[a.format(tmp=tmp_path) for a in arguments])
    assert result.exit_code == code, result.output
    assert said in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("command", ["model", "repair", "compare"])
def test_help_needs_no_torch(command):
    line = [sys.executable, "-X", "importtime", "analyze.py", command, "--help"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and " torch" not in result.stderr


needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is not there")


@needs_weights
def test_resize_network_of_others_is_cleared():
    file = WEIGHTS / "cwgangp_resize_mnist_hayato.pth"
    result = run("model", file, "--script", f"{FOREIGN}:resize_mnist", "--num", 256)
    assert result.exit_code == 0, result.output
    assert "Nothing to fix" in result.output
    assert "enlarged by interpolation alone" in result.output


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "call", "extra", "names"),
    [
        ("dcgan_mnist_ryhan.pth", "dcgan_mnist", [], ["gen.2.0", "gen.3.0"]),
        ("vae_celeba_yanndubs.pt", "vae_celeba", ["--range", "0,1"],
         ["convT_64", "convT1", "convT2", "convT3"]),
    ],
)  # fmt: skip
def test_transposed_networks_of_others_are_explained(tmp_path, file, call, extra, names):
    out = tmp_path / "m.json"
    script = ["--script", f"{FOREIGN}:{call}", *extra]
    result = run("model", WEIGHTS / file, *script, "--json", out)
    assert result.exit_code == 0, result.output
    plain = json.loads(out.read_text())
    assert [layer["name"] for layer in plain["layers"]] == names
    assert plain["layers"][-1]["period"] == 2 and plain["layers"][-2]["period"] == 4
    assert plain["layers"][-1]["imbalance_db"] > -60  # random or trained: never even
    assert any(name in " ".join(plain["advice"]) for name in names)


def test_repair_reads_the_run_once(finished, tmp_path, monkeypatch):
    """A run in training saves again, and removes what was read, while repair works."""
    from gen.analysis.layers import repair as module

    folder = tmp_path / "run"
    shutil.copytree(finished("vae"), folder)
    steps = [path.name for path in run_checkpoints(folder)]
    whole = torch.load(folder / "checkpoints" / steps[-2], weights_only=True)
    newest = folder / "checkpoints" / steps[-1]
    newest.write_bytes(newest.read_bytes()[:-100])  # damaged: sampling falls back, and so does this

    def meanwhile(*_):
        for path in run_checkpoints(folder):
            path.unlink(missing_ok=True)
        shutil.copy(find_checkpoint(finished("vae")), folder / "checkpoints" / "step-00000099.pt")

    monkeypatch.setattr(module, "refuse", meanwhile)
    result = run("repair", folder, "-o", tmp_path / "r.pt", "--num", 128)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Warning") == 1 and "looking for an older one" in result.stderr
    new = torch.load(tmp_path / "r.pt", weights_only=True)
    assert new["step"] == whole["step"] == 3
    changed = [n for n in whole["ema"] if not torch.equal(whole["ema"][n], new["ema"][n])]
    assert len(changed) == 1 and changed[0].endswith("stages.1.weight")
    assert content_differences(whole["modules"], new["modules"]) == []


def test_repair_of_an_exported_folder_says_what_to_repair(finished, tmp_path):
    save_pretrained(finished("vae"), tmp_path / "new")
    result = run("repair", tmp_path / "new", "-o", tmp_path / "r.pt", "--num", 128)
    assert result.exit_code == 1 and "repair the run, then export it again" in result.stderr


def test_pipes_in_the_place_of_texts_are_not_waited_for(tmp_path):
    make_pipe(tmp_path / "a.json")
    for command, *words in (
        [analyze.main, "compare", tmp_path / "a.json"],
        [train.main, "dcgan", "--config", tmp_path / "a.json"],
    ):
        result = CliRunner().invoke(command, [str(word) for word in words])
        assert result.exit_code in (1, 2) and "device or socket, not a file" in result.stderr


def test_names_are_shown_and_never_obeyed(tmp_path):
    """On the terminal, in a plot, in a report; a mathematical name and one that is too long."""
    hostile = "a\x1b[31m\u202e\n$\\frac{<b>"
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    paths = [tmp_path / f"{name}.npy" for name in (hostile, "n" * 200)]
    for path in paths:
        np.save(path, pixels)
    result = run("compare", *paths, "--plot", tmp_path / "c.png")
    assert result.exit_code == 0, result.output
    assert r"a\x1b[31m\u202e\n$\frac{<b>.npy" in result.output
    assert "\x1b" not in result.output and "n" * 100 not in result.output
    result = run("images", paths[0], "--report", tmp_path / "report", "--periods", "2")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "index.html").read_text()
    assert r"a\x1b[31m\u202e" in page and not re.search("[\x1b\u202e]|<b>", page)
    for argument in (tmp_path / f"{hostile}.png", "--a\x1b[31m"):
        result = run("images", argument)
        assert result.exit_code and r"\x1b[31m" in result.stderr and "\x1b" not in result.stderr
    process = subprocess.run(
        [sys.executable, "analyze.py", "images", b"no\xff\x1b[31m"], cwd=ROOT, capture_output=True
    )
    assert process.returncode == 1 and rb"no\udcff\x1b[31m" in process.stderr
    assert process.stderr.count(b"\n") == 1 and b"\x1b" not in process.stderr


def test_the_folder_of_a_run_has_a_short_printable_name(tmp_path):
    for name in ("dcgan-" + "é" * 250, "dcgan-a\x1b\n\udcff", "dcgan-" + "\U0001f600" * 200):
        folder = make_run_folder(tmp_path, name)
        assert folder.name.isprintable() and len(folder.name.encode()) < 255


def test_a_repaired_file_keeps_its_keys_types_and_format(uneven, tmp_path):
    """A bundle of halves with last and averaged weights, and safetensors with metadata."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    weights = torch.load(uneven, weights_only=True)
    halves = {name: v.half() if v.is_floating_point() else v for name, v in weights.items()}
    last = {name: v + 1 if v.is_floating_point() else v for name, v in halves.items()}
    bundle = {"g": last, "g_ema": {f"module.{n}": v for n, v in halves.items()}, "step": 7}
    torch.save(bundle, tmp_path / "a.pt")
    save_file(weights, tmp_path / "b.safetensors", {"made": "here"})
    given = ["--num", 128, "--periods", "2"]
    for file, options in (("a.pt", ["--key", "g_ema"]), ("b.safetensors", [])):
        out = tmp_path / f"new-{file}"
        result = run("repair", tmp_path / file, *options, "-o", out, *given)
        assert result.exit_code == 0, result.output
    new = torch.load(tmp_path / "new-a.pt", weights_only=True)
    changed = [n for n, v in bundle["g_ema"].items() if not torch.equal(new["g_ema"][n], v)]
    assert changed == ["module.main.6.weight"] and new["step"] == 7
    assert {n: v.dtype for n, v in new["g_ema"].items()} == {
        n: v.dtype for n, v in bundle["g_ema"].items()
    }
    assert all(torch.equal(new["g"][n], v) for n, v in last.items()) and [*new] == [*bundle]
    with safe_open(tmp_path / "new-b.safetensors", "pt") as file:
        assert file.metadata() == {"made": "here"} and {*file.keys()} == {*weights}
