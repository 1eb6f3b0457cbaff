"""The fast path against the direct reference, equation by equation."""

import numpy as np
import pytest
import torch

from gen.analysis.measure import reference
from gen.analysis.measure.estimates import solve
from gen.analysis.measure.sums import State, flush, update

CASES = [(2, (17, 23)), (3, (20, 18)), (4, (28, 26)), (5, (30, 33))]


def estimated(images, periods, dtype=torch.float64, **options):
    state = State(periods, (0, 255), dtype=dtype, **options)
    state = flush(update(state, torch.from_numpy(images)))
    return solve(state), state


@pytest.mark.parametrize(("period", "size"), CASES)
def test_line_and_replica_equal_the_reference(draw, period, size):
    images = draw(6, height=size[0], width=size[1])
    (found,), state = estimated(images, (period,))
    geometry = reference.Geometry(4 * period, *map(tuple, state.plan.tilings[0].origins))
    for n, line in enumerate(found.lines):
        k = (2 * line.a, 2 * line.b)
        direct = reference.solve(images[:, 0] - 127.5, geometry, k)
        for name in ("a", "g"):
            fast = found.line if name == "a" else found.replica
            assert fast.value[0, n] == pytest.approx(getattr(direct, name), rel=1e-8, abs=1e-10)
            variance, effective = (getattr(direct, name + end) for end in ("_variance", "_n"))
            assert fast.variance[0, n] == pytest.approx(variance, rel=1e-7)
            assert fast.n[0, n] == pytest.approx(effective, rel=1e-8)


def test_placebo_ratio_equals_the_reference(draw):
    """With the free frequencies taken by period 4, shifts alone are placebos of period 2."""
    images = draw(5, height=25, width=27) + 20 * draw(1, height=25, width=27, seed=9) / 255
    found, state = estimated(images, (2, 4))
    geometry = reference.Geometry(8, *map(tuple, state.plan.tilings[0].origins))
    for n, line in enumerate(found[0].lines):
        if line.kind == "axis":
            continue
        k = (2 * line.a, 2 * line.b)
        direct = reference.solve(images[:, 0] - 127.5, geometry, k)
        expected = reference.ratio(direct, geometry, k, 2)
        fast = found[0].line.ratio()[0][0, n], found[0].replica.ratio()[0][0, n]
        assert fast == pytest.approx(expected, rel=1e-7)


def test_response_equals_the_reference(draw):
    _, state = estimated(draw(3, height=28, width=25), (2,))
    tiling = state.plan.tilings[0]
    geometry = reference.Geometry(tiling.side, *map(tuple, tiling.origins))
    for shift, fast in list(zip(tiling.shifts, tiling.responses, strict=True))[::3]:
        assert fast == pytest.approx(reference.response(geometry, tuple(shift / tiling.spans)))


def test_blocks_refer_to_the_origin_of_the_image(draw):
    """Lines of large images: blocks at any multiple of eight have the phases of the whole."""
    images = draw(1, height=150, width=138) / 50 + 10 * np.cos(
        2 * np.pi * np.add.outer(np.arange(150) / 3, np.arange(138) / 3)
    )
    (found,), state = estimated(images, (3,))
    assert state.plan.blocks > 4
    line = [(each.a, each.b) for each in found.lines].index((1, 1))
    assert found.even_line.value[0, line] == pytest.approx(5, abs=0.02)
    assert found.line.value[0, line] == pytest.approx(5, abs=0.02)


def test_float32_is_enough(draw):
    images = draw(40, 3, height=48, width=52)
    exact, _ = estimated(images, (2, 4, 8))
    fast, _ = estimated(images, (2, 4, 8), torch.float32)
    for a, b in zip(exact, fast, strict=True):
        for name in ("line", "replica", "even_line", "even_replica"):
            one, other = getattr(a, name), getattr(b, name)
            error = np.abs(one.value - other.value) / np.sqrt(one.variance)
            assert error.max() < 1e-3
            assert other.variance == pytest.approx(one.variance, rel=1e-3)
        assert b.excess.value == pytest.approx(a.excess.value, abs=1e-3)
