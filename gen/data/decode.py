"""Safe image loading: any bytes give pixels or one `BadImage` line that names the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gen.data import archives
from gen.images import LUMA
from gen.system.errors import GenError, InputError
from gen.system.files import open_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from PIL import Image

Color = tuple[int, int, int]
ImageFile = Path | archives.Member

WHITE: Color = (255, 255, 255)
MAX_PIXELS = 178_956_970  # where Pillow itself speaks of a decompression bomb
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
MAX_FRAMES = 100_000
_PNG_COLOR = {0: False, 2: True, 4: False, 6: True}  # type of color → whether there is color
_GRAY = ("1", "L", "LA", "La", "F")  # Pillow modes without color; those of 16 bits start with I
_DEEP = ("RGB;16B", "RGBA;16B", "LA;16B")  # raw modes of PNG
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # EXIF tag; from this value on the sides change places


class DataError(GenError):
    """The data in the world is not as it must be; one line that says what and where."""


class BadImage(DataError):
    """A file cannot be taken as an image; the line starts with its path."""


@dataclass(frozen=True)
class Header:
    """One frame of an image file: (H, W) when upright, and whether it has color."""

    path: ImageFile
    size: tuple[int, int]
    color: bool
    frame: int = 0


def list_images(folder: Path) -> list[Path]:
    """List the image files below a folder, by suffix, sorted by relative POSIX path.

    Names that start with a dot are skipped; linked folders are followed, each folder once. What the
    files hold is not looked at. Raises DataError for a folder that is missing, unreadable or
    without images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link back up would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES]
    _need_images(found, folder)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def list_files(path: Path) -> list[ImageFile]:
    """The image files of a folder or of an archive, or the one file.

    Raises:
        DataError: nothing there, no image in it, or an archive that cannot be read safely.
    """
    if path.is_dir():
        return [*list_images(path)]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not archives.is_archive(path):
        return [path]
    try:
        members = archives.list_members(path)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {' '.join(str(reason).split())}") from error
    found = [member for member in members if member.suffix.lower() in SUFFIXES]
    _need_images(found, path)
    return [*found]


def _need_images(found: list, path: Path) -> None:
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise DataError(f"{path}: holds no images ({kinds})")


def decode(
    path: ImageFile,
    *,
    channels: int | None = None,
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode one image to gray levels on the [0, 255] scale, (H, W, C).

    The result is uint8, or float32 where the file holds more than 8 bits: 16-bit values are divided
    by 257, float TIFF must lie in [0, 1] and is multiplied by 255. (Of color TIFF of 16 bits
    Pillow, the only reader here, gives the upper 8.) EXIF orientation is applied.

    Args:
        path: PNG, JPEG, BMP, WebP, TIFF or GIF; what the bytes hold counts, not the suffix.
        channels: 1 (Rec. 601 luma), 3 (RGB), 4 (RGB and alpha), or None: 1 for gray files, 3 for
            color files.
        background: RGB color under transparent pixels, unless channels is 4.
        max_pixels: limit on W·H, checked in the header.

    Raises:
        BadImage: whatever is wrong with the file, or several frames.
    """
    with _opened(path, max_pixels) as image:
        _need_one_frame(image)
        return convert_channels(_pixels(image), channels, background)


def decode_frames(
    path: ImageFile,
    frames: range,
    *,
    channels: int | None = None,
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> list[np.ndarray]:
    """Decode some frames of a file, as `decode` does: pages of TIFF, frames of an animation."""
    found = []
    with _opened(path, max_pixels) as image:
        for frame in frames:
            _seek(image, frame, max_pixels)
            found.append(convert_channels(_pixels(image), channels, background))
    return found


def _seek(image: Image.Image, frame: int, max_pixels: int) -> None:
    if frame or _frames(image) > 1:
        image.seek(frame)
        _check_pixels(image, max_pixels)


def _frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def _need_one_frame(image: Image.Image) -> None:
    if (frames := _frames(image)) > 1:
        raise InputError(f"holds {frames} frames; write each to a file of its own")


def decode_indices(path: Path) -> np.ndarray:
    """Decode a mask, a PNG whose pixels are class indices, to uint8 (H, W).

    Of a palette the indices count, not the colors; gray levels are indices as they are.

    Raises:
        BadImage: another format, color, more than eight bits, or a file that cannot be read.
    """
    with _opened(path, MAX_PIXELS) as image:
        if image.format != "PNG" or image.mode not in ("P", "L", "1"):
            raise InputError(
                f"a mask in {image.format} of mode {image.mode}; masks are PNG of class indices: "
                "a palette (P) or 8-bit gray (L)"
            )
        return np.asarray(image).astype(np.uint8)


def check(path: ImageFile, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise BadImage where `decode` would; JPEG is decoded at an eighth of its size, for speed."""
    with _opened(path, max_pixels) as image:
        _need_one_frame(image)
        image.draft(None, (1, 1))
        _pixels(image)


def read_headers(path: ImageFile, *, max_pixels: int = MAX_PIXELS) -> list[Header]:
    """Read only the header of each frame.

    Raises:
        BadImage: another format, an oversized image, or too many frames.
    """
    if isinstance(path, Path) and (plain := _plain_png(path, max_pixels)):
        return [plain]
    with _opened(path, max_pixels) as image:
        if (frames := _frames(image)) > MAX_FRAMES:
            raise InputError(f"holds {frames} frames; at most {MAX_FRAMES} are read")
        if image.format != "TIFF":  # all frames have the size of the first, and mostly its colors
            return [_header(path, image, frame) for frame in range(frames)]
        found = []
        for frame in range(frames):
            _seek(image, frame, max_pixels)
            found.append(_header(path, image, frame))
        return found


def _plain_png(path: Path, max_pixels: int) -> Header | None:
    """The header of a PNG whose pixels follow at once, by far the most common; None for others.

    A fifth of the time that Pillow takes: folders of small images are read twice as fast.
    """
    try:
        descriptor = open_descriptor(path)
        try:
            start = os.read(descriptor, 41)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    if start[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or start[37:41] != b"IDAT":
        return None
    width, height, _, kind = struct.unpack(">2L2B", start[16:26])
    known = zlib.crc32(start[12:29]) == int.from_bytes(start[29:33], "big") and kind in _PNG_COLOR
    if not known or not 0 < width * height <= max_pixels:
        return None
    return Header(path, (height, width), _PNG_COLOR[kind])


def _header(path: ImageFile, image: Image.Image, frame: int) -> Header:
    width, height = image.size
    turned = False  # Pillow gives TIFF's upright size, and would read all of a PNG for its EXIF
    if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
        turned = _FIRST_TURNED <= _orientation(image) <= 8
    color = image.mode not in _GRAY and not image.mode.startswith("I")
    return Header(path, (width, height) if turned else (height, width), color, frame)


def describe_skipped(bad: list[str], total: int) -> str:
    """One line on bad images that were left out, each described by its error."""
    return f"{len(bad)} of {total} images skipped as unreadable; the first: {bad[0]}"


def convert_channels(
    pixels: np.ndarray, channels: int | None, background: Color = WHITE
) -> np.ndarray:
    """Convert pixels (…, C) of 1 gray, 2 gray + alpha, 3 RGB or 4 RGBA channels, 0 … 255.

    To 1, 3 or 4 channels, or for None to 1 (from gray) or 3 (from color); alpha is composited on
    `background` unless it is kept. The type stays; uint8 is rounded.
    """
    if channels not in (None, 1, 3, 4):
        raise InputError(f"channels is {channels}, must be 1, 3 or 4")
    color, alpha = np.split(pixels, [pixels.shape[-1] - 1 + pixels.shape[-1] % 2], axis=-1)
    channels = channels or color.shape[-1]
    if channels > color.shape[-1] == 1:
        color = np.repeat(color, 3, axis=-1)
    if channels == 4:
        if not alpha.size:
            alpha = np.full_like(color[..., :1], 255)
        return np.concatenate([color, alpha], axis=-1)
    if alpha.size:
        under = np.asarray(background, np.float32)
        under = under if color.shape[-1] == 3 else _luma(under)
        color = _as_type(under + (color - under) * (alpha / np.float32(255)), pixels.dtype)
    if channels < color.shape[-1]:
        color = _as_type(_luma(color), pixels.dtype)
    return color


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Rec. 601 luma, float32 (…, 1)."""
    weights = np.array(LUMA, np.float32)
    return (rgb * weights).sum(-1, keepdims=True, dtype=np.float32)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(values) if dtype == np.uint8 else values).astype(dtype)


class _Unmapped(io.FileIO):
    """A descriptor that libtiff cannot map: a file cut while it is mapped kills the process."""

    def fileno(self) -> int:
        """Raise OSError, upon which Pillow reads."""
        raise io.UnsupportedOperation("not to be mapped")


@contextmanager
def _opened(path: ImageFile, max_pixels: int) -> Iterator[Image.Image]:
    """Image with its header read; every error inside the block becomes BadImage."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # one limit for the whole process; ours is set call by call
    try:
        with _file(path) as file, Image.open(file, formats=_FORMATS) as image:
            _check_pixels(image, max_pixels)
            yield image
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not a readable PNG, JPEG, BMP, WebP, TIFF or GIF image") from None
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, KeyError, …
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadImage(f"{path}: {' '.join(reason.split())}") from error


def _file(path: ImageFile) -> BinaryIO:
    if isinstance(path, archives.Member):
        return path.open()
    if path.is_symlink() and not path.exists():
        raise InputError("dangling link; remove it or restore its target")
    # An open file, not its path: by path Pillow 13 maps raw TIFFs, those turned by 90° askew.
    return io.BufferedReader(_Unmapped(open_descriptor(path)))


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{width} × {height} pixels, more than {max_pixels} allowed; "
            "--max-image-pixels sets the limit"
        )


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, C), upright, with as many channels as the file has: 1, 2 (alpha), 3 or 4."""
    deep = image.format == "PNG" and _raw_mode(image) in _DEEP and _frames(image) == 1
    if deep and image.mode in ("RGB", "RGBA"):
        pixels = _with_key(_color_of_16_bits(image), image)
    else:
        image.load()
        gray = image.mode in _GRAY
        if image.mode == "F":
            pixels = _scaled(np.asarray(image)[..., None], 1, "a float image")
        elif image.mode.startswith("I"):
            pixels = _with_key(np.asarray(image)[..., None], image)
        elif image.has_transparency_data:
            pixels = np.asarray(image.convert("LA" if gray else "RGBA"))
        else:
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
    return _upright(pixels.reshape(*image.size[::-1], -1), _orientation(image))


def _raw_mode(image: Image.Image) -> str:
    return str(image.tile[0].args) if image.tile else ""


def _color_of_16_bits(image: Image.Image) -> np.ndarray:
    """All bits of a PNG of color or alpha, (H, W, C) uint16, of which Pillow would keep eight.

    Pillow takes the first byte of each value of `RGB;16B`, and of `RGB;16L` the second; gray and
    alpha of 16 bits are as long as four channels of eight.
    """
    from PIL import Image

    file, raw = image.fp, _raw_mode(image)
    if raw == "LA;16B":
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        return np.asarray(image).view(">u2")
    first = np.asarray(image).astype(np.uint16)
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as again:
        again.tile = [tile._replace(args=raw.replace("16B", "16L")) for tile in again.tile]
        return first << 8 | np.asarray(again)


def _with_key(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """16-bit values on the [0, 255] scale, with an alpha plane if one color is transparent."""
    scaled = _scaled(values, 65535, "a 16-bit image")
    if "transparency" not in image.info:
        return scaled
    opaque = (values != image.info["transparency"]).any(-1, keepdims=True)
    return np.concatenate([scaled, opaque * np.float32(255)], axis=-1)


def _scaled(values: np.ndarray, white: int, what: str) -> np.ndarray:
    """Values 0 … white as float32 on the [0, 255] scale; refused outside, and NaN."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # NaN fails too
        raise InputError(f"holds values {low} … {high}; {what} must lie in [0, {white}]")
    return (values * (255 / white)).astype(np.float32)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 … 8; EXIF data that cannot be read is taken as absent."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged tag says nothing about the pixels
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the eight orientations of EXIF 2.32: transposed from 5 on, then mirrored."""
    if _FIRST_TURNED <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}") from error
