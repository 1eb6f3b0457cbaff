"""The level reads known powers, is continuous, and its interval holds the truth."""

from dataclasses import replace

import numpy as np
import pytest

from gen.analysis.measure.level import Part, level, severity
from gen.analysis.measure.statistics import f_test

C = np.array([1.0, 2.0, 2.0])


def part(theta, noise, share=1.0, c=C, df=1e6):
    power = np.abs(np.atleast_2d(theta)) ** 2
    noise = np.broadcast_to(np.asarray(noise, float), power.shape)
    df = np.full(power.shape, df)
    p = f_test(power, noise, c, df)
    return Part(power, noise, df, c, np.full((len(power), 1), share), p)


def silent(planes=1, c=C):
    return part(np.zeros((planes, len(c))), 1e-12, c=c)


def reading(theta, variance, generator):
    """An estimate with E|error|² = variance; real where c is 1."""
    sizes = np.sqrt(variance / C)
    noise = generator.normal(size=3) + 1j * np.where(C == 2, generator.normal(size=3), 0)
    return theta + sizes * noise


def test_a_clear_pattern_reads_its_power():
    found = level(part([[0.1, 0.2j, 0.0]], 1e-12, share=0.5), part([[0.0, 0.0, 0.3]], 1e-12))
    assert found.line == pytest.approx(0.5 * (0.01 + 2 * 0.04), rel=1e-6)
    assert found.replica == pytest.approx(2 * 0.09, rel=1e-6)
    assert found.total == pytest.approx(found.line + found.replica)
    assert found.low <= found.total <= found.high
    assert found.high / found.low == pytest.approx(1, abs=1e-4)


def test_planes_are_averaged():
    two = level(part([[0.2, 0, 0], [0.4, 0, 0]], 1e-12), silent(2))
    assert two.total == pytest.approx((0.04 + 0.16) / 2, rel=1e-6)


def test_noise_alone_leaves_no_lower_bound():
    generator = np.random.default_rng(0)
    found = [level(part([reading(0, 1.0, generator)], 1.0), silent()) for _ in range(200)]
    assert np.mean([f.low > 0 for f in found]) < 0.05
    assert all(f.high > 1 for f in found)


@pytest.mark.parametrize(
    ("theta", "variance"),
    [
        ([1.0, 0.5j, 0.1], [0.01, 0.2, 1.0]),  # axes are noisier by 20 dB on photographs
        ([1.0, 0.5j, 0.1], [0.01, 0.01, 0.01]),
        ([1.0, 0.0, 0.0], [0.01, 1.0, 1.0]),
        ([0.5, 0.5, 0.5], [0.1, 0.1, 0.1]),
    ],
)
def test_the_interval_holds_the_truth(theta, variance):
    generator = np.random.default_rng(1)
    theta, variance = np.array(theta), np.array(variance)
    truth = (C * np.abs(theta) ** 2).sum()
    found = [
        level(part([reading(theta, variance, generator)], variance), silent()) for _ in range(400)
    ]
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.93
    assert np.mean([f.low > truth for f in found]) <= 0.06


def test_the_level_is_continuous_in_every_reading():
    """No line enters whole: the old level jumped by 20 dB when a test let a line in."""
    levels = [
        level(part([[1e-3, x, 0]], [1e-8, 1e-4, 1e-8]), silent()) for x in np.linspace(0, 0.05, 500)
    ]
    steps = np.diff([f.total for f in levels])
    assert steps.min() >= -1e-12 and steps.max() < 2 * 2 * 0.05 * 0.05 / 499 * 1.01
    assert np.abs(np.diff([f.high for f in levels])).max() < 1e-4


def test_lines_without_evidence_count_less():
    """Noise on axes, 20 dB above the pattern on the corner, raises the level without weights."""
    generator = np.random.default_rng(2)
    theta, variance = np.array([1.0, 0.0, 0.0]), np.array([0.01, 1.0, 1.0])
    read = [part([reading(theta, variance, generator)], variance) for _ in range(300)]
    even = [level(replace(r, p=np.zeros_like(r.p)), silent()).total for r in read]
    weighed = [level(r, silent()).total for r in read]
    assert abs(np.log(np.median(weighed))) < 0.8 * abs(np.log(np.median(even)))


def test_few_degrees_of_freedom_widen_the_interval():
    theta, noise = [[0.6, 0.1, 0.1]], 0.01
    sure, unsure = (level(part(theta, noise, df=df), silent()) for df in (1e6, 3.0))
    assert unsure.high > 1.2 * sure.high
    assert 0 <= unsure.low < sure.low
    assert unsure.total < sure.total  # and its evidence weighs less


@pytest.mark.parametrize(
    ("dbc", "words"),
    [
        (-5.0, "visible"),
        (-20.0, "visible"),
        (-20.1, "visible on flat areas"),
        (-40.0, "visible on flat areas"),
        (-72.0, "for instruments only"),
    ],
)
def test_severity(dbc, words):
    assert severity(dbc) == words
