"""The pieces under the measurement: lattice, statistics, spectra, calibration tools."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.accuracy.calibrate import auc, crops, detection_level, injection, specificity
from benchmarks.accuracy.grids import PATTERNS, coefficient, inject
from gen.analysis.measure.lattice import degrees, lattice_lines, near_lattice, neighbors, to_bin
from gen.analysis.measure.meter import Meter
from gen.analysis.measure.spectrum import Spectrum, radial_distance, radial_rings
from gen.analysis.measure.statistics import detectable, f_test, holm, interval, noncentrality


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 8, 12])
def test_lines_of_all_divisors_cover_the_lattice_once(period):
    seen = set()
    for divisor in range(2, period + 1):
        if period % divisor == 0:
            for a, b in lattice_lines(divisor):
                scale = period // divisor
                line = (a * scale % period, b * scale % period)
                seen |= {line, (-line[0] % period, -line[1] % period)}
                real = line == (-line[0] % period, -line[1] % period)
                assert degrees((a, b), divisor) == (1 if real else 2)
                assert 0 <= b <= divisor / 2 and -divisor / 2 < a <= divisor / 2
    assert len(seen) == period**2 - 1
    assert sum(degrees(line, period) for line in lattice_lines(period)) == sum(
        math.lcm(period // math.gcd(a, period), period // math.gcd(b, period)) == period
        for a in range(period)
        for b in range(period)
    )


@pytest.mark.parametrize(("period", "size"), [(2, (32, 32)), (4, (28, 40)), (8, (48, 64))])
def test_neighbors_stay_clear_of_every_line(period, size):
    near = near_lattice((period,), size, 2)
    for line in lattice_lines(period):
        bins = neighbors(line, period, size, near)
        assert len(bins) >= 2
        center = np.array(to_bin(line, period, size))
        assert not near[bins[:, 0], bins[:, 1]].any()
        distance = np.abs((bins - center + np.array(size) // 2) % size - np.array(size) // 2)
        assert distance.max(1).min() >= 3
        if 0 in line:
            axis = 1 if line[0] == 0 else 0
            assert (distance[:, 1 - axis] == 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_holm_keeps_order_and_bounds(p_values):
    adjusted = holm(p_values)
    p = np.array(p_values)
    assert np.all(adjusted >= p - 1e-15) and np.all(adjusted <= np.minimum(p * len(p), 1) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
    assert adjusted.min() == pytest.approx(min(p.min() * len(p), 1))


@pytest.mark.parametrize(("c", "df"), [(1, 5), (2, 14), (1, 2000), (2, 1e5)])
def test_power(c, df):
    variance = 0.3
    theta = detectable(variance, c, df, 100, 0.05)
    critical = stats.f.isf(0.05 / 100, c, df)
    assert stats.ncf.sf(critical, c, df, c * theta / variance) == pytest.approx(0.9, abs=2e-3)
    assert noncentrality(0.01, c, df, 0.975) == 0


@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize(("theta", "df"), [(0.0, 30), (1.0, 8), (3.0, 8), (3.0, 200), (400.0, 5)])
def test_intervals_cover(c, theta, df):
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((20000, c)) / np.sqrt(c)  # E|noise|² = 1
    noise[:, 0] += theta
    estimated = generator.chisquare(c * df, 20000) / (c * df)
    low, high = interval((noise**2).sum(1), estimated, c, c * df)
    assert 0.93 < np.mean((low <= theta) & (theta <= high)) < 0.985


@pytest.mark.parametrize("c", [1, 2])
def test_an_interval_holds_its_reading_however_small(c):
    readings = np.array([0.0, 1e-9, 1e-3, 0.1, 1.0, 4.0])
    low, high = interval(readings**2, np.ones(6), c, 100)
    assert np.all(low <= readings) and np.all(readings < high)
    assert np.all(np.diff(high) >= 0) and high[0] > 1.5


def test_f_test_without_variance():
    assert f_test([0.0, 1.0], [0.0, 0.0], 1, 5).tolist() == [1, 1]


def test_white_noise_has_a_flat_spectrum():
    noise = 3 * np.random.default_rng(0).standard_normal((400, 2, 32, 40))
    import torch

    whole = Spectrum(2, (32, 40), (2, 4))
    whole.update(torch.from_numpy(noise))
    profile = whole.profile(1)
    assert np.allclose(profile.power[2:], 9, rtol=0.08)
    low, high = profile.band()
    inside = (low <= 10 * np.log10(9)) & (10 * np.log10(9) <= high)
    assert inside[2:].mean() > 0.85
    halves = [Spectrum(2, (32, 40), (2, 4)) for _ in range(2)]
    for half, part in zip(halves, np.split(noise, [150]), strict=True):
        half.update(torch.from_numpy(part))
    halves[0].merge(halves[1])
    # An image's transform is float32: its rounding depends on its place among others.
    assert np.allclose(halves[0].mean(), whole.mean(), rtol=1e-7)
    distance, low, high = radial_distance(profile, whole.profile(0))
    assert distance < 0.6 and low <= distance <= high


def test_lattice_stays_out_of_the_radial_profile():
    import torch

    noise = np.random.default_rng(0).standard_normal((50, 1, 32, 32))
    grid = 5 * PATTERNS["checkerboard"](32, 32)
    spectrum = Spectrum(1, (32, 32), (2, 4))
    spectrum.update(torch.from_numpy(noise + grid))
    corner = radial_rings((32, 32))[0][16, 16] - 2
    assert spectrum.profile(0).power[corner] == pytest.approx(1, rel=0.2)
    assert spectrum.profile(0, masked=False).power.max() > 100


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_patterns(name):
    grid = PATTERNS[name](60, 60)
    assert abs(grid.mean()) < 1e-12 and np.abs(grid).max() == pytest.approx(1)
    if "overlap" in name:
        kernel, stride = int(name[9]), int(name[12])
        taps = np.array([sum(j % stride == r for j in range(kernel)) for r in range(stride)])
        expected = np.outer(taps, taps) - np.outer(taps, taps).mean()
        assert np.allclose(grid[:stride, :stride], expected / abs(expected).max())
    if name == "cosine4":
        assert coefficient(PATTERNS[name], (0.0, 0.25)) == pytest.approx(0.5)


def test_calibration_tools(leaves):
    draw = crops(leaves, (32, 40))
    generator = np.random.default_rng(0)
    assert draw(generator, 5).shape == (5, 1, 32, 40)
    with pytest.raises(ValueError, match="as large as"):
        crops(leaves, 300)
    with pytest.raises(ValueError, match="choose multiplicative"):
        inject(draw(generator, 2), PATTERNS["rows"], 1, "funny", generator)
    assert auc([1, 2], [3, 4]) == 1 and auc([1, 2], [1, 2]) == 0.5
    read = injection(draw, "checkerboard", (0.5, 0.5), 0.03, images=100, sets=12, periods=(2,))
    assert abs(read.bias_db) < 0.3 and read.auc == 1 and read.found == 1
    assert read.coverage >= 0.75
    nothing = injection(draw, "checkerboard", (0.5, 0.5), 1e-7, images=16, sets=12, periods=(2,))
    assert 0.2 < nothing.auc < 0.8 and nothing.found <= 0.2
    assert 0.15 < specificity(draw, "noise", images=16, sets=15, periods=(2,)) < 0.85
    limit, measured = detection_level(
        draw, "checkerboard", (0.5, 0.5), "additive", images=60, sets=8, periods=(2,)
    )
    assert abs(limit - measured) < 4


@pytest.mark.parametrize("mode", [True, False])
def test_several_cores_measure_in_the_callers_inference_mode(mode):
    """The mode is each thread's own, and sums made in one cannot be added to in the other."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode(mode):
            meter = Meter()
            for _ in range(2):
                meter.update(torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8))
        assert meter.images == 512
    finally:
        torch.set_num_threads(before)
