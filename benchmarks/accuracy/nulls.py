"""Image sets without a grid, by name: the measurement must find nothing in them.

A `Draw` makes one set: `draw(generator, n)` returns n images (n, H, W) in whole gray levels, as a
PNG holds them. What a set has in common (a frame, a fixed picture, a pitch of lines) is drawn anew
for every set. `nulls` and `worlds` build the named kinds from photographs of yours:

    >>> photographs = [plane for plane in my_gray_images]            # (H, W) each, 0 … 255
    >>> for name, draw in nulls(photographs).items():
    ...     print(name, measure(draw(np.random.default_rng(0), 32)[:, None]).detected)
"""

from __future__ import annotations

import io
import string
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.generic]
Planes = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, int], Planes]
Change = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]


def to_8_bit(images: NDArray) -> Planes:
    """Round to whole gray levels and clip, as a PNG would hold them."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def crops(images: Sequence[Plane], size: int) -> Draw:
    """Random crops of gray images (H, W).

    Raises:
        ValueError: No image is as large as `size`.
    """
    large = [i for i in images if min(i.shape) >= size]
    if not large:
        raise ValueError(f"no image is as large as {size}×{size}: nothing to crop from")

    def draw(generator: np.random.Generator, count: int) -> Planes:
        out = np.empty((count, size, size), np.uint8)
        for crop, pick in zip(out, generator.integers(len(large), size=count), strict=True):
            top, left = (generator.integers(n - size + 1) for n in large[pick].shape)
            crop[:] = large[pick][top : top + size, left : left + size]
        return out

    return draw


def pick(images: Planes) -> Draw:
    """Different images of one data set (N, H, W)."""
    return lambda generator, count: images[generator.choice(len(images), count, replace=False)]


def downscaled(images: Sequence[Plane], factor: float) -> list[Planes]:
    """Gray images reduced by an antialiased bicubic filter."""
    from PIL import Image

    out = []
    for image in images:
        height, width = (round(n / factor) for n in image.shape)
        small = Image.fromarray(to_8_bit(image)).resize((width, height), Image.Resampling.BICUBIC)
        out.append(np.asarray(small))
    return out


def pink_noise(size: int, contrast: float = 40.0) -> Draw:
    """Gaussian noise with the amplitude spectrum 1/f of natural images."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    f[0, 0] = np.inf

    def draw(generator: np.random.Generator, count: int) -> Planes:
        white = np.fft.rfft2(generator.standard_normal((count, size, size)))
        images = np.fft.irfft2(white / f, s=(size, size))
        return to_8_bit(127.5 + contrast * images / images.std())

    return draw


def rectangles(size: int, count_per_image: int = 16) -> Draw:
    """Rectangles with sides on whole pixels, as in flat graphics."""

    def draw(generator: np.random.Generator, count: int) -> Planes:
        out = np.empty((count, size, size), np.uint8)
        for image in out:
            image[:] = generator.integers(256)
            for _ in range(count_per_image):
                top, left = generator.integers(-size // 4, size, 2)
                tall, wide = generator.integers(2, size // 2, 2)
                image[max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)] = (
                    generator.integers(256)
                )
        return out

    return draw


def text(size: int, distances: Sequence[int] = ()) -> Draw:
    """Dark words on light pages; with `distances` in lines, one distance for each set."""
    from PIL import Image, ImageDraw, ImageFont

    fonts = {height: ImageFont.load_default(height) for height in range(6, 22)}
    letters, side = list(string.ascii_letters), 3 * size

    def page(generator: np.random.Generator, distance: int) -> Planes:
        image = Image.new("L", (side, side), int(generator.integers(200, 256)))
        paint = ImageDraw.Draw(image)
        for line in range(0, side, distance):
            x = -int(generator.integers(20))
            while x < side:
                font = fonts[distance - 3 if distances else int(generator.integers(7, 22))]
                word = "".join(generator.choice(letters, generator.integers(2, 9)))
                y = line if distances else int(generator.integers(-10, side))
                paint.text((x, y), word, fill=int(generator.integers(0, 80)), font=font)
                x += int(font.getlength(word + " "))
        return np.asarray(image)

    def draw(generator: np.random.Generator, count: int) -> Planes:
        distance = int(generator.choice(distances or range(9, 20)))
        return crops([page(generator, distance) for _ in range(3)], size)(generator, count)

    return draw


def stripes(size: int) -> Draw:
    """Sinusoidal stripes of one period and direction per set, phase and strength by image."""

    def draw(generator: np.random.Generator, count: int) -> Planes:
        period, angle = generator.uniform(2.1, 24), generator.choice([0, 0.5, generator.random()])
        y, x = np.arange(size)[:, None], np.arange(size)
        along = (np.cos(np.pi * angle) * y + np.sin(np.pi * angle) * x) / period
        phase, depth = generator.random((count, 1, 1)), generator.uniform(5, 60, (count, 1, 1))
        waves = depth * np.cos(2 * np.pi * (along + phase))
        return to_8_bit(127.5 + waves + generator.normal(0, 2, waves.shape))

    return draw


def letterboxed(draw: Draw) -> Draw:
    """Black bars of one height per set above and below."""

    def boxed(generator: np.random.Generator, count: int) -> Planes:
        images, bar = draw(generator, count).copy(), int(generator.integers(3, 16))
        images[:, :bar] = images[:, -bar:] = 0
        return images

    return boxed


def framed(draw: Draw) -> Draw:
    """A frame of one width and brightness per set."""

    def boxed(generator: np.random.Generator, count: int) -> Planes:
        images, width, level = draw(generator, count).copy(), *generator.integers([2, 0], [9, 256])
        for _ in range(4):
            images[:, :width] = level
            images = images.swapaxes(1, 2)[:, ::-1]
        return images

    return boxed


def saturated(draw: Draw) -> Draw:
    """Contrast stretched until much of the image is black or white."""
    return lambda generator, count: to_8_bit(127.5 + 3.0 * (draw(generator, count) - 127.5))


def fixed_picture(draw: Draw, share: float, blur: float = 0.0) -> Draw:
    """Every image holds `share` of one picture, drawn anew for every set, and is itself else."""
    from scipy.ndimage import gaussian_filter

    def mixed(generator: np.random.Generator, count: int) -> Planes:
        picture = draw(generator, 1).astype(float)
        if blur:
            picture = gaussian_filter(picture, (0, blur, blur))
        return to_8_bit(share * picture + (1 - share) * draw(generator, count))

    return mixed


def shapes(size: int) -> Draw:
    """The package's shapes in gray."""
    from gen.data.shapes import render

    def draw(generator: np.random.Generator, count: int) -> Planes:
        seed = int(generator.integers(2**31))
        return render(seed, np.arange(count), (size, size), channels=1)[0][:, 0]

    return draw


def dead_leaves(
    generator: np.random.Generator, size: int = 256, disks: int = 600
) -> NDArray[np.float64]:
    """One grid-free test image (1, size, size): occluding disks, with photographs' 1/f² spectrum.

    Radii follow r⁻³ between 2 px and a third of the side, edges are soft over one pixel, centers
    are real numbers, so nothing is tied to the pixel grid (Lee, Mumford, Huang 2001). A little
    noise is the sensor's.
    """
    image = np.full((size, size), 127.5)
    radii = 1 / np.sqrt(generator.uniform(9 / size**2, 0.25, disks))
    for radius in radii:
        y, x = generator.uniform(-radius, size + radius, 2)
        rows = slice(max(int(y - radius) - 1, 0), max(int(y + radius) + 3, 0))
        columns = slice(max(int(x - radius) - 1, 0), max(int(x + radius) + 3, 0))
        dy, dx = np.arange(size)[rows, None] - y, np.arange(size)[columns] - x
        cover = np.clip(radius - np.hypot(dy, dx) + 0.5, 0, 1)
        image[rows, columns] += cover * (generator.uniform(20, 235) - image[rows, columns])
    return (image + generator.normal(0, 1, image.shape))[None]


def leaves(size: int, count: int = 8) -> Draw:
    """Crops of `count` dead-leaves images, synthetic photographs."""
    generator = np.random.default_rng(7)
    return crops([to_8_bit(dead_leaves(generator, 384, 1400)[0]) for _ in range(count)], size)


def nulls(
    photographs: Sequence[Plane], sets: dict[str, Planes] | None = None, size: int = 64
) -> dict[str, Draw]:
    """All kinds of sets without a grid and without a fixed picture, by name.

    Args:
        photographs: Gray images (H, W) that were never enlarged and never JPEG.
        sets: Data sets by name, gray (N, H, W), taken as they are.
        size: Side of the images that are cut or drawn.
    """
    photo = crops(photographs, size)
    kinds: dict[str, Draw] = {"photographs": photo}
    for factor, name in ((2, "2"), (3, "3"), (1.5, "1.5")):
        small = downscaled(photographs, factor)
        if max(min(image.shape) for image in small) >= size:
            kinds[f"photographs ×1/{name}"] = crops(small, size)
    kinds |= {
        "1/f noise": pink_noise(size),
        "dead leaves": leaves(size),
        "rectangles": rectangles(size),
        "text": text(size),
        "letterbox": letterboxed(photo),
        "frame": framed(photo),
        "saturated": saturated(photo),
        "shapes": shapes(32),
    }
    return kinds | {name: pick(images) for name, images in (sets or {}).items()}


def worlds(photographs: Sequence[Plane]) -> dict[str, Draw]:
    """Sets in which all images share a fixed picture, by name: sharp and blurred, four sizes."""
    return {
        f"{kind} {size} px, a = {share}": fixed_picture(crops(photographs, size), share, blur)
        for kind, blur in (("sharp", 0.0), ("blurred", 1.5))
        for size in (28, 32, 48, 64)
        for share in (0.5, 0.9)
    }


def _jpeg(images: NDArray, generator: np.random.Generator) -> NDArray:
    from PIL import Image

    out = np.empty(images.shape)
    for target, image in zip(out, to_8_bit(images), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        target[:] = np.asarray(Image.open(buffer))
    return out


def _blur(images: NDArray, generator: np.random.Generator) -> NDArray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, (0, 0.6, 0.6))


CONFOUNDS: dict[str, Change] = {
    "noise": lambda x, g: x + 4 * g.standard_normal(x.shape),
    "blur": _blur,
    "sharpening": lambda x, g: 2 * x - _blur(x, g),
    "contrast": lambda x, g: 127.5 + 1.3 * (x - 127.5),
    "JPEG 90": _jpeg,
    "crop by 1 px": lambda x, g: x[:, 1:, 1:],
}
