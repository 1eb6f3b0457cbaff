"""Losses, penalties and rhythms of the two players, in real steps of the real loop."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gen.config.run import RunConfig
from gen.training.loop import Trainer, train_step
from gen.training.losses import gradient_norms
from tests.conftest import small_config


def trained(dataset, folder, steps, networks=None, objective=None, model="dcgan", **training):
    """A trainer after some steps, and the metrics of each."""
    config = small_config(model, networks, {"lr": 2e-3, **(objective or {})}, **training)
    trainer = Trainer(config, dataset, folder)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=config.training.precision == "bf16")
    seen = []
    for step in range(steps):
        batch = trainer.to_device(dataset.fetch([(8 * step + i) % 64 for i in range(8)]))
        seen.append(train_step(trainer.objective, batch, step, autocast))
    return trainer, seen


def mean_slope(trainer):
    """Mean of ‖∇D‖ half-way between real and generated images."""
    held = trainer.preview_batch()
    with torch.no_grad():
        fakes, labels = trainer.objective.generate(held)
    critic = trainer.modules["discriminator"]
    return float(
        gradient_norms(lambda x: critic(x, labels), (held.images + fakes) / 2).detach().mean()
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("networks", [{}, {"conditional": True, "classes": 3}])
def test_gradient_penalty_brings_the_slope_to_one(precision, networks, small_dataset, tmp_path):
    """Through channels-last convolutions differentiated twice, under autocast as well.

    Against a generator that stands still, −s·d + λ(s − 1)² is least for s = 1 + d/2λ; reals and
    fakes here are d ≈ 12 apart.
    """
    objective = {"loss": "wgan-gp", "critic_steps": 1000, "gradient_penalty": 100.0}
    trainer, seen = trained(small_dataset, tmp_path, 120, networks, objective, precision=precision)
    weight = trainer.modules["discriminator"].trunk[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert mean_slope(trainer) == pytest.approx(1.06, abs=0.2)
    assert seen[0]["loss/slope"] > 80 and seen[-1]["loss/slope"] < 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_r1_flattens_the_discriminator(precision, small_dataset, tmp_path):
    found = {}
    for r1 in (0.0, 100.0):
        trainer, seen = trained(
            small_dataset, tmp_path, 60, {"batch_norm": "off"}, {"r1": r1}, precision=precision
        )
        found[r1] = mean_slope(trainer)
        assert ("loss/slope" in seen[-1]) == (r1 > 0)
    assert found[100.0] < 0.3 * found[0.0]


def test_spectral_norm_holds_in_bf16(small_dataset, tmp_path):
    networks = {"spectral_norm": True}
    trainer, _ = trained(small_dataset, tmp_path, 60, networks, {"loss": "hinge"}, precision="bf16")
    critic = trainer.modules["discriminator"].eval()
    norms = [
        float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        for layer in [*critic.trunk, critic.head]
        if hasattr(layer, "weight")
    ]
    assert norms == pytest.approx([1] * 3, abs=0.1)


def test_critic_steps_are_turns_between_the_generators(small_dataset, tmp_path):
    _, seen = trained(small_dataset, tmp_path, 7, objective={"critic_steps": 3})
    assert ["loss/generator" in metrics for metrics in seen] == [True, False, False] * 2 + [True]
    assert all("loss/discriminator" in metrics for metrics in seen)


def test_what_a_penalty_asks_of_the_networks_is_settled():
    def settled(networks=None, **objective):
        config = small_config("dcgan", networks, objective)
        assert RunConfig.from_dict(config.to_dict()) == config
        return config.model.batch_norm, config.objective.critic_steps

    assert settled() == ("on", 1)
    assert settled(loss="hinge") == ("on", 1)
    assert settled(loss="wgan-gp") == ("off", 5)
    assert settled(loss="wgan-gp", critic_steps=2) == ("off", 2)
    assert settled(r1=1.0) == ("off", 1)
    assert settled({"spectral_norm": True}) == ("off", 1)
    assert settled({"spectral_norm": True, "batch_norm": "on"}) == ("on", 1)
    for objective in ({"r1": 1.0}, {"loss": "wgan-gp"}):
        with pytest.raises(ValueError, match="batch_norm is on"):
            settled({"batch_norm": "on"}, **objective)


def test_vaegan_steps_are_those_of_algorithm_1(small_dataset, tmp_path):
    """Larsen et al. 2016, written out with log and exp, on the same noise."""
    trainer, _ = trained(small_dataset, tmp_path, 3, model="vaegan", objective={"gamma": 0.25})
    encoder, decoder, critic = (trainer.modules[n] for n in ("encoder", "decoder", "discriminator"))
    batch = trainer.to_device(small_dataset.fetch(range(8)))

    def noise():
        torch.manual_seed(1)
        return torch.randn(8, 6), torch.randn(8, 6)

    with torch.no_grad():
        mean, log_variance = encoder(batch.images)
        posterior, prior = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
        kl = kl_divergence(posterior, prior).sum(1).mean()
        drawn = mean + noise()[0] * posterior.scale
        both = decoder(torch.cat([drawn, noise()[1]]))

        def feature_nll(images):
            nll = -Normal(critic.trunk(batch.images), 1.0).log_prob(critic.trunk(images)[:8])
            return (nll - math.log(2 * math.pi) / 2).sum(1).mean()

        fake, real = critic(both).sigmoid(), critic(batch.images).sigmoid()
        judged = real.log().mean() + (1 - fake[:8]).log().mean() + (1 - fake[8:]).log().mean()
        adversarial_loss = -fake[:8].log().mean() - fake[8:].log().mean()
        expected = {
            "encoder": feature_nll(decoder(drawn)) + kl,
            "decoder": 0.25 * feature_nll(both) + adversarial_loss,
            "discriminator": -judged,
        }
    for phase in trainer.objective.phases:
        noise()
        torch.manual_seed(1)
        torch.testing.assert_close(phase.loss(batch, 0)[0].detach(), expected[phase.name])


def test_vaegan_refuses_classes_in_one_line():
    with pytest.raises(ValueError, match="conditional is on; vaegan learns no classes"):
        small_config("vaegan", {"conditional": True})
