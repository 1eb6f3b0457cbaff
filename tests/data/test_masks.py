"""Images with masks: palette and gray indices, geometry shared with the image, every bad input."""

import numpy as np
import pytest
import torch
from PIL import Image

from gen.data.datasets import (
    BadImage,
    DataError,
    find_channels,
    find_mask_classes,
    load_dataset,
)
from gen.data.decode import decode_indices
from gen.images import encode_mask, palette

RNG = np.random.default_rng(0)


def write_image(path, size=(12, 10), seed=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_mask(torch.from_numpy(mask)))
    return mask


@pytest.fixture
def pairs(tmp_path):
    """Twelve pairs; the masks hold 0, 1, 2 and 255, half as palette and half as gray."""
    masks = []
    for i in range(12):
        write_image(tmp_path / "images" / f"{i:02d}.png", seed=i)
        mask = RNG.choice(np.array([0, 1, 2, 255], np.uint8), (12, 10))
        path = tmp_path / "masks" / f"{i:02d}.png"
        if i % 2:
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(path)
        else:
            write_mask(path, mask)
        masks.append(mask)
    return tmp_path, np.stack(masks)


def load(folder, size=(12, 10), classes=3, **options):
    return load_dataset(
        str(folder), root=folder, size=size, channels=3, mask_classes=classes, **options
    )


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_a_folder_pair_is_split_and_read(pairs, memory_limit):
    folder, masks = pairs
    train, test = (load(folder, split=s, memory_limit=memory_limit) for s in ("train", "test"))
    assert (len(train), len(test)) == (11, 1)
    np.testing.assert_array_equal(test.fetch([0]).masks, masks[[9]])  # every tenth
    batch = train.fetch(range(11))
    np.testing.assert_array_equal(batch.masks, np.delete(masks, 9, 0))
    assert batch.masks.dtype == batch.images.dtype == torch.uint8
    assert find_mask_classes(str(folder)) == 3
    assert find_channels(str(folder)) == 3


def test_a_generator_takes_the_images_alone(pairs):
    folder, _ = pairs
    (folder / "masks" / "00.png").write_text("spoiled")
    data = load(folder, classes=0)
    assert len(data) == 12
    assert data.fetch([0]).masks is None and data.classes == ()


def test_masks_are_fitted_like_their_images_and_mix_no_classes(tmp_path):
    """Where the image is white the mask is 7, whatever is cut off and however it is enlarged."""
    for name, shape in (("a", (20, 60)), ("b", (90, 30))):
        image = np.zeros((*shape, 3), np.uint8)
        image[: shape[0] // 2, : shape[1] // 3] = 255
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png", (image[..., 0] // 255 * 7).astype(np.uint8))
    for split in ("train", "test"):
        batch = load(tmp_path, (32, 40), classes=8, split=split).fetch([0])
        assert set(batch.masks.unique().tolist()) == {0, 7}
        white = batch.images[0].float().mean(0) > 127
        assert ((batch.masks[0] == 7) == white).float().mean() > 0.97


def test_masks_are_mirrored_with_their_images(pairs):
    batch = load(pairs[0]).fetch(range(4))
    which = torch.tensor([True, False, True, False])
    mirrored = batch.mirror(which)
    for i, turned in enumerate(which):
        expected = batch.masks[i].flip(-1) if turned else batch.masks[i]
        assert torch.equal(mirrored.masks[i], expected)
        expected = batch.images[i].flip(-1) if turned else batch.images[i]
        assert torch.equal(mirrored.images[i], expected)


def spoil_partner(folder):
    (folder / "masks" / "03.png").unlink()


def spoil_image_partner(folder):
    (folder / "images" / "03.png").unlink()


def spoil_size(folder):
    write_mask(folder / "masks" / "03.png", np.ones((10, 12), np.uint8))


def spoil_index(folder):
    write_mask(folder / "masks" / "03.png", np.full((12, 10), 3, np.uint8))


def spoil_color(folder):
    write_image(folder / "masks" / "03.png")


def spoil_format(folder):
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(folder / "masks" / "03.jpg")
    (folder / "masks" / "03.png").unlink()


def spoil_depth(folder):
    Image.fromarray(np.zeros((12, 10), np.uint16)).save(folder / "masks" / "03.png")


def spoil_bytes(folder):
    (folder / "masks" / "03.png").write_text("no image")


def spoil_stem(folder):
    write_image(folder / "images" / "03.bmp")


def spoil_empty(folder):
    for path in (folder / "masks").iterdir():
        path.unlink()


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_partner, r"images/03\.png: has no partner 03\.\* in .*masks$"),
        (spoil_image_partner, r"masks/03\.png: has no partner 03\.\* in .*images$"),
        (spoil_size, r"masks/03\.png: is of 10×12 pixels, its image of 12×10"),
        (spoil_index, r"masks/03\.png: holds index 3; of 3 classes it must be 0 … 2, or 255"),
        (spoil_color, r"masks/03\.png: a mask in PNG of mode RGB; masks are PNG of class indices"),
        (spoil_format, r"masks/03\.jpg: a mask in JPEG of mode L"),
        (spoil_depth, r"masks/03\.png: a mask in PNG of mode I;16"),
        (spoil_bytes, r"masks/03\.png: not a readable"),
        (spoil_stem, r"images/03\.png: of the same name as 03\.bmp; keep one"),
        (spoil_empty, r"masks: holds no images"),
    ],
)
def test_bad_pairs_are_one_line_before_training(pairs, memory_limit, spoil, said):
    spoil(pairs[0])
    with pytest.raises(DataError, match=said) as caught:
        load(pairs[0], memory_limit=memory_limit)
    assert "\n" not in str(caught.value)


def test_masks_of_background_alone_are_named(tmp_path):
    for i in range(2):
        write_image(tmp_path / "images" / f"{i}.png")
        write_mask(tmp_path / "masks" / f"{i}.png", np.full((12, 10), 255 * i, np.uint8))
    with pytest.raises(DataError, match=r"masks: masks hold no index but 0 \(255 is ignored\)"):
        find_mask_classes(str(tmp_path))


def test_one_pair_is_too_few(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", np.ones((12, 10), np.uint8))
    with pytest.raises(DataError, match="holds one pair; two are needed"):
        load(tmp_path)


def test_sets_without_masks_and_too_few_classes(tmp_path):
    write_image(tmp_path / "a.png")
    for name in (str(tmp_path), "mnist"):
        with pytest.raises(ValueError, match="has no masks; take shapes, oxford-pets, voc, or"):
            find_mask_classes(name)
        with pytest.raises(ValueError, match="has no masks"):
            load_dataset(name, root=tmp_path, size=(8, 8), channels=3, mask_classes=2)
    with pytest.raises(ValueError, match="classes is 3; shapes has 4"):
        load_dataset("shapes", root=tmp_path, size=(8, 8), channels=3, mask_classes=3)


def test_indices_count_and_not_the_colors(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(decode_indices(tmp_path / "a.png"), mask)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette().numpy()[mask])
    Image.fromarray(mask > 7).save(tmp_path / "b.png")  # one bit
    np.testing.assert_array_equal(decode_indices(tmp_path / "b.png"), mask > 7)


def test_the_palette_is_that_of_pascal_voc():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128),
             8: (64, 0, 0), 20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    colors = palette()
    assert {index: tuple(colors[index].tolist()) for index in known} == known
    assert len(colors.unique(dim=0)) == 256


# Named sets, from small copies of their layouts on disk


@pytest.fixture
def pets(tmp_path):
    """Oxford-IIIT Pet: trimaps of 1 (pet), 2 (around it) and 3 (between)."""
    base = tmp_path / "oxford-iiit-pet"
    trimaps = {}
    for part, names in (("trainval", ("Abyssinian_1", "beagle_2")), ("test", ("pug_3",))):
        rows = []
        for i, name in enumerate(names):
            write_image(base / "images" / f"{name}.jpg")
            trimap = RNG.integers(1, 4, (12, 10)).astype(np.uint8)
            (base / "annotations" / "trimaps").mkdir(parents=True, exist_ok=True)
            Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{name}.png")
            trimaps[name] = trimap
            rows.append(f"{name} {i + 1} 1 1\n")
        (base / "annotations" / f"{part}.txt").write_text("".join(rows))
    return tmp_path, trimaps


def test_oxford_pets(pets):
    root, trimaps = pets
    assert find_mask_classes("oxford-pets") == 2
    options = {"root": root, "size": (12, 10), "channels": 3}
    train = load_dataset("oxford-pets", mask_classes=2, **options)
    test = load_dataset("oxford-pets", mask_classes=2, split="test", **options)
    assert (len(train), len(test)) == (2, 1)
    meaning = np.array([0, 1, 0, 255])
    np.testing.assert_array_equal(train.fetch([1]).masks[0], meaning[trimaps["beagle_2"]])
    np.testing.assert_array_equal(test.fetch([0]).masks[0], meaning[trimaps["pug_3"]])
    assert load_dataset("oxford-pets", **options).fetch([0]).masks is None
    wrong = root / "oxford-iiit-pet" / "annotations" / "trimaps" / "pug_3.png"
    Image.fromarray(np.full((12, 10), 4, np.uint8)).save(wrong)
    with pytest.raises(BadImage, match="holds index 4; of 2 classes"):
        load_dataset("oxford-pets", mask_classes=2, split="test", **options)


def test_voc(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    masks = {}
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    for part, names in (("train", ("2007_000032", "2007_000039")), ("val", ("2007_000033",))):
        for name in names:
            write_image(base / "JPEGImages" / f"{name}.jpg")
            mask = RNG.choice(np.array([0, 5, 20, 255], np.uint8), (12, 10))
            masks[name] = write_mask(base / "SegmentationClass" / f"{name}.png", mask)
        (base / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
    assert find_mask_classes("voc") == 21
    options = {"root": tmp_path, "size": (12, 10), "channels": 3, "mask_classes": 21}
    train, val = (load_dataset("voc", split=split, **options) for split in ("train", "test"))
    np.testing.assert_array_equal(train.fetch([1]).masks[0], masks["2007_000039"])
    np.testing.assert_array_equal(val.fetch([0]).masks[0], masks["2007_000033"])


@pytest.mark.parametrize(
    ("name", "files"), [("voc", "VOCdevkit/VOC2012"), ("oxford-pets", "oxford-iiit-pet/images")]
)
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, name, files):
    for scheme in ("http_proxy", "https_proxy"):  # a port where nobody listens
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    with pytest.raises(DataError) as caught:
        load_dataset(name, root=tmp_path, size=(8, 8), channels=3, mask_classes=21)
    assert str(caught.value).startswith(f"cannot read or download {name}: ")
    assert f"put {files}" in str(caught.value) and "\n" not in str(caught.value)
