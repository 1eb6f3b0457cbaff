"""Masks of folders, and logit maps to be measured and explained, from really trained segmenters."""

import json
import signal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import analyze
import sample
import train
from gen.data import shapes
from gen.images import encode_mask, palette
from gen.runs.open import open_run
from gen.sampling.masks import load_segmenter, open_logit_maps, predict

COUNT = 40


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Forty images of a bright square on dark ground, 1 where it is bright, as a folder pair."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    generator = np.random.default_rng(0)
    for i in range(COUNT):
        image = generator.integers(0, 40, (32, 24, 3)).astype(np.uint8)
        top, left = generator.integers(1, 9, 2)
        image[top : top + 16, left : left + 14] += 180
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        mask = (image[..., 0] > 100).astype(np.uint8)
        (folder / "masks" / f"{i}.png").write_bytes(encode_mask(torch.from_numpy(mask)))
    return folder


@pytest.fixture(scope="module", params=["unet", "fcn"])
def trained(request, pairs, tmp_path_factory):
    """A run of the real command that has learned to see what is bright."""
    folder = tmp_path_factory.mktemp(request.param)
    arguments = [request.param, "--data", pairs, "--size", "32x24", "--width", 4, "--steps", 60]
    arguments += ["--batch-size", 8, "--lr", 0.01, "--ema-half-life", 60, "--device", "cpu"]
    arguments += ["--snapshot-every", 60, "--flip", "--outdir", folder]
    result = CliRunner().invoke(train.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return next(folder.iterdir())


def run(command, *arguments):
    return CliRunner().invoke(command.main, [str(a) for a in arguments])


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_command_writes_the_masks_of_a_folder(trained, pairs, tmp_path):
    # Beside images of the training size: one of another size and kind, in a subfolder.
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "in" / f"{i}.png").write_bytes((pairs / "images" / f"{i}.png").read_bytes())
    large = np.full((61, 90), 20, np.uint8)
    large[15:50, 25:65] = 210
    Image.fromarray(large).save(tmp_path / "in" / "deep" / "photo.jpg", quality=95)
    target = tmp_path / "out"
    result = run(
        sample, trained, "--images", tmp_path / "in", "--outdir", target, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert "4 masks of 2 classes" in result.output
    written = sorted(p.relative_to(target).as_posix() for p in target.rglob("*"))
    assert written == ["0.png", "1.png", "2.png", "deep", "deep/photo.png", "sampling.json"]
    for i in range(3):
        with Image.open(tmp_path / "out" / f"{i}.png") as image:
            assert image.mode == "P"
            mask, colors = np.asarray(image), np.asarray(image.convert("RGB"))
        truth = np.asarray(Image.open(pairs / "masks" / f"{i}.png"))
        assert mask.shape == (32, 24) and iou(mask == 1, truth == 1) > 0.7
        assert np.array_equal(colors, palette().numpy()[mask])
    mask = np.asarray(Image.open(tmp_path / "out" / "deep" / "photo.png"))
    assert mask.shape == (61, 90) and iou(mask == 1, large > 100) > 0.6


def test_command_and_library_agree_and_ema_matters(trained, pairs, tmp_path):
    options = ("--images", pairs / "images", "--device", "cpu")
    assert run(sample, trained, *options, "--outdir", tmp_path / "out", "--no-ema").exit_code == 0
    network, config = load_segmenter(trained, ema=False, device="cpu")
    averaged, _ = load_segmenter(trained, device="cpu")
    for i in (0, 7):
        image = torch.from_numpy(np.array(Image.open(pairs / "images" / f"{i}.png")))
        found = predict(network, config.model.size, image.permute(2, 0, 1))
        assert np.array_equal(found, np.asarray(Image.open(tmp_path / "out" / f"{i}.png")))
    states = network.state_dict(), averaged.state_dict()
    assert not torch.equal(states[0]["enlarge.0.weight"], states[1]["enlarge.0.weight"])


def test_an_image_of_another_size_is_seen_at_the_scale_of_training(trained):
    network, config = load_segmenter(trained, device="cpu")
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    for height, width in ((32, 24), (61, 90), (90, 61), (8, 6)):
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        assert predict(network, config.model.size, image).shape == (height, width)
    assert seen == [(1, 3, 32, 24), (1, 3, 32, 47), (1, 3, 35, 24), (1, 3, 32, 24)]


def test_an_interrupted_folder_is_continued(trained, pairs, tmp_path, monkeypatch):
    """A signal after three masks, then a damaged one: both end as if nothing had happened."""
    whole, out, seen = tmp_path / "whole", tmp_path / "out", []
    command = [trained, "--images", pairs / "images", "--device", "cpu", "--outdir"]
    assert run(sample, *command, whole).exit_code == 0

    def interrupted(*arguments):
        seen.append(1)
        if len(seen) == 4:
            signal.raise_signal(signal.SIGTERM)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("gen.sampling.masks.predict", interrupted)
        result = run(sample, *command, out)
    assert (result.exit_code, result.output) == (143, "Interrupted.\n")
    made = sorted(out.glob("*.png"))
    assert len(made) == 3 and not list(out.glob(".*"))
    made[0].write_bytes(made[0].read_bytes()[:-20])
    before = made[1].stat().st_mtime_ns
    result = run(sample, *command, out)
    assert "(2 were there, 1 damaged ones were drawn again)" in result.output
    assert made[1].stat().st_mtime_ns == before
    assert [p.read_bytes() for p in sorted(out.iterdir())] == [
        p.read_bytes() for p in sorted(whole.iterdir())
    ]
    refused = run(sample, *command, out, "--no-ema")
    assert refused.exit_code == 1 and "made with ema True, not False" in refused.output


def test_nothing_is_overwritten_and_bad_input_is_one_line(trained, pairs, tmp_path):
    full, twins, narrow = (tmp_path / name for name in ("full", "twins", "narrow"))
    for folder in (full, twins, narrow):
        folder.mkdir()
    Image.new("RGB", (1, 101)).save(narrow / "a.png")
    (full / "0.png").write_text("precious")
    for name in ("a.png", "a.bmp"):
        Image.new("RGB", (20, 24)).save(twins / name)
    images, out, other = pairs / "images", tmp_path / "out", tmp_path / "other"
    for arguments, code, said in (
        (["--images", images, "--outdir", full], 1, "no sampling.json; name a new or empty folder"),
        (["--images", twins, "--outdir", out], 1, "would have the mask of a.bmp; rename one"),
        (["--images", narrow, "--outdir", other], 1, "101×1 pixels; sides may differ"),
        (["--images", tmp_path / "none", "--outdir", out], 1, "no such folder"),
        (["--images", images], 2, "nothing to write"),
        (["--images", images, "--outdir", out, "--grid", "g.png"], 2, "does not go with --images"),
        (["--outdir", out], 1, "draws no samples but predicts masks: gen sample RUN --images"),
    ):
        result = run(sample, trained, *arguments)
        assert result.exit_code == code, result.output
        assert said in result.output and "Traceback" not in result.output
    assert (full / "0.png").read_text() == "precious" and not out.exists()


def test_a_generator_predicts_no_masks(finished_run, pairs, tmp_path):
    result = run(
        sample, finished_run[1], "--images", pairs / "images", "--outdir", tmp_path / "out"
    )
    assert result.exit_code == 1 and "predicts no masks" in result.output
    result = run(analyze, "images", finished_run[1], "--inputs", pairs / "images")
    assert result.exit_code == 1 and "no run of a segmenter" in result.output


def test_logit_maps_are_the_networks_own(trained, pairs):
    maps, draw = open_logit_maps(open_run(trained, device="cpu"))
    images = draw(9)
    assert images.shape == (4, 3, 32, 24)  # every tenth of forty is held out
    network, _ = load_segmenter(trained, device="cpu")
    logits = network(images)
    expected = (logits[:, 1:] - logits[:, :1]) / maps.scale
    torch.testing.assert_close(maps(images), expected)
    assert maps(images).abs().max() == pytest.approx(1, abs=1e-5)
    _, given = open_logit_maps(open_run(trained, device="cpu"), pairs / "images")
    assert len(given(100)) == COUNT and len(given(7)) == 7


@pytest.fixture(scope="module")
def gridded(tmp_path_factory):
    """A U-Net on shapes whose last enlarging layer has been given a strong grid."""
    folder = tmp_path_factory.mktemp("gridded")
    arguments = ["unet", "--size", 16, "--width", 4, "--steps", 100, "--device", "cpu"]
    result = CliRunner().invoke(train.main, [str(a) for a in [*arguments, "--outdir", folder]])
    assert result.exit_code == 0, result.output
    run_folder = next(folder.iterdir())
    path = run_folder / "checkpoints" / "step-00000100.pt"
    content = torch.load(path, weights_only=True)
    torch.manual_seed(0)
    content["ema"]["segmenter.enlarge.1.weight"][..., ::2, ::2] += 0.3
    torch.save(content, path)
    return run_folder


def test_analyze_measures_logit_maps(gridded, tmp_path):
    result = run(analyze, "images", gridded, "--num", 200, "--json", tmp_path / "own.json")
    assert result.exit_code == 0, result.output
    assert "200 images of 16×16, 3 channel(s)" in result.output
    own = json.loads((tmp_path / "own.json").read_text())
    assert own["periods"]["2"]["detected"]
    # Given images: the same ones from a folder, as the validation set has them.
    images, *_ = shapes.render(0, (1 << 40) + np.arange(200), (16, 16))
    np.save(tmp_path / "given.npy", images.transpose(0, 2, 3, 1))
    arguments = ("--inputs", tmp_path / "given.npy", "--json", tmp_path / "given.json")
    result = run(analyze, "images", gridded, "--num", 200, *arguments)
    assert result.exit_code == 0, result.output
    given = json.loads((tmp_path / "given.json").read_text())
    levels = [found["periods"]["2"]["level_dbc"] for found in (own, given)]
    assert levels[0] == pytest.approx(levels[1], abs=1e-3)


@pytest.mark.slow
def test_analyze_explains_a_segmenter_and_refuses_what_would_cost_more_than_it_repairs(
    gridded, tmp_path
):
    result = run(analyze, "model", gridded, "--num", 128, "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "mostly segmenter.enlarge.1" in result.output
    assert (tmp_path / "report" / "index.html").is_file()
    result = run(analyze, "repair", gridded, "--num", 128, "-o", tmp_path / "repaired.pt")
    assert result.exit_code == 1 and "Refused: it would change the images by" in result.output
    assert not (tmp_path / "repaired.pt").exists()
