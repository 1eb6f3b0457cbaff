"""What cannot be measured says why, and never poisons what can."""

import json

import numpy as np
import pytest
import torch

from gen.analysis.measure.meter import Meter, measure


def why(found, period=2):
    assert found.periods[period].level_dbc is None and found.periods[period].p_value is None
    assert not found.periods[period].detected
    assert found.periods[period].undefined in found.verdict(period)
    assert str(found)
    return found.periods[period].undefined


@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_images(value):
    assert "every image is constant" in why(measure(np.full((20, 3, 32, 32), value, np.uint8)))


def test_images_below_a_hundredth_of_a_grey_level(texture):
    found = measure(100 + 1e-5 * texture(20, 3), value_range=(0, 255))
    assert "hundredth of a grey level" in why(found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels(texture, bad):
    images = texture(20)
    images[3, 0, 5, 5] = bad
    assert why(measure(images, value_range=(0, 255))) == "1 of 20 images hold NaN or infinity"


def test_single_pixel_and_small_images():
    pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    assert "every image is constant" in why(measure(pixels))
    small = np.random.default_rng(0).integers(0, 255, (40, 1, 20, 11), dtype=np.uint8)
    assert "at least 12×12, these are 20×11" in why(measure(small))


def test_identical_images(texture):
    images = texture(1).repeat(50, axis=0)
    found = measure(images, value_range=(0, 255))
    assert why(found) == "only 1 different images among 50"
    assert found.duplicates == 49


def test_too_few_images_that_cannot_be_tiled(texture):
    assert "only 2 images carry signal" in why(measure(texture(2), value_range=(0, 255)))


def test_half_flat_set_reads_as_its_textured_half(texture):
    images = texture(60) * (1 + 0.01 * (-1.0) ** np.arange(32))
    flat = np.broadcast_to(np.arange(60.0)[:, None, None, None], images.shape)
    alone = measure(images, (2,), value_range=(0, 255))
    mixed = measure(np.concatenate([flat, images]), (2,), value_range=(0, 255))
    assert mixed.without_signal == 60
    assert mixed.periods[2].level_dbc == pytest.approx(alone.periods[2].level_dbc, abs=1e-6)
    assert mixed.periods[2].p_value == pytest.approx(alone.periods[2].p_value, rel=1e-6)


def test_a_flat_channel_is_left_out(texture):
    images = texture(40, 4)
    images[:, 3] = 255
    found = measure(images, (2,), value_range=(0, 255))
    assert {line.channel for line in found.channel_lines} == {"0", "1", "2"}
    assert found.periods[2].undefined is None


def test_partly_flat_images(texture):
    """An edge at the same place in every image is no grid: at most the odd false alarm of 5 %."""
    alarms = 0
    for seed in range(10):
        images = texture(50, seed=seed)
        images[:, :, 8:] = 30
        alarms += measure(images, (2, 4), value_range=(0, 255)).detected
    assert alarms <= 1


@pytest.mark.parametrize(
    ("images", "kwargs", "message"),
    [
        (np.zeros((5, 32, 32), np.uint8), {}, r"must be \(N, C, H, W\)"),
        (np.zeros((5, 1, 32, 32), np.int64), {}, "must be uint8 or float"),
        (np.zeros((5, 1, 32, 32), np.float32), {}, "need value_range"),
        (np.zeros((5, 1, 32, 32), np.float32), {"value_range": (1, 0)}, "black, white"),
        (np.zeros((5, 1, 32, 32), np.uint8), {"periods": (1,)}, "2 or more"),
        (np.zeros((5, 1, 32, 32), np.uint8), {"periods": (2.5,)}, "whole numbers"),
        (np.zeros((5, 1, 32, 32), np.uint8), {"periods": (2, 2)}, "each once"),
        (np.zeros((5, 1, 32, 32), np.uint8), {"periods": ()}, "at least one"),
        (np.zeros((0, 1, 32, 32), np.uint8), {}, "the set is empty"),
        ([], {}, "the set is empty"),
    ],
)
def test_bad_arguments(images, kwargs, message):
    with pytest.raises(ValueError, match=message):
        measure(images, **kwargs)


def test_mixed_sizes_and_foreign_meters():
    meter = Meter()
    meter.update(np.zeros((2, 1, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="group the images by size"):
        meter.update(np.zeros((2, 1, 32, 33), np.uint8))
    other = Meter((2,))
    with pytest.raises(ValueError, match="meters differ"):
        meter.merge(other)
    other = Meter()
    other.update(np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="meters hold images"):
        meter.merge(other)


def test_input_is_left_alone(texture):
    images = torch.from_numpy(texture(8)).float()
    before = images.clone()
    measure(images, (2,), value_range=(0, 255))
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [(13, 13), (16, 16), (24, 18)])
@pytest.mark.parametrize("spread", [3.0, 8.0])
def test_one_image_that_outweighs_all_others_gives_finite_numbers(size, spread):
    """The effective number of images is then 1: intervals are wide, not overflowing."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scale = np.exp(spread * rng.standard_normal((40, 1, 1, 1)))
        images = 128 + np.clip(scale, 0, 40) * rng.standard_normal((40, 3, *size))
        found = measure(images, value_range=(0, 255))
        json.dumps(found.to_dict(), allow_nan=False)
