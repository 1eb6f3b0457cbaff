"""A known grid goes in: the right line, the right statistic, the right value come out."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from benchmarks.accuracy.calibrate import line_at
from benchmarks.accuracy.grids import PATTERNS, coefficient, inject
from gen.analysis.measure.meter import Meter, measure

# Pattern, period, its strongest line, and the statistic's mode.
GRIDS = {
    "checkerboard": (2, (0.5, 0.5)),
    "rows": (2, (0.5, 0.0)),
    "cosine4": (4, (0.0, 0.25)),
    "overlap k3 s2": (2, (0.0, 0.5)),
    "overlap k5 s2": (2, (0.0, 0.5)),
    "overlap k5 s3": (3, (0.0, 1 / 3)),
}
RANGES = [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-3.0, 5.0)]
relaxed = settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def in_range(images, value_range):
    low, high = value_range
    return low + images * ((high - low) / 255)


@relaxed
@given(
    name=st.sampled_from(sorted(GRIDS)),
    mode=st.sampled_from(["multiplicative", "additive"]),
    count=st.integers(24, 80),
    channels=st.sampled_from([1, 3, 4, 7]),
    height=st.integers(48, 80),
    width=st.integers(48, 80),
    value_range=st.sampled_from(RANGES),
)
@example("checkerboard", "multiplicative", 40, 1, 49, 61, (-1.0, 1.0))
def test_three_per_cent_grid_is_found(
    texture, name, mode, count, channels, height, width, value_range
):
    period, frequency = GRIDS[name]
    images = texture(count, channels, height, width)
    depth = 0.03 if mode == "multiplicative" else 0.03 * 127.5
    dirty = inject(images, PATTERNS[name], depth, mode, np.random.default_rng(0))
    periods = (3,) if period == 3 else (2, 4)
    found = measure(in_range(dirty, value_range), periods, value_range=value_range)
    assert found.periods[period].detected
    statistic = "replica" if mode == "multiplicative" else "line"
    truth = depth * coefficient(PATTERNS[name], frequency)
    lines = [o for o in (*found.lines, *found.channel_lines) if o.frequency == frequency]
    limit = min(o.replica.limit_db for o in lines)
    if mode == "additive" or 20 * np.log10(abs(truth)) > limit + 3:
        assert statistic in found.periods[period].found
    assert all(found.periods[p].p_value > 1e-4 for p in periods if p != period)
    line = line_at(found, frequency)
    estimate = line.replica.gain if mode == "multiplicative" else line.line.amplitude
    # 15 % of the value, or 3.5 standard errors where few images say little.
    error = (
        np.sqrt(np.trace(line.replica.covariance))
        if mode == "multiplicative"
        else ((line.line.high_grey_levels - line.line.low_grey_levels) / 3)
    )
    assert abs(estimate - truth) < max(0.15 * abs(truth), 3.5 * error)


@relaxed
@given(side=st.integers(200, 300), name=st.sampled_from(["checkerboard", "cosine4"]))
def test_a_single_image_is_tiled(leaves, side, name):
    image = leaves[0][None, :, :side, :256]
    period, frequency = GRIDS[name]
    dirty = inject(image, PATTERNS[name], 0.03, "multiplicative", np.random.default_rng(0))
    found = measure(dirty, (2, 4), value_range=(0, 255))
    assert found.tile == (64, 64) and found.images == (side // 64) * 4
    assert found.periods[period].detected
    truth = 0.03 * abs(coefficient(PATTERNS[name], frequency))
    assert abs(line_at(found, frequency).replica.gain) == pytest.approx(truth, rel=0.2)
    clean = measure(image, (2, 4), value_range=(0, 255))
    assert not clean.detected


@pytest.mark.parametrize("period", [3, 5, 6])
def test_any_whole_period(texture, period):
    images = texture(60, 1, 6 * period + 5, 9 * period)
    wave = np.cos(2 * np.pi / period * np.arange(images.shape[-1]))
    found = measure(images * (1 + 0.06 * wave), (period,), value_range=(0, 255))
    assert found.periods[period].detected
    gain = line_at(found, (0.0, 1 / period)).replica.gain
    assert abs(gain) == pytest.approx(0.03, rel=0.15)


def test_random_sign_shows_as_excess_alone(texture):
    images = texture(100, 1, 64, 64)
    dirty = inject(images, PATTERNS["checkerboard"], 4, "sign-random", np.random.default_rng(1))
    period = measure(dirty, (2, 4), value_range=(0, 255)).periods[2]
    assert period.found == ("excess",)
    assert not period.detected and period.excess_db > 10
    assert "excess found" in measure(dirty, (2, 4), value_range=(0, 255)).verdict(2)


def test_fixed_grid_leaves_no_excess(texture):
    dirty = inject(texture(100, 1, 64, 64), PATTERNS["checkerboard"], 4, "additive", None)
    found = measure(dirty, (2, 4), value_range=(0, 255))
    assert "line" in found.periods[2].found and "excess" not in found.periods[2].found


def test_nearest_enlargement_shows_as_trace(texture):
    small = texture(100, 1, 32, 32)
    enlarged = small.repeat(2, axis=-1).repeat(2, axis=-2)
    found = measure(enlarged, (2, 4), value_range=(0, 255))
    assert "trace" in found.periods[2].found
    assert found.periods[2].trace_depth > 0.5
    assert (
        "trace"
        not in measure(texture(100, 1, 64, 64), (2, 4), value_range=(0, 255)).periods[2].found
    )


def test_bilinear_enlargement_shows_as_trace(texture):
    small = texture(100, 1, 33, 33)
    rows = (small[..., 1:, :] + small[..., :-1, :]) / 2
    tall = np.stack([small[..., :-1, :], rows], axis=-2).reshape(100, 1, 64, 33)
    columns = (tall[..., 1:] + tall[..., :-1]) / 2
    enlarged = np.stack([tall[..., :-1], columns], axis=-1).reshape(100, 1, 64, 64)
    assert "trace" in measure(enlarged, (2, 4), value_range=(0, 255)).periods[2].found


@relaxed
@given(gain=st.floats(0.3, 1.0), offset=st.floats(-20, 20))
def test_level_does_not_depend_on_gain_and_offset(texture, gain, offset):
    """An additive grid keeps its dBc: the carrier scales with it, brightness is no part of it."""
    images = texture(120, 1, 32, 32)
    dirty = inject(images, PATTERNS["checkerboard"], 2, "additive", np.random.default_rng(0))
    base = measure(dirty, (2,), value_range=(0, 255)).periods[2].level_dbc
    moved = measure(gain * dirty + offset, (2,), value_range=(0, 255)).periods[2].level_dbc
    assert moved == pytest.approx(base, abs=0.5)


def test_level_does_not_depend_on_number_and_size(texture):
    def level(count, side):
        images = texture(count, 1, side, side, seed=count)
        dirty = inject(images, PATTERNS["checkerboard"], 2, "additive", np.random.default_rng(0))
        found = measure(dirty, (2,), value_range=(0, 255))
        return line_at(found, (0.5, 0.5)).line.grey_levels

    values = [level(n, s) for n, s in ((50, 32), (400, 32), (100, 64), (60, 100))]
    assert np.ptp(20 * np.log10(values)) < 0.5


def test_eight_bit_floor(texture):
    """Rounding leaves what `noise_floor` says in the line of images that hold nothing else."""
    noise = np.random.default_rng(0).standard_normal((300, 1, 64, 64))
    smooth = 128 + 1200 * gaussian_filter(noise, (0, 0, 8, 8))
    found = measure(np.rint(smooth).astype(np.uint8), (2, 4, 8))
    power = np.mean([abs(line.line.amplitude) ** 2 for line in found.lines])
    level = 10 * np.log10(power / smooth.var((-2, -1)).mean())
    assert abs(level - found.noise_floor) < 3
    assert not found.detected
    assert measure(smooth, (2,), value_range=(0, 255)).noise_floor is None


def test_the_pattern_is_recovered(texture):
    images = texture(200, 3, 32, 32)
    dirty = inject(images, PATTERNS["overlap k3 s2"], 3, "additive", np.random.default_rng(0))
    meter = Meter((2, 4), (0, 255))
    meter.update(dirty)
    pattern = meter.compute().arrays.patterns[2]
    assert pattern.shape == (4, 2, 2)
    assert np.abs(pattern[1:] - 3 * PATTERNS["overlap k3 s2"](2, 2)).max() < 0.6
