"""The classifier: it learns, its features measure quality, and it is nothing that samples."""

import json

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from gen.models.build import build_modules

import analyze
import sample
import train
from gen.data.datasets import Batch, load_dataset
from gen.images import to_float
from gen.quality.distances import measure_quality
from gen.runs.open import open_run
from gen.training.loop import Trainer
from gen.training.objectives import build_objective
from tests.conftest import small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A classifier of shapes of 16×16 after 150 steps."""
    folder = tmp_path_factory.mktemp("classifier")
    data = load_dataset("shapes", root=folder, size=(16, 16), channels=3, count=512)
    held = load_dataset("shapes", root=folder, size=(16, 16), channels=3, count=256, split="test")
    classes = {"classes": len(data.classes), "width": 8}
    config = small_config("classifier", classes, steps=150, batch_size=64, snapshot_every=150)
    assert Trainer(config, data, folder, held).run() == 0
    return folder


def invoke(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_it_tells_classes_of_images_that_it_never_saw(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    name = "classifier/held_accuracy"
    shares = {row["step"]: row[name] for row in rows if name in row}
    assert set(shares) == {0, 150}
    assert shares[0] < 0.6 < 0.8 < shares[150]
    test = load_dataset("shapes", root=run, size=(16, 16), channels=3, split="test", count=256)
    batch = test.fetch(range(256))
    classifier = open_run(run, device="cpu").modules["classifier"]
    right = (classifier(to_float(batch.images)).argmax(1) == batch.labels).float().mean()
    assert float(right) == pytest.approx(shares[150])


def test_the_loss_is_the_cross_entropy_of_labels():
    config = small_config("classifier")
    torch.manual_seed(0)
    objective = build_objective(config, build_modules(config.networks, config.model))
    batch = Batch(torch.rand(8, 3, 16, 16), torch.tensor([0, 1, 2, 3] * 2))
    loss, seen = objective.phases[0].loss(batch, 0)
    p = objective.classifier(batch.images).detach().softmax(1)
    assert loss.item() == pytest.approx(float(-p[range(8), batch.labels].log().mean()), rel=1e-5)
    assert set(seen) == {"loss/classifier", "classifier/accuracy"}


def test_features_are_what_the_last_layer_sees():
    config = small_config("classifier")
    classifier = build_modules(config.networks, config.model)["classifier"].eval()
    images = torch.rand(4, 3, 16, 16)
    logits = F.linear(classifier.features(images), classifier.head.weight, classifier.head.bias)
    torch.testing.assert_close(logits, classifier(images))


def test_features_vary_by_one_over_the_data(run):
    data = load_dataset("shapes", root=run, size=(16, 16), channels=3, count=512)
    classifier = open_run(run, device="cpu").modules["classifier"]
    features = classifier.features(to_float(data.fetch(range(512)).images))
    # The statistics are moving averages, of batches and of the weights on their way.
    assert 0.7 < float(features.var(0).mean()) < 1.4
    assert float(features.mean(0).abs().mean()) < 0.3


def test_its_features_tell_sets_apart(run):
    features = f"classifier:{run}"
    real = measure_quality("shapes", "shapes", features, num=300, size=(16, 16))
    assert real.dimension == 128 and real.features == features
    assert "classes of shapes, 150 steps" in real.feature_words
    assert real.frechet > 0 and abs(real.kernel) < 4 * real.kernel_std


@pytest.mark.parametrize("size", ["18", "16x20"])
def test_images_of_another_shape_are_refused(run, size):
    arguments = ["quality", "shapes", "--size", size, "--reference", "shapes"]
    result = invoke(analyze.main, *arguments, "--features", f"classifier:{run}")
    assert result.exit_code == 1
    assert "takes 16×16, 3 channel(s), and these images are" in result.stderr
    assert f"--size {size if 'x' in size else '18x18'} --channels 3" in result.stderr


def test_a_run_of_something_else_is_refused(run, finished_run):
    arguments = ["quality", "shapes", "--size", 16, "--reference", "shapes", "--features"]
    result = invoke(analyze.main, *arguments, f"classifier:{finished_run[1]}")
    assert result.exit_code == 1 and "no classifier" in result.stderr
    result = invoke(analyze.main, *arguments, "classifier:nowhere")
    assert result.exit_code == 1 and "nowhere: no such run" in result.stderr


def test_it_makes_no_images(run, tmp_path):
    for command in (
        [sample.main, run, "--grid", tmp_path / "grid.png"],
        [analyze.main, "images", run],
        [analyze.main, "quality", run, "--reference", "shapes"],
    ):
        result = invoke(*command)
        assert result.exit_code == 1 and not list(tmp_path.iterdir())
        assert "none of these networks turns latents into images" in result.stderr


def test_its_command_offers_what_it_has(tmp_path):
    text = invoke(train.main, "classifier", "--help").stdout
    assert "--upsample" not in text and "--latent" not in text and "--width" in text
    result = invoke(train.main, "classifier", "--size", "16", "--dry-run")
    assert result.exit_code == 0 and "classifier" in result.stdout and "classes" in result.stdout
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    result = invoke(train.main, "classifier", "--size", "16", "--data", tmp_path)
    assert result.exit_code == 1 and "has no classes" in result.stderr
