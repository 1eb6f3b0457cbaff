import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import gen.data.decode as decode_room
from gen.data.decode import (
    BadImage,
    DataError,
    check,
    convert_channels,
    decode,
    decode_frames,
    list_images,
    read_headers,
)
from tests.conftest import link, make_pipe
from tests.corpus import PHOTO, chunk, encoded, png

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (12, 16, 3), np.uint8)
GRAY = RNG.integers(0, 256, (12, 16), np.uint8)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# What files hold, and what becomes of it


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_lossless_files_are_read_exactly_whatever_their_suffix(tmp_path, kind, suffix):
    options = {"lossless": True} if kind == "webp" else {}
    path = written(tmp_path / f"a{suffix}", encoded(COLOR, kind, **options))
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, COLOR)
    check(path)


def test_gray_stays_gray_and_converts(tmp_path):
    path = written(tmp_path / "a.png", encoded(GRAY))
    np.testing.assert_array_equal(decode(path), GRAY[..., None])
    np.testing.assert_array_equal(decode(path, channels=3), np.repeat(GRAY[..., None], 3, 2))
    rgba = decode(path, channels=4)
    np.testing.assert_array_equal(rgba[..., :3], np.repeat(GRAY[..., None], 3, 2))
    assert (rgba[..., 3] == 255).all()


def test_luma_is_rec_601(tmp_path):
    path = written(tmp_path / "a.png", encoded(COLOR))
    expected = np.rint(COLOR @ np.array([0.299, 0.587, 0.114]))
    assert decode(path, channels=1).shape == (12, 16, 1)
    np.testing.assert_allclose(decode(path, channels=1)[..., 0], expected, atol=1)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path, kind):
    values = np.array([[0, 1, 255, 256], [257, 32768, 65534, 65535]], np.uint16)
    pixels = decode(written(tmp_path / "a.png", encoded(values, kind)))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[..., 0], values / 257, rtol=1e-6)


@pytest.mark.parametrize(("color", "count"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_color_and_alpha_keep_all_bits(tmp_path, color, count):
    values = RNG.integers(0, 65536, (1, 5, count)).astype(">u2")
    path = written(tmp_path / "a.png", png(5, 1, 16, color, b"\0" + values.tobytes()))
    levels = values / 257
    if count == 3:
        np.testing.assert_allclose(decode(path), levels, rtol=1e-6)
        return
    shown, alpha = levels[..., :-1], levels[..., -1:]
    np.testing.assert_allclose(decode(path, channels=4)[..., -1:], alpha, rtol=1e-6)
    np.testing.assert_allclose(decode(path), 255 + (shown - 255) * alpha / 255, rtol=1e-5)


def test_the_transparent_color_of_16_bit_color_is_exact(tmp_path):
    values = np.array([[[9, 700, 3], [9, 700, 4]]], ">u2")  # alike in their upper 8 bits
    rows, key = b"\0" + values.tobytes(), chunk(b"tRNS", values[0, 0].tobytes())
    pixels = decode(written(tmp_path / "a.png", png(2, 1, 16, 2, rows, key)))
    np.testing.assert_allclose(pixels[0], [[255] * 3, values[0, 1] / 257], atol=1e-4)


def test_16_bit_color_is_turned_upright(tmp_path):
    values = RNG.integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    turned = Image.Exif()
    turned[0x0112] = 6
    exif = chunk(b"eXIf", turned.tobytes()[6:])
    path = written(tmp_path / "a.png", png(5, 4, 16, 2, rows, exif))
    np.testing.assert_allclose(decode(path), np.rot90(values / 257, -1), rtol=1e-6)
    assert read_headers(path)[0].size == (5, 4)


def test_16_bit_big_endian_tiff(tmp_path):
    values = np.array([[0, 1000], [40000, 65535]], ">u2")
    tags = {256: 2, 257: 2, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 8}
    directory = struct.pack(">H", len(tags))
    for tag, value in tags.items():
        directory += struct.pack(">HHI", tag, 4, 1) + struct.pack(">I", value)
    data = b"MM\x00\x2a" + struct.pack(">I", 16) + values.tobytes() + directory + bytes(4)
    pixels = decode(written(tmp_path / "a.tif", data))
    np.testing.assert_allclose(pixels[..., 0], values / 257, rtol=1e-6)


def test_32_bit_integers_are_16_bit_images_or_refused(tmp_path):
    inside = np.array([[0, 65535]], np.int32)
    pixels = decode(written(tmp_path / "a.tif", encoded(inside, "tiff")))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 255]])
    outside = written(tmp_path / "b.tif", encoded(np.array([[-1, 70000]], np.int32), "tiff"))
    with pytest.raises(BadImage, match=r"b.tif: holds values -1 … 70000; .* \[0, 65535\]"):
        decode(outside)


def test_float_tiff_lies_in_0_to_1(tmp_path):
    values = np.array([[0, 0.1, 0.5, 1]], np.float32)
    pixels = decode(written(tmp_path / "a.tif", encoded(values, "tiff")), channels=3)
    np.testing.assert_allclose(pixels, np.repeat(values[..., None] * 255, 3, 2), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.1, 1.5, 255])
def test_other_floats_are_refused(tmp_path, value):
    values = np.array([[0, 0.5, value]], np.float32)
    with pytest.raises(BadImage, match=r"holds values .* must lie in"):
        decode(written(tmp_path / "a.tif", encoded(values, "tiff")))


def test_colors_hidden_under_alpha_do_not_show(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0] = [[255, 0, 0, 0], [255, 0, 0, 255], [255, 0, 0, 51]]
    path = written(tmp_path / "a.png", encoded(pixels))
    np.testing.assert_array_equal(decode(path)[0], [[255] * 3, [255, 0, 0], [255, 204, 204]])
    blue = decode(path, background=(0, 0, 255))
    np.testing.assert_array_equal(blue[0], [[0, 0, 255], [255, 0, 0], [51, 0, 204]])
    np.testing.assert_array_equal(decode(path, channels=1)[0, :, 0], [255, 76, 219])
    np.testing.assert_array_equal(decode(path, channels=4), pixels)


def test_gray_with_alpha(tmp_path):
    pixels = np.array([[[0, 0], [0, 255], [100, 51]]], np.uint8)
    path = written(tmp_path / "a.png", encoded(pixels))
    np.testing.assert_array_equal(decode(path)[0, :, 0], [255, 0, 224])
    assert decode(path).shape == (1, 3, 1)
    green = decode(path, channels=3, background=(0, 255, 0))
    np.testing.assert_array_equal(green[0], [[0, 255, 0], [0, 0, 0], [20, 224, 20]])
    np.testing.assert_array_equal(
        decode(path, channels=4)[0], [[0] * 4, [0, 0, 0, 255], [100, 100, 100, 51]]
    )


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    for name, transparency, first in (
        ("opaque", None, [255, 0, 0]),
        ("index", 0, [255, 255, 255]),
        ("table", b"\x33\xff\xff", [255, 204, 204]),
    ):
        path = tmp_path / f"{name}.png"
        image.save(path, **({} if transparency is None else {"transparency": transparency}))
        np.testing.assert_array_equal(decode(path)[0], [first, [0, 255, 0], [0, 0, 255]])


def test_a_transparent_color_is_transparency(tmp_path):
    gray16 = Image.fromarray(np.array([[0, 65535]], np.uint16))
    for name, image, key, expected in (
        ("rgb", Image.new("RGB", (1, 1), (9, 8, 7)), (9, 8, 7), [[255, 255, 255]]),
        ("gray", Image.new("L", (1, 1), 9), 9, [[255]]),
        ("bits", Image.new("1", (1, 1), 0), 0, [[255]]),
        ("gray16", gray16, 0, [[255], [255]]),
    ):
        image.save(tmp_path / f"{name}.png", transparency=key)
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.png")[0], expected)


def test_one_bit(tmp_path):
    bits = GRAY > 127
    path = written(tmp_path / "a.png", encoded(bits))
    np.testing.assert_array_equal(decode(path)[..., 0], bits * 255)


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk(tmp_path, kind):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :, 0] = 255  # cyan
    image = Image.merge("CMYK", [Image.fromarray(inks[..., i]) for i in range(4)])
    image.save(tmp_path / "a.jpg", kind)
    np.testing.assert_allclose(
        decode(tmp_path / "a.jpg"), np.full((16, 16, 3), [0, 255, 255]), atol=4
    )


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_orientation(tmp_path, kind, depth):
    """The eight cases as EXIF 2.32 words them: what row 0 and column 0 of the file show."""
    if kind == "webp" and depth == 16:
        pytest.skip("WebP has 8 bits")
    upright = GRAY if depth == 8 else GRAY.astype(np.uint16) * 256
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.T,  # left, top
        6: upright[:, ::-1].T,  # right, top
        7: upright[::-1, ::-1].T,  # right, bottom
        8: upright[::-1].T,  # left, bottom
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "webp" else {}
        path = tmp_path / f"{orientation}.{kind}"
        path.write_bytes(encoded(np.ascontiguousarray(pixels), kind, exif=exif, **options))
        decoded = decode(path, channels=1)[..., 0]
        np.testing.assert_allclose(decoded, upright / (1 if depth == 8 else 257), rtol=1e-6)


def test_exif_orientation_of_a_jpeg(tmp_path):
    corner = np.zeros((32, 48), np.uint8)
    corner[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(
        tmp_path / "a.jpg", encoded(np.ascontiguousarray(np.rot90(corner)), "jpeg", exif=exif)
    )
    np.testing.assert_allclose(decode(path)[..., 0], corner, atol=8)


@pytest.mark.filterwarnings("default")
def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    data = encoded(PHOTO, "jpeg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    assert decode(written(tmp_path / "a.jpg", data)).shape == PHOTO.shape
    entry = struct.pack("<HHI4s", 0x0112, 2, 4, b"up\0\0")  # an orientation in letters
    exif = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    data = encoded(PHOTO, exif=exif)
    np.testing.assert_array_equal(decode(written(tmp_path / "b.png", data)), PHOTO)


@pytest.mark.parametrize("kind", ["tif", "png", "webp", "gif"])
def test_every_frame_is_an_image(tmp_path, kind):
    pixels = [np.repeat(shade[..., :1], 3, 2) for shade in (COLOR, 255 - COLOR, COLOR // 2)]
    first, *others = map(Image.fromarray, pixels)
    path = tmp_path / f"a.{kind}"
    first.save(
        path, save_all=True, append_images=others, **{"lossless": True} if kind == "webp" else {}
    )
    headers = read_headers(path)
    assert [(h.size, h.frame) for h in headers] == [((12, 16), n) for n in range(3)]
    found = decode_frames(path, range(3), channels=1)
    np.testing.assert_array_equal(np.stack(found)[..., 0], np.stack(pixels)[..., 0])
    (last,) = decode_frames(path, range(2, 3), channels=1)
    np.testing.assert_array_equal(last, found[2])
    for look in (decode, check):
        with pytest.raises(BadImage, match="holds 3 frames; write each to a file of its own"):
            look(path)


def test_pages_have_their_own_size_and_limit(tmp_path):
    pages = [Image.new("L", size) for size in ((16, 12), (200, 100))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [h.size for h in read_headers(tmp_path / "a.tif")] == [(12, 16), (100, 200)]
    with pytest.raises(BadImage, match="200 × 100 pixels, more than 19999"):
        read_headers(tmp_path / "a.tif", max_pixels=19_999)
    with pytest.raises(BadImage, match="200 × 100 pixels, more than 19999"):
        decode_frames(tmp_path / "a.tif", range(2), max_pixels=19_999)


def test_odd_channel_counts_are_refused():
    with pytest.raises(ValueError, match="channels is 2, must be 1, 3 or 4"):
        convert_channels(COLOR, 2)


# Files that are no images


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(BadImage, match=match) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("png", {}),
        ("jpeg", {}),
        ("jpeg", {"progressive": True}),
        ("bmp", {}),
        ("webp", {}),
        ("webp", {"lossless": True}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("tiff", {"compression": "jpeg"}),
    ],
)
def test_truncated_files(tmp_path, kind, options, part):
    whole = encoded(PHOTO, kind, **options)
    assert decode(written(tmp_path / "whole", whole)).shape == PHOTO.shape
    cut = written(tmp_path / "cut", whole[: int(len(whole) * part)])
    refused(cut)
    with pytest.raises(BadImage):
        check(cut)


@pytest.mark.parametrize("kind", ["ico", "ppm", "tga", "eps", "jpeg2000", "pcx"])
def test_only_the_listed_formats_are_opened(tmp_path, kind):
    path = written(tmp_path / "a.png", encoded(COLOR, kind))
    refused(path, "not a readable PNG, JPEG, BMP, WebP, TIFF or GIF image")
    with pytest.raises(BadImage):
        check(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<html>404</html>", b"BM"])
def test_no_image_at_all(tmp_path, data):
    refused(written(tmp_path / "a.png", data))


def test_folders_and_missing_files(tmp_path):
    refused(tmp_path, "[Dd]irectory")
    refused(tmp_path / "none.png", "No such file")


@pytest.mark.parametrize("size", [(20_000, 10_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)])
def test_a_huge_header_is_refused_before_decoding(tmp_path, size):
    path = written(tmp_path / "bomb.png", png(*size, 8, 2, bytes(1 << 16)))
    refused(path, "pixels")
    for look in (check, read_headers):
        with pytest.raises(BadImage, match="pixels"):
            look(path)


def test_the_limit_on_pixels_is_exact(tmp_path):
    path = written(tmp_path / "a.png", encoded(COLOR))
    assert decode(path, max_pixels=192).shape == (12, 16, 3)
    for look in (decode, check, read_headers):
        with pytest.raises(BadImage, match="16 × 12 pixels, more than 191 allowed; --max-image"):
            look(path, max_pixels=191)


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(COLOR, kind) for kind in ("png", "bmp", "webp", "tiff")]
    files += [encoded(GRAY.astype(np.uint16) * 257, kind) for kind in ("png", "tiff")]
    files += [encoded(COLOR, "jpeg", exif=exif), encoded(COLOR, "tiff", compression="tiff_lzw")]
    files += [encoded(COLOR, "png", mode="P"), encoded(GRAY / np.float32(255), "tiff")]
    return files


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes_give_pixels_or_bad_image(originals, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(originals)))
    places = st.integers(0, min(len(content) - 1, 400)) | st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    cut = data.draw(st.none() | st.integers(0, len(content)))
    path = written(tmp_path / "fuzzed.png", bytes(content[:cut]))
    try:
        pixels = decode(path, max_pixels=1 << 20)
    except BadImage as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
        assert pixels.dtype in (np.uint8, np.float32)
        assert 0 <= pixels.min() <= pixels.max() <= 255  # NaN fails


# Folders


def test_images_are_listed_by_relative_path(tmp_path):
    for name in ("b/2.PNG", "b/10.png", "a.jpeg", "a/x.tif", "B.webp", "notes.txt", ".a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for folder in (".hidden", "folder.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".hidden" / "a.png").touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["B.webp", "a.jpeg", "a/x.tif", "b/10.png", "b/2.PNG"]


def test_linked_files_and_folders_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "real" / "a.png").touch()
    link(tmp_path / "set" / "cats", tmp_path / "real")
    link(tmp_path / "set" / "b.png", tmp_path / "real" / "a.png")
    link(tmp_path / "real" / "loop", tmp_path / "set")
    names = [path.relative_to(tmp_path / "set") for path in list_images(tmp_path / "set")]
    assert names == [Path("b.png"), Path("cats/a.png")]


def test_dangling_links_are_named(tmp_path):
    link(tmp_path / "gone.png", tmp_path / "nowhere.png")
    (path,) = list_images(tmp_path)
    refused(path, "dangling link; remove it")


CUT_WHILE_READ = """
import sys, threading, time
from pathlib import Path
from gen.data import decode as room
path, load = Path(sys.argv[1]), room._pixels
def cut():
    time.sleep(0.03)
    with path.open("r+b") as file:
        file.truncate(100)
def pixels(image):
    threading.Thread(target=cut).start()
    return load(image)
room._pixels = pixels
try:
    room.decode(path)
except room.BadImage as error:
    print("refused")
else:
    print("read before it was cut")
"""


def test_a_file_cut_while_it_is_read_does_not_kill_the_process(tmp_path):
    """Of a TIFF that libtiff has mapped, bytes that are gone are a bus error.

    The cut may also come too early or too late to meet the decoder: then this proves less.
    """
    noise = RNG.integers(0, 256, (2000, 2000, 3), np.uint8)
    path = written(tmp_path / "a.tif", encoded(noise, "tiff", compression="tiff_lzw"))
    result = subprocess.run(
        [sys.executable, "-c", CUT_WHILE_READ, str(path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_no_decoder_is_handed_a_descriptor_to_map(tmp_path, monkeypatch):
    """What the test above needs luck to see: Pillow passes libtiff a descriptor if it finds one."""
    path = written(tmp_path / "a.tif", encoded(PHOTO, "tiff", compression="tiff_lzw"))
    looked, load = [], decode_room._pixels

    def look(image):
        with pytest.raises(OSError, match="not to be mapped"):
            image.fp.fileno()
        looked.append(image.format)
        return load(image)

    monkeypatch.setattr(decode_room, "_pixels", look)
    decode(path)
    assert looked == ["TIFF"]


def test_a_pipe_is_not_waited_for(tmp_path):
    make_pipe(tmp_path / "a.png")
    refused(tmp_path / "a.png", "not a file")


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match=r"holds no images \(bmp, gif, jpeg, jpg, png"):
        list_images(tmp_path)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match="holds no images"):
        list_images(tmp_path)
    for path in (tmp_path / "none", tmp_path / "readme.txt"):
        with pytest.raises(DataError, match="no such folder"):
            list_images(path)


MODES = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2, "1": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    mode=st.sampled_from(sorted(MODES)),
    kind=st.sampled_from(["png", "tiff"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_good_image_is_read_as_pillow_shows_it(tmp_path, mode, kind, size, orientation, seed):
    """Whatever its mode, size and orientation; composited by an independent formula."""
    levels = np.random.default_rng(seed).integers(0, 256, (*size, 4), np.uint8)
    image = Image.fromarray(levels).convert(mode)
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "a", kind, exif=image.getexif())
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    alpha = np.asarray(upright)[..., 3:] / 255
    expected = np.asarray(upright)[..., :3] * alpha + np.array([9, 99, 199]) * (1 - alpha)
    pixels = decode(tmp_path / "a", channels=3, background=(9, 99, 199))
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, expected, atol=0.5001)
    assert read_headers(tmp_path / "a")[0].size == expected.shape[:2]
