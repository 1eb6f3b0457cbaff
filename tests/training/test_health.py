"""A collapsed run is named as such, and a healthy one is left in peace."""

import json

import pytest
import torch

from gen.training import health, losses
from gen.training.loop import Trainer
from tests.conftest import small_config


def run(dataset, folder, model, networks=None, objective=None, turns=None):
    """Rows of a run of 10,240 images; its discriminator stands still after so many turns."""
    rhythm = {"steps": 320, "snapshot_every": 320, "log_every": 40, "batch_size": 32}
    trainer = Trainer(small_config(model, networks, objective, **rhythm), dataset, folder)
    if turns is not None:
        optimizer, taken = trainer.objective.phases[0].optimizer, []
        step = optimizer.step

        def step_or_stand_still():
            taken.append(None)
            if len(taken) <= turns:
                step()

        optimizer.step = step_or_stand_still
    assert trainer.run() == 0
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "warnings" not in rows[0]  # untrained networks are all alike
    return rows[-1]


def test_a_generator_that_collapses_is_named(small_dataset, tmp_path, capsys):
    """Against a discriminator that has stopped learning it makes what that likes most."""
    networks, objective = {"batch_norm": "off"}, {"lr": 2e-3, "loss": "hinge"}
    row = run(small_dataset, tmp_path, "dcgan", networks, objective, turns=60)
    assert row["health/diversity"] < 0.25
    assert [line.split(":")[0] for line in row["warnings"]] == ["COLLAPSED"]
    said = capsys.readouterr().err
    assert "Warning at step 320: COLLAPSED: samples differ by" in said
    assert f"health/diversity {row['health/diversity']:.4g}" in said


@pytest.mark.parametrize("model", ["dcgan", pytest.param("vae", marks=pytest.mark.slow)])
def test_healthy_runs_are_left_in_peace(model, small_dataset, tmp_path, capsys):
    row = run(small_dataset, tmp_path, model, objective={"lr": 2e-3})
    assert row["health/diversity"] > 0.4 and row["health/active_latents"] == 6
    assert "warnings" not in row and "Warning" not in capsys.readouterr().err
    assert {name for name in row if name.startswith("grad/")} == (
        {"grad/discriminator", "grad/generator"} if model == "dcgan" else {"grad/elbo"}
    )
    if model == "vae":
        assert row["vae/kl_largest_dimension"] > row["vae/kl_median_dimension"] > 0.01


@pytest.mark.slow
def test_posterior_collapse_is_named(small_dataset, tmp_path):
    row = run(small_dataset, tmp_path, "vae", objective={"lr": 2e-3, "beta": 1000.0})
    assert row["health/active_latents"] == 0
    assert "POSTERIOR COLLAPSE" in " ".join(row["warnings"])


@pytest.mark.slow
def test_a_discriminator_that_has_won_is_named(small_dataset, tmp_path):
    objective = {"lr": 2e-3, "critic_steps": 1000}
    row = run(small_dataset, tmp_path, "dcgan", objective=objective)
    assert row["health/saturation"] > 0.99
    assert "SATURATED" in " ".join(row["warnings"])


def test_diversity_of_k_images_is_one_less_one_kth():
    torch.manual_seed(0)
    real = torch.randn(256, 3, 8, 8)
    for k in (1, 2, 4):
        assert health.diversity(real[:k].repeat(256 // k, 1, 1, 1), real) == pytest.approx(
            1 - 1 / k, abs=0.05
        )
    assert health.diversity(torch.randn(256, 3, 8, 8), real) == pytest.approx(1, abs=0.02)


def test_classes_that_have_become_one_image_each():
    torch.manual_seed(0)
    labels = torch.arange(64) % 4
    real = torch.randn(64, 1, 8, 8) + 3 * labels[:, None, None, None]
    collapsed = real[:4][labels]
    assert health.diversity(collapsed, real) > 0.7  # by the classes alone
    assert health.diversity(collapsed, real, labels) == 0


def test_latents_that_carry_nothing():
    means = torch.randn(64, 5) * torch.tensor([1.0, 0.5, 0.05, 0.2, 0.0])
    assert health.count_active_latents(means) == 3
    weight = torch.randn(40, 7)
    weight[:, 2] *= 1e-3
    weight[:, 6] = 0  # beyond the latent: part of a class's vector
    assert health.count_used_latents(weight, 6) == 5


def test_saturation_counts_images_that_teach_nothing():
    real, fake = torch.tensor([5.0, 4.0, 0.0, 9.0]), torch.tensor([-5.0, 1.0])
    # 1 − D(x) = 0.007, 0.018, 0.5, 0.0001; D(G(z)) = 0.007, 0.73. Margins of hinge: 1 and −1.
    for loss, share in (
        (losses.NONSATURATING, 3 / 6),
        (losses.HINGE, 4 / 6),
        (losses.WASSERSTEIN, 0),
    ):
        found = health.saturation(loss.discriminator, real, fake)
        assert found == pytest.approx(share)
