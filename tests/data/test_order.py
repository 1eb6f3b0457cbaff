import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.batches import batches
from gen.data.datasets import Batch, load_dataset
from gen.data.order import epoch_order, flips, hash64, step_indices
from tests.conftest import PATIENCE


def test_hash64_is_splitmix64():
    """First output of the reference generator (Vigna, splitmix64.c) seeded with 0, and a chain."""
    assert int(hash64(0)[0]) == 0xE220A8397B1DCDAF
    np.testing.assert_array_equal(hash64(1, np.arange(3))[2:], hash64(1, 2))
    assert len({int(hash64(*keys)[0]) for keys in [(1, 2), (2, 1), (1,), (2,), (1, 2, 0)]}) == 5


def test_hash64_is_uniform_bit_by_bit():
    values = hash64(3, 1, np.arange(1 << 16))
    for bit in range(64):
        ones = int(((values >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(ones - (1 << 15)) < 5 * 128  # 5 standard deviations


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_an_epoch_takes_each_image_once(n):
    orders = [epoch_order(0, epoch, n) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(n))
    if n == 1000:
        assert (orders[0] != orders[1]).mean() > 0.9
        assert (epoch_order(1, 0, n) != orders[0]).mean() > 0.9
    with pytest.raises(ValueError, match="read-only"):
        orders[0][0] = 0


def test_order_is_fixed_for_all_time():
    """Runs must resume under later versions of this code."""
    assert epoch_order(0, 0, 10).tolist() == [1, 6, 5, 4, 8, 3, 7, 9, 2, 0]
    assert flips(0, 0, np.arange(10)).astype(int).tolist() == [1, 0, 0, 0, 1, 0, 0, 1, 0, 1]


def test_steps_cut_the_epoch_and_drop_another_rest_each_time():
    rests = []
    for epoch in range(4):
        taken = [step_indices(0, step, 10, 3) for step in range(3 * epoch, 3 * epoch + 3)]
        assert [e for e, _ in taken] == [epoch] * 3
        joined = np.concatenate([indices for _, indices in taken])
        np.testing.assert_array_equal(joined, epoch_order(0, epoch, 10)[:9])
        rests.append(int(epoch_order(0, epoch, 10)[9]))
    assert len(set(rests)) > 1


def test_flips_are_fair_and_independent_of_order_and_epoch():
    n = 20_000
    first, second = flips(0, 0, np.arange(n)), flips(0, 1, np.arange(n))
    assert abs(first.mean() - 0.5) < 0.02
    assert abs((first == second).mean() - 0.5) < 0.02
    np.testing.assert_array_equal(flips(0, 0, epoch_order(0, 0, n)), first[epoch_order(0, 0, n)])
    early = first[epoch_order(0, 0, n)[: n // 2]]  # the order must not sort by the coin
    assert abs(early.mean() - 0.5) < 0.02


def shapes(count: int = 50, **more):
    return load_dataset("shapes", root=Path(), size=(8, 8), channels=3, count=count, **more)


def equal(a: Batch, b: Batch) -> bool:
    pairs = ((a.images, b.images), (a.labels, b.labels), (a.masks, b.masks))
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_batches_resume_exactly_at_any_step(memory_limit, prefetch):
    whole = list(itertools.islice(batches(shapes(), batch_size=16, seed=4, flip=True), 8))
    data = shapes(memory_limit=memory_limit)
    assert data.in_memory == (memory_limit > 0)
    for start in (0, 2, 3, 5):
        resumed = batches(
            data, batch_size=16, seed=4, start_step=start, flip=True, prefetch=prefetch
        )
        for expected, got in zip(whole[start:], resumed, strict=False):
            assert equal(expected, got)
        resumed.close()


def test_flip_mirrors_images_and_masks_together():
    data = shapes()
    plain = next(batches(data, batch_size=50, seed=1))
    flipped = next(batches(data, batch_size=50, seed=1, flip=True))
    mirrored = torch.from_numpy(flips(1, 0, step_indices(1, 0, 50, 50)[1]))
    assert 0 < mirrored.sum() < 50
    for i in range(50):
        turn = (lambda x: x.flip(-1)) if mirrored[i] else (lambda x: x)
        assert torch.equal(flipped.images[i], turn(plain.images[i]))
        assert torch.equal(flipped.masks[i], turn(plain.masks[i]))
    assert torch.equal(flipped.labels, plain.labels)


@pytest.mark.parametrize("batch_size", [51, 0, -1])
def test_a_batch_larger_than_the_set_is_refused_at_once(batch_size):
    with pytest.raises(ValueError, match=f"batch size is {batch_size}, must be 1 … 50"):
        batches(shapes(), batch_size=batch_size, seed=0)


def prefetchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("prefetch")}


def test_closing_ends_the_thread():
    before = prefetchers()  # other tests may have left some
    stream = batches(shapes(memory_limit=0), batch_size=8, seed=0)
    next(stream)
    (started,) = prefetchers() - before
    stream.close()
    started.join(PATIENCE)
    assert not started.is_alive()


def test_an_error_while_reading_ahead_arrives_at_its_batch(tmp_path):
    from PIL import Image

    from gen.data.datasets import BadImage

    for index in range(8):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index}.png")
    data = load_dataset(str(tmp_path), root=tmp_path, size=(8, 8), channels=1, memory_limit=0)
    third = int(step_indices(0, 2, 8, 1)[1][0])
    (tmp_path / f"{third}.png").write_bytes(b"spoiled after the check")
    before = prefetchers()
    stream = batches(data, batch_size=1, seed=0)
    for step in range(2):
        assert next(stream).images.flatten()[0] == step_indices(0, step, 8, 1)[1][0]
    with pytest.raises(BadImage, match=f"{third}.png"):
        next(stream)
    assert prefetchers() <= before
