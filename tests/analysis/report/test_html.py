"""The report as a browser and a reader meet it: whole, self-contained, true to its numbers."""

import base64
import io
import json
import pickle
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen.analysis.measure.lattice import lattice_lines
from gen.analysis.measure.meter import measure
from gen.analysis.measure.result import Measurement
from gen.analysis.report import figures
from gen.analysis.report.html import check_folder, write_report
from gen.analysis.report.page import CAPTIONS, GLOSSARY
from gen.analysis.report.summary import headline, next_steps
from gen.analysis.report.tables import LINE_HEADINGS, lines_table
from gen.commands.main import main
from tests.conftest import file_size_limit

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects what a page holds; fails on tags that do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.images, self.links, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.links += [values[name] for name in ("src", "href", "action") if name in values]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def images(count=24, size=(48, 56), channels=3, depth=0.05, seed=0):
    """Low-passed noise with a grid of period 2, float gray levels (N, C, H, W)."""
    generator = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(generator.standard_normal((count, channels, *size)))
    radius = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    pixels = np.fft.irfft2(spectrum / (0.02 + radius), s=size)
    grid = np.where(np.indices(size).sum(0) % 2, 1, -1)
    return (128 + pixels * (40 / pixels.std())) * (1 + depth * grid)


@pytest.fixture(scope="module")
def compared():
    """Measured against a clean reference, periods 2, 4 and 8; period 16 does not fit."""
    return measure(images(), (2, 4, 8, 16), images(depth=0, seed=1), value_range=(0, 255))


@pytest.fixture(scope="module")
def written(compared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "r"
    thumbnails = images(5).round().clip(0, 255).astype(np.uint8)
    write_report(compared, folder, thumbnails, "A <title> & more", "gen images a&b")
    return folder


def test_the_page_is_well_formed_and_needs_nothing_else(written):
    text = (written / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and page.tags[0] == "html"
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert 'name="viewport"' in text


def pictures(folder):
    """Pixels of the page's pictures by alt text."""
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    data = {i["alt"]: base64.b64decode(i["src"].split(",", 1)[1]) for i in page.images}
    assert len(data) == len(page.images) and all(alt.strip() for alt in data)
    return {
        alt: np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for alt, png in data.items()
    }


def test_every_picture_is_there_once_with_words(written):
    alts = " ".join(pictures(written))
    assert all(f"Mean pattern of period {p}" in alts for p in (2, 4, 8))
    for words in ("Level of each", "power spectrum of the ref", "Radial", "image 4"):
        assert alts.count(words) == 1
    assert {path.name for path in written.iterdir()} == {"index.html", "measurement.json"}


def test_the_verdict_comes_first_and_numbers_agree(written, compared):
    text = Page((written / "index.html").read_text(encoding="utf-8")).text
    verdicts = [compared.verdict(number).replace(" -", " −") for number in compared.periods]
    assert all(verdict in text for verdict in verdicts) and "at −" in verdicts[0]
    assert text.index(verdicts[0]) < text.index("How to read this")
    assert "A <title> & more" in text and "images a&b" in text
    assert all(term in text for term in GLOSSARY) and len(GLOSSARY) == 10
    assert "Against the reference: period 2" in text
    stored = Measurement.from_dict(json.loads((written / "measurement.json").read_text()))
    assert stored == compared


def test_the_table_holds_every_line(written, compared):
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    lines = sum(len(lattice_lines(p)) for p in (2, 4, 8))
    # Three heads, a row per period; then luma and three channels.
    assert page.tags.count("tr") == 3 + 4 + 4 * lines
    assert page.tags.count("td") == 4 * 6 + 4 * lines * len(LINE_HEADINGS)
    assert len(lines_table(compared).splitlines()) == 1 + 4 * lines


def test_samples_are_the_pixels_themselves(written):
    expected = images(5).round().clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(pictures(written)["image 3"], expected[3].transpose(1, 2, 0))
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    sample = next(image for image in page.images if image["alt"] == "image 3")
    assert sample["width"] == str(2 * 56)


@pytest.mark.parametrize(("side", "width"), [(8, 32), (32, 128), (100, 100), (300, 256)])
def test_samples_are_enlarged_by_whole_numbers_and_large_ones_cut(tmp_path, compared, side, width):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), np.uint8)
    write_report(Measurement.from_dict(compared.to_dict()), tmp_path / "r", pixels)
    page = Page((tmp_path / "r" / "index.html").read_text(encoding="utf-8"))
    assert [image["width"] for image in page.images if "width" in image] == [str(width)] * 2


def test_a_measurement_from_json_gives_the_page_without_spectra(tmp_path, compared):
    write_report(Measurement.from_dict(compared.to_dict()), tmp_path / "r")
    assert len(pictures(tmp_path / "r")) == 4  # levels and three patterns


@pytest.mark.parametrize("shape", [(20, 1, 32, 32), (20, 3, 8, 8)])
def test_undefined_measurements_say_why(tmp_path, shape):
    write_report(measure(np.full(shape, 7, np.uint8)), tmp_path / "r")
    text = Page((tmp_path / "r" / "index.html").read_text(encoding="utf-8")).text
    assert text.count("undefined: every image is constant") == 6  # sentences and rows
    assert "Nothing could be measured: every image is constant" in text
    assert not pictures(tmp_path / "r")


@pytest.mark.parametrize(("channels", "reference"), [(1, True), (2, False), (4, True)])
def test_any_channels_and_one_flat_reference(tmp_path, channels, reference):
    real = np.full((9, channels, 33, 31), 5.0) if reference else None
    m = measure(images(9, (33, 31), channels), (3,), real, value_range=(0, 255))
    write_report(m, tmp_path / "r")
    alts = " ".join(pictures(tmp_path / "r"))
    assert "spectrum of the reference" not in alts and "pattern of period 3" in alts


def test_only_our_own_folders_are_written_to(tmp_path, written, compared):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    check_folder(written)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files; give a new or empty folder"):
        write_report(compared, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        check_folder(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from gen.analysis.report.html import write_report
left = int(sys.argv[3])
def look(event, arguments):
    global left
    if event == "os.rename" and sys.argv[2] in str(arguments[0]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
measurement = pickle.loads(Path(sys.argv[1]).read_bytes())
sys.addaudithook(look)
write_report(measurement, Path(sys.argv[2]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("renamed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_report_that_was_killed_is_whole_and_written_anew(tmp_path, compared, renamed, earlier):
    """Killed before the first or second file has its name."""
    (tmp_path / "numbers").write_bytes(pickle.dumps(compared))
    page = tmp_path / "report" / "index.html"
    if earlier:
        write_report(measure(np.full((9, 1, 32, 32), 7, np.uint8)), tmp_path / "report")
    before = page.read_bytes() if earlier else None
    arguments = (tmp_path / "numbers", tmp_path / "report", renamed + 1)
    result = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert (
        len(list(page.parent.glob(".*.tmp"))) == 2 - renamed
    )  # all were on the disk before any name
    left = page.read_bytes() if page.exists() else None
    write_report(compared, tmp_path / "report")
    assert left == (page.read_bytes() if renamed else before)
    assert not list(page.parent.glob(".*"))


def test_an_earlier_report_survives_a_full_disk(tmp_path, compared):
    page = write_report(measure(np.full((9, 1, 32, 32), 7, np.uint8)), tmp_path / "report")
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    with file_size_limit(20_000), pytest.raises(OSError, match="what was saved before is intact"):
        write_report(compared, tmp_path / "report")
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


def test_a_new_report_takes_the_pictures_of_version_0_1_along(tmp_path, compared):
    write_report(Measurement.from_dict(compared.to_dict()), tmp_path / "r")
    for name in ("levels.png", "pattern-2.png", "image-11.png", "mine.png"):
        (tmp_path / "r" / name).write_bytes(b"a picture")
    write_report(measure(np.full((9, 1, 32, 32), 7, np.uint8)), tmp_path / "r")
    assert [path.name for path in (tmp_path / "r").glob("*.png")] == ["mine.png"]


# What it says


def test_the_first_sentence_says_what_how_strong_and_how_sure(compared):
    strong = measure(images(depth=0.3), (2, 4), value_range=(0, 255))
    assert headline(strong).startswith("These images carry a checkerboard that is visible: period")
    assert "fewer than 1 of 1,000,000 sets without one." in headline(strong)
    clean = measure(images(depth=0), (2, 4), value_range=(0, 255))
    limit = f"One of {clean.periods[2].detection_limit_dbc:.1f} dBc (period 2)"
    assert headline(clean).startswith(f"No checkerboard was found. {limit}")
    none = measure(images(2), (2,), value_range=(0, 255))
    assert headline(none) == f"Nothing could be measured: {none.periods[2].undefined}."
    both = measure(images(), (2,), images(seed=1), value_range=(0, 255))
    assert headline(both).endswith("The reference carries period 2 too.")


def test_what_to_do_names_commands_and_options_that_exist():
    steps = [
        step
        for depth, count in ((0, 24), (0.05, 24), (0.05, 2))
        for step in next_steps(measure(images(count, depth=depth), (2,), value_range=(0, 255)))
    ]
    commands = [step.command.split() for step in steps if step.command]
    assert len(commands) == 5
    for _, name, *words in commands:
        known = {flag for option in main.get_command(None, name).params for flag in option.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_images_without_contrast_are_warned_of(tmp_path):
    flat = measure(128 + (images() - 128) / 20, (2,), value_range=(0, 255))
    assert flat.low_contrast and "Hardly any contrast" in str(flat)
    assert flat.periods[2].detected and flat.periods[2].severity is None
    write_report(flat, tmp_path / "r")
    assert "hardly any contrast" in (tmp_path / "r" / "index.html").read_text()
    normal = measure(images(), (2,), value_range=(0, 255))
    assert not normal.low_contrast and normal.contrast == pytest.approx(40, rel=0.1)


# What the pictures show


def test_the_amplification_uses_the_range_and_never_clips():
    for peak in (0.01, 0.4, 3.0, 99.0, 120.0):
        pattern = np.array([[[peak, -peak / 2]]])
        factor = figures.amplification(pattern)
        assert factor == 1 or 50 < factor * peak <= 100
    assert figures.amplification(np.zeros((1, 2, 2))) == 1


def test_the_pattern_shows_the_grid_that_was_laid(compared):
    png, factor = figures.draw_pattern(compared, 2)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    height, width = pixels.shape
    # The picture's tiles around its center: darker where (row + column) is even.
    middle = pixels[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    assert middle.max() - middle.min() > 60
    assert factor == 8  # 6.4 gray levels: 16 times would leave the range
    pattern = figures.period_pattern(compared, 2).mean(0)
    np.testing.assert_allclose(pattern / -pattern[0, 0], [[-1, 1], [1, -1]], atol=0.3)


def test_circles_stand_on_every_line_and_on_both_borders():
    assert set(figures._copies(1, 1, 2)) == {(a, b) for a in (1, -1) for b in (1, -1)}
    assert set(figures._copies(1, 0, 4)) == {(1, 1), (-1, -1)}
    places = {
        (sy * a, sx * b) for _, a, b in lattice_lines(4) for sy, sx in figures._copies(a, b, 4)
    }
    assert len(places) == 5 * 5 - 3 * 3  # all of the 5×5 lattice but those of period 2


def test_captions_name_what_the_pictures_need():
    words = {"period": 2, "line": "(1/2, 0)", "db": "−40 dB", "p": "1", "factor": 4}
    for alt, caption in CAPTIONS.values():
        assert "{" not in alt.format(**words) + caption.format(**words)


def test_checking_the_folder_loads_nothing_heavy():
    """`analyze.py` does so before any work, and answers usage errors at once."""
    heavy = "{'torch', 'matplotlib', 'numpy'}"
    code = f"import sys, gen.analysis.report.html; print({heavy} & set(sys.modules))"
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
