"""Classes: networks that take them, runs that learn them, samples and measurements of each."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gen.models.dcgan import Discriminator
from gen.models.decoder import Decoder
from torch import nn

import analyze
import train
from gen.data.datasets import Batch, find_classes, load_dataset
from gen.runs.open import load
from gen.sampling.seeds import sample_images
from gen.training.loop import Trainer
from tests.conftest import small_config

CLASSES = {"conditional": True, "classes": 2, "channels": 1}


@pytest.fixture(scope="module")
def day_and_night(tmp_path_factory):
    """An .npz file of dark images (class 0) and bright ones (class 1)."""
    file = tmp_path_factory.mktemp("data") / "day_and_night.npz"
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.integers(0, 60, (64, 16, 16, 1)) + 190 * labels[:, None, None, None]
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file


@pytest.fixture(scope="module", params=["dcgan", "vae"])
def conditional_run(request, day_and_night, tmp_path_factory):
    """(model, folder) of a run that has learned night and day."""
    folder = tmp_path_factory.mktemp(request.param)
    dataset = load_dataset(str(day_and_night), root="data", size=(16, 16), channels=1)
    objective = {"lr": 4e-3}
    config = small_config(
        request.param, CLASSES, objective, steps=150, ema_half_life=0.0, snapshot_every=150
    )
    assert Trainer(config, dataset, folder).run() == 0
    return request.param, folder


def test_the_class_asked_for_is_the_class_drawn(conditional_run):
    decoder = load(conditional_run[1], device="cpu")
    seeds = range(32)
    night, day = (sample_images(decoder, seeds, labels=[label] * 32) for label in (0, 1))
    assert night.float().mean() < 80 and day.float().mean() > 170
    mixed = sample_images(decoder, seeds)
    assert torch.equal(mixed[0::2], night[0::2]) and torch.equal(mixed[1::2], day[1::2])


def test_a_class_that_is_not_there_is_named(conditional_run):
    with pytest.raises(ValueError, match="class is 2; must be 0 to 1"):
        sample_images(load(conditional_run[1]), [0], labels=[2])


def test_a_network_without_classes_takes_no_label(finished_run):
    with pytest.raises(ValueError, match="knows no classes"):
        sample_images(load(finished_run[1]), [0], labels=[0])


def test_its_networks_are_measured_like_any_other(conditional_run, tmp_path):
    for arguments in (
        ["images", "--num", "64"],
        ["model", "--num", "128"],
        ["repair", "--num", "128", "-o", str(tmp_path / "repaired.pt")],
    ):
        arguments.insert(1, str(conditional_run[1]))
        result = CliRunner().invoke(analyze.main, arguments)
        refused = "not repaired, nothing written" in result.output
        assert result.exit_code == 0 or refused, result.output


def test_embedding_is_concatenated_and_projection_added():
    """Miyato and Koyama's equation 3, and a stem that is linear in the joined vector."""
    torch.manual_seed(0)
    decoder, labels = Decoder(5, (16, 16), 1, 4, classes=3).eval(), torch.tensor([2, 0])
    latents = torch.randn(2, 5)
    joined = decoder.condition(latents, labels)
    assert torch.equal(joined, torch.cat([latents, decoder.embedding.weight[[2, 0]]], 1))
    assert torch.equal(decoder(joined), decoder(latents, labels))
    critic, images = Discriminator((16, 16), 1, 4, classes=3), torch.randn(2, 1, 16, 16)
    bias = critic.label.weight[[2, 0]]
    first, *others = critic.trunk
    features = nn.Sequential(*others)(first(images) + bias[:, :, None, None])
    assert not torch.allclose(features, critic.trunk(images))  # the trunk knows the class
    expected = critic.head(features)[:, 0] + (features * critic.projection.weight[[2, 0]]).sum(1)
    torch.testing.assert_close(critic(images, labels), expected)


def test_the_number_of_classes_comes_from_the_data(day_and_night, tmp_path):
    assert find_classes("mnist") == 10 and find_classes("shapes") == 3
    assert find_classes(str(day_and_night)) == 2
    for name in ("a", "b", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(b"")
    assert find_classes(str(tmp_path / "photos")) == 3
    (tmp_path / "photos" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no classes"):
        find_classes(str(tmp_path / "photos"))
    result = CliRunner().invoke(
        train.main, ["vae", "--data", str(day_and_night), "--conditional", "--dry-run"]
    )
    assert result.exit_code == 0 and "2 classes" in result.output


def test_data_without_classes_are_refused_in_one_line(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros((9, 16, 16, 1), np.uint8))
    arguments = ["dcgan", "--conditional", "--data", str(tmp_path / "plain.npy")]
    result = CliRunner().invoke(train.main, [*arguments, "--outdir", str(tmp_path / "runs")])
    assert result.exit_code == 1 and "has no classes" in result.output
    assert not (tmp_path / "runs").exists()


def test_classes_travel_with_their_images(small_dataset, tmp_path):
    """A wrong pairing of labels and images would be learned without an error."""
    trainer = Trainer(
        small_config("vae", {"conditional": True, "classes": 3}), small_dataset, tmp_path
    )
    batch = small_dataset.fetch(range(8))
    held = trainer.preview_batch()
    assert torch.equal(held.labels, small_dataset.fetch(range(64)).labels)
    assert isinstance(batch, Batch) and torch.equal(trainer.to_device(batch).labels, batch.labels)
