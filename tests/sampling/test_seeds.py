"""Image i from seed i: the same uint8 image for any batch size, order and company."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gen.models.decoder import Decoder
from PIL import Image

import sample
from gen.runs.open import load
from gen.sampling.seeds import GROUP, draw_latents, sample_batches, sample_images


@pytest.fixture(scope="module")
def decoder():
    """Half of DCGAN's width, with batch-norm statistics of its own and images of full contrast."""
    torch.manual_seed(0)
    network = Decoder(100, (32, 32), 3, 32)
    with torch.no_grad():
        network.stages[-1].weight.mul_(20)
        for _ in range(20):
            network(torch.randn(64, 100))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("batch_size", [1, 2, 7, GROUP, GROUP + 1, 64, 1000])
def test_batch_size_changes_no_pixel(decoder, batch_size):
    seeds = range(70)
    assert torch.equal(sample_images(decoder, seeds, batch_size), sample_images(decoder, seeds, 70))


def test_order_and_company_change_no_pixel(decoder):
    images = sample_images(decoder, range(70))
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.equal(sample_images(decoder, order), images[order])
    assert torch.equal(sample_images(decoder, [41])[0], images[41])
    assert images.unique(dim=0).shape == images.shape
    assert images.float().std() > 40


def test_latents_are_standard_normal_and_of_their_seed():
    latents = draw_latents(range(2000), 50)
    assert abs(latents.mean()) < 0.02
    assert abs(latents.std() - 1) < 0.02
    assert torch.equal(draw_latents([7], 50)[0], latents[7])


def test_batches_hold_at_most_batch_size(decoder):
    assert [len(b) for b in sample_batches(decoder, range(10), 4)] == [4, 4, 2]


def test_ema_and_last_weights_differ(finished_run):
    folder = finished_run[1]
    averaged, last = (load(folder, ema=ema, device="cpu") for ema in (True, False))
    assert not averaged.training
    assert not torch.equal(averaged.stages[0][0].weight, last.stages[0][0].weight)


def run(*arguments):
    return CliRunner().invoke(sample.main, [str(a) for a in arguments], standalone_mode=True)


def test_command_writes_what_the_library_returns(finished_run, tmp_path):
    folder = finished_run[1]
    result = run(
        folder, "--seeds", "0-4,9", "--grid", tmp_path / "g.png", "--outdir", tmp_path / "one",
        "--npy", tmp_path / "s.npy", "--device", "cpu", "--batch-size", 4,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = sample_images(load(folder, device="cpu"), [0, 1, 2, 3, 4, 9])
    stacked = np.load(tmp_path / "s.npy")
    assert np.array_equal(stacked, expected.permute(0, 2, 3, 1).numpy())
    names = [f"{seed:08d}.png" for seed in (0, 1, 2, 3, 4, 9)]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [*names, "sampling.json"]
    for name, pixels in zip(names, stacked, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "one" / name)), pixels)
    sheet = np.asarray(Image.open(tmp_path / "g.png"))
    assert sheet.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    assert np.array_equal(sheet[20:36, 38:54], stacked[5])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{run}"], 2, "nothing to write"),
        (["{run}", "--seeds", "9-3", "--grid", "{tmp}/g.png"], 2, "no range of seeds"),
        (["{run}", "--seeds", "a", "--grid", "{tmp}/g.png"], 2, "write seeds as"),
        (["{run}", "--seeds", "0-²", "--grid", "{tmp}/g.png"], 2, "write seeds as"),
        (["{run}", "--seeds", "9" * 5000, "--grid", "{tmp}/g.png"], 2, "write seeds as"),
        (["{run}", "--seeds", str(2**63), "--grid", "{tmp}/g.png"], 2, "no range of seeds"),
        (["{run}", "--seeds", "1,0-9999999", "--grid", "{tmp}/g.png"], 2, "10 million"),
        (["{run}", "--seeds", "-3", "--grid", "{tmp}/g.png"], 2, "write seeds as"),
        (["{run}", "--grid", "{tmp}/none/g.png"], 2, "directory that exists"),
        (["{run}", "--outdir", "{tmp}/file"], 2, "is a file"),
        (["{run}", "--grid", "{tmp}/g.png", "--batch-size", "0"], 2, "--batch-size"),
        (["{tmp}/none", "--grid", "{tmp}/g.png"], 1, "no such run or checkpoint"),
        (["{tmp}/file", "--grid", "{tmp}/g.png"], 1, "damaged, or no checkpoint"),
        (["{tmp}", "--grid", "{tmp}/g.png"], 1, "no run of gen"),
    ],
)
def test_bad_input_is_one_line(finished_run, tmp_path, arguments, code, said):
    (tmp_path / "file").write_text("precious")
    result = run(*[a.format(run=finished_run[1], tmp=tmp_path) for a in arguments])
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious"
