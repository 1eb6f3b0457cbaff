import numpy as np
import pytest

from gen.data import shapes
from gen.data.shapes import render


def luma(images: np.ndarray) -> np.ndarray:
    return np.tensordot(images.astype(float), [0.299, 0.587, 0.114], axes=(1, 0))


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 47), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_depends_on_seed_and_index_alone(size, channels):
    whole = render(5, range(600), size, channels)
    order = np.random.default_rng(0).permutation(600)
    parts = [render(5, part, size, channels) for part in np.array_split(order, 17)]
    for values, *split in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(split), values[order])
    assert (render(6, range(600), size, channels)[0] != whole[0]).any(axis=(1, 2, 3)).all()


def test_types_shapes_and_classes():
    images, labels, masks = render(0, range(3000), (24, 40))
    assert (images.shape, images.dtype) == ((3000, 3, 24, 40), np.uint8)
    assert (labels.shape, labels.dtype) == ((3000,), np.int64)
    assert (masks.shape, masks.dtype) == ((3000, 24, 40), np.uint8)
    np.testing.assert_allclose(np.bincount(labels), 1000, atol=100)
    np.testing.assert_array_equal(masks.max(axis=(1, 2)), 1 + labels)
    np.testing.assert_array_equal(shapes.labels(0, range(3000)), labels)


def test_shapes_are_brighter_than_their_background_in_color_and_in_gray():
    color, _, masks = render(1, range(1000), (32, 32), 3)
    gray, _, _ = render(1, range(1000), (32, 32), 1)
    np.testing.assert_allclose(gray[:, 0], luma(color), atol=1.2)
    for image, mask in zip(gray[:, 0].astype(float), masks, strict=True):
        assert image[mask > 0].mean() > image[mask == 0].mean() + 30
        assert 0.08 < (mask > 0).mean() < 0.45


def test_the_background_is_smooth_and_the_shape_is_of_one_color():
    color, _, _ = render(2, range(200), (32, 32), 4)
    for image in color:
        inside, outside = image[:3, image[3] == 255], image[3] == 0
        assert (np.ptp(inside, axis=1) <= 1).all()
        steps = np.abs(np.diff(image[:3].astype(int), axis=2))
        assert steps[:, outside[:, 1:] & outside[:, :-1]].max() <= 6


def test_coverage_is_the_covered_area():
    """Against 32 × 32 points a pixel; corners, where fractions multiply, are the least exact."""
    y, x = (np.arange(16, dtype=np.float32)[:, None], np.arange(16, dtype=np.float32))
    fine = (np.arange(16 * 32) + 0.5) / 32 - 0.5
    angles = np.linspace(0, 2, 9)
    for sides, inradius in ((0, 5.3), (4, 4.1), (3, 3.2)):
        for angle in angles:
            arguments = np.full((1, 1, 1), inradius, np.float32), np.full((1, 1, 1), angle), sides
            got = shapes._coverage(y[None] - 7.4, x[None, None] - 7.7, *arguments)[0]
            dy, dx = fine[:, None] - 7.4, fine[None] - 7.7
            if sides:
                normals = angle + 2 * np.pi * np.arange(sides) / sides
                far = np.max([dy * np.sin(n) + dx * np.cos(n) for n in normals], axis=0)
            else:
                far = np.hypot(dy, dx)
            exact = (far <= inradius).reshape(16, 32, 16, 32).mean(axis=(1, 3))
            assert np.abs(got - exact).max() < 0.16
            assert abs(got.sum() / exact.sum() - 1) < 0.01


def test_alpha_is_the_coverage_and_the_mask_its_half():
    images, labels, masks = render(3, range(100), (32, 32), 4)
    np.testing.assert_array_equal(masks > 0, images[:, 3] >= 128)
    np.testing.assert_array_equal(images[:, :3], render(3, range(100), (32, 32), 3)[0])
    np.testing.assert_array_equal(masks.max(axis=(1, 2)), labels + 1)


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_other_channels_are_refused(channels):
    with pytest.raises(ValueError, match=f"channels is {channels}, must be 1, 3 or 4"):
        render(0, [0], (32, 32), channels)


def line_p_values(images: np.ndarray, period: int) -> np.ndarray:
    """p-values of the coherent mean of the windowed images (N, H, W) at each lattice frequency."""
    from scipy import stats

    count, height, width = images.shape
    window = np.outer(*(np.sin(np.pi * np.arange(n) / n) ** 2 for n in (height, width)))
    images = images - (images * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    spectra = np.fft.fft2(images * window)[:, :: height // period, :: width // period]
    p_values = []
    for a, b in np.ndindex(period, period):
        if (a, b) == (0, 0) or (a, b) > (-a % period, -b % period):
            continue
        freedom = 1 if (2 * a % period, 2 * b % period) == (0, 0) else 2
        mean = spectra[:, a, b].mean()
        spread = (np.abs(spectra[:, a, b] - mean) ** 2).sum() / (count * (count - 1))
        p_values.append(stats.f.sf(abs(mean) ** 2 / spread, freedom, freedom * (count - 1)))
    return np.array(p_values)


@pytest.mark.parametrize(("size", "period"), [((32, 32), 4), ((24, 36), 4), ((48, 72), 8)])
def test_no_position_on_the_lattice_is_preferred(size, period):
    """The mean over images is flat at every lattice frequency; a grid of 0.5 levels is not."""
    images = render(7, range(2000), size, 1)[0][:, 0].astype(float)
    assert line_p_values(images, period).min() * period**2 > 0.05
    grid = 0.5 * (-1.0) ** np.add.outer(np.arange(size[0]), np.arange(size[1]))
    assert line_p_values(images + grid, period).min() * period**2 < 1e-6


@pytest.mark.parametrize(("size", "count"), [((32, 32), 2000), ((64, 64), 1000)])
def test_the_measurement_finds_no_grid_in_shapes(size, count):
    checkerboard = pytest.importorskip("gen.analysis.measure.meter", exc_type=ImportError)
    found = checkerboard.measure(render(0, range(count), size)[0])
    assert found.periods
    for period, result in found.periods.items():
        assert not result.detected, found.verdict(period)
