"""What the world puts in the way of images: a table of it, through the library and the commands."""

from __future__ import annotations

import gc
import gzip
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import analyze
import train
from gen.data.datasets import BadImage, DataError, load_dataset
from gen.data.stream import Selection, open_stream
from tests.corpus import BAD, FINE, IGNORED, write_idx

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--size", "8", "--width", "2", "--steps", "1", "--batch-size", "2", "--device", "cpu"]
read = partial(load_dataset, root=Path(), size=(8, 8), channels=3)


@pytest.fixture
def folder(tmp_path):
    """Four good images, a.png … e.png without b."""
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for name in "acde":
        pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{name}.png")
    return tmp_path / "set"


def run(main, *arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one_line(result, code: int, *said: str) -> None:
    assert result.exit_code == code, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in result.output
    for text in said:
        assert text in errors[0]


@pytest.mark.parametrize(("name", "make", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_files(folder, tmp_path, name, make, said):
    """Named before anything begins; or, if asked for, left out, counted and the first named."""
    make(folder / name)
    for limit in (0, 1 << 30):
        with pytest.raises(BadImage, match=rf"/{name}: .*{said}") as caught:
            read(str(folder), memory_limit=limit)
        assert "\n" not in str(caught.value)
    outdir = tmp_path / "runs"
    one_line(run(train.main, "dcgan", "--data", folder, *TINY, "--outdir", outdir), 1, f"/{name}: ")
    assert not outdir.exists()
    one_line(run(analyze.main, "images", folder), 1, f"/{name}: ")
    good = read(str(folder), skip_bad=True)
    assert len(good) == 4
    assert f"1 of 5 images skipped as unreadable; the first: {folder}/{name}: " in good.notes[0]
    stream = open_stream(folder, Selection(skip_bad=True))
    assert sum(map(len, stream.batches)) == 4
    assert [each.count for each in stream.left_out] == [1]
    assert f"unreadable; the first: {folder}/{name}: " in stream.left_out[0].reason


@pytest.mark.parametrize(("name", "data", "color"), [f[1:] for f in FINE], ids=[f[0] for f in FINE])
def test_unusual_files_are_read_as_what_they_show(folder, name, data, color):
    (folder / name).write_bytes(data)
    pixels = read(str(folder), background=(10, 20, 30)).fetch([1]).images[0]
    assert pixels.flatten(1).unique(dim=1).flatten().tolist() == list(color)


@pytest.mark.parametrize("make", [i[1] for i in IGNORED], ids=[i[0] for i in IGNORED])
def test_what_is_no_image_does_not_count(folder, make):
    make(folder)
    found = read(str(folder))
    assert (len(found), found.classes, found.notes) == (4, (), [])


def test_skipping_trains_on_the_others_and_says_so(folder, tmp_path):
    """One run that stops before it begins, one that leaves two files out."""
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:1000])
    (folder / "f.jpg").write_text("no image")
    words = ["dcgan", "--data", folder, *TINY, "--outdir", tmp_path / "runs"]
    stopped = run(train.main, *words)
    assert stopped.exit_code == 1 and stopped.stderr.count("Error: ") == 1
    assert "b.png: " in stopped.stderr and not (tmp_path / "runs").exists()
    trained = run(train.main, *words, "--on-bad-image", "skip")
    assert trained.exit_code == 0, trained.stderr
    assert f"2 of 6 images skipped as unreadable; the first: {folder}/b.png: " in trained.stderr
    assert "dcgan on set: 4 images" in trained.stderr


def test_a_warning_of_pillow_is_not_shown(folder):
    """Pillow warns from 89 million pixels on; ours is the one limit, and it is an option."""
    Image.new("1", (10_000, 9_000)).save(folder / "b.png")
    passed = run(analyze.main, "images", folder)  # here a warning would be an error
    assert passed.exit_code == 0 and "Warning" not in passed.stderr, passed.stderr
    refused = run(analyze.main, "images", folder, "--max-image-pixels", 80_000_000)
    assert refused.exit_code == 1 and "more than 80000000 allowed" in refused.stderr


# Sets that do not fit


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "5"], "holds only 4 images; use --batch-size 4 or less"),
        (["--max-image-pixels", "100"], "64 × 48 pixels, more than 100 allowed"),
        (["--data", "{}/a.png"], "a.png: not a folder of images"),
        (["--data", "{}/none"], "no data set and no path"),
        (["--data", "{}/one"], "holds only 1 image; training needs two or more"),
        (["--data", "{}/empty"], "empty: holds no images"),
        (["--data", "{}/flat.npy"], "has shape (1, 4, 3, 8, 8), must be (N, H, W)"),
        (["--data", "{}/pairs.npz"], "labels must be 4 integers"),
    ],
)
def test_sets_that_do_not_fit(folder, tmp_path, arguments, said):
    for name in ("one", "empty"):
        (folder / name).mkdir()
    (folder / "a.png").rename(folder / "one" / "a.png")
    (folder / "a.png").write_bytes((folder / "one" / "a.png").read_bytes())
    if "{}" not in "".join(arguments):
        (folder / "one" / "a.png").unlink()
    np.save(folder / "flat.npy", np.zeros((1, 4, 3, 8, 8)))
    np.savez(folder / "pairs.npz", images=np.zeros((4, 8, 8)), labels=np.zeros(3, int))
    words = [word.format(folder) for word in arguments]
    outdir = tmp_path / "runs"
    result = run(train.main, "dcgan", "--data", folder, *TINY, "--outdir", outdir, *words)
    one_line(result, 1, said)
    assert not outdir.exists()


def test_one_image_is_enough_to_measure(folder):
    for name in "cde":
        (folder / f"{name}.png").unlink()
    result = run(analyze.main, "images", folder)
    assert result.exit_code == 0 and result.stdout.startswith("1 images of 48×64"), result.output


WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
import PIL.PngImagePlugin, torch
from gen.data.datasets import DataError, load_dataset
if os.geteuid() == 0:  # root may read everything
    os.setgid(65534), os.setuid(65534)
for name in ("locked", "file"):
    try:
        load_dataset(f"{sys.argv[1]}/{name}", root=Path(), size=(8, 8), channels=3)
        print("read")
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no such rights")
def test_what_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for part in ("locked/inner", "file"):
            (place / part).mkdir(parents=True)
            Image.new("L", (8, 8)).save(place / part / "a.png")
        (place / "locked" / "inner").chmod(0)
        (place / "file" / "a.png").chmod(0)
        command = [sys.executable, "-c", WITHOUT_RIGHTS, name]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        (place / "locked" / "inner").chmod(0o700)
    assert result.stdout.splitlines() == [
        f"{name}/locked/inner: Permission denied",
        f"{name}/file/a.png: Permission denied",
    ], result.stderr


# Named sets: damaged files, and downloads that bring something else


@pytest.fixture
def digits(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    pixels, labels = np.zeros((12, 28, 28), np.uint8), np.arange(12).astype(np.uint8) % 10
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    return raw


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: b"<html>404</html>" * 9,
        lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],  # so many images
        lambda data: data[:4] + b"\0\0\0\x0b" + data[8:],  # one fewer than there are
        lambda data: data[:2] + b"\x0d" + data[3:],  # floats
    ],
    ids=["empty", "truncated", "longer", "html", "count", "fewer", "type"],
)
def test_a_damaged_file_of_mnist(digits, name, damage):
    path = digits / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"^cannot read or download mnist: .+ put MNIST/raw"):
        load_dataset("mnist", root=digits.parents[1], size=(28, 28), channels=1)


def test_a_label_beyond_the_classes(digits):
    write_idx(digits / "train-labels-idx1-ubyte", np.full(12, 200, np.uint8))
    with pytest.raises(DataError, match="labels must be 12 integers from 0 to 9"):
        load_dataset("mnist", root=digits.parents[1], size=(28, 28), channels=1)


PAGE = b"<html><h1>Please sign in</h1></html>"


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that has no digits; what it says instead stands in the path."""

    def do_GET(self) -> None:
        what = self.path.split("/")[1]
        body = {"gzip": gzip.compress(PAGE), "missing": b""}.get(what, PAGE)
        self.send_response(404 if what == "missing" else 200)
        self.send_header("Content-Length", str(10 * len(body) if what == "short" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of urllib
@pytest.mark.parametrize("what", ["page", "gzip", "missing", "short"])
def test_a_download_that_brings_no_digits(tmp_path, monkeypatch, what):
    """Checksums are those of the published files: one line, and nothing half unpacked is left."""
    from torchvision.datasets import MNIST

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/{what}/"])
        try:
            arguments = ["--data", "mnist", "--data-root", tmp_path / "data", *TINY]
            result = run(train.main, "dcgan", *arguments, "--outdir", tmp_path / "runs")
        finally:
            server.shutdown()
    one_line(result, 1, "cannot read or download mnist: ", "put MNIST/raw/*-ubyte below ")
    assert not list(tmp_path.rglob("*-ubyte")) and not (tmp_path / "runs").exists()
    del result  # its error holds a socket that urllib left open: here, not in a later test
    gc.collect()
