"""Export: what is written is what is read, bit by bit; what is damaged or hostile is one line."""

import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import markdown  # which comes with TensorBoard
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

import analyze
import sample
import train
from gen.commands.export import export
from gen.commands.train import command as command_of_model
from gen.commands.train import new_config
from gen.config.run import RunConfig
from gen.data.datasets import load_dataset
from gen.runs.checkpoint import CheckpointError
from gen.runs.describe import describe_file
from gen.runs.open import find_checkpoint, load, open_run
from gen.runs.pretrained import digest
from gen.sampling.seeds import draw_latents, sample_images
from gen.share.card import command_line
from gen.share.export import from_pretrained, save_pretrained
from gen.system.files import atomic_folder
from gen.training.loop import Trainer
from tests.conftest import make_pipe, small_config

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, command=export):
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_dataset):
    """A conditional DCGAN of 16×16 after six steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    config = small_config(networks={"conditional": True, "classes": 3})
    assert Trainer(config, small_dataset, folder).run() == 0
    return folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "shapes-dcgan"
    result = run(trained, "--outdir", folder, "--onnx", "--reference", "shapes", "--num", 40)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """An exported folder to spoil."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((exported / name).read_bytes())
    return folder


# The round trip


@pytest.mark.parametrize("ema", [True, False])
def test_images_are_the_same_to_the_last_bit(finished_run, tmp_path, ema):
    save_pretrained(finished_run[1], tmp_path / "new", ema=ema)
    original, again = load(finished_run[1], ema=ema), load(tmp_path / "new")
    assert torch.equal(sample_images(original, range(5)), sample_images(again, range(5)))
    assert not torch.equal(
        sample_images(load(finished_run[1], ema=not ema), range(5)), sample_images(again, range(5))
    )
    weights = original.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in again.state_dict().items())
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"config.json", "model.safetensors"}


def test_from_pretrained_gives_every_averaged_network(finished_run, tmp_path):
    model, folder = finished_run
    save_pretrained(folder, tmp_path / "new")
    networks = from_pretrained(tmp_path / "new", device="cpu")
    assert set(networks) == ({"generator"} if model == "dcgan" else {"encoder", "decoder"})
    assert not any(m.training for m in networks.modules())
    assert networks["generator" if model == "dcgan" else "decoder"](torch.zeros(1, 6)).ndim == 4
    # Exporting what was exported changes nothing.
    save_pretrained(tmp_path / "new", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    "upsample",
    [pytest.param(x, marks=pytest.mark.slow) for x in ("subpixel", "balanced", "bilinear")],
)
def test_every_upsampler_goes_through_onnx_too(tmp_path, small_dataset, upsample):
    (tmp_path / "run").mkdir()
    config = small_config(networks={"upsample": upsample, "antialias": True}, steps=1)
    assert Trainer(config, small_dataset, tmp_path / "run").run() == 0
    result = run(tmp_path / "run", "--outdir", tmp_path / "new", "--onnx")
    assert result.exit_code == 0, result.output
    compare_with_onnx(tmp_path / "new", 3)


@pytest.mark.parametrize(
    "model",
    ["unet", "classifier", *(pytest.param(x, marks=pytest.mark.slow) for x in ("vaegan", "fcn"))],
)
def test_every_model_is_exported_and_read_again(tmp_path, small_dataset, model):
    (tmp_path / "run").mkdir()
    held = load_dataset("shapes", root=tmp_path, size=(16, 16), channels=3, count=8, split="test")
    trainer = Trainer(small_config(model, steps=2), small_dataset, tmp_path / "run", held)
    assert trainer.run() == 0
    result = run(tmp_path / "run", "--outdir", tmp_path / "new", "--onnx")
    assert result.exit_code == 0, result.output
    networks, originals = from_pretrained(tmp_path / "new"), open_run(tmp_path / "run").modules
    for name, network in networks.items():
        stored = originals[name].state_dict()
        assert all(torch.equal(v, stored[k]) for k, v in network.state_dict().items())
    text = (tmp_path / "new" / "README.md").read_text()
    assert (
        "Logged at step 2: " in text
        and "loss/" in text
        and f"gen train {model} --size 16x16" in text
    )
    if model == "vaegan":
        assert "## Checkerboards" in text and "samples.png" in text
        return compare_with_onnx(tmp_path / "new", 3)
    assert ("Logit maps: " in text) == (model != "classifier") and "samples.png" not in text
    assert "## Quality" not in text
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = next(iter(networks.values()))(images).numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "new", images=images), expected, atol=1e-4)
    result = run(tmp_path / "run", "--outdir", tmp_path / "b", "--reference", "shapes")
    assert result.exit_code == 2 and "draws no images to compare" in result.stderr


# An exported folder stands where a run or checkpoint does


def test_sample_and_analyze_take_it(exported, trained, tmp_path):
    for source, grid in ((exported, "a.png"), (trained, "b.png")):
        result = run(source, "--grid", tmp_path / grid, "--device", "cpu", command=sample.main)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    found = [run("images", path, command=analyze.main) for path in (exported, trained)]
    assert found[0].exit_code == 0 and found[0].stdout == found[1].stdout
    weights = exported / "model.safetensors"
    assert run("images", weights, command=analyze.main).stdout == found[0].stdout
    result = run("model", exported, "--num", 128, command=analyze.main)
    assert result.exit_code == 0 and "since" not in result.output
    assert "dcgan of this toolkit after 6 steps" in describe_file(exported)


def test_it_cannot_be_resumed(exported):
    result = run("dcgan", "--resume", exported, command=train.main)
    assert result.exit_code == 1 and "lies in no run" in result.stderr


# The card


def test_the_card_says_what_how_and_how_good(exported):
    text = (exported / "README.md").read_text()
    assert text.startswith("---\n") and "\nlibrary_name: gen\n" in text
    measured = run("images", exported, command=analyze.main).stdout.strip()
    assert f"$ gen images shapes-dcgan\n{measured}\n" in text
    assert "40 images of shapes-dcgan against 40 of shapes (of 20000)" in text
    assert "--reference shapes --features random --num 40" in text
    assert "conditional" in text and "after 6 steps" not in text and "6 steps" in text
    assert "![Samples of seeds 0 to 63](samples.png)" in text
    with Image.open(exported / "samples.png") as sheet:
        assert sheet.size == (8 * 18 + 2, 8 * 18 + 2)
    for file in exported.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in text
    assert file.stat().st_mode & 0o044  # others may read what is to be shared


def test_the_hub_reads_license_task_and_results(exported, trained, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    text = (exported / "README.md").read_text()
    data = hub.ModelCard(text).data
    assert (data.license, data.library_name) == ("unknown", "gen")
    assert data.pipeline_tag == "unconditional-image-generation"
    results = {each.metric_type: each for each in data.eval_results}
    assert "frechet_distance" not in results  # undefined: fewer images than features
    assert results["checkerboard_period_2"].dataset_name == "shapes"
    assert "dBc" in results["checkerboard_period_2"].metric_name
    assert run(trained, "--outdir", tmp_path / "new", "--license", "MIT or so").exit_code == 2


def test_a_card_without_the_library_has_no_results(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run(trained, "--outdir", tmp_path / "new", "--license", "mit").exit_code == 0
    head = (tmp_path / "new" / "README.md").read_text().split("---\n")[1]
    assert "license: mit\nlibrary_name: gen\npipeline_tag: uncond" in head
    assert head.endswith("tags:\n- dcgan\n- checkerboard-artifacts\n")


def test_quality_that_was_not_measured_is_said_to_be_so(finished_run, tmp_path):
    assert run(finished_run[1], "--outdir", tmp_path / "new").exit_code == 0
    text = (tmp_path / "new" / "README.md").read_text()
    assert "Not measured; `gen quality new --reference DATA" in text


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"model": "dcgan", "channels": 3}},
        {
            "model": {"model": "dcgan", "size": (34, 45), "channels": 1, "upsample": "nearest"},
            "data": {
                "data": "/home/somebody/my photos",
                "data_root": "/home",
                "flip": True,
                "background": (0, 20, 255),
            },
            "objective": {"loss": "hinge", "lr": 1e-7},
            "training": {"channels_last": False, "ema_half_life": 0.0},
        },
        {"model": {"model": "vae", "channels": 3, "antialias": True, "latent": 7}},
        {"model": {"model": "fcn", "channels": 3, "head": "16s", "classes": 4}},
    ],
)
def test_the_training_command_gives_the_same_configuration(values):
    config = RunConfig.from_dict(values)
    words = shlex.split(command_line(config))
    assert words[:2] == ["gen", "train"] and "/home" not in str(words)
    fields = {name for section in config.to_dict().values() for name in section}
    with command_of_model(words[2]).make_context(words[2], words[3:]) as context:
        flags = {name: value for name, value in context.params.items() if name in fields}
    run, _ = new_config(words[2], None, flags)
    plain = run.to_dict()
    plain["data"] |= {"data": config.data.data, "data_root": config.data.data_root}
    assert RunConfig.from_dict(plain) == config


def test_no_path_of_this_machine_is_shared(tmp_path, small_dataset):
    values = small_config(steps=1).to_dict()
    values["data"] |= {"data": str(tmp_path / "secret" / "photos"), "data_root": str(tmp_path)}
    (tmp_path / "run").mkdir()
    assert Trainer(RunConfig.from_dict(values), small_dataset, tmp_path / "run").run() == 0
    assert run(tmp_path / "run", "--outdir", tmp_path / "new").exit_code == 0
    for file in (tmp_path / "new").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file


# ONNX


def run_onnx(folder, **inputs):
    """The outputs of ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return found


def compare_with_onnx(folder, batch):
    """Images of ONNX Runtime and of torch, for a batch of any length."""
    generator = load(folder, device="cpu")
    latents = draw_latents(range(batch), generator.latent)
    inputs = {"latents": latents}
    labels = torch.arange(batch) % generator.classes if generator.classes else None
    if labels is not None:
        inputs["labels"] = labels
    images = run_onnx(folder, **inputs)
    with torch.no_grad():
        expected = generator(latents, labels).numpy()
    assert images.shape == expected.shape
    np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnx_runtime_makes_the_same_images(exported, batch):
    compare_with_onnx(exported, batch)


@pytest.mark.slow
def test_without_the_extra_one_line_says_how_to_get_it(trained, tmp_path):
    """In a process of its own: torch looks for the package once."""
    hidden = "from gen.commands.export import export; export()"
    hidden = f"import sys; sys.modules['onnxscript'] = None; {hidden}"
    command = [sys.executable, "-c", hidden, trained, "--outdir", tmp_path / "new", "--onnx"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install onnx onnxscript" in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())  # nothing half made is left


# Nothing is overwritten


def test_a_folder_that_holds_something_is_refused(trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        result = run(trained, "--outdir", tmp_path / name)
        assert result.exit_code == 2 and "new or empty" in result.stderr
        with pytest.raises(FileExistsError):
            save_pretrained(trained, tmp_path / name)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "thesis.txt"]


def test_an_empty_folder_is_filled(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    save_pretrained(trained, tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 2


def test_files_that_come_in_between_stay(trained, tmp_path):
    with (
        pytest.raises(FileExistsError, match="new folder"),
        atomic_folder(tmp_path / "new") as made,
    ):
        (made / "ours").write_text("ours")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "theirs").write_text("theirs")
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "theirs"]


@pytest.mark.parametrize("arguments", [[], ["x"], ["x", "--outdir", "y", "--features", "z"]])
def test_usage_errors_and_help_need_no_torch(arguments):
    for given, code in ((arguments, 2), (["--help"], 0)):
        command = [sys.executable, "-X", "importtime", "-m", "gen", "export", *given]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == code and " torch" not in result.stderr


def test_no_run_there_is_one_line(tmp_path):
    result = run(tmp_path / "no", "--outdir", tmp_path / "new")
    assert result.exit_code == 1
    assert result.stderr.strip() == f"Error: {tmp_path / 'no'}: no such run or checkpoint"
    assert not list(tmp_path.iterdir())


# Damage and malice


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1
    result = run("images", folder, command=analyze.main)
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1


def test_any_flipped_byte_of_the_weights_is_found(copy):
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in np.linspace(start, len(whole) - 1, 7).astype(int):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(copy, "damaged: the weights are not those")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        lambda data: data[:8] + b"\xff" * 40 + data[48:],
        lambda data: b"PK\x03\x04" + data,
    ],
)
def test_a_damaged_file_is_one_line(copy, spoil):
    file = copy / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    refused(copy, "damaged, or no (safetensors file|checkpoint)")


def test_weights_of_others_are_refused(copy):
    save_file({"conv.weight": torch.zeros(3, 3)}, copy / "model.safetensors", {"format": "pt"})
    refused(copy, "no checkpoint of gen")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_weights_of_another_type_are_one_line(copy, dtype):
    """With their own digest, and with that of the weights that they were."""
    weights = load_file(copy / "model.safetensors")
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    about = {"format": 1, "step": 6, "sha256": digest(weights)}
    for entry, said in ((about, f"is {dtype}, not torch.float32"), (about | {"sha256": 0}, "dam")):
        save_file(weights, copy / "model.safetensors", {"gen": json.dumps(entry)})
        refused(copy, said)


def test_a_header_that_would_take_memory_is_refused(copy):
    header = b"{" + b" " * (17 << 20) + b"}"
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(copy, "a header of 17825794 bytes")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_are_not_waited_for(copy, name):
    (copy / name).unlink()
    make_pipe(copy / name)
    refused(copy, "no run of gen|a pipe, device or socket, not a file")


HOSTILE = "a](http://x)<img src=x>`*_\x1b[31m\u202e\n# b$"


def test_a_card_shows_hostile_names_as_text(trained, tmp_path):
    """Keys of metrics.jsonl, the name of the folder, that of the data."""
    source = tmp_path / "run"
    shutil.copytree(trained, source)
    row = {"step": 6, HOSTILE: 1.0, "loss/a": 2.0}
    lines = ["3", '{"step": "a"}', json.dumps(row), '{"step": 6, "b": NaN}', '{"step": 6, "to']
    (source / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe")
    file = find_checkpoint(source)
    content = torch.load(file, weights_only=True)
    content["config"]["data"]["data"] = HOSTILE + "```"
    torch.save(content, file)
    outdir = tmp_path / HOSTILE.replace("/", "")
    result = run(source, "--outdir", outdir)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Warning") == 1
    assert "metrics.jsonl: left out 5 lines that are no rows (first: line 1)" in result.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", result.output)
    text = (outdir / "README.md").read_text()
    assert "loss/a 2" in text and not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    html = markdown.markdown(text, extensions=["fenced_code"])
    known = r"</?(h1|h2|hr|p|pre|code|ul|li|a|em)\b|<img alt=|<code class=.language-python"
    assert [tag for tag in re.findall(r"<[^>]*", html) if not re.match(known, tag)] == []
    assert html.count("<img") == 1 and "href" not in html and "<em>" not in html


def spoiled_config(copy, section, field, value):
    config = json.loads((copy / "config.json").read_text())
    config[section][field] = value
    (copy / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("width", 10**9, "width is 1000000000; must be at most 4096"),
        ("width", "4", "must be of type int"),
        ("size", [16], "size"),
        ("latent", float("nan"), "latent"),
        ("model", "stylegan", "model is 'stylegan'"),
        ("model", ["dcgan"], "model"),
        ("extra", 1, "has no extra"),
        ("width", 8, "do not fit"),
        ("latent", 7, "do not fit"),
    ],
)
def test_hostile_configurations_are_refused(copy, field, value, match):
    spoiled_config(copy, "model", field, value)
    refused(copy, match)


def test_a_legal_but_huge_network_is_refused_before_it_takes_memory(copy):
    """Width 4096 at 4096×4096 would be 2⁴⁰ bytes."""
    spoiled_config(copy, "model", "width", 4096)
    spoiled_config(copy, "model", "size", [4096, 4096])
    refused(copy, "do not fit")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\xff\xfe", '{"model": 3}']
)
def test_a_config_that_is_none_is_one_line(copy, text):
    (copy / "config.json").write_text(text, "latin-1")
    refused(copy, "config")


def test_a_missing_config_is_one_line(copy):
    (copy / "config.json").unlink()
    refused(copy, r"config\.json")


def test_tensors_of_other_shapes_do_not_fit(copy):
    weights = load_file(copy / "model.safetensors")
    weights["generator.stem.0.weight"] = torch.zeros(2, 2)
    about = {"format": 1, "step": 6, "sha256": digest(weights)}
    save_file(weights, copy / "model.safetensors", {"gen": json.dumps(about)})
    refused(copy, "do not fit")


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"format": 2}, "format 2; this gen reads 1"),
        ({"step": -1}, "step is -1"),
        ({"sha256": "0"}, "damaged: the weights"),
        ("[]", "no checkpoint of gen"),
        ("{", "damaged, or no safetensors"),
    ],
)
def test_foreign_metadata_is_refused(copy, entry, match):
    file = copy / "model.safetensors"
    weights = load_file(file)
    about = {"format": 1, "step": 6, "sha256": digest(weights)}
    text = entry if isinstance(entry, str) else json.dumps(about | entry)
    save_file(weights, file, {"gen": text})
    refused(copy, match)
