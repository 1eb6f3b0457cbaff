"""Weights of others: a generator in the layout of PyTorch's DCGAN example."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import sample
from gen.commands.main import main
from gen.runs.checkpoint import CheckpointError
from gen.runs.describe import describe_file
from gen.runs.open import find_checkpoint, load
from gen.sampling.seeds import draw_latents, sample_images

ROOT = Path(__file__).resolve().parents[2]


def example(latent=20, width=4, channels=3, depth=4):
    """Written out anew from the example's description, with weights and statistics of its own."""
    torch.manual_seed(0)
    layers, incoming = [], latent
    for stage in range(depth - 1):
        outgoing = width * 2 ** (depth - 2 - stage)
        geometry = (4, 2, 1) if stage else (4, 1, 0)
        layers += [nn.ConvTranspose2d(incoming, outgoing, *geometry, bias=False)]
        layers += [nn.BatchNorm2d(outgoing), nn.ReLU(True)]
        incoming = outgoing
    layers += [nn.ConvTranspose2d(incoming, channels, 4, 2, 1, bias=False), nn.Tanh()]
    network = nn.Module()
    network.main = nn.Sequential(*layers)
    for _ in range(5):
        network.main(torch.randn(16, latent, 1, 1))
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("latent", "width", "channels", "depth"), [(20, 4, 3, 4), (7, 2, 1, 5), (3, 5, 4, 2)]
)
def test_images_are_those_of_the_network_that_wrote_the_file(
    tmp_path, prefix, latent, width, channels, depth
):
    network = example(latent, width, channels, depth)
    file = tmp_path / "netG_epoch_24.pth"
    torch.save({prefix + name: value for name, value in network.state_dict().items()}, file)
    loaded = load(file, device="cpu")
    assert loaded.latent == latent and not loaded.training
    assert loaded.sizes[-1] == (2 ** (depth + 1), 2 ** (depth + 1))
    latents = draw_latents(range(5), latent)
    with torch.no_grad():
        expected = network.main(latents[..., None, None])
        torch.testing.assert_close(loaded(latents), expected)
    assert sample_images(loaded, range(5)).shape == (5, channels, *loaded.sizes[-1])


def test_sample_command_and_inspect(tmp_path):
    file = tmp_path / "netG.pth"
    torch.save(example().state_dict(), file)
    result = CliRunner().invoke(
        sample.main, [str(file), "--seeds", "0-8", "--npy", str(tmp_path / "s.npy")]
    )
    assert result.exit_code == 0, result.output
    assert "9 images of 32x32" in result.output
    assert np.load(tmp_path / "s.npy").shape == (9, 32, 32, 3)
    assert "latent 20 → 16 → 8 → 4 → 3 channels, images of 32x32" in describe_file(file)


def test_old_files_without_batch_counters(tmp_path):
    weights = {n: v for n, v in example().state_dict().items() if "batches" not in n}
    torch.save(weights, tmp_path / "old.pth")
    assert load(tmp_path / "old.pth", device="cpu").latent == 20


def test_neighbors_of_the_layout_are_not_taken_for_it(tmp_path):
    weights = example().state_dict()
    wrong = {
        "kernel": weights | {"main.3.weight": torch.zeros(16, 8, 3, 3)},
        "chain": weights | {"main.3.weight": torch.zeros(15, 8, 4, 4)},
        "more": weights | {"head.weight": torch.zeros(3)},
        "less": {n: v for n, v in weights.items() if n != "main.1.bias"},
    }
    for name, changed in wrong.items():
        torch.save(changed, tmp_path / f"{name}.pth")
        with pytest.raises(CheckpointError, match="no checkpoint of gen"):
            load(tmp_path / f"{name}.pth")
        assert "gen can build none of these" in describe_file(tmp_path / f"{name}.pth")


def test_inspect_names_a_run(finished_run):
    model, folder = finished_run
    text = describe_file(folder)
    assert f"{find_checkpoint(folder)}: {model} of this toolkit after 6 steps" in text
    assert "16x16, 3 channels" in text


def test_inspect_of_nothing_is_one_line(tmp_path):
    run = CliRunner().invoke(main, ["inspect", str(tmp_path / "no")])
    assert run.exit_code == 1 and run.stderr.splitlines() == [
        f"Error: {tmp_path / 'no'}: no such run or checkpoint"
    ]


def test_analyze_measures_its_samples(tmp_path):
    import analyze

    file = tmp_path / "netG.pth"
    torch.save(example().state_dict(), file)
    result = CliRunner().invoke(analyze.main, ["images", str(file), "--num", "64"])
    assert result.exit_code == 0, result.output
    assert "64 images of 32×32, 3 channel(s)" in result.output and "Period 2" in result.output
