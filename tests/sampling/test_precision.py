"""In bf16 image i is still a function of seed i alone, close to that of fp32."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gen.models.decoder import Decoder
from gen.models.kinds import UPSAMPLERS

from gen.runs.open import load
from gen.sampling.seeds import draw_latents, sample_images, use_bf16
from sample import main


@pytest.mark.parametrize("size", [(32, 32), (18, 21)])
@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_images_differ_from_those_of_fp32_in_a_few_gray_levels(upsample, size):
    torch.manual_seed(0)
    decoder = Decoder(20, size, 3, 6, upsample).eval().requires_grad_(False)
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.1)
    for weight in decoder.parameters():
        weight.mul_(2)
    latents = draw_latents(range(6), 20)
    plain = decoder(latents)
    use_bf16(decoder)
    difference = decoder(latents).float() - plain
    assert plain.std() > 0.005
    assert 0 < difference.abs().max() * 127.5 < 4


def test_an_image_is_a_function_of_its_seed(finished_run):
    decoder = load(finished_run[1], device="cpu")
    plain = sample_images(decoder, range(40))
    use_bf16(decoder)
    whole = sample_images(decoder, range(40), batch_size=64)
    assert torch.equal(sample_images(decoder, range(40), batch_size=7), whole)
    assert torch.equal(sample_images(decoder, [33, 2], batch_size=1), whole[[33, 2]])
    assert (plain.int() - whole.int()).abs().max() <= 4


def test_precision_from_the_command_line(finished_run, tmp_path):
    folder, file = tmp_path / "samples", tmp_path / "samples.npy"
    command = [str(finished_run[1]), "--num", "5", "--outdir", str(folder), "--precision", "bf16"]
    assert CliRunner().invoke(main, [*command, "--npy", str(file)]).exit_code == 0
    decoder = load(finished_run[1], device="auto")
    use_bf16(decoder)
    expected = sample_images(decoder, range(5)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(np.load(file), expected)
    for end in ([], ["--precision", "fp32"]):
        refused = CliRunner().invoke(main, [*command[:-2], *end])
        assert refused.exit_code == 1 and "made with precision bf16, not None" in refused.output
