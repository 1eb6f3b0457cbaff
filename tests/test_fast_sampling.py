"""Folded decoders draw what plain ones draw, and image i is still a function of seed i alone."""

import pytest
import torch
from click.testing import CliRunner
from gen.models.decoder import Decoder
from gen.models.upsample import UPSAMPLERS

from gen.runs.open import load, open_run
from gen.sampling.fast import FastDecoder
from gen.sampling.seeds import draw_latents, make_fast, sample_images
from sample import main


def lived_in(*arguments):
    """A decoder whose batch norms have seen something."""
    torch.manual_seed(0)
    decoder = Decoder(20, *arguments).eval().requires_grad_(False)
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.1)
    for weight in decoder.parameters():
        weight.mul_(2)
    return decoder


@pytest.mark.parametrize("size", [(32, 32), (18, 21)])
@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_folded_and_plain_agree(upsample, kernel, size):
    decoder = lived_in(size, 3, 6, upsample, kernel)
    latents = draw_latents(range(6), 20)
    plain = decoder(latents)
    assert plain.std() > 0.005
    assert (FastDecoder(decoder)(latents) - plain).abs().max() < 1e-5
    assert (FastDecoder(decoder, "bf16")(latents) - plain).abs().max() * 127.5 < 4
    assert torch.equal(decoder(latents), plain)  # left as it was


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_is_a_function_of_its_seed(finished_run, precision):
    run = open_run(finished_run[1], device="cpu")
    make_fast(run, precision)
    whole = sample_images(run.decoder, range(40), batch_size=64)
    assert torch.equal(sample_images(run.decoder, range(40), batch_size=7), whole)
    assert torch.equal(sample_images(run.decoder, [33, 2], batch_size=1), whole[[33, 2]])
    plain = sample_images(load(finished_run[1], device="cpu"), range(40))
    assert (plain.int() - whole.int()).abs().max() <= (1 if precision == "fp32" else 4)


def test_fast_from_the_command_line(finished_run, tmp_path):
    folder = tmp_path / "samples"
    command = [str(finished_run[1]), "--num", "5", "--outdir", str(folder), "--fast", "bf16"]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert len(list(folder.glob("*.png"))) == 5
    refused = CliRunner().invoke(main, command[:-2])
    assert refused.exit_code == 1 and "made with fast bf16, not None" in str(refused.output)
