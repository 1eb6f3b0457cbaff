"""Losses against their definitions, written with torch.distributions and plain probabilities."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from gen.config.objectives import GAN_LOSSES, LIKELIHOODS, PIXEL_LOSSES
from gen.training import losses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_nonsaturating_is_log_probability():
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    pair = losses.NONSATURATING
    expected = -(real.sigmoid().log() + (1 - fake.sigmoid()).log()).mean()
    torch.testing.assert_close(pair.discriminator(real, fake), expected)
    torch.testing.assert_close(pair.generator(fake), -fake.sigmoid().log().mean())


def test_nonsaturating_stays_finite_where_probabilities_vanish():
    pair = losses.NONSATURATING
    assert pair.generator(torch.tensor([-1000.0])) == 1000
    assert pair.discriminator(torch.tensor([-1000.0]), torch.tensor([1000.0])) == 2000


def test_hinge_and_least_squares_on_known_values():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])
    hinge, lsgan = losses.HINGE, losses.LEAST_SQUARES
    assert hinge.discriminator(real, fake) == (0 + 1) / 2 + (0 + 2) / 2
    assert hinge.generator(fake) == 0.5
    assert lsgan.discriminator(real, fake) == ((1 + 1) / 2 + (4 + 1) / 2) / 2
    assert lsgan.generator(fake) == (9 + 0) / 2 / 2


def test_wasserstein_is_a_difference_of_means():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])
    pair = losses.WASSERSTEIN
    assert pair.discriminator(real, fake) == -0.5 - 1
    assert pair.generator(fake) == 0.5


@pytest.mark.parametrize("table", [GAN_LOSSES, LIKELIHOODS, PIXEL_LOSSES])
def test_every_loss_that_the_command_line_offers_exists(table):
    assert all(hasattr(losses, name) for name in table.values())


def test_penalties_of_a_plane_and_their_second_derivative():
    """D(x) = w·x has slope ‖w‖ everywhere; ∂(½‖w‖²)/∂w = w, ∂(‖w‖ − 1)²/∂w = 2(‖w‖ − 1)w/‖w‖."""
    plane, images = torch.randn(12, requires_grad=True), torch.randn(2, 7, 3, 2, 2)
    norm = plane.detach().norm()

    def critic(x):
        return x.flatten(1) @ plane

    torch.testing.assert_close(losses.gradient_norms(critic, images[0]), norm.expand(7))
    r1 = losses.r1_penalty(critic, images[0])
    torch.testing.assert_close(r1.detach(), norm**2 / 2)
    torch.testing.assert_close(*torch.autograd.grad(r1, plane), plane.detach())
    penalty = losses.lipschitz_penalty(critic, *images)
    torch.testing.assert_close(penalty.detach(), (norm - 1) ** 2)
    (grad,) = torch.autograd.grad(penalty, plane)
    torch.testing.assert_close(grad, 2 * (norm - 1) * plane.detach() / norm)


def test_lipschitz_penalty_looks_between_real_and_fake():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    losses.lipschitz_penalty(critic, torch.ones(500, 1, 2, 2), torch.zeros(500, 1, 2, 2))
    share = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], share[:, None, None, None].expand(-1, 1, 2, 2))
    assert share.min() < 0.02 and share.max() > 0.98 and abs(share.mean() - 0.5) < 0.05


def test_bernoulli_is_summed_per_image_and_averaged_over_the_batch():
    logits, pixels = torch.randn(5, 3, 4, 4), torch.randint(2, (5, 3, 4, 4)).float()
    distribution = Bernoulli(logits=2 * logits)
    expected = -distribution.log_prob(pixels).flatten(1).sum(1).mean()
    torch.testing.assert_close(losses.bernoulli_nll(logits, 2 * pixels - 1), expected)


def test_the_decoders_image_is_the_bernoulli_mean():
    logits = torch.randn(100)
    torch.testing.assert_close(logits.tanh(), 2 * (2 * logits).sigmoid() - 1)


def test_gaussian_has_the_variance_that_fits_best():
    logits, images = torch.randn(5, 3, 4, 4), torch.rand(5, 3, 4, 4) * 2 - 1

    def nll(sigma):
        return -Normal(logits.tanh(), sigma).log_prob(images).flatten(1).sum(1).mean()

    best = min(nll(sigma) for sigma in torch.linspace(0.05, 3, 3000))
    torch.testing.assert_close(losses.gaussian_nll(logits, images), best, rtol=1e-5, atol=1e-3)


def test_gaussian_of_a_perfect_fit_stays_finite():
    logits = torch.zeros(2, 1, 4, 4)
    found = losses.gaussian_nll(logits, logits)
    assert found == pytest.approx(8 * math.log(2 * math.pi * losses.ROUNDING_VARIANCE))


def test_kl_is_torchs_and_reparametrization_has_its_moments():
    mean, log_variance = torch.randn(7, 3), torch.randn(7, 3)
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(losses.kl_divergence(mean, log_variance), expected)
    drawn = losses.reparametrize(torch.full((100_000,), 3.0), torch.full((100_000,), math.log(4)))
    assert drawn.mean() == pytest.approx(3, abs=0.03)
    assert drawn.std() == pytest.approx(2, abs=0.02)
