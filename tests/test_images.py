"""Pixels in and out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gen.images import encode, encode_gif, make_grid, save_png, to_float, to_uint8
from gen.system.files import write_atomically


def test_every_gray_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats[0] == -1 and floats[255] == 1
    assert torch.equal(to_uint8(floats), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_holds_the_very_pixels(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    save_png(tmp_path / "x.png", image)
    read = np.asarray(Image.open(tmp_path / "x.png")).reshape(5, 7, channels)
    assert np.array_equal(read, image.permute(1, 2, 0).numpy())


def test_grid_tiles_can_be_cut_out_again():
    images = torch.randint(0, 255, (5, 3, 4, 6), dtype=torch.uint8)
    sheet = make_grid(images)
    assert sheet.shape == (3, 2 * 6 + 2, 3 * 8 + 2)
    for index, image in enumerate(images):
        top, left = 2 + index // 3 * 6, 2 + index % 3 * 8
        assert torch.equal(sheet[:, top : top + 4, left : left + 6], image)
    assert (sheet[:, :2] == 255).all() and (sheet[:, 8:12, 18:24] == 255).all()


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    import os

    target = tmp_path / "file"
    write_atomically(target, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_gif_keeps_gray_exactly_and_the_pace():
    frames = torch.randint(0, 256, (5, 1, 6, 7), dtype=torch.uint8)
    gif = Image.open(io.BytesIO(encode_gif(frames, 25)))
    assert gif.n_frames == 5 and gif.info["loop"] == 0
    for index, frame in enumerate(frames):
        gif.seek(index)
        assert gif.info["duration"] == 40
        assert np.array_equal(np.asarray(gif.convert("L")), frame[0].numpy())


def test_what_has_no_alpha_says_so():
    image = torch.zeros((4, 3, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match="no JPEG"):
        encode(image, ".jpg")
    with pytest.raises(ValueError, match="no GIF"):
        encode_gif([image], 20)
    with pytest.raises(ValueError, match="1/100 s"):
        encode_gif([image], 30)
