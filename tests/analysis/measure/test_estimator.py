"""The fast form against the definition; sums that do not care how the data arrive."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from gen.analysis.measure.estimate import estimate
from gen.analysis.measure.lattice import lattice_lines, signed_bins, to_bin
from gen.analysis.measure.meter import Meter, measure
from gen.analysis.measure.results import Measurement
from gen.analysis.measure.spectrum import full_plane
from gen.analysis.measure.sums import MID_GREY, CropSums


def direct_replica(images, period, crop):
    """Sum the normal equations bin by bin over the baseband, with the same weights; solve for g."""
    _, height, width = images.shape
    window = crop.window.numpy()
    spectrum = np.fft.fft2(window * (images - MID_GREY))
    transform = np.fft.fft2(window)
    mean = (images * window).sum((1, 2)) / window.sum()
    centered = np.fft.rfft2(window * (images - mean[:, None, None]))
    weights, _ = crop.whiten(torch.from_numpy(np.abs(centered[:, None]) ** 2).float())
    weights = full_plane(weights[:, 0].double().numpy(), width)
    ky, kx = np.meshgrid(signed_bins(height), signed_bins(width), indexing="ij")
    base = np.argwhere((2 * period * abs(ky) < height) & (2 * period * abs(kx) < width))
    x, w = spectrum[:, base[:, 0], base[:, 1]], transform[base[:, 0], base[:, 1]]
    gains = []
    for line in lattice_lines(period):
        moved = (base + to_bin(line, period, (height, width))) % (height, width)
        y, u = (a[:, moved[:, 0], moved[:, 1]] for a in (spectrum, weights))
        m11, m22 = (u * abs(x) ** 2).sum(), (u * abs(w) ** 2).sum()
        m12 = (u * x.conj() * w).sum()
        b = (u * x.conj() * y).sum(), (u * w.conj() * y).sum()
        gains.append(np.linalg.solve([[m11, m12], [m12.conj(), m22]], b)[0])
    return np.array(gains)


@pytest.mark.parametrize("size", [(32, 32), (36, 54), (24, 60), (27, 45)])
def test_fast_form_equals_the_direct_sum(texture, size):
    images = texture(6, 1, *size)
    images = images * (1 + 0.02 * np.cos(np.pi / 2 * np.arange(size[1])))
    periods = tuple(p for p in (2, 3, 4, 6) if size[0] % p == 0 and size[1] % p == 0)
    periods = tuple(p for p in periods if 6 * p <= min(size))
    crop = CropSums(1, size, periods)
    crop.add(torch.from_numpy(images))
    fast = estimate(crop).replica.value[0]
    direct = np.concatenate([direct_replica(images[:, 0], p, crop) for p in periods])
    assert np.allclose(fast, direct, rtol=1e-3, atol=2e-6)
    assert np.abs(direct).max() > 0.005


def test_sandwich_agrees_with_an_image_bootstrap(texture):
    """Resampling images spreads the estimate as the sandwich variance says."""
    images = torch.from_numpy(texture(200, 1, 32, 32))
    parts = []
    for image in images:
        crop = CropSums(1, (32, 32), (2,))
        crop.add(image[None])
        parts.append(crop)
    whole = CropSums(1, (32, 32), (2,))
    whole.add(images)
    generator, drawn = np.random.default_rng(0), []
    for _ in range(60):
        mixed = CropSums(1, (32, 32), (2,))
        for i in generator.integers(200, size=200):
            mixed.merge(parts[i])
        drawn.append(estimate(mixed).replica.value[0].real)
    spread, stated = np.std(drawn, axis=0), np.sqrt(estimate(whole).replica.variance[0])
    assert np.all(abs(np.log(spread / stated)) < 0.45)


def test_neighbors_agree_with_the_sandwich_where_nothing_is(texture):
    """Off the lattice the estimator spreads as much as on it: both noise estimates say the same."""
    crop = CropSums(1, (64, 64), (2, 4))
    crop.add(torch.from_numpy(texture(300, 1, 64, 64)))
    found = estimate(crop)
    for amplitude in (found.replica, found.line, *found.trace):
        ratio = amplitude.around[0] / amplitude.variance[0]
        assert 0.5 < np.exp(np.log(ratio).mean()) < 2
        assert ratio.min() > 0.1 and ratio.max() < 10


def numbers(measurement):
    """Every number of a measurement, in order."""

    def walk(value):
        if isinstance(value, dict):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield float(value)

    return np.array(list(walk(measurement.to_dict())))


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 48, 50), (1, 32, 64), (3, 29, 35), (3, 32, 32)]
)
def test_any_batch_split_and_merge_give_the_same_result(texture, channels, height, width):
    images = texture(97, channels, height, width)
    images = images * (1 + 0.01 * (-1.0) ** np.arange(width))
    whole = measure(images, value_range=(0, 255))
    expected = numbers(whole)
    batched = measure(np.split(images, [1, 3, 40, 41, 96]), value_range=(0, 255))
    assert np.allclose(numbers(batched), expected, rtol=1e-9, atol=1e-9)
    parts = [Meter(value_range=(0, 255)) for _ in range(3)]
    for part, piece in zip(parts, np.split(images, [10, 60]), strict=True):
        part.update(piece)
    empty = Meter(value_range=(0, 255))
    for part in parts:
        empty.merge(part)
    merged = empty.compute()
    assert np.allclose(numbers(merged), expected, rtol=1e-9, atol=1e-9)
    assert np.allclose(merged.arrays.spectrum, whole.arrays.spectrum, rtol=1e-9)
    assert merged.arrays.gains.shape == (97, len(whole.lines))


def test_two_cores_give_what_one_gives(texture):
    images = texture(400, 1, 32, 32)
    one = measure(images, value_range=(0, 255))
    torch.set_num_threads(2)
    try:
        two = measure(images, value_range=(0, 255))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert np.allclose(numbers(two), numbers(one), rtol=1e-9, atol=1e-9)
    assert np.array_equal(two.arrays.gains, one.arrays.gains)  # in the order of the images


def test_a_meter_keeps_little_per_image(texture):
    meter = Meter(value_range=(0, 255))
    meter.update(texture(500, 3, 48, 48))
    kept = sum(t.numel() * t.element_size() for t in meter.gains + meter.fingerprints)
    assert kept / 500 <= 4096


def test_places_show_the_grid_and_not_the_borders():
    """Opposite borders differ by 200 grey levels, the grid in the middle has an amplitude of 2."""
    grid = np.zeros((64, 64))
    grid[20:44, 20:44] = 2 * (-1.0) ** np.add.outer(np.arange(24), np.arange(24))
    noise = np.random.default_rng(0).normal(0, 3, (40, 1, 64, 64))
    images = noise + grid + np.linspace(0, 200, 64)[:, None]
    place = measure(images, (2,), value_range=(0, 255)).arrays.places[2]
    assert place.shape == (64, 64) and place[32, 32] == pytest.approx(2, rel=0.1)
    assert max(place[[0, -1]].max(), place[:, [0, -1]].max()) < 0.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("size", "step"), [((32, 32), 64), ((48, 50), 27), ((28, 34), 18)])
def test_an_image_reads_alike_wherever_it_stands_in_a_batch(size, step, threads):
    """Bit by bit in float32, or no merge could give the sums of the whole to 1e-9."""
    images = 200 * torch.rand(step, 2, *size, generator=torch.Generator().manual_seed(0))
    crop, before = CropSums(2, size, (2,)), torch.get_num_threads()
    torch.set_num_threads(threads)
    shifts = (0, 1, step // 2, step - 1)
    for shift in shifts:
        crop.record(images.roll(shift, 0))
    torch.set_num_threads(before)
    for shift, record in zip(shifts, crop.records, strict=True):
        for name, value in record.items():
            assert torch.equal(value.roll(-shift, 0), crop.records[0][name]), name


def test_json_round_trip(texture):
    images = texture(40, 3, 32, 32)
    found = measure(images * (1 + 0.03 * (-1.0) ** np.arange(32)), (2, 4, 8), images, (0, 255))
    text = json.dumps(found.to_dict(), allow_nan=False)
    back = Measurement.from_dict(json.loads(text))
    assert back == found
    assert str(back) == str(found)
    plain = json.loads(text)
    assert plain["schema"] == 1 and plain["periods"]["8"]["undefined"]
    assert plain["reference"]["difference"] is None
    with pytest.raises(ValueError, match="schema 2"):
        Measurement.from_dict(plain | {"schema": 2})
    with pytest.raises(ValueError, match="not a measurement"):
        Measurement.from_dict({"schema": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.images = 3


def test_reference_difference(texture):
    real, other = texture(100, 1, 32, 32), texture(100, 1, 32, 32, seed=9)
    grid = 1 + 0.01 * np.multiply.outer((-1.0) ** np.arange(32), (-1.0) ** np.arange(32))
    both = measure(other * grid, (2, 4), real * grid, (0, 255))
    assert both.periods[2].detected and both.difference.periods[2].in_reference
    assert both.difference.periods[2].p_value > 0.05
    assert "reference carries this period" in both.verdict(2)
    one = measure(other * grid, (2, 4), real, (0, 255))
    assert one.difference.periods[2].p_value < 1e-6
    assert not one.difference.periods[2].in_reference
    line = next(item for item in one.difference.lines if item.frequency == (0.5, 0.5))
    assert line.gain.real == pytest.approx(0.01, abs=1e-3)
    assert one.difference.radial_low_db <= one.difference.radial_db <= one.difference.radial_high_db
    with pytest.raises(ValueError, match="same size"):
        measure(other, (2,), real[..., :30], (0, 255))
