"""Two sets: their difference is found, what they share is not."""

import numpy as np
import pytest

from gen.analysis.measure import Meter, measure


def test_a_grid_in_one_set_is_a_difference(draw, pattern):
    images, real = draw(60, seed=1), draw(60, seed=2)
    found = measure(images + pattern((32, 32), (0.5, 0.5)), (2, 4), real, (0, 255))
    change = found.difference.periods
    assert change[2].p_value < 1e-4 and not change[2].in_reference
    assert change[4].p_value > 0.05
    corner = next(line for line in found.difference.lines if line.frequency == (0.5, 0.5))
    assert corner.amplitude == pytest.approx(1, abs=0.1)


def test_a_grid_in_both_sets_is_none(draw, pattern):
    wave = 2 * pattern((32, 32), (0.5, 0.5))
    found = measure(draw(60, seed=1) + wave, (2,), draw(60, seed=2) + wave, (0, 255))
    assert found.detected and found.reference.detected
    change = found.difference.periods[2]
    assert change.in_reference and change.p_value > 0.05
    assert "the reference carries this period too" in found.verdict(2)


def test_sets_that_share_a_picture_do_not_differ(draw):
    picture = draw(1, seed=99)
    alarms = 0
    for seed in range(6):
        sets = [(draw(24, seed=10 * seed + k) + picture) / 2 for k in range(2)]
        found = measure(sets[0], (2, 4), sets[1], (0, 255))
        alarms += min(p.p_value for p in found.difference.periods.values()) < 0.05
    assert alarms <= 1


def test_radial_distance_needs_pictures(draw):
    images, real = draw(30, seed=1), draw(30, seed=2)
    smooth = (real + np.roll(real, 1, -1)) / 2
    near, far = (measure(images, (2,), r, (0, 255)).difference for r in (real, smooth))
    assert near.radial_db < far.radial_db and near.radial_low_db < near.radial_high_db
    meters = [Meter((2,), (0, 255)) for _ in range(2)]
    for meter, each in zip(meters, (images, real), strict=True):
        meter.update(each)
    assert meters[0].compute(meters[1]).difference.radial_db is None


def test_an_undefined_set_is_not_compared(draw):
    flat = np.full((20, 1, 32, 32), 7.0)
    assert measure(draw(20), (2,), flat, (0, 255)).difference is None
