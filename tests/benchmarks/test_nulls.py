"""Every named kind of set draws whole gray levels of one size and is a function of its seed."""

import numpy as np
import pytest

from benchmarks.accuracy import nulls

LEAVES = [
    nulls.to_8_bit(nulls.dead_leaves(np.random.default_rng(k), 128, 150)[0]) for k in range(2)
]
KINDS = {
    **nulls.nulls(LEAVES, {"own": np.stack([p[:64, :64] for p in LEAVES] * 8)}),
    **nulls.worlds(LEAVES),
    "stripes": nulls.stripes(64),
    "lines of text": nulls.text(64, range(9, 20)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_set_is_a_function_of_its_seed(name):
    first, again, other = (KINDS[name](np.random.default_rng(seed), 6) for seed in (0, 0, 1))
    assert first.dtype == np.uint8
    assert first.shape[0] == 6 and first.shape[1] == first.shape[2] >= 28
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sizes_that_photographs_do_not_reach_are_left_out():
    assert "photographs ×1/2" in KINDS
    assert "photographs ×1/3" not in KINDS


def test_crops_refuse_images_that_are_too_small():
    with pytest.raises(ValueError, match="no image is as large as 256×256"):
        nulls.crops(LEAVES, 256)


def test_a_fixed_picture_is_shared():
    draw = nulls.fixed_picture(nulls.crops(LEAVES, 32), share=0.9)
    images = draw(np.random.default_rng(0), 50).astype(float)
    assert images.mean(0).var() > 10 * (images - images.mean(0)).var()


def test_letterbox_bars_are_black_in_every_image():
    images = nulls.letterboxed(nulls.crops(LEAVES, 64))(np.random.default_rng(0), 5)
    assert not images[:, :3].any() and not images[:, -3:].any()
    assert images[:, 20:40].any()


@pytest.mark.parametrize("name", nulls.CONFOUNDS)
def test_confounds_change_the_images(name):
    generator = np.random.default_rng(0)
    plain = nulls.crops(LEAVES, 64)(generator, 4).astype(float)
    changed = nulls.CONFOUNDS[name](plain, generator)
    assert changed.shape[1:] == ((63, 63) if name.startswith("crop") else (64, 64))
    assert changed.shape != plain.shape or np.abs(changed - plain).max() > 1
