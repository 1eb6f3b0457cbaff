"""Quality metrics: against torchmetrics and by hand, and as `analyze.py quality` shows them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import analyze
from gen.data.datasets import load_dataset
from gen.data.decode import DataError
from gen.data.order import epoch_order
from gen.quality import features
from gen.quality.distances import measure_quality, open_samples
from gen.quality.features import SEED, RandomFeatures, inception_weights
from gen.runs.open import load
from gen.sampling.seeds import sample_images

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return CliRunner().invoke(analyze.main, ["quality", *map(str, arguments)])


def save(path, images):
    """uint8 (N, C, H, W) → an array file."""
    np.save(path, np.asarray(images).transpose(0, 2, 3, 1))
    return str(path)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Shapes, and darker shapes in noise: 700 images of 16×16 each."""
    folder = tmp_path_factory.mktemp("sets")
    data = load_dataset("shapes", root=folder, size=(16, 16), channels=3, count=700)
    real = data.fetch(range(700)).images.numpy()
    noise = np.random.default_rng(0).normal(0, 40, real.shape)
    noisy = (0.7 * real + noise).clip(0, 255).astype(np.uint8)
    return save(folder / "noisy.npy", noisy[::-1]), save(folder / "real.npy", real), noisy, real


@pytest.fixture(scope="module")
def measured(sets):
    return measure_quality(sets[0], sets[1])


# Warnings of torchmetrics' own, about memory and about a library that it would want elsewhere.
@pytest.mark.filterwarnings("ignore:Metric `.*Distance` will save all extracted:UserWarning")
def test_distances_are_those_of_torchmetrics(sets, measured):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = RandomFeatures(3).eval()
    frechet = FrechetInceptionDistance(feature=network)
    kernel = KernelInceptionDistance(feature=network, subsets=1, subset_size=700)
    for images, real in ((sets[2], False), (sets[3], True)):
        for metric in (frechet, kernel):
            metric.update(torch.from_numpy(images), real=real)
    assert measured.frechet > 0.1
    assert measured.frechet == pytest.approx(float(frechet.compute()), abs=1e-3)
    # One subset of all images is the complete estimate, which the mean over random subsets nears.
    error = 4 * measured.kernel_std / measured.subsets**0.5
    assert measured.kernel == pytest.approx(float(kernel.compute()[0]), abs=error)
    assert error < measured.kernel / 5


def test_precision_and_recall_by_hand(sets, measured):
    network = RandomFeatures(3).eval()
    with torch.no_grad():
        fake, real = (network(torch.from_numpy(images)).double() for images in sets[2:])

    def share(points, among):
        reach = torch.cdist(among, among).sort().values[:, 3]  # the first is the point itself
        return float((torch.cdist(points, among) <= reach).any(1).double().mean())

    assert measured.precision == pytest.approx(share(fake, real), abs=0.01)
    assert measured.recall == pytest.approx(share(real, fake), abs=0.01)


def test_real_images_are_near_and_distance_grows_with_damage(sets, measured):
    same = measure_quality(sets[1], sets[1])
    assert same.frechet == pytest.approx(0, abs=1e-3)
    assert (same.precision, same.recall) == (1, 1)
    # Halves of one set: the unbiased distance is zero within its spread.
    halves = measure_quality("shapes", "shapes", num=300, size=(16, 16))
    assert (halves.samples, halves.reference) == ("shapes (test)", "shapes")
    assert abs(halves.kernel) < 4 * halves.kernel_std
    assert measured.kernel > 10 * measured.kernel_std
    assert halves.precision > 0.8 > measured.precision


def test_a_run_is_judged_by_its_first_seeds(finished_run, tmp_path):
    found = measure_quality(str(finished_run[1]), "shapes", num=40)
    assert (found.images, found.size, found.channels) == (40, (16, 16), 3)
    images = sample_images(load(finished_run[1]), range(40)).numpy()
    # The same images as a file, which is read in another order.
    again = measure_quality(save(tmp_path / "s.npy", images), "shapes", num=40)
    assert again.kernel == pytest.approx(found.kernel, abs=4 * found.kernel_std)
    assert again.precision == found.precision and again.recall == found.recall


def test_numbers_repeat_and_do_not_depend_on_the_batch_size(sets):
    one, two = (measure_quality(*sets[:2], num=300, batch_size=b) for b in (300, 7))
    assert one.frechet == pytest.approx(two.frechet, rel=1e-3)
    assert measure_quality(*sets[:2], num=300, batch_size=7) == two


def test_too_few_images_for_the_frechet_distance_leave_the_rest(sets):
    found = run(*_pair(sets), "--num", 256, "--json", "-")
    plain = json.loads(found.stdout)
    assert plain["frechet"] is None and "more than 256 images" in plain["undefined"]
    assert plain["kernel"] > 0 and plain["subset_size"] == 128
    assert "undefined" in found.stderr
    assert run(*_pair(sets), "--num", 257, "--json", "-").exit_code == 0


def test_text_and_json_say_what_was_compared(sets, tmp_path):
    target = tmp_path / "q.json"
    result = run(*_pair(sets), "--num", 300, "--json", target)
    assert result.exit_code == 0
    assert "300 images of noisy.npy against 300 of real.npy (of 700), 16×16, 3" in result.stdout
    assert "for tracking one project only" in result.stdout
    assert "100 subsets of 150" in result.stdout
    plain = json.loads(target.read_text())
    assert plain["schema"] == 1 and plain["images"] == 300 and plain["size"] == [16, 16]
    assert {"frechet", "kernel", "kernel_std", "precision", "recall", "features"} <= plain.keys()


def _pair(sets):
    return sets[0], "--reference", sets[1]


def test_the_reference_is_brought_to_the_samples_size_and_channels(sets, tmp_path):
    gray = save(tmp_path / "gray.npy", sets[2][:40, :1, :12, :9])
    found = measure_quality(gray, sets[1])
    assert (found.images, found.size, found.channels) == (40, (12, 9), 1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere", "--reference", "shapes"], 1, "nowhere"),
        (["shapes", "--reference", "shapes"], 1, "--size"),
        (["shapes", "--size", 16, "--reference", "nowhere"], 1, "nowhere"),
        (["shapes", "--size", 16, "--reference", "shapes", "--num", 31], 1, "32 or more"),
        (["shapes", "--size", 16, "--reference", "shapes", "--features", "vgg"], 2, "inception"),
        (["shapes", "--size", 16, "--reference", "shapes", "--features", "classifier:"], 2, "RUN"),
        (["shapes", "--reference", "shapes", "--json", "no/where.json"], 2, "--json"),
        (["shapes"], 2, "--reference"),
    ],
)
def test_bad_input_is_one_line(arguments, code, words):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and words in last


def test_images_of_several_sizes_and_sizes_for_a_file_are_refused(tmp_path, sets):
    from PIL import Image

    for index in range(40):
        side = 16 if index else 17
        Image.new("RGB", (side, 16), (index, 0, 0)).save(tmp_path / f"{index}.png")
    result = run(tmp_path, "--reference", "shapes")
    assert result.exit_code == 1 and "images of one size" in result.stderr
    result = run(*_pair(sets), "--size", 16)
    assert result.exit_code == 1 and "--size" in result.stderr


def test_without_the_extra_one_line_says_how_to_get_it(sets, monkeypatch):
    monkeypatch.delitem(sys.modules, "gen.quality.distances")  # imports it anew
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    words = ["quality", str(sets[0]), "--reference", str(sets[1])]
    result = CliRunner().invoke(analyze.main, words)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "pip install torch-fidelity" in line


# Inception's weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub folder of its own, and weights that come from a file which is not there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    origin = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    monkeypatch.setattr(features, "URL_INCEPTION_V3", origin.as_uri())
    return origin


def test_weights_that_cannot_be_had_are_one_line(hub):
    with pytest.raises(DataError, match=r"no Inception weights: .*No such file.*--features random"):
        inception_weights()
    hub.write_bytes(b"others")
    with pytest.raises(DataError, match="invalid hash value"):
        inception_weights()


def test_weights_that_would_run_code_are_refused(hub, tmp_path):
    stored = tmp_path / "home" / "hub" / "checkpoints" / hub.name
    stored.parent.mkdir(parents=True)
    torch.save({"fc.weight": nn.Linear(1, 1)}, stored)
    with pytest.raises(DataError, match="Weights only load failed"):
        inception_weights()


@pytest.mark.slow
def test_inception_takes_gray_images_as_rgb(hub, tmp_path, sets):
    """With weights drawn at random in place of the real ones."""
    stored = tmp_path / "home" / "hub" / "checkpoints" / hub.name
    stored.parent.mkdir(parents=True)
    torch.save({}, stored)

    class Fresh(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):  # the constructor wants the weights that it shall make
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)

    torch.save(Fresh("any", ["2048"], str(stored)).state_dict(), stored)
    real, noisy = sets[3][:32, :1], sets[2][:32, :1]
    gray = save(tmp_path / "noisy-gray.npy", noisy), save(tmp_path / "real-gray.npy", real)
    rgb = (
        save(tmp_path / "noisy.npy", noisy.repeat(3, axis=1)),
        save(tmp_path / "real.npy", real.repeat(3, axis=1)),
    )
    one, two = (measure_quality(*pair, "inception") for pair in (gray, rgb))
    assert one.dimension == 2048 and one.frechet is None and one.kernel > 0
    assert one.kernel == two.kernel


def test_larger_sets_are_taken_in_a_mixed_order(tmp_path, sets):
    """Files stand sorted by class: the first hundred would be of one."""
    order = epoch_order(SEED, 0, 700)
    images = open_samples(sets[1], 700, None, tmp_path)
    assert np.array_equal(images.fetch(range(5)).numpy(), sets[3][order[:5]])
