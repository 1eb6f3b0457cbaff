"""Published sample sheets, digits and photographs: what is known about them must be read."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.calibrate import crops, line_at, null
from gen.analysis.measure.meter import measure


def sheet(shared, name, tile, gap=2):
    path = shared / "sheets" / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    rows = range(gap, pixels.shape[0] - tile + 1, tile + gap)
    columns = range(gap, pixels.shape[1] - tile + 1, tile + gap)
    tiles = [pixels[y : y + tile, x : x + tile] for y in rows for x in columns]
    return np.stack(tiles).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["csinva_cifar10_real.png", "mimicry_cifar10_sngan.png"])
def test_real_and_interpolated_sheets_are_clean(shared, name):
    found = measure(sheet(shared, name, 32))
    assert not found.detected
    assert all(found.periods[p].p_value > 0.2 for p in (2, 4))


def test_dcgan_sheet(shared):
    found = measure(sheet(shared, "csinva_cifar10_dcgan_fake.png", 32))
    assert found.periods[2].detected and found.periods[2].p_value < 1e-12
    assert "replica" in found.periods[2].found
    for line in found.channel_lines:
        if line.frequency == (0.5, 0.5):
            assert -49 < line.replica.db < -34


def test_vae_sheet(shared):
    found = measure(sheet(shared, "antixk_celeba64_vanillaVAE_k3s2.png", 64))
    assert found.periods[2].detected and found.periods[2].p_value < 1e-9
    assert -65 < line_at(found, (0.5, 0.5)).replica.db < -56


@pytest.mark.parametrize("count", [2000, 10000])
def test_digits_are_clean(shared, count):
    path = shared / "MNIST" / "raw" / "train-images-idx3-ubyte"
    digits = np.fromfile(path, np.uint8)[16:].reshape(-1, 1, 28, 28)
    found = measure(digits[:count])
    assert not found.detected
    assert "at least 48×48" in found.periods[8].undefined


def test_ten_thousand_cifar_images_are_clean(shared):
    with tarfile.open(shared / "cifar10-jpeg.tar") as archive:
        members = (m for m in archive if m.name.startswith("test/") and m.isfile())
        images = [
            np.asarray(Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB"))
            for m in members
        ]
    images = np.stack(images).transpose(0, 3, 1, 2)
    luma = np.stack([[0.299 * r + 0.587 * g + 0.114 * b] for r, g, b in images.astype(float)])
    assert len(luma) == 10000
    assert not measure(luma, (2, 4), value_range=(0, 255)).detected
    # In color the set carries a line: these JPEGs hold chroma at half size (4:2:0), and libjpeg's
    # enlargement of it rounds even and odd columns differently. Seen in chroma only, luma is free.
    found = measure(images, (2, 4))
    adjusted = 66 * 4  # tests of lines and replicas, bounded by Bonferroni
    for line in (*found.lines, *found.channel_lines):
        small = min(line.replica.p_value, line.line.p_value)
        if small < 0.05 / adjusted:
            assert line.frequency == (0.0, 0.5) and line.channel != "luma"
            assert line.line.grey_levels < 0.1
    red, green, blue = (
        line.line.amplitude.real for line in found.channel_lines if line.frequency == (0.0, 0.5)
    )
    assert red * blue > 0 > red * green
    assert blue / red == pytest.approx(1.772 / 1.402, rel=0.25)


def test_crops_of_photographs_are_clean(shared):
    paths = sorted((shared / "photos").glob("*.png"))
    photos = [np.asarray(Image.open(p).convert("L"))[None] for p in paths]
    assert null(crops(photos, 64), images=32, sets=40).verdict <= 0.1
