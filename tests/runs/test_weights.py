"""Weights of others: bundles, wrappers, shards, half precision, whatever their files are called."""

import argparse
import datetime
import json
import pathlib
import types

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gen.models.stack import TransposedStack
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from gen.commands.main import main
from gen.runs.checkpoint import CheckpointError
from gen.runs.describe import describe_file
from gen.runs.formats import format_of, holds_network
from gen.runs.open import load, read_file
from gen.runs.weights import fill_network, list_parts
from gen.sampling.seeds import draw_latents
from gen.system.errors import InputError
from tests.foreign_networks import ExampleGenerator


def generator(seed=0):
    torch.manual_seed(seed)
    return ExampleGenerator((6, 8, 4, 3)).eval()


def critic():
    return nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.Flatten(), nn.Linear(4 * 64, 1))


def same(path, network, key=None):
    latents = draw_latents(range(3), 6)
    with torch.no_grad():
        given, wanted = load(path, device="cpu", key=key)(latents), network(latents)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(tmp_path):
    last = generator(0)
    optimizer = torch.optim.Adam(last.parameters())
    last(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    content = {
        "generator": last.state_dict(), "g_ema": generator(1).state_dict(), "epoch": 3,
        "discriminator": critic().state_dict(), "optimizer": optimizer.state_dict(),
    }  # fmt: skip
    torch.save(content, tmp_path / "bundle.pth")
    return tmp_path / "bundle.pth"


def test_bundles_are_chosen_from_by_key(bundle):
    with pytest.raises(CheckpointError) as caught:
        load(bundle)
    assert "choose one: --key generator or --key g_ema" in str(caught.value)
    held = read_file(bundle)
    for key in ("g_ema", "generator"):
        (network := generator(2)).load_state_dict(held[key])
        same(bundle, network, key=key)
    for key, said in (("nobody", "has no part 'nobody'"), ("discriminator", "can build none")):
        with pytest.raises(CheckpointError, match=said):
            load(bundle, key=key)
    text = describe_file(bundle)
    assert "g_ema: 10 entries" not in text and "g_ema: " in text and "epoch = 3" in text
    assert "    main.3.weight (8, 4, 4, 4) float32" in text and "exp_avg (6, 8, 4, 4)" in text
    assert "main.0.weight" in describe_file(bundle, "g_ema")


def opened_by_commands(bundle, folder):
    """Arguments of every command that opens a file of weights, each a file in each place."""
    images = ["--num", 64]
    (folder / "a").mkdir()
    for number in range(32):
        values = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(values).save(folder / "a" / f"{number}.png")
    quality = ["--reference", folder / "a", "--num", 32]
    features = ["--features", f"classifier:{bundle}"]
    segment = ["--images", folder / "a", "--outdir", folder / "masks"]
    return {
        "sample": ["sample", bundle, *images, "--npy", folder / "images.npy"],
        "sample, segmenter": ["sample", bundle, *segment],
        "compare": ["compare", bundle, *images],
        "images": ["images", bundle, *images],
        "images, reference": ["images", folder / "a", "--reference", bundle, *images],
        "model": ["model", bundle, "--num", 128],
        "repair": ["repair", bundle, "--num", 128, "-o", folder / "repaired.pth"],
        "quality": ["quality", bundle, *quality],
        "quality, features": ["quality", folder / "a", *features, *quality],
        "export": ["export", bundle, "--outdir", folder / "exported"],
    }


def test_every_command_that_suggests_a_key_takes_it(bundle, tmp_path):
    for name, given in opened_by_commands(bundle, tmp_path).items():
        result = run(*given)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1, name
        if "--key" not in result.stderr:
            assert name in ("sample, segmenter", "quality, features", "export"), result.stderr
            assert "weights from elsewhere" in result.stderr
            continue
        assert "choose one: --key generator or --key g_ema" in result.stderr
        result = run(*given, "--key", "g_ema")
        wanted = "not repaired, nothing written" if name == "repair" else ""
        assert result.exit_code == bool(wanted) and wanted in result.stderr, result.stderr


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
def test_wrappers_are_taken_off_names(tmp_path, wrapper):
    network = generator()
    state = {wrapper + name: value for name, value in network.state_dict().items()}
    torch.save({"n_averaged": torch.tensor(3)} | state, tmp_path / "a.pth")
    assert {*dict(list_parts(read_file(tmp_path / "a.pth")))[""]} == {*network.state_dict()}
    same(tmp_path / "a.pth", network)


def test_names_that_a_compiled_submodule_has(tmp_path):
    network = generator()
    names = {n: n.replace("main.3.", "main.3._orig_mod.") for n in network.state_dict()}
    torch.save({names[n]: v for n, v in network.state_dict().items()}, tmp_path / "a.pth")
    same(tmp_path / "a.pth", network)


def test_lightning_keeps_all_networks_in_one_state_dict(tmp_path):
    network = generator()
    both = {f"generator.{n}": v for n, v in network.state_dict().items()}
    both |= {f"discriminator.{n}": v for n, v in critic().state_dict().items()}
    content = {
        "state_dict": both, "pytorch-lightning_version": "2.5", "epoch": 1, "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": [{}]}],
    }  # fmt: skip
    torch.save(content, tmp_path / "last.ckpt")
    same(tmp_path / "last.ckpt", network)
    fill_network(copy := generator(5), read_file(tmp_path / "last.ckpt"))
    assert torch.equal(copy.main[0].weight, network.main[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["model.safetensors", "weights.bin", "no_suffix", "images.png"])
def test_types_and_suffixes(tmp_path, dtype, name):
    network = generator()
    state = network.state_dict()
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in state.items()}
    path = tmp_path / name
    save_file(state, path, {"format": "pt"}) if "safe" in name else torch.save(state, path)
    assert holds_network(path)
    network.load_state_dict(state)
    same(path, network)
    assert "metadata format: pt" in describe_file(path) or "safe" not in name
    assert f"main.0.weight (6, 8, 4, 4) {str(dtype)[6:]}" in describe_file(path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path, suffix):
    network = generator()
    parts = {f"model-0000{number % 2 + 1}-of-00002.{suffix}": {} for number in range(2)}
    places = {}
    for number, (name, value) in enumerate(network.state_dict().items()):
        file = [*parts][number % 2]
        parts[file][name], places[name] = value, file
    for file, state in parts.items():
        (save_file if suffix == "safetensors" else torch.save)(state, tmp_path / file)
    index = tmp_path / ("model" if suffix != "bin" else "pytorch_model")
    index = index.with_name(f"{index.name}.{suffix}.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}, indent=2))
    same(index, network)
    same(tmp_path, network)  # the folder as the Hub has it
    for spoiled, said in (
        (places | {"more": next(iter(parts))}, "does not hold the tensors"),
        (places | {"more": "../secret.bin"}, "is no name of a file in this folder"),
        (places | {"more": "absent.bin"}, "names absent.bin, which is not in its folder"),
        (places | {"more": ""}, "names , which is not in its folder"),
        (places | {"more": "é" * 1000}, "names é+…é+, which is not in its folder"),
        (places | {"more": index.name}, "does not hold the tensors"),
        ([], "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": spoiled}))
        with pytest.raises(CheckpointError, match=said):
            load(index)


def test_parts_of_a_network_are_not_taken_for_it(tmp_path):
    """A linear layer first, then a stack: without the layer it would be another network."""
    stack = generator().state_dict()
    torch.save({"fc.weight": torch.zeros(6, 4), **stack}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="can build none"):
        load(tmp_path / "a.pth")
    for spoiled in (
        {n: v for n, v in stack.items() if n != "main.1.bias"},
        stack | {"main.3.weight": torch.zeros(8, 4, 3, 3)},
        stack | {"main.3.weight": torch.zeros(7, 4, 4, 4)},
        {"a..b": torch.zeros(2, 2, 4, 4), "forward.weight": torch.zeros(2, 2, 4, 4)},
        {f"{i}.weight": torch.zeros(1, 1, 4, 4) for i in range(30)},  # 2 GiB wide images
    ):
        torch.save(spoiled, tmp_path / "b.pth")
        with pytest.raises(CheckpointError, match="can build none"):
            load(tmp_path / "b.pth")


def test_layers_are_in_the_order_of_their_numbers():
    wide = ExampleGenerator((5, *[2] * 5)).eval()
    names = sorted(wide.state_dict())  # 10 comes before 3, as safetensors sorts them
    assert names.index("main.12.weight") < names.index("main.3.weight")
    stack = TransposedStack({name: wide.state_dict()[name] for name in names}).eval()
    latents = draw_latents(range(2), 5)
    torch.testing.assert_close(stack(latents), wide(latents))


def test_a_network_takes_the_part_that_fits_it():
    network = generator(3)
    for content in (
        network.state_dict(),
        {"params": network.state_dict(), "other": critic().state_dict()},
        {"state_dict": {f"module.net.{n}": v for n, v in network.state_dict().items()}},
    ):
        fill_network(copy := generator(0), content)
        assert torch.equal(copy.main[3].weight, network.main[3].weight)
    with pytest.raises(InputError, match=r"none has the names and shapes of Sequential \(0.weight"):
        fill_network(critic(), network.state_dict())
    with pytest.raises(InputError, match="choose one: --key a or --key b"):
        fill_network(generator(), {"a": generator(1).state_dict(), "b": generator(2).state_dict()})


def test_arguments_next_to_weights_are_plain_values(tmp_path):
    """As bundles of StyleGAN2 have them: `args`, and best scores of NumPy."""
    args = argparse.Namespace(lr=0.002, out=pathlib.PosixPath("runs/a"), more=[1, 2])
    bundle = {
        "g_ema": generator(2).state_dict(), "args": args, "best": np.float64(1.5), "n": np.int64(3),
        "flag": np.bool_(True), "half": np.float16(0.5), "space": types.SimpleNamespace(z=3),
    }  # fmt: skip
    for zipped in (True, False):
        torch.save(bundle, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        held = read_file(tmp_path / "a.pt")
        assert {k: v for k, v in held.items() if k != "g_ema"} == {
            k: v for k, v in bundle.items() if k != "g_ema"
        }
        same(tmp_path / "a.pt", generator(2))
    text = describe_file(tmp_path / "a.pt")
    assert "best = np.float64(1.5)" in text and "lr = 0.002" in text


class Whole(nn.Sequential):
    """Pickled as a whole."""


def test_what_holds_code_says_so(tmp_path):
    torch.save(Whole(nn.Conv2d(3, 3, 3)), tmp_path / "whole.pth")
    torch.save({"time": datetime.timedelta(1), "g": {}}, tmp_path / "time.pth")
    for name in ("whole", "time"):
        for words in (["inspect"], ["images"], ["model"], ["compare"]):
            result = run(*words, tmp_path / f"{name}.pth")
            assert result.exit_code == 1 and result.stderr.count("\n") == 1
            assert "holds code: a pickled '" in result.stderr
            assert "save a state_dict()" in result.stderr


def test_formats_that_are_not_read_say_what_to_do(tmp_path):
    starts = {
        "a.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "b.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        "c.pkl": (b"\x80\x04\x95" + bytes(99), "holds a pickle, which is code"),
        "d.bin": (b"\x08\x08\x12\x07pytorch" + bytes(99), "--script FILE"),
        "e": (b"GGUF" + bytes(99), "convert it to safetensors"),
    }
    for name, (data, said) in starts.items():
        (tmp_path / name).write_bytes(data)
        assert holds_network(tmp_path / name)
        result = run("inspect", tmp_path / name)
        assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1
    (tmp_path / "f.json").write_text('{"schema": 2, "periods": {}}')
    assert format_of(tmp_path / "f.json") is None
