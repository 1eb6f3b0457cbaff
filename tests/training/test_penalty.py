"""The price on grids: right value, right gradient, and it does what it is for."""

import json

import pytest
import torch
from gen.models.decoder import Decoder
from gen.models.upsample import Subpixel
from torch import nn

from gen.analysis.layers.trace import find_layers
from gen.config.run import RunConfig
from gen.runs.open import decoder_of
from gen.training.loop import Trainer
from gen.training.penalty import GridPenalty, last_enlarging, layer_gains
from tests.conftest import small_config


@pytest.mark.parametrize("upsample", ["transposed", "subpixel"])
def test_price_is_the_power_of_the_lines_over_that_of_the_mean(upsample):
    torch.manual_seed(0)
    network = Decoder(5, (16, 16), 3, 4, upsample, 3)
    layer = last_enlarging(network)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    penalty = GridPenalty(network, 3.0)
    network(torch.randn(4, 5))
    found, _ = find_layers(network, torch.randn(2, 5))
    torch.testing.assert_close(layer_gains(layer).detach(), found[-1].gains)
    means = torch.nn.functional.avg_pool2d(penalty.maps, 3, 1)  # (4, C, 6, 6)
    lines = torch.fft.fft2(torch.einsum("pqoi,nihw->onhwpq", found[-1].gains, means))
    power = lines.abs().square().sum((0, 1, 2, 3)).flatten()
    torch.testing.assert_close(penalty.price(), 3 * power[1:].sum() / power[0])


class Price(nn.Module):
    """The penalty as a function of its layer's weights."""

    def __init__(self, penalty):
        super().__init__()
        self.layer, self.penalty = penalty.layer, penalty

    def forward(self):
        return self.penalty.price()


@pytest.mark.parametrize("kind", ["transposed", "subpixel"])
def test_gradient(kind):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 2, 3, 2, 1, 1) if kind == "transposed" else Subpixel(3, 2, 3)
    penalty = GridPenalty(nn.Sequential(layer.double()), 1.0)
    layer(torch.randn(2, 3, 5, 5, dtype=torch.float64))
    price, name = Price(penalty), "layer.weight" if kind == "transposed" else "layer.0.weight"
    weight = torch.randn_like(price.get_parameter(name)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: torch.func.functional_call(price, {name: values}, ()), (weight,)
    )


def train(model, weight, dataset, folder):
    """A short run with a price; its trainer."""
    config = small_config(model, steps=150, log_every=150, snapshot_every=150).to_dict()
    config["objective"]["grid_penalty"] = weight
    folder.mkdir()
    trainer = Trainer(RunConfig.from_dict(config), dataset, folder)
    assert trainer.run() == 0
    return trainer


def test_a_priced_generator_ends_with_a_smaller_imbalance(small_dataset, tmp_path):
    found = {}
    for weight in (0.0, 10.0):
        trainer = train("dcgan", weight, small_dataset, tmp_path / str(weight))
        decoder = decoder_of(trainer.modules).train()
        penalty = GridPenalty(decoder, 1.0)
        decoder(torch.randn(64, decoder.latent))
        found[weight] = float(penalty.price().detach())
    assert found[10.0] < 0.3 * found[0.0]


def test_the_price_is_logged(small_dataset, tmp_path):
    train("vae", 2.0, small_dataset, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["loss/grid"] > 0


def test_nothing_to_price_is_said_before_training():
    values = small_config().to_dict()
    values["model"] |= {"upsample": "nearest", "kernel_size": 3}
    values["objective"]["grid_penalty"] = 1.0
    with pytest.raises(ValueError, match="grid_penalty is 1, but upsample nearest has no phases"):
        RunConfig.from_dict(values)
