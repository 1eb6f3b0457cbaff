"""Sums: any split, any merge, constant memory."""

import io
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from gen.analysis.measure import Meter, measure
from gen.analysis.measure.sums import flush, marks


def metered(parts, periods=(2, 4), **options):
    meter = Meter(periods, (0, 255), **options)
    for part in parts:
        meter.update(part)
    return meter


@pytest.mark.parametrize(("count", "height", "width"), [(600, 24, 30), (90, 160, 136)])
def test_any_split_is_bit_identical(draw, count, height, width):
    images = draw(count, height=height, width=width).astype(np.float32)
    whole = metered([images]).compute()
    for cuts in ([1, 2, count // 6, count - 7], list(range(37, count, 37))):
        meter = metered(np.split(images, cuts))
        assert meter.compute() == whole
        assert meter.compute() == whole  # computing changes nothing
    early = metered([images[: count // 2]])
    early.compute()
    early.update(images[count // 2 :])
    assert early.compute() == whole


@pytest.mark.parametrize("size", [(24, 30), (136, 64)])
def test_merge_equals_one_meter(draw, size):
    images = draw(40, 3, *size).astype(np.float32)
    whole = metered([images], pictures=True)
    parts = metered([images[:11]], pictures=True), metered([images[11:]], pictures=True)
    merged = Meter((2, 4), (0, 255), pictures=True)
    for part in parts:
        merged.merge(part)
    for a, b in zip(whole.estimates(), merged.estimates(), strict=True):
        for name in ("line", "replica", "even_line", "even_replica"):
            one, other = getattr(a, name), getattr(b, name)
            assert np.abs(one.value - other.value).max() <= 1e-9 * np.abs(one.value).max()
            assert other.noise == pytest.approx(one.noise, rel=1e-9)
    one, other = whole.compute(), merged.compute()
    assert other.periods[2].level_dbc == pytest.approx(one.periods[2].level_dbc, abs=1e-8)
    assert other.images == 40 and other.pictures.count == 40
    spectra = one.pictures.spectrum(), other.pictures.spectrum()
    assert np.abs(spectra[0] - spectra[1]).max() < 1e-6 * spectra[0].max()


def test_threads_do_not_change_the_result(draw):
    images = draw(1100, height=24, width=24).astype(np.float32)
    one = metered([images]).compute()
    torch.set_num_threads(2)
    try:
        assert metered([images]).compute() == one
    finally:
        torch.set_num_threads(1)


def test_memory_does_not_grow_with_the_images(draw):
    def stored(meter):
        buffer = io.BytesIO()
        torch.save(flush(meter.state), buffer)
        return buffer.tell()

    images = draw(1024, height=24, width=24).astype(np.float32)
    few, many = metered([images]), metered([images] * 5)
    assert stored(many) - stored(few) < 4096 * 64


def test_few_images_are_judged_by_their_blocks(draw):
    images = draw(3, height=200, width=190)
    found = metered([images[:1], images[1:]], (2, 4, 8)).compute()
    assert found.blocks == 12
    assert found == metered([images], (2, 4, 8)).compute()
    assert not found.periods[4].undefined
    more = metered([images, *(images * s for s in np.linspace(0.5, 0.9, 5))], (2, 4, 8)).compute()
    assert more.blocks is None


def test_duplicates_are_counted(draw):
    images = draw(30).astype(np.uint8)
    found = measure(np.concatenate([images, images[:7]]))
    assert found.duplicates == 7
    odd = torch.from_numpy(np.ascontiguousarray(images[:, :, :5, :7]))
    assert len(marks(odd).unique()) == 30
    changed = odd.clone()
    changed[:, 0, 4, 6] += 1
    assert not (marks(changed) == marks(odd)).any()


def test_one_large_image_equals_its_blocks_in_cost_and_kind(draw):
    found = measure(draw(1, height=320, width=256).astype(np.uint8))
    assert found.blocks == 20 and found.images == 1
    assert all(period.undefined is None for period in found.periods.values())


GROWTH = """
import ctypes, resource, torch
from gen.analysis.measure import Meter
torch.set_num_threads(1)
meter = Meter((2,))
images = torch.randint(0, 256, (4096, 1, 12, 12), dtype=torch.uint8)
def memory():
    ctypes.CDLL(None).malloc_trim(0)  # what is freed already is not counted
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
for number in range(128):
    meter.update(images ^ number)
    before = memory() if number == 7 else before if number else 0
print((memory() - before) / (meter.images - 8 * 4096))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc what is in use")
def test_memory_grows_by_at_most_64_bytes_an_image():
    """Over half a million images; eight bytes are kept of each."""
    result = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True)
    assert float(result.stdout) <= 64, result
