"""Where samples go: a folder that can be continued, an array, pictures; real signals and kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import sample
from gen.runs.open import load
from gen.sampling.seeds import sample_images
from tests.conftest import PATIENCE, file_size_limit, wait_until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.parametrize("finished_run", ["dcgan"], indirect=True)


def pixels_of(path):
    """What a picture file holds."""
    with Image.open(path) as image:
        return np.asarray(image)


def run(*arguments):
    return CliRunner().invoke(sample.main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder_of(finished_run, tmp_path_factory):
    """A folder of forty samples, drawn without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "samples"
    assert run(finished_run[1], "--num", 40, "--outdir", folder).exit_code == 0
    return folder


def files(folder):
    """Name → bytes of everything in a folder, hidden files included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_continued_and_damage_repaired(finished_run, folder_of, tmp_path):
    folder, source = tmp_path / "samples", finished_run[1]
    assert run(source, "--seeds", "5-24", "--outdir", folder).exit_code == 0
    sound = folder / "00000005.png"
    before = sound.stat().st_mtime_ns
    (folder / "00000006.png").write_bytes((folder / "00000006.png").read_bytes()[:-20])
    flipped = bytearray((folder / "00000007.png").read_bytes())
    flipped[len(flipped) // 2] ^= 16
    (folder / "00000007.png").write_bytes(flipped)
    Image.new("RGB", (8, 8)).save(folder / "00000008.png")
    (folder / ".00000009.png.killed").write_bytes(b"half")
    result = run(source, "--num", 40, "--outdir", folder, "--batch-size", 7)
    assert result.exit_code == 0, result.output
    assert "17 were there" in result.output and "3 damaged" in result.output
    assert files(folder) == files(folder_of)
    assert sound.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--truncation", 0.5], "made with truncation 1.0, not 0.5"),
        (["--no-ema"], "made with ema True, not False"),
        (["--format", "npy"], "made with format png, not npy"),
    ],
)
def test_a_folder_of_other_options_is_refused(finished_run, folder_of, arguments, said):
    before = files(folder_of)
    result = run(finished_run[1], "--num", 50, "--outdir", folder_of, *arguments)
    assert result.exit_code == 1
    assert said in result.output and result.output.count("\n") == 1
    assert files(folder_of) == before


def test_a_folder_of_another_checkpoint_or_of_strangers_is_refused(
    finished_run, folder_of, tmp_path
):
    earlier = finished_run[1] / "checkpoints" / "step-00000003.pt"
    before = files(folder_of)
    result = run(earlier, "--num", 50, "--outdir", folder_of)
    assert result.exit_code == 1 and "another checkpoint" in result.output
    (folder_of / "sampling.json").write_text("{")
    assert "damaged" in run(earlier, "--outdir", folder_of).output
    (folder_of / "sampling.json").write_bytes(before["sampling.json"])
    assert files(folder_of) == before
    (tmp_path / "letter.txt").write_text("precious")
    result = run(earlier, "--outdir", tmp_path)
    assert result.exit_code == 1 and "new or empty folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param("SIGINT", 130),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),  # below an array is sent it
        pytest.param("SIGKILL", -9),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows sends a process no signals")
def test_an_interrupted_process_is_continued_to_the_same_bytes(
    finished_run, folder_of, tmp_path, number, code
):
    folder = tmp_path / "samples"
    command = [sys.executable, "sample.py", str(finished_run[1]), "--num", str(10**6)]
    command += ["--outdir", str(folder), "--batch-size", "3"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((folder / "00000004.png").exists, process)
        process.send_signal(getattr(signal, number))
        said = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == code
    if code > 0:
        assert (
            said.count("\n") == 1
            and said.startswith("Stopped at image")
            and "run the same command to continue" in said
        )
        assert not list(folder.glob(".*"))
    for path in folder.glob("*.png"):  # whatever stands there under its name is whole
        pixels_of(path)
        if int(path.stem) >= 40:
            path.unlink()
    assert run(finished_run[1], "--num", 40, "--outdir", folder).exit_code == 0
    assert {k: v for k, v in files(folder).items() if k[0] != "."} == files(folder_of)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends a process no signals")
def test_an_interrupted_array_leaves_the_old_one(finished_run, tmp_path):
    target = tmp_path / "s.npy"
    target.write_bytes(b"old")
    command = [sys.executable, "sample.py", str(finished_run[1]), "--num", str(10**7)]
    process = subprocess.Popen(
        [*command, "--npy", str(target)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, process)
        process.send_signal(signal.SIGTERM)
        assert "nothing was written" in process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == 143
    assert files(tmp_path) == {"s.npy": b"old"}


def test_formats_hold_the_pixels(finished_run, tmp_path):
    expected = sample_images(load(finished_run[1], device="cpu"), range(3)).permute(0, 2, 3, 1)
    for kind in ("npy", "jpg"):
        run(finished_run[1], "--num", 3, "--outdir", tmp_path / kind, "--format", kind)
    for index, pixels in enumerate(expected.numpy()):
        stored = np.load(tmp_path / "npy" / f"{index:08d}.npy")
        assert stored.dtype == np.uint8 and np.array_equal(stored, pixels)
        path = tmp_path / "jpg" / f"{index:08d}.jpg"
        assert path.read_bytes()[:2] == b"\xff\xd8"
        assert np.abs(pixels_of(path).astype(int) - pixels).mean() < 4
    run(finished_run[1], "--num", 3, "--grid", tmp_path / "g.jpg")
    assert (tmp_path / "g.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("kind", ["npy", "jpg"])
def test_damaged_files_of_other_formats_are_drawn_again(finished_run, tmp_path, kind):
    command = [finished_run[1], "--num", 2, "--outdir", tmp_path / "s", "--format", kind]
    run(*command)
    before = files(tmp_path / "s")
    damaged = tmp_path / "s" / f"00000001.{kind}"
    damaged.write_bytes(damaged.read_bytes()[:-99])
    assert "1 damaged" in run(*command).output
    assert files(tmp_path / "s") == before


def test_a_full_disk_is_one_line_and_spoils_nothing(finished_run, tmp_path):
    target = tmp_path / "s.npy"
    target.write_bytes(b"old")
    with file_size_limit(1 << 16):
        result = run(finished_run[1], "--num", 1000, "--npy", target)
    assert result.exit_code == 1 and "File too large" in result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1
    assert files(tmp_path) == {target.name: b"old"}


def test_weights_that_are_not_finite_are_refused(finished_run, tmp_path):
    content = torch.load(finished_run[1] / "checkpoints" / "step-00000006.pt", weights_only=True)
    next(iter(content["ema"].values())).view(-1)[0] = torch.nan
    torch.save(content, tmp_path / "bad.pt")
    result = run(tmp_path / "bad.pt", "--grid", tmp_path / "g.png")
    assert result.exit_code == 1 and "generator are not finite" in result.output
    assert run(tmp_path / "bad.pt", "--grid", tmp_path / "g.png", "--no-ema").exit_code == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_count(finished_run, tmp_path):
    pytest.importorskip("resource", reason="this system does not say how much memory was used")
    peaks = []
    for count in (2_000, 60_000):  # 46 MB more
        command = [sys.executable, "-c", MEASURED, str(finished_run[1]), "--num", str(count)]
        command += ["--npy", str(tmp_path / "s.npy")]
        peaks.append(int(subprocess.run(command, cwd=ROOT, capture_output=True).stdout))
        assert np.load(tmp_path / "s.npy", mmap_mode="r").shape == (count, 16, 16, 3)
    assert peaks[1] - peaks[0] < 10_000  # KiB


MEASURED = """
import resource, sys, sample
sample.main(standalone_mode=False)
unit = 1024 if sys.platform == "darwin" else 1  # bytes on macOS, KiB on Linux
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
"""


def test_a_jpeg_too_wide_is_refused_before_any_work(finished_run, tmp_path):
    frames = ("--interpolate", "lerp", 1, 2, "--frames", 4000)
    result = run(finished_run[1], *frames, "--grid", tmp_path / "g.jpg")
    assert result.exit_code == 1 and "72002 pixels wide" in result.output
    assert not list(tmp_path.iterdir())


def test_pictures_have_a_limit_that_names_the_way_out(finished_run, tmp_path):
    result = run(finished_run[1], "--num", 10**9, "--grid", tmp_path / "g.png")
    assert result.exit_code == 1 and "use --outdir or --npy" in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_and_a_sheet_together(finished_run, folder_of, tmp_path):
    grid = tmp_path / "g.png"
    result = run(finished_run[1], "--num", 40, "--outdir", folder_of, "--grid", grid)
    assert "40 were there" in result.output
    assert pixels_of(grid).shape == (6 * 18 + 2, 7 * 18 + 2, 3)
    assert json.loads((folder_of / "sampling.json").read_text())["images"] == "seeds"
