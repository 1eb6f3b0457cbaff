"""The evidence lower bound as it is trained: free bits, dimensions that carry nothing."""

import torch

from gen.training.loop import Trainer
from tests.conftest import small_config


def make(dataset, folder, **objective):
    trainer = Trainer(small_config("vae", None, objective), dataset, folder)
    return trainer, trainer.to_device(dataset.fetch(range(8)))


def test_free_bits_cost_the_same_and_pull_no_encoder(small_dataset, tmp_path):
    """Kingma et al. 2016, equation 15: below λ nats a dimension costs λ, whatever it says."""
    losses, gradients, kls = {}, {}, {}
    for free in (0.0, 50.0):
        trainer, batch = make(small_dataset, tmp_path, free_bits=free, beta=3.0)
        torch.manual_seed(1)
        loss, seen = trainer.objective.loss(batch, 0)
        head = trainer.modules["encoder"].head
        nll = seen["vae/nll"]
        gradients[free] = torch.autograd.grad(loss, head.weight)[0]
        losses[free], kls[free] = loss.detach() - nll, seen["vae/kl"]
    torch.testing.assert_close(losses[0.0], 3 * kls[0.0], rtol=1e-3, atol=0)
    torch.testing.assert_close(losses[50.0], torch.tensor(3 * 6 * 50.0), rtol=1e-5, atol=0)
    assert kls[0.0] == kls[50.0]  # what is logged is the divergence itself
    # With every dimension below its allowance the likelihood alone is left.
    trainer, batch = make(small_dataset, tmp_path, beta=0.0)
    torch.manual_seed(1)
    loss, _ = trainer.objective.loss(batch, 0)
    alone = torch.autograd.grad(loss, trainer.modules["encoder"].head.weight)[0]
    torch.testing.assert_close(gradients[50.0], alone)
    assert not torch.allclose(gradients[0.0], alone)
