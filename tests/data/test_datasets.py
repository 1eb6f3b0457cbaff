import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gen.data import shapes
from gen.data.arrays import _memory
from gen.data.batches import batches
from gen.data.datasets import DATASETS, BadImage, DataError, find_channels, load_dataset
from gen.data.sources import resize_and_crop
from tests.conftest import link, make_pipe
from tests.corpus import write_idx

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
RNG = np.random.default_rng(0)


def load(name, root=Path(), size=(8, 8), channels=3, **options):
    return load_dataset(str(name), root=root, size=size, channels=channels, **options)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def random_images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


# Named sets, from files in their own formats


@pytest.fixture
def digits(tmp_path):
    """A root with 12 training and 5 test images in MNIST's and Fashion-MNIST's files."""
    sets = {}
    for part, count in (("train", 12), ("t10k", 5)):
        sets[part] = random_images(count, 28, 28), np.arange(count).astype(np.uint8) % 10
        for folder in ("MNIST", "FashionMNIST"):
            raw = tmp_path / folder / "raw"
            write_idx(raw / f"{part}-images-idx3-ubyte", sets[part][0])
            write_idx(raw / f"{part}-labels-idx1-ubyte", sets[part][1])
    return tmp_path, sets


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(("split", "part"), [("train", "train"), ("test", "t10k")])
def test_mnist(digits, name, split, part):
    root, sets = digits
    pixels, labels = sets[part]
    data = load(name, root, (28, 28), 1, split=split)
    assert (len(data), data.name, len(data.classes)) == (len(pixels), name, 10)
    batch = data.fetch([3, 0, 3])
    assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
    np.testing.assert_array_equal(batch.images[:, 0], pixels[[3, 0, 3]])
    np.testing.assert_array_equal(batch.labels, labels[[3, 0, 3]])
    assert batch.masks is None
    assert data.classes[0] == ("0" if name == "mnist" else "T-shirt/top")


def test_digits_are_padded_to_larger_sizes_and_resized_to_smaller_ones(digits):
    root, sets = digits
    larger = load("mnist", root, (32, 35), 3).fetch(range(12)).images
    np.testing.assert_array_equal(larger[:, 1, 2:30, 3:31], sets["train"][0])
    assert larger.sum() == 3 * sets["train"][0].sum(dtype=int)
    for size in ((14, 14), (64, 20)):
        smaller = load("mnist", root, size, 1).fetch(range(12)).images
        for image, original in zip(smaller, sets["train"][0], strict=True):
            np.testing.assert_array_equal(
                image[0], resize_and_crop(original[..., None], size)[..., 0]
            )


def test_a_damaged_set_is_one_line(digits):
    root, _ = digits
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=r"^cannot read or download mnist: .*put MNIST/raw/\*-ubyte below"
    ):
        load("mnist", root)


def write_cifar10(root: Path, kind, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = random_images(6, 32, 32, 3), np.array([3, 1, 9, 0, 3, 7])
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = pixels.transpose(0, 3, 1, 2).reshape(6, -1)
    batch = {"data": rows, "labels": labels.tolist()}
    (folder / "one").write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    monkeypatch.setattr(kind, "train_list", [["one", None]])
    monkeypatch.setattr(kind, "test_list", [])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "label_names", "md5": None})
    return pixels, labels


def write_svhn(root: Path, kind, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import savemat

    pixels, labels = random_images(6, 32, 32, 3), np.array([3, 1, 9, 10, 3, 7])
    savemat(root / "train.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": labels[:, None]})
    monkeypatch.setitem(kind.split_list, "train", ["", "train.mat", None])
    return pixels, labels % 10  # the files say 10 for a 0


def write_stl10(root: Path, kind, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = random_images(6, 96, 96, 3), np.array([3, 1, 9, 0, 3, 7])
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "X").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
    (folder / "y").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(10)))
    monkeypatch.setattr(kind, "train_list", [["X", None], ["y", None]])
    monkeypatch.setattr(kind, "test_list", [])
    return pixels, labels


@pytest.mark.parametrize(
    ("name", "kind", "write"),
    [
        ("cifar10", "CIFAR10", write_cifar10),
        ("svhn", "SVHN", write_svhn),
        ("stl10", "STL10", write_stl10),
    ],
)
def test_color_sets(tmp_path, monkeypatch, name, kind, write):
    """The real readers on small files; only the checksums of the published files are left out."""
    from torchvision import datasets

    pixels, labels = write(tmp_path, getattr(datasets, kind), monkeypatch)
    data = load(name, tmp_path, pixels.shape[1:3])
    batch = data.fetch(range(6))
    np.testing.assert_array_equal(batch.images, pixels.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(batch.labels, labels)
    assert len(data.classes) == 10


def test_celeba(tmp_path, monkeypatch):
    from torchvision.datasets import CelebA

    folder = tmp_path / "celeba"
    faces = random_images(4, 218, 178, 3)
    names = [f"{i}.png" for i in range(4)]
    for name, face in zip(names, faces, strict=True):
        save(folder / "img_align_celeba" / name, face)
    for file, header in (
        ("list_eval_partition.txt", ""),
        ("identity_CelebA.txt", ""),
        ("list_bbox_celeba.txt", "4\nbox\n"),
        ("list_landmarks_align_celeba.txt", "4\neye\n"),
        ("list_attr_celeba.txt", "4\nyoung\n"),
    ):
        rows = [f"{name} {2 * (i == 1)}\n" for i, name in enumerate(names)]
        (folder / file).write_text(header + "".join(rows))
    monkeypatch.setattr(CelebA, "file_list", [])
    data = load("celeba", tmp_path, (218, 178))
    assert (len(data), data.classes) == (3, ())
    batch = data.fetch(range(3))
    np.testing.assert_array_equal(batch.images, faces[[0, 2, 3]].transpose(0, 3, 1, 2))
    assert batch.labels is None


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    for scheme in ("http_proxy", "https_proxy"):  # a port where nobody listens
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    with pytest.raises(DataError) as caught:
        load("svhn", tmp_path)
    assert str(caught.value).startswith("cannot read or download svhn: ")
    assert f"put train_32x32.mat and test_32x32.mat below {tmp_path} by hand" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_real_digits():
    if not (DATA / "MNIST").is_dir():
        pytest.skip(f"no real MNIST in {DATA}")
    train, test = (load("mnist", DATA, (28, 28), 1, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.fetch([0]).labels.item() == 5  # the famous first digit
    assert abs(train.fetch(range(60_000)).images.float().mean() / 255 - 0.1307) < 1e-4


# Shapes


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_shapes_are_what_render_draws(memory_limit):
    data = load("shapes", size=(12, 9), channels=4, seed=3, count=300, memory_limit=memory_limit)
    assert len(data.fetch([]).images) == 0
    data.fetch([17, 40])
    batch = data.fetch([299, 0, 17, 0])  # one that was drawn before, and one twice
    images, labels, masks = shapes.render(3, [299, 0, 17, 0], (12, 9), 4)
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.masks, masks)
    assert (len(data), data.classes) == (300, ("circle", "square", "triangle"))


def test_shapes_have_20_000_images_and_another_test_split():
    train, test = (load("shapes", split=split) for split in ("train", "test"))
    assert len(train) == len(test) == 20_000
    assert (train.fetch(range(99)).images != test.fetch(range(99)).images).any()


# Folders


@pytest.fixture
def folder(tmp_path):
    """Two classes in subfolders, one of them nested, and a class without images."""
    for index, name in enumerate(("cat/b.png", "cat/a.png", "ant/deep/c.png", "ant/d.png")):
        save(tmp_path / name, np.full((8, 8), index, np.uint8))
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_subfolders_are_classes(folder, memory_limit, workers):
    data = load(folder, channels=1, memory_limit=memory_limit, workers=workers)
    assert data.in_memory == (memory_limit > 0)
    assert data.classes == ("ant", "cat")
    batch = data.fetch(range(4))
    assert batch.images[:, 0, 0, 0].tolist() == [3, 2, 1, 0]  # ant/d, ant/deep/c, cat/a, cat/b
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert data.name == folder.name


def test_a_flat_folder_has_no_labels(folder):
    save(folder / "e.png", np.zeros((8, 8), np.uint8))
    data = load(folder)
    assert (len(data), data.classes, data.fetch([0]).labels) == (5, (), None)


def test_images_of_many_kinds_and_sizes_become_one(tmp_path):
    save(tmp_path / "a.png", np.full((100, 40), 32768, np.uint16))
    save(tmp_path / "b.png", np.full((5, 7, 4), (255, 0, 0, 0), np.uint8))
    save(tmp_path / "c.tif", np.full((1, 90), 0.2, np.float32))
    images = load(tmp_path, size=(16, 24)).fetch(range(3)).images
    assert images.shape == (3, 3, 16, 24)
    assert [set(image.unique().tolist()) for image in images] == [{128}, {255}, {51}]


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_a_file_that_is_no_image_is_named_before_training(folder, memory_limit):
    (folder / "cat" / "aa.png").write_text("not an image")
    with pytest.raises(BadImage, match=r"cat/aa\.png: not a readable"):
        load(folder, memory_limit=memory_limit)


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_a_truncated_file_is_named_before_training(folder, memory_limit):
    path = folder / "cat" / "aa.png"
    data = save(path, random_images(40, 40, 3)).read_bytes()
    path.write_bytes(data[: len(data) // 2])  # its header is whole
    with pytest.raises(BadImage, match=r"cat/aa\.png: "):
        load(folder, memory_limit=memory_limit)


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize("workers", [1, 3])
def test_skipping_bad_images_equals_a_set_without_them(tmp_path, memory_limit, workers):
    """Pixels, labels, order and mirroring are functions of the good images alone."""
    for index, image in enumerate(random_images(30, 8, 8, 3)):
        for name in ("mixed", "clean"):
            save(tmp_path / name / f"class{index % 3}" / f"{index:02d}.png", image)
    for place in ("class0/000.png", "class0/99.jpg", "class1/13a.png"):
        (tmp_path / "mixed" / place).write_bytes(b"\x89PNG\r\n\x1a\n")
    link(tmp_path / "mixed" / "class2" / "zz.png", tmp_path / "nowhere")
    mixed, clean = (
        load(tmp_path / n, memory_limit=memory_limit, workers=workers, skip_bad=n == "mixed")
        for n in ("mixed", "clean")
    )
    assert (len(mixed), mixed.classes) == (len(clean), clean.classes) == (30, clean.classes)
    assert not clean.notes and len(mixed.notes) == 1
    assert mixed.notes[0].startswith("4 of 34 images skipped as unreadable; the first: ")
    assert "class0/000.png: not a readable PNG" in mixed.notes[0]
    streams = [batches(s, batch_size=7, seed=5, flip=True) for s in (mixed, clean)]
    for _, ours, theirs in zip(range(9), *streams, strict=False):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    for stream in streams:
        stream.close()


def test_nothing_but_bad_images_is_an_error(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text("no image")
    with pytest.raises(DataError, match=r"2 of 2 images skipped as unreadable; .*a\.png: not a"):
        load(tmp_path, skip_bad=True)
    with pytest.raises(DataError, match="2 of 2 images"):
        find_channels(str(tmp_path), skip_bad=True)


def test_channels_are_those_of_the_first_good_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    save(tmp_path / "b.png", np.zeros((8, 8), np.uint8))
    save(tmp_path / "c.png", np.zeros((8, 8, 3), np.uint8))
    assert find_channels(str(tmp_path), skip_bad=True) == 1
    with pytest.raises(BadImage, match=r"a\.png"):
        find_channels(str(tmp_path))


def test_background_and_size_limit_reach_files_and_arrays(tmp_path):
    clear = np.full((2, 8, 8, 4), (9, 9, 9, 0), np.uint8)
    save(tmp_path / "set" / "a.png", clear[0])
    np.save(tmp_path / "a.npy", clear)
    for path in (tmp_path / "set", tmp_path / "a.npy"):
        images = load(path, background=(1, 2, 3)).fetch([0]).images
        assert images[0].amax((1, 2)).tolist() == [1, 2, 3]
    for memory_limit in (0, 1 << 30):
        with pytest.raises(BadImage, match="8 × 8 pixels, more than 63 allowed"):
            load(tmp_path / "set", max_pixels=63, memory_limit=memory_limit)


def test_progress_counts_up_to_the_end(tmp_path):
    for index in range(300):
        save(tmp_path / f"{index}.png", np.zeros((8, 8), np.uint8))
    seen = []
    for memory_limit in (0, 1 << 30):
        load(tmp_path, memory_limit=memory_limit, on_progress=lambda *now: seen.append(now))
    assert seen == [(256, 300), (300, 300)] * 2


def test_memory_limit_is_in_bytes(folder):
    assert load(folder, memory_limit=4 * 3 * 64).in_memory
    assert not load(folder, memory_limit=4 * 3 * 64 - 1).in_memory


# Arrays


@pytest.mark.parametrize("shape", [(9, 10, 12), (9, 10, 12, 3), (9, 3, 10, 12), (9, 10, 12, 1)])
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint8, 0, 255), (np.float32, 0, 1), (np.float64, -1, 1), (np.float16, 0, 255)],
)
def test_arrays_of_any_layout_and_scale(tmp_path, shape, dtype, low, high):
    levels = random_images(*shape)
    levels.flat[:2] = 0, 255
    values = (levels / 255 * (high - low) + low).round(6).astype(dtype)
    if dtype == np.uint8:
        values = levels
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", values)
    expected = levels[..., None] if levels.ndim == 3 else levels
    if shape[1] != 3:
        expected = expected.transpose(0, 3, 1, 2)
    for name in ("a.npy", "a.npz"):
        for memory_limit in (0, 1 << 30):
            data = load(tmp_path / name, size=(10, 12), memory_limit=memory_limit)
            images = data.fetch([8, 0, 3]).images.numpy().astype(int)
            wanted = np.broadcast_to(expected[[8, 0, 3]], images.shape)
            np.testing.assert_allclose(images, wanted, atol=0)


def test_labels_of_an_npz(tmp_path):
    labels = np.array([2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", images=random_images(4, 8, 8), labels=labels)
    data = load(tmp_path / "a.npz")
    assert data.classes == ("0", "1", "2")
    np.testing.assert_array_equal(data.fetch(range(4)).labels, labels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((1, 4, 3, 8, 8))}, r"8\), must be \(N, H, W\), \(N, H, W, C\)"),
        ({"images": np.zeros((4, 3, 8, 3))}, r"has shape \(4, 3, 8, 3\)"),
        ({"images": np.zeros((4, 8, 8, 2))}, r"has shape \(4, 8, 8, 2\)"),
        ({"images": np.zeros((0, 8, 8))}, "holds no images"),
        ({"images": np.zeros((4, 8, 8), np.int64)}, "holds int64, must be uint8, uint16 or float"),
        ({"images": np.full((4, 8, 8), 300.0)}, r"holds values 300 … 300, must be finite"),
        ({"images": np.linspace(-1, 9, 64).reshape(1, 8, 8)}, r"holds values -1 … 9"),
        ({"images": np.full((4, 8, 8), np.nan)}, "holds values nan … nan"),
        ({"images": np.full((4, 8, 8), None)}, "allow_pickle"),
        ({"a": np.zeros((4, 8, 8)), "b": np.zeros((4, 8, 8))}, "holds arrays a, b; call one"),
        ({"x": np.zeros((4, 8, 8)), "labels": np.zeros(3, int)}, "labels must be 4 integers"),
        ({"x": np.zeros((4, 8, 8)), "labels": np.full(4, -1)}, "labels must be 4 integers"),
        ({"x": np.zeros((4, 8, 8)), "labels": np.full(4, 10**12)}, "integers from 0 to 65535"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "a.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: ")


def test_an_archive_that_inflates_beyond_memory_is_refused(tmp_path, monkeypatch):
    """A zip of 50 kB that holds 50 MB; refused by what its directory says, not by trying."""
    monkeypatch.setattr("gen.data.arrays._memory", lambda: 60_000_000)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, np.zeros((50, 1000, 1000), np.uint8))
    assert path.stat().st_size < 60_000
    with pytest.raises(DataError, match=r"bomb.npz: arr_0 unpacks to 50,000,128 bytes, .*as .npy"):
        load(path)
    np.savez_compressed(path, np.zeros((29, 1000, 1000), np.uint8))
    assert len(load(path)) == 29


def test_the_memory_of_this_machine_is_known():
    assert 1 << 28 < _memory() < 1 << 50


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", b"hello")
    with pytest.raises(DataError, match="images is no array"):
        load(tmp_path / "a.npz")


def test_one_nan_late_in_a_large_array_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("gen.data.arrays._CHUNK", 64)
    values = np.full((5, 8, 8), 0.5, np.float32)
    values[3, 2, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match="holds values nan"):
        load(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04 torn", b"hello"])
def test_damaged_arrays_are_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"^{tmp_path / name}: .") as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


# Resizing


def test_an_image_of_the_size_wanted_stays_untouched():
    pixels = random_images(12, 9, 3)
    assert resize_and_crop(pixels, (12, 9)) is pixels


def test_fit_covers_and_crops_at_the_center():
    """A wide image keeps its middle, a tall one its middle, each at the right scale."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # exactly the part that a square crop keeps
    for image, size in ((wide, (10, 10)), (wide.transpose(1, 0, 2), (40, 40))):
        np.testing.assert_allclose(
            resize_and_crop(image, size)[3:-3, 3:-3], 200, atol=8
        )  # Lanczos rings
    assert (
        resize_and_crop(wide, (10, 30))[:, [0, -1]] == 0
    ).all()  # nothing cut where nothing must be


def test_shrinking_is_antialiased():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize_and_crop(board.astype(np.uint8)[..., None], (16, 16))
    assert np.ptp(small[2:-2, 2:-2]) <= 2
    np.testing.assert_allclose(small[2:-2, 2:-2], 127.5, atol=2)


# What is asked for


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="no data set and no path 'mnits'; choose shapes, mnist,"):
        load("mnits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels is 2, must be 1, 3 or 4"),
        ({"split": "val"}, "split is 'val', must be train or test"),
        ({"count": 0}, "count is 0, must be ≥ 1"),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(ValueError, match=message):
        load("shapes", **options)


def test_a_count_is_spread_over_the_set(folder):
    few, all_ = load(folder, channels=1, count=2), load(folder, channels=1)
    assert len(few) == 2
    np.testing.assert_array_equal(few.fetch([0, 1]).images, all_.fetch([0, 2]).images)
    np.testing.assert_array_equal(few.fetch([0, 1]).labels, all_.fetch([0, 2]).labels)
    assert len(load(folder, count=9)) == 4


def test_a_split_is_not_for_paths(folder):
    with pytest.raises(ValueError, match="has no split 'test'"):
        load(folder, split="test")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=r"a.txt: not a folder of images, an .npy or an .npz file"):
        load(tmp_path / "a.txt")


def test_names_are_known_without_heavy_imports():
    """Commands list the choices in their --help, which must answer at once."""
    code = (
        "import sys; from gen.data.datasets import DATASETS; print(*DATASETS); "
        "print(*{'torch', 'torchvision', 'PIL', 'scipy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [" ".join(DATASETS), ""]


# One digest of all that is read


def test_a_digest_is_that_of_every_file_and_label(tmp_path):
    """It changes with any byte, mask, label or order, and not with the folder or the memory."""
    pixels = random_images(6, 8, 8, 3)

    def made(name, change=None):
        for index, image in enumerate(pixels):
            save(tmp_path / name / f"{'ab'[index % 2]}" / f"{index}.png", image)
        if change:
            change(tmp_path / name)
        return load(tmp_path / name).digest()

    plain = made("plain")
    assert made("again") == plain == load(tmp_path / "plain", memory_limit=0).digest()
    last = Path("b") / "5.png"
    assert made("pixel", lambda folder: save(folder / last, 255 - pixels[5])) != plain
    assert made("label", lambda folder: (folder / last).rename(folder / "a" / "5.png")) != plain
    assert made("swapped", lambda folder: (
        save(folder / "a" / "0.png", pixels[2]), save(folder / "a" / "2.png", pixels[0])
    )) != plain  # fmt: skip
    assert load(tmp_path / "plain", count=3).digest() != plain


def test_digests_of_arrays_masks_and_drawn_images(tmp_path):
    pixels = random_images(300, 8, 8, 3)
    for name, change in (("a", 0), ("b", 0), ("c", 1)):
        pixels[299, 7, 7, 2] ^= change
        np.save(tmp_path / f"{name}.npy", pixels)
        np.savez(tmp_path / f"{name}.npz", images=pixels[:9], labels=np.arange(9) + change)
        for index in range(2):
            save(tmp_path / name / "images" / f"{index}.png", pixels[index])
            save(
                tmp_path / name / "masks" / f"{index}.png",
                np.full((8, 8), index + change, np.uint8),
            )
    for suffix in (".npy", ".npz", ""):
        options = {} if suffix else {"mask_classes": 3}
        found = [load(tmp_path / f"{name}{suffix}", **options).digest() for name in "abc"]
        assert found[0] == found[1] != found[2], suffix
    assert load("shapes", count=8).digest() == load("shapes", count=8).digest()


def test_a_digest_leaves_out_what_is_skipped(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.png", random_images(8, 8, 3))
    (tmp_path / "1.png").unlink()
    make_pipe(tmp_path / "1.png")
    assert len(load(tmp_path, skip_bad=True).digest()) == 64


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_that_are_pipes_are_not_waited_for(tmp_path, name):
    make_pipe(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: .*a pipe, device or socket, not a file"):
        load(tmp_path / name)
