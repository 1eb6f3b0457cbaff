import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen.data.decode import BadImage, DataError
from gen.data.stream import Selection, Sheet, open_stream
from gen.images import make_grid
from tests.conftest import PATIENCE

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def read(path: Path, **choices) -> tuple[np.ndarray, list[str]]:
    stream = open_stream(path, Selection(**choices))
    images = np.concatenate(list(stream.batches))
    assert images.shape[1:] == stream.shape
    return images, stream.said()


@pytest.fixture
def folder(tmp_path):
    """Three hundred color images in two subfolders: more than one batch."""
    pixels = noise(300, 9, 14, 3)
    for index, image in enumerate(pixels):
        save(tmp_path / "set" / "ab"[index >= 150] / f"{index:03d}.png", image)
    return tmp_path / "set", pixels.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("workers", [1, 5])
def test_a_folder_comes_whole_and_in_order(folder, workers):
    path, expected = folder
    images, notes = read(path, workers=workers)
    assert images.dtype == np.uint8 and notes == []
    np.testing.assert_array_equal(images, expected)


def test_few_images_are_held_at_once(folder, monkeypatch):
    """The stream decodes little ahead of its reader: constant memory."""
    from gen.data import stream as module

    decoded = []
    monkeypatch.setattr(
        module,
        "decode_frames",
        lambda path, *a, real=module.decode_frames, **k: (
            decoded.append(path) or real(path, *a, **k)
        ),
    )
    monkeypatch.setattr(module, "_MAX_BATCH", 10)
    batches = iter(open_stream(folder[0], Selection(workers=2)).batches)
    assert len(next(batches)) == 10
    assert len(decoded) < 80


def test_an_abandoned_stream_leaves_no_threads(folder):
    before = set(threading.enumerate())  # other tests may have left some
    stream = open_stream(folder[0], Selection(workers=3))
    next(iter(stream.batches))
    started = set(threading.enumerate()) - before
    assert [thread.name for thread in started if "decode" in thread.name]
    del stream
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_max_images_takes_the_first(folder):
    path, expected = folder
    stream = open_stream(path, Selection(max_images=160))
    assert stream.count == 160
    np.testing.assert_array_equal(np.concatenate(list(stream.batches)), expected[:160])


def test_the_most_frequent_size_is_taken_and_the_rest_noted(tmp_path):
    for index in range(8):
        size = (20, 24) if index in (1, 3) else (8, 8) if index == 2 else (16, 18)
        save(tmp_path / f"{index}.png", noise(*size, 3))
    images, notes = read(tmp_path)
    assert images.shape == (5, 3, 16, 18)
    assert notes == ["3 of 8 images left out: of other sizes than 16×18: 2 of 20×24, 1 of 8×8"]
    assert read(tmp_path, size=(20, 24))[0].shape == (2, 3, 20, 24)
    with pytest.raises(
        DataError, match=r"holds 5 of 16×18, 2 of 20×24, 1 of 8×8, not an image of 7×7"
    ):
        read(tmp_path, size=(7, 7))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_size_is_that_of_the_upright_image(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / f"a.{suffix}", noise(16, 24), exif=exif)
    save(tmp_path / f"b.{suffix}", noise(24, 16))
    images, notes = read(tmp_path)
    assert images.shape == (2, 1, 24, 16) and not notes


def test_gray_stays_gray_unless_one_image_is_in_color(tmp_path):
    gray = noise(8, 8)
    save(tmp_path / "a.png", gray)
    save(tmp_path / "b.png", noise(8, 8))
    assert read(tmp_path)[0].shape == (2, 1, 8, 8)
    save(tmp_path / "c.png", noise(8, 8, 3))
    images, _ = read(tmp_path)
    assert images.shape == (3, 3, 8, 8)
    np.testing.assert_array_equal(images[0], np.repeat(gray[None], 3, 0))
    assert read(tmp_path, channels=1)[0].shape == (3, 1, 8, 8)


def test_color_of_images_left_out_does_not_count(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png", noise(8, 8))
    save(tmp_path / "c.png", noise(9, 9, 3))
    assert read(tmp_path)[0].shape == (2, 1, 8, 8)


def test_palette_and_transparency_are_color_on_white(tmp_path):
    Image.fromarray(noise(8, 8, 3)).quantize(16).save(tmp_path / "a.png")
    clear = np.dstack([noise(8, 8, 3), np.zeros((8, 8), np.uint8)])
    save(tmp_path / "b.png", clear)
    images, _ = read(tmp_path)
    assert images.shape == (2, 3, 8, 8)
    assert (images[1] == 255).all()


def test_sixteen_bits_keep_their_precision(tmp_path):
    deep = RNG.integers(0, 65536, (8, 8)).astype(np.uint16)
    save(tmp_path / "a.png", deep)
    save(tmp_path / "b.png", noise(8, 8))
    images, _ = read(tmp_path)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[0, 0], deep / 257, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
def test_float_arrays_are_scaled_not_rounded(tmp_path, low, high):
    values = RNG.uniform(low, high, (5, 3, 8, 9)).astype(np.float32)
    values[0, 0, 0, :2] = low, high
    np.save(tmp_path / "a.npy", values)
    images, _ = read(tmp_path / "a.npy")
    assert images.dtype == np.float32
    expected = (values.astype(np.float64) - low) * 255 / (high - low)
    np.testing.assert_allclose(images, expected, atol=1e-4)


def test_arrays_of_bytes_are_exact_and_writable(tmp_path):
    pixels = noise(600, 8, 9)
    np.savez(tmp_path / "a.npz", images=pixels)
    np.save(tmp_path / "a.npy", pixels)
    for name in ("a.npz", "a.npy"):
        batches = list(open_stream(tmp_path / name).batches)
        assert len(batches) == 3 and all(batch.flags.writeable for batch in batches)
        np.testing.assert_array_equal(np.concatenate(batches)[:, 0], pixels)
    assert len(read(tmp_path / "a.npy", max_images=7)[0]) == 7
    with pytest.raises(DataError, match="holds images of 8×9, not of 8×8"):
        open_stream(tmp_path / "a.npy", Selection(size=(8, 8)))


# Sheets


@pytest.mark.parametrize("gap", [0, 2, 5])
@pytest.mark.parametrize("size", [(32, 32), (13, 21)])
def test_a_sheet_gives_back_what_was_laid_on_it(tmp_path, size, gap):
    """`make_grid` is the independent inverse; a last row with two empty cells."""
    import torch

    tiles = torch.from_numpy(noise(10, 3, *size))
    sheet = make_grid(tiles, columns=4, gap=gap).permute(1, 2, 0).numpy()
    save(tmp_path / "sheet.png", sheet)
    images, notes = read(tmp_path / "sheet.png", sheet=Sheet(size, gap))
    np.testing.assert_array_equal(images, tiles.numpy())
    assert notes == ["2 of 12 images left out: tiles of one flat color (empty cells)"]


def test_several_sheets_and_a_limit(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png", noise(2 * 12, 3 * 10, 3))
    stream = open_stream(tmp_path, Selection(Sheet((12, 10))))
    assert stream.count == 12 and len(np.concatenate(list(stream.batches))) == 12
    assert len(read(tmp_path, sheet=Sheet((12, 10)), max_images=8)[0]) == 8


@pytest.mark.parametrize("sheet", [Sheet((32, 32), 3), Sheet((30, 32), 2), Sheet((512, 512))])
def test_a_wrong_tile_or_gap_is_refused_with_the_file(tmp_path, sheet):
    save(tmp_path / "sheet.png", noise(70, 70, 3))  # 2 × 2 tiles of 32 with gaps of 2
    with pytest.raises(DataError, match=r"sheet.png: a side of 70 pixels is not made of tiles of"):
        open_stream(tmp_path / "sheet.png", Selection(sheet))
    assert len(read(tmp_path / "sheet.png", sheet=Sheet((32, 32), 2))[0]) == 4


def test_images_of_the_tile_size_are_tiles(tmp_path):
    save(tmp_path / "a.png", noise(32, 32, 3))
    save(tmp_path / "b.png", noise(70, 70, 3))
    assert len(read(tmp_path, sheet=Sheet((32, 32), 2))[0]) == 5


# What is wrong with the world


def test_bad_files_are_named_or_counted(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png", noise(16, 16, 3))
    (tmp_path / "d.png").write_text("no image")
    with pytest.raises(BadImage, match=r"d\.png: not a readable"):
        open_stream(tmp_path)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])  # its header is whole
    images, notes = read(tmp_path, skip_bad=True)
    assert len(images) == 2
    assert notes[0].startswith("2 of 4 images left out: unreadable; the first: ")
    assert "d.png: not a readable" in notes[0]
    (tmp_path / "d.png").unlink()
    with pytest.raises(BadImage, match=r"a\.png"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["missing", "empty", "text.txt"])
def test_no_images_at_all(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("words")
    with pytest.raises(DataError, match=name):
        open_stream(tmp_path / name)


def test_only_bad_files(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"1 of 1 images left out: .*a\.png: not .*a readable"):
        open_stream(tmp_path, Selection(skip_bad=True))


# Several sizes


def test_a_crop_begins_on_the_lattice(tmp_path):
    pixels = {f"{side}": noise(side, side + 9) for side in (40, 53, 30)}
    for name, image in pixels.items():
        save(tmp_path / f"{name}.png", image)
    images, said = read(tmp_path, crop=(32, 32), lattice=8)
    np.testing.assert_array_equal(images[0, 0], pixels["40"][0:32, 8:40])
    np.testing.assert_array_equal(images[1, 0], pixels["53"][8:40, 8:40])
    assert said == ["1 of 3 images left out: smaller than 32×32: 1 of 30×39"]
    np.save(tmp_path / "a.npy", pixels["53"][None])
    images, _ = read(tmp_path / "a.npy", crop=(32, 32), lattice=8)
    np.testing.assert_array_equal(images[0, 0], pixels["53"][8:40, 8:40])


def test_all_sizes_that_hold_a_block_come_size_by_size(tmp_path):
    sides = [70, 100, 70, 20, 100, 64]
    for number, side in enumerate(sides):
        save(tmp_path / f"{number}.png", noise(side, side))
    stream = open_stream(tmp_path, Selection(most=64))
    assert stream.several and stream.shape == (1, 64, 64)
    assert [batch.shape for batch in stream.batches] == [
        (2, 1, 70, 70), (2, 1, 100, 100), (1, 1, 64, 64)
    ]  # fmt: skip
    assert stream.said() == ["1 of 6 images left out: smaller than 64×64: 1 of 20×20"]


def test_pages_of_a_stack_are_images(tmp_path):
    pages = noise(70, 20, 24)
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    images, said = read(tmp_path / "stack.tif")
    np.testing.assert_array_equal(images[:, 0], pages)
    assert said == []


# Arrays as they are


@pytest.mark.parametrize(
    ("shape", "found", "words"),
    [
        ((20, 24, 3), (1, 3, 20, 24), "read as one picture (H, W, C)"),
        ((3, 20, 24), (1, 3, 20, 24), "read as one picture (C, H, W); store three gray ones as"),
        ((20, 24), (1, 1, 20, 24), "read as one gray picture"),
        ((5, 20, 24, 3), (5, 3, 20, 24), "uint8 is read as 0 (black) to 255 (white)"),
        ((5, 20, 24), (5, 1, 20, 24), "uint8"),
    ],
)
def test_arrays_are_read_as_they_are_and_it_is_said(tmp_path, shape, found, words):
    np.save(tmp_path / "a.npy", noise(*shape))
    images, said = read(tmp_path / "a.npy")
    assert images.shape == found and words in said[0]
    assert "is read as 0 (black) to 255 (white)" in said[-1]


def test_three_by_three_is_a_question(tmp_path):
    np.save(tmp_path / "a.npy", noise(3, 20, 3))
    with pytest.raises(DataError, match="one picture or three"):
        open_stream(tmp_path / "a.npy")


def test_deep_and_overshooting_arrays(tmp_path):
    levels = RNG.integers(0, 65536, (4, 8, 9), np.uint16)
    np.save(tmp_path / "a.npy", levels)
    images, said = read(tmp_path / "a.npy")
    np.testing.assert_allclose(images[:, 0], levels / 257, rtol=1e-5)
    assert said == ["uint16 is read as 0 (black) to 65535 (white)"]
    half = RNG.uniform(0, 1, (4, 8, 9)).astype(np.float16)
    half[0, 0, 0] = 1.004
    np.save(tmp_path / "a.npy", half)
    images, said = read(tmp_path / "a.npy")
    assert images.max() == 255
    assert said[0].startswith("float16 is read as 0 (black) to 1 (white); its values 0.0")
    assert said[0].endswith("… 1.0039062 are clipped")
    np.save(tmp_path / "a.npy", half * 1.5)
    with pytest.raises(DataError, match="must be finite and in"):
        open_stream(tmp_path / "a.npy")
