"""Grids are found, material without a grid is clean, and what cannot be measured says why."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from gen.analysis.measure import Measurement, MeasurementError, Meter, measure, range_of_maps

PERIODS = {2: (32, 40), 3: (32, 40), 5: (40, 40), 6: (40, 44), 7: (48, 44), 12: (72, 76)}


@pytest.mark.parametrize("period", PERIODS)
def test_every_period_is_found_and_no_other(draw, pattern, period):
    size = PERIODS[period]
    images = draw(60, height=size[0], width=size[1])
    others = [p for p in (2, 3, 5) if p != period]
    images = images + 1.5 * pattern(size, (1 / period, 1 / period))
    found = measure(images, (period, *others), value_range=(0, 255))
    assert found.periods[period].detected, str(found)
    assert not any(found.periods[p].detected for p in others), str(found)
    expected = 10 * np.log10(1.5**2 / images.var((-2, -1)).mean())
    assert found.periods[period].level_dbc == pytest.approx(expected, abs=3)
    low, high = found.periods[period].level_low_dbc, found.periods[period].level_upper_dbc
    assert (low is None or low < expected + 0.5) and expected < high


def test_a_multiplied_grid_is_a_replica(draw, pattern):
    images = draw(200, 3) * (1 + 0.02 * pattern((32, 32), (0.5, 0.5)))
    found = measure(images, (2,), value_range=(0, 255))
    corner = next(line for line in found.lines if line.kind == "corner")
    assert corner.replica.db == pytest.approx(20 * np.log10(0.02), abs=1)
    assert corner.replica.low_db - 0.1 < 20 * np.log10(0.02) < corner.replica.high_db + 0.1
    assert found.verdict(2).startswith("Period 2: detected at -")


def test_excess_is_that_of_the_channel_that_shows_it(pattern):
    generator = np.random.default_rng(1)
    images = generator.normal(128, 20, (200, 3, 32, 32))
    images[:, 2] += 4 * generator.choice([-1, 1], (200, 1, 1)) * pattern((32, 32), (0.5, 0.5))
    found = measure(images, (2,), value_range=(0, 255)).periods[2]
    assert found.found == ("excess",) and not found.detected
    assert found.excess_db > 6


def test_a_strong_pattern_of_changing_sign_does_not_hide_itself(draw, pattern):
    """A few quiet tiles outweigh the others, so it leaks to the shifts it is compared with."""
    signs = np.random.default_rng(1).choice([-1, 1], (200, 1, 1))
    for depth in (1, 10):
        images = draw(200)[:, 0] + depth * signs * pattern((32, 32), (0.5, 0.5))
        found = measure(images[:, None], (2, 4), value_range=(0, 255)).periods
        assert "excess" in found[2].found and not found[4].found


def black(images):
    return np.where(images > 200, images, 0)


def letterbox(images):
    images = images.copy()
    images[:, :, :9] = images[:, :, -9:] = 0
    return images


def watermark(images):
    images = images.copy()
    images[:, :, 3:17, 2:21] = images[:, :, 3:17, 2:21] / 2 + 60
    return images


@pytest.mark.parametrize("change", [np.asarray, black, letterbox, watermark, lambda x: 4 * x - 400])
def test_material_without_a_grid_is_clean(draw, change):
    """At most one alarm in eight sets: the rate is 5 %."""
    alarms = 0
    for seed in range(8):
        images = change(draw(32, height=48, width=48, seed=seed)).clip(0, 255).astype(np.uint8)
        alarms += measure(images).detected
    assert alarms <= 1


@pytest.mark.parametrize(("side", "periods"), [(12, (2,)), (20, (3,)), (48, (2, 4, 8)), (60, (8,))])
def test_every_tested_line_has_placebos(draw, side, periods):
    """Without them, a picture that all images share would be found at the line."""
    meter = Meter(periods)
    meter.update(draw(4, height=side, width=side).astype(np.uint8))
    for found in meter.estimates():
        for statistic in (found.line, found.replica, found.trace):
            assert (statistic.placebos.worth[statistic.alive.any(0)] > 0).all()
    assert len(meter.estimates()) == len(periods)


@pytest.mark.parametrize(("side", "blur"), [(28, 1.5), (48, 0.0), (48, 1.5)])
def test_a_shared_picture_is_no_finding(draw, side, blur):
    """Nine tenths of every image are one picture; a new one for each of 20 sets."""
    found = 0
    for seed in range(20):
        images = draw(33, height=side, width=side, seed=seed)
        shared = gaussian_filter(images[:1], (0, 0, blur, blur)) if blur else images[:1]
        mixed = np.rint(0.9 * shared + 0.1 * images[1:]).astype(np.uint8)
        found += any(period.found for period in measure(mixed).periods.values())
    assert found <= 3


def test_one_image_that_outweighs_all_is_no_finding(draw, pattern):
    images = draw(40)
    images[0] = 100 + pattern((32, 32), (0.5, 0.5)) + np.linspace(0, 1, 32)
    assert not measure(images, (2, 4), value_range=(0, 255)).detected


def test_below_needs_the_bound_and_the_limit(draw):
    found = measure(draw(200), (2,), value_range=(0, 255)).periods[2]
    edge = max(found.level_upper_dbc, found.detection_limit_dbc)
    assert found.below(edge + 0.1) and not found.below(edge - 0.1)
    assert measure(draw(200), (2,), value_range=(0, 255)).below(edge + 0.1)
    assert not measure(draw(4, height=8, width=8), (2,), value_range=(0, 255)).below(100.0)


def test_a_printed_limit_is_found(draw, pattern):
    """Grids at the limit of their class are found in most sets: 90 % is promised."""
    hits = 0
    for seed in range(8):
        images = draw(64, seed=seed)
        limit = measure(images, (2,), value_range=(0, 255)).periods[2].limits_dbc["corner"]
        depth = np.sqrt(10 ** (limit / 10) * images.var((-2, -1)).mean())
        grown = images + depth * pattern((32, 32), (0.5, 0.5))
        hits += measure(grown, (2,), value_range=(0, 255)).detected
    assert hits >= 5


def test_feature_maps_of_any_scale_and_count(draw, pattern):
    maps = (draw(40, 48, 16, 16) - 120) * 1e-4
    maps[:, 7] += 2e-4 * pattern((16, 16), (0.5, 0.5))
    low, high = range_of_maps(torch.from_numpy(maps))
    found = measure(maps, (2, 4), value_range=(low, high))
    assert found.periods[2].detected
    best = min(found.channel_lines, key=lambda line: line.line.p_value)
    assert best.channel == "7" and best.kind == "corner"
    assert "at least 24×24, these are 16×16" in found.periods[4].undefined
    small = measure(maps[:, :, :8, :8], (2,), value_range=(low, high))
    assert "at least 12×12, these are 8×8" in small.periods[2].undefined


def why(found, period=2):
    period = found.periods[period]
    assert period.level_dbc is period.p_value is None and not period.detected
    assert not period.limits_dbc
    assert period.undefined in str(found)
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    return period.undefined


@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_images(value):
    assert "every image is constant" in why(measure(np.full((20, 3, 32, 32), value, np.uint8)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels(draw, bad):
    images = draw(20)
    images[3, 0, 5, 5] = bad
    found = measure(images, value_range=(0, 255))
    assert why(found) == "1 of 20 images hold NaN or infinity"


def test_too_small_too_few_too_alike(draw):
    assert "at least 12×12, these are 11×20" in why(
        measure(draw(9)[..., :11, :20], (2,), None, (0, 255))
    )
    assert "only 2 images with signal" in why(measure(draw(2), value_range=(0, 255)))
    found = measure(draw(1).repeat(50, axis=0), value_range=(0, 255))
    assert why(found) == "only 1 different images among 50" and found.duplicates == 49
    pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    assert "every image is constant" in why(measure(pixels))


def test_nothing_alive_is_undefined(draw):
    found = measure(100 + 1e-6 * draw(20), value_range=(0, 255))
    assert "no part of any image varies enough" in why(found)
    stripes = np.zeros((20, 1, 32, 32)) + 100 * (np.arange(32) % 2)
    stripes = stripes + np.arange(20).reshape(-1, 1, 1, 1)
    assert "no part of any image varies enough" in why(measure(stripes, (2,), None, (0, 255)))


def test_flat_images_and_channels_are_left_out(draw, pattern):
    images = draw(60) + 2 * pattern((32, 32), (0.5, 0.5))
    flat = np.broadcast_to(np.arange(60.0)[:, None, None, None], images.shape)
    alone = measure(images, (2,), value_range=(0, 255))
    mixed = measure(np.concatenate([flat, images]), (2,), value_range=(0, 255))
    assert mixed.without_signal == 60 and mixed.periods == alone.periods
    colors = np.repeat(images, 4, 1)
    colors[:, 3] = 255
    found = measure(colors, (2,), value_range=(0, 255))
    assert {line.channel for line in found.channel_lines} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((5, 32, 32), np.uint8), {}, r"must be \(N, C, H, W\)"),
        (np.zeros((5, 1, 32, 32), np.int64), {}, "must be uint8, uint16 or float"),
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
def test_bad_arguments(images, options, message):
    with pytest.raises(MeasurementError, match=message):
        measure(images, **options)


def test_meters_that_do_not_fit(draw):
    meter = Meter()
    meter.update(draw(2).astype(np.uint8))
    with pytest.raises(MeasurementError, match="group the images by size"):
        meter.update(draw(2, height=33).astype(np.uint8))
    with pytest.raises(MeasurementError, match="meters differ in periods"):
        meter.merge(Meter((2,)))
    other = Meter()
    other.update(draw(2, 3).astype(np.uint8))
    with pytest.raises(MeasurementError, match="meters differ in shape"):
        meter.merge(other)
    with pytest.raises(MeasurementError, match="compare images of the same size"):
        meter.compute(other)


def test_the_input_is_not_changed(draw):
    images = draw(8).astype(np.float32)
    images.flags.writeable = False
    before = images.copy()
    measure(images, (2,), value_range=(0, 255))
    assert (images == before).all()


def test_arrays_are_measured_as_they_are(draw):
    from PIL import Image

    images = draw(20, 3).astype(np.uint8)
    expected = measure(images).to_dict()
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    assert measure(last).to_dict() == expected
    assert measure([Image.fromarray(image) for image in last]).to_dict() == expected
    assert measure(list(last)).to_dict() == measure(list(images)).to_dict() == expected
    live = torch.from_numpy(images / 255.0).requires_grad_() * 1
    level = measure(images / 255.0, value_range=(0, 1)).periods[2].level_dbc
    assert measure(live, value_range=(0, 1)).periods[2].level_dbc == level
    half = measure((images / 255.0).astype(np.float16), value_range=(0, 1))
    assert half.periods[2].level_dbc == pytest.approx(level, abs=0.5)
    deep = measure(images.astype(np.uint16) * 257)
    assert deep.periods[2].level_dbc == pytest.approx(expected["periods"]["2"]["level_dbc"])
    gray = draw(20).astype(np.uint8)
    pictures = [Image.fromarray(image[0]) for image in gray]
    assert measure(pictures).to_dict() == measure(gray).to_dict()
    assert measure(pictures).periods[2].below(0)


def test_sizes_add_up_in_blocks(draw, pattern):
    """Two halves of a set, of two sizes, find what neither finds alone, at the same level."""
    block = (32, 32)
    halves = [draw(30, height=h, width=w, seed=h) for h, w in ((32, 40), (72, 32))]
    halves = [x + 0.25 * pattern(x.shape[2:], (0.5, 0.5)) for x in halves]

    def metered(parts):
        meter = Meter((2, 4), (0, 255), pictures=True, block=block)
        for part in parts:
            meter.update(part)
        return meter

    both = metered(halves).compute()
    assert both.sizes == ((32, 40, 30), (72, 32, 30)) and both.size == block
    assert "60 images of 2 sizes, 1 channel(s), in blocks of 32×32" in str(both)
    assert both.detected
    apart = metered(halves[:1])
    apart.merge(metered(halves[1:]))
    again = apart.compute()
    assert again.periods[2].level_dbc == pytest.approx(both.periods[2].level_dbc, abs=1e-9)
    limits = [metered([half]).compute().periods[2].best_limit_dbc for half in halves]
    assert both.periods[2].best_limit_dbc < min(limits)
    mixed = metered([halves[0][:7], halves[1], halves[0][7:]]).compute()
    assert mixed.periods[2].level_dbc == pytest.approx(both.periods[2].level_dbc, abs=1e-4)
    with pytest.raises(MeasurementError, match="smaller than blocks of"):
        metered([draw(3, height=16)])
    assert both.pictures.spectrum().shape == (1, *block)


def test_five_large_images_are_no_blinder_than_three(draw):
    images = draw(5, height=256, width=256).astype(np.uint8)
    three, five = (measure(images[:n]).periods[2].detection_limit_dbc for n in (3, 5))
    assert five < three + 1


@pytest.mark.parametrize("seed", [0, 2, 3, 6])
def test_smooth_maps_have_finite_bounds(seed):
    """At some frequencies between the lines few of their tiles are alive, or one image's alone."""
    torch.manual_seed(seed)
    maps = torch.nn.functional.interpolate(torch.randn(64, 1, 6, 6), scale_factor=4, mode="bicubic")
    maps = torch.nn.functional.conv_transpose2d(maps, torch.randn(1, 1, 4, 4), stride=2, padding=1)
    found = measure(maps, value_range=range_of_maps(maps)).periods[8]
    assert np.isfinite(found.level_upper_dbc) and found.limits_dbc["interior"] is not None
    assert found.level_upper_dbc < 0, str(found)
