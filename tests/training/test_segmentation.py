"""Segmentation: losses, agreement with a slow reference, snapshots, resuming, from the command."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import train
from gen.config.objectives import PIXEL_LOSSES
from gen.data.datasets import Batch, load_dataset
from gen.runs.open import load_checkpoint
from gen.sampling.masks import margins
from gen.training import losses
from gen.training.agreement import confusion_matrix, inspect_masks, mean_iou, pixel_accuracy
from gen.training.loop import Trainer
from gen.training.losses import dice_loss, pixel_cross_entropy
from tests.conftest import small_config

SEGMENTERS = ["unet", "fcn"]


def example(classes=3, ignored=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64)
    masks = torch.randint(classes, (2, 5, 6), generator=generator).to(torch.uint8)
    masks[torch.rand(2, 5, 6, generator=generator) < ignored] = 255
    return logits.requires_grad_(), masks


def test_cross_entropy_is_the_mean_over_pixels_that_count():
    logits, masks = example()
    expected = F.cross_entropy(logits, masks.long(), ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, masks), expected)


def slow_dice(logits, masks):
    """Class by class, pixel by pixel."""
    probabilities, scores = logits.softmax(1), []
    for c in range(logits.shape[1]):
        both, either = 1.0, 1.0
        for b, y, x in (masks != 255).nonzero().tolist():
            p, g = probabilities[b, c, y, x], float(masks[b, y, x] == c)
            both, either = both + 2 * p * g, either + p + g
        scores.append(both / either)
    return 1 - sum(scores) / len(scores)


def test_dice_is_its_definition_with_its_gradient():
    logits, masks = example()
    found, expected = dice_loss(logits, masks), slow_dice(logits, masks)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, logits)[0]
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], wanted)
    assert (wanted.abs().sum(1) > 0)[masks != 255].all()
    assert torch.autograd.gradcheck(lambda z: dice_loss(z, masks), logits)


def test_dice_of_the_right_answer_is_nothing_and_of_the_wrong_one_much():
    _, masks = example(4)
    right = 50 * F.one_hot(masks.long().where(masks != 255, 0), 4).permute(0, 3, 1, 2).double()
    assert dice_loss(right, masks) < 1e-9
    assert dice_loss(right.roll(1, 1), masks) > 0.8


@pytest.mark.parametrize("name", PIXEL_LOSSES.values())
def test_ignored_pixels_neither_count_nor_learn(name):
    loss = getattr(losses, name)
    logits, masks = example()
    changed = torch.where((masks == 255)[:, None], torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(changed, masks), loss(logits, masks))
    gradient = torch.autograd.grad(loss(logits, masks), logits)[0]
    assert not gradient.permute(0, 2, 3, 1)[masks == 255].any()
    everywhere = torch.full_like(masks, 255)
    gradient = torch.autograd.grad(loss(logits, everywhere), logits)[0]
    assert loss(logits, everywhere) == 0 and not gradient.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31), st.sampled_from([0.0, 0.2, 0.9]))
def test_agreement_against_a_slow_reference(classes, seed, ignored):
    generator = torch.Generator().manual_seed(seed)
    truth, predicted = torch.randint(classes, (2, 2, 4, 5), generator=generator).to(torch.uint8)
    truth[0, 0, 0] = 255
    truth[torch.rand(truth.shape, generator=generator) < ignored] = 255
    truth[0, 0, 1] = 0
    table = confusion_matrix(truth, predicted, classes)
    pairs = [
        (t, p)
        for t, p in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True)
        if t != 255
    ]
    ious = []
    for c in range(classes):
        both = sum(t == p == c for t, p in pairs)
        either = sum(c in (t, p) for t, p in pairs)
        ious += [both / either] if either else []
    assert mean_iou(table) == pytest.approx(sum(ious) / len(ious))
    assert pixel_accuracy(table) == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))


class Known(torch.nn.Module):
    """Answers with the red channel as a class: −1, −1/3, 1/3, 1 → 0 … 3."""

    def forward(self, images):
        classes = ((images[:, 0] + 1) * 1.5).round().long()
        return F.one_hot(classes, 4).permute(0, 3, 1, 2).float() * 9


def test_a_snapshot_shows_image_truth_and_prediction():
    truth = torch.randint(4, (40, 16, 16)).to(torch.uint8)
    images = (truth.float() / 1.5 - 1)[:, None].expand(-1, 3, -1, -1).clone()
    images[:, 0, :8, :8] = -1  # a quarter is taken for background
    seen = inspect_masks(Known(), Batch(images, None, truth))
    wrong = (truth[:, :8, :8] != 0).sum() / truth.numel()
    assert seen.metrics["val/pixel_accuracy"] == pytest.approx(float(1 - wrong))
    assert not seen.warnings
    shown = seen.pictures["masks"]
    assert shown.shape == (24, 3, 16, 48) and shown.dtype == torch.uint8
    assert torch.equal(shown[..., 8:, 16:32], shown[..., 8:, 32:])
    assert not shown[..., :8, 32:40].any() and shown[..., :8, 16:24].any()


def test_a_network_that_knows_one_class_is_named():
    images = torch.full((3, 3, 16, 16), 1.0)
    seen = inspect_masks(Known(), Batch(images, None, torch.zeros(3, 16, 16, dtype=torch.uint8)))
    assert seen.warnings == ["every pixel of the validation images is taken for class 3"]


def test_validation_without_a_pixel_that_counts_has_no_figures():
    ignored = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    seen = inspect_masks(Known(), Batch(torch.zeros(3, 3, 16, 16), None, ignored))
    assert not any(name.startswith("val/") for name in seen.metrics)
    assert all(math.isfinite(value) for value in seen.metrics.values())


def test_margins_do_not_see_what_changes_no_probability():
    logits, _ = example()
    shift = torch.randn(2, 1, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(margins(logits + shift), margins(logits))
    probabilities = torch.cat([torch.zeros_like(shift), margins(logits)], 1).softmax(1)
    torch.testing.assert_close(probabilities, logits.softmax(1))


@pytest.mark.parametrize("model", SEGMENTERS)
def test_learns_on_images_it_has_not_seen(model, tmp_path):
    options = {"root": tmp_path, "size": (16, 16), "channels": 3, "mask_classes": 4}
    data = load_dataset("shapes", count=512, **options)
    held = load_dataset("shapes", count=64, split="test", **options)
    config = small_config(
        model, {"width": 8}, {"lr": 0.01}, steps=80, batch_size=32, snapshot_every=80,
        ema_half_life=200.0,
    )  # fmt: skip
    assert Trainer(config, data, tmp_path, held).run() == 0
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    assert last["val/mean_iou"] > first["val/mean_iou"] + 0.1
    assert last["val/mean_iou"] > 0.3  # background alone gives 0.2
    assert "checkerboard/imbalance_db" in last and "checkerboard/period2_detected" in last


@pytest.mark.parametrize("model", SEGMENTERS)
def test_resumed_run_equals_the_unbroken_one(model, small_dataset, tmp_path):
    states = []
    for name, parts in (("whole", [7]), ("broken", [3, 7])):
        (tmp_path / name).mkdir()
        for steps in parts:
            trainer = Trainer(
                small_config(model, {"upsample": "balanced"}, steps=steps),
                small_dataset, tmp_path / name, small_dataset,
            )  # fmt: skip
            if steps == 7 and len(parts) > 1:
                trainer.load(load_checkpoint(tmp_path / name))
            trainer.run()
        states.append(load_checkpoint(tmp_path / name))
    for part in ("ema", "modules"):
        whole, broken = (s[part] if part == "ema" else s[part]["segmenter"] for s in states)
        assert all(torch.equal(value, broken[key]) for key, value in whole.items())


def run(*arguments):
    return CliRunner().invoke(train.main, [str(a) for a in arguments])


def test_command_counts_classes_and_costs():
    result = run("fcn", "--dry-run", "--head", "16s", "--fixed-upsample", "--width", 4)
    assert result.exit_code == 0, result.output
    assert "4 classes, head 16s, fixed enlargement" in result.output
    assert "voc" in run("unet", "--help").output and "--head" not in run("unet", "--help").output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["unet", "--classes", "1"], 2, "classes is 1; must be at least 2"),
        (["unet", "--classes", "256"], 2, "classes is 256; must be at most 255"),
        (["unet", "--classes", "3"], 1, "classes is 3; shapes has 4"),
        (["fcn", "--head", "4s"], 2, "'32s', '16s', '8s'"),
        (["fcn", "--loss", "hinge"], 2, "'cross-entropy', 'dice', 'both'"),
        (["unet", "--data", "mnist"], 1, "mnist has no masks; take shapes, oxford-pets, voc"),
        (["unet", "--data", "{folder}"], 1, "has no masks"),
        (["unet", "--latent", "3"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, code, said):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    result = run(*[a.format(folder=folder) for a in arguments], "--outdir", tmp_path / "runs")
    assert result.exit_code == code, result.output
    assert said in result.output and "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()
