"""analyze.py as its user meets it: exit codes, one line for what is wrong, never a traceback."""

import json
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import analyze
from gen.analysis.measure import measure
from gen.analysis.measure.result import Measurement, Period
from gen.commands.gate import judge
from tests.conftest import PATIENCE, link, make_pipe

ROOT = Path(__file__).resolve().parents[2]
SHEETS = ROOT / ".." / "shared" / "data" / "sheets"
RNG = np.random.default_rng(0)
SIGNS = np.where(np.indices((32, 32)).sum(0) % 2, 1, -1)


def run(*arguments):
    return CliRunner().invoke(analyze.main, ["images", *map(str, arguments)])


def smooth(count: int, size: int = 32, channels: int = 3, rng=RNG) -> np.ndarray:
    """Images without any lattice: low-passed noise around mid-gray, float (N, H, W, C)."""
    spectrum = np.fft.rfft2(rng.standard_normal((count, channels, size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    images = np.fft.irfft2(spectrum / (0.02 + np.hypot(fy, fx)) ** 1.5, s=(size, size))
    return 128 + images.transpose(0, 2, 3, 1) * (40 / images.std())


def to_bytes(images: np.ndarray) -> np.ndarray:
    return np.rint(images).clip(0, 255).astype(np.uint8)


def save_all(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(to_bytes(images)):
        Image.fromarray(image.squeeze()).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A folder of 48 color images without a grid."""
    return save_all(tmp_path_factory.mktemp("images") / "clean", smooth(48))


@pytest.fixture(scope="module")
def checkered(tmp_path_factory):
    """The same kind of images, every other pixel 5 % brighter."""
    images = smooth(48) * (1 + 0.05 * SIGNS[..., None])
    return save_all(tmp_path_factory.mktemp("images") / "checkered", images)


def without_command(text: str) -> dict:
    return {key: value for key, value in json.loads(text).items() if key != "command"}


def assert_one_line(result, code: int, *words: str):
    """The exit code, and an error of one line that holds the words."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in last


# What it answers


def test_a_grid_is_found_where_it_is_and_not_where_it_is_not(clean, checkered):
    found, none = run(checkered), run(clean)
    assert found.exit_code == none.exit_code == 0
    assert "Period 2: detected at -1" in found.stdout
    assert "Period 4: not detected" in found.stdout
    assert "Period 2: not detected, limits -" in none.stdout
    assert "Period 8: undefined: period 8 needs images of at least 48×48" in none.stdout
    assert found.stdout.startswith("48 images of 32×32")


def test_fail_above_judges_by_level_and_significance(clean, checkered):
    result = run(checkered, "--fail-above", -40)
    assert result.exit_code == 3
    assert result.stderr.startswith("Above: period 2: level -1")
    assert run(checkered, "--periods", 2, "--fail-above", -10).exit_code == 0


def test_a_gate_without_proof_is_neither_passed_nor_failed(clean, tmp_path):
    """The limit of 48 small images is far above -60 dBc: nothing is proven."""
    judged = [clean, "--periods", "2", "--fail-above"]
    result = run(*judged, -60)
    assert result.exit_code == 4
    said = r"Inconclusive: period 2: limit (.*) dBc is above -60; about (.*) images"
    found = re.search(said, result.stderr)
    assert float(found[1]) > -60 and int(found[2].replace(",", "")) > 48
    assert run(*judged, -60, "--allow-inconclusive").exit_code == 0
    undefined = run(clean, "--fail-above", -10)
    assert undefined.exit_code == 4 and "period 8: undefined" in undefined.stderr
    assert_one_line(run(clean, "--junit", tmp_path / "a.xml"), 2, "--fail-above")


def test_as_many_images_as_the_gate_asks_for_prove_it():
    """In most sets; how near a set comes to its limit is chance."""
    proven = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)

        def verdict(count, rng=rng):
            images = to_bytes(smooth(count, channels=1, rng=rng)).transpose(0, 3, 1, 2)
            return next(judge("images", measure(images, (2,)), -45))

        said = verdict(64)
        assert said.outcome == "inconclusive"
        asked = int(re.search(r"about (.*) images", said.words)[1].replace(",", ""))
        proven += verdict(asked).outcome == "below"
    assert proven >= 4


def test_levels_that_are_mere_noise_are_not_held_against_a_model():
    found = Period(level_dbc=-30.0, p_value=1e-9, detected=True, level_upper_dbc=-29.0)
    noise = Period(level_dbc=-20.0, p_value=0.5, level_upper_dbc=-18.0, detection_limit_dbc=-19.0)
    m = Measurement(9, (48, 48), 1, None, {2: found, 4: noise, 8: Period(undefined="why")}, ())
    assert [v.outcome for v in judge("m", m, -40)] == ["above", "inconclusive", "inconclusive"]
    assert [v.outcome for v in judge("m", m, -10)] == ["inconclusive", "below", "inconclusive"]


def test_json_is_all_that_stdout_holds(checkered, tmp_path):
    result = run(checkered, "--json", "-")
    m = Measurement.from_dict(json.loads(result.stdout))
    assert m.periods[2].detected and m.images == 48
    corner = next(line for line in m.lines if line.frequency == (0.5, 0.5))
    assert corner.replica.db == pytest.approx(-26, abs=0.5)  # 5 %
    assert "Period 2: detected" in result.stderr
    target = tmp_path / "m.json"
    assert run(checkered, "--json", target).exit_code == 0
    assert without_command(target.read_text()) == without_command(result.stdout)
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_json_stays_pure_when_the_level_fails(checkered):
    result = run(checkered, "--json", "-", "--fail-above", -40)
    assert result.exit_code == 3 and json.loads(result.stdout)["schema"] == 2


def test_channels_print_every_line(checkered):
    rows = run(checkered, "--periods", 2, "--channels").stdout.splitlines()
    table = rows[rows.index("") + 1 :]
    assert len(table) == 1 + 3 * 4  # a head; three lines of luma and of three channels
    assert table[0].split()[:2] == ["channel", "(fy,"]


def test_the_same_numbers_from_folder_array_and_sheet(tmp_path):
    import torch

    from gen.images import make_grid, save_png

    images = to_bytes(smooth(30) * (1 + 0.05 * SIGNS[..., None]))
    save_all(tmp_path / "folder", images)
    np.save(tmp_path / "a.npy", images)
    save_png(tmp_path / "s.png", make_grid(torch.from_numpy(images).permute(0, 3, 1, 2)))
    outputs = [
        run(tmp_path / "folder", "--workers", 3),
        run(tmp_path / "a.npy"),
        run(tmp_path / "s.png", "--tile", 32, "--gap", 2),
    ]
    assert len({result.stdout for result in outputs}) == 1
    assert "30 images" in outputs[0].stdout


def test_a_reference_is_read_like_the_images(clean, checkered, tmp_path):
    mixed = save_all(tmp_path / "mixed", smooth(60, size=40))
    for path in sorted(clean.iterdir())[:40]:
        (mixed / f"x{path.name}").write_bytes(path.read_bytes())
    result = run(checkered, "--reference", mixed, "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert (
        "reference: 60 of 100 images left out: of other sizes than 32×32: 60 of 40×40"
        in result.stderr
    )
    plain = json.loads(result.stdout)
    assert plain["reference"]["images"] == 40
    assert plain["difference"]["periods"]["2"]["p_value"] < 1e-6


def test_one_image_is_cut_into_tiles(tmp_path):
    large = to_bytes(smooth(1, size=320)[0] * (1 + 0.05 * np.tile(SIGNS, (10, 10))[..., None]))
    Image.fromarray(large).save(tmp_path / "a.png")
    result = run(tmp_path / "a.png")
    assert "1 images of 320×320, 3 channel(s), each cut into 25 blocks" in result.stdout
    assert "Period 2: detected at -1" in result.stdout


def test_a_run_and_its_checkpoint_are_sampled(finished_run):
    _, folder = finished_run
    checkpoint = max((folder / "checkpoints").glob("*.pt"))
    results = [run(p, "--num", 40, "--periods", 2) for p in (folder, checkpoint)]
    assert results[0].exit_code == 0 and results[0].stdout.startswith("40 images of 16×16")
    assert results[0].stdout == results[1].stdout
    assert_one_line(run(folder, "--tile", 8), 1, "leave the tile size out")


def test_report_and_its_rule(checkered, tmp_path):
    report = tmp_path / "new" / "report"
    assert run(checkered, "--report", report, "--periods", 2).exit_code == 0
    assert (report / "index.html").is_file()
    assert run(checkered, "--report", report, "--periods", 2).exit_code == 0  # over its own
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "index.html").write_text("mine")
    assert_one_line(run(checkered, "--report", foreign), 2, "foreign", "new or empty")
    assert (foreign / "index.html").read_text() == "mine"
    assert_one_line(run(checkered, "--report", foreign / "index.html"), 2, "is a file")


@pytest.mark.parametrize(
    ("sheet", "tile", "detected"),
    [
        ("csinva_cifar10_real", 32, False),
        ("mimicry_cifar10_sngan", 32, False),
        ("csinva_cifar10_dcgan_fake", 32, True),
        ("antixk_celeba64_vanillaVAE_k3s2", 64, True),
    ],
)
def test_published_sheets(sheet, tile, detected):
    if not SHEETS.is_dir():
        pytest.skip(f"published sample sheets are not in {SHEETS}")
    result = run(SHEETS / f"{sheet}.png", "--tile", tile, "--gap", 2, "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["periods"]["2"]["detected"] == detected


# What can be wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fail-above", "nan"], ["nan", "finite number"]),
        (["--fail-above", "-inf"], ["-inf"]),
        (["--periods", "2,x"], ["2,x", "2,4,8"]),
        (["--periods", "1"], ["'1'"]),
        (["--periods", "2,2"], ["each once"]),
        (["--periods", ""], ["''"]),
        (["--tile", "0"], ["0x0"]),
        (["--tile", "axb"], ["34x45"]),
        (["--gap", "2"], ["--tile"]),
        (["--max-images", "0"], ["0"]),
        (["--json", "no/such/folder/m.json"], ["no/such/folder"]),
    ],
)
def test_usage_errors(clean, arguments, words):
    assert_one_line(run(clean, *arguments), 2, *words)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["text", "truncated", "huge", "nothing"])
def test_a_bad_file_among_good_ones_stops_by_name(clean, tmp_path, kind):
    folder = save_all(tmp_path / "set", smooth(6))
    good = (folder / "000.png").read_bytes()
    (folder / "bad.png").write_bytes(
        {
            "text": b"words",
            "truncated": good[: len(good) // 2],
            "huge": png(20000, 10000),
            "nothing": b"",
        }[kind]
    )
    assert_one_line(run(folder), 1, "bad.png")
    assert_one_line(run(folder / "bad.png"), 1, "bad.png")
    skipped = run(folder, "--on-bad-image", "skip")
    assert skipped.exit_code == 0 and "1 of 7 images left out: unreadable" in skipped.stderr
    assert skipped.stdout.startswith("6 images")
    for more, code in (([], 1), (["--on-bad-image", "skip"], 0)):
        result = CliRunner().invoke(analyze.main, ["compare", str(folder), *more])
        assert result.exit_code == code and "bad.png" in result.stderr


def test_an_unreadable_file(tmp_path):
    folder = save_all(tmp_path / "set", smooth(4))
    (folder / "001.png").unlink()
    (folder / "001.png").mkdir()
    (folder / "002.png").unlink()
    link(folder / "002.png", tmp_path / "gone.png")
    assert_one_line(run(folder), 1, "002.png", "dangling")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_floats(tmp_path, value):
    images = smooth(8) / 255
    images[3, 4, 5] = value
    np.save(tmp_path / "a.npy", images.astype(np.float32))
    assert_one_line(run(tmp_path / "a.npy"), 1, "a.npy", "must be finite")


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (np.full((20, 32, 32, 3), 77, np.uint8), "constant"),
        (RNG.integers(0, 256, (20, 1, 1), np.uint8), "undefined"),
        (np.repeat(to_bytes(smooth(1)), 9, 0), "different images"),
        (to_bytes(smooth(2)), "only 2 images with signal"),
    ],
)
def test_undefined_says_why_and_gives_no_number(tmp_path, images, why):
    np.save(tmp_path / "a.npy", images)
    result = run(tmp_path / "a.npy", "--json", "-", "--report", tmp_path / "report")
    assert result.exit_code == 0 and why in result.stderr
    plain = json.loads(result.stdout)
    assert all(p["undefined"] and p["level_dbc"] is None for p in plain["periods"].values())
    assert "undefined" in (tmp_path / "report" / "index.html").read_text()
    assert_one_line(run(tmp_path / "a.npy", "--fail-above", -40), 1, "nothing", "-40")


def test_sets_of_nothing(tmp_path):
    assert_one_line(run(tmp_path), 1, "holds no images")
    assert_one_line(run(tmp_path / "missing"), 1, "missing", "no such")
    assert_one_line(run(tmp_path / "missing.pt"), 1, "missing.pt", "no such file")
    (tmp_path / "x.pt").write_text("words")
    assert_one_line(run(tmp_path / "x.pt"), 1, "x.pt", "not a readable")
    flat = np.zeros((68, 68, 3), np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    assert_one_line(run(tmp_path / "flat.png", "--tile", 32, "--gap", 1), 1, "68", "32")


def test_a_sheet_of_empty_cells(tmp_path):
    Image.new("RGB", (70, 70)).save(tmp_path / "flat.png")
    assert_one_line(run(tmp_path / "flat.png", "--tile", 32, "--gap", 2), 1, "no images")


# Real processes


def test_a_process_from_another_directory(checkered, tmp_path):
    command = [sys.executable, str(ROOT / "analyze.py"), "images", str(checkered)]
    result = subprocess.run(
        [*command, "--periods", "2", "--fail-above", "-40"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 3
    assert "Period 2: detected" in result.stdout
    assert result.stderr.count("\n") == 1  # no progress bar where there is no terminal


def test_an_interrupt_ends_in_one_line(tmp_path):
    """A pipe that the user's own code reads holds the process where the signal is to meet it."""
    make_pipe(tmp_path / "pipe")
    script = tmp_path / "build.py"
    script.write_text(f"def build():\n    open({str(tmp_path / 'pipe')!r}).read()\n")
    process = subprocess.Popen(
        [sys.executable, "analyze.py", "model", "--script", f"{script}:build"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with (tmp_path / "pipe").open("wb"):  # opens when the process reads
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)  # the pipe is open until it has ended
    assert said.splitlines()[-1] == "Interrupted."
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", "many"),
        ("images", 10**400),
        ("size", [32]),
        ("size", None),
        ("periods", {"2": {"undefined": None, "detected": True, "level_dbc": "high"}}),
        ("periods", {"two": {"undefined": None}}),
        ("periods", [1]),
        ("lines", [{"replica": 3}]),
        ("reference", []),
    ],
)
def test_numbers_of_other_types_are_one_line(checkered, tmp_path, name, value):
    """What a measurement file holds is checked when it is read, not when it is printed."""
    plain = json.loads(run(checkered, "--json", "-").stdout)
    path = tmp_path / "m.json"
    for change, code in (({}, 0), ({name: value}, 1)):
        path.write_text(json.dumps(plain | change))
        result = CliRunner().invoke(analyze.main, ["compare", str(path)])
        assert result.exit_code == code, result.output
    assert_one_line(result, 1, "m.json: not a measurement of schema 2")
