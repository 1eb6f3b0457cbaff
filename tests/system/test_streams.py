"""stdout and stderr that break, in real processes and shells."""

import contextlib
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
LAYER = "layer --kernel 3 --stride 2"
TRAIN = "train dcgan --size 16 --width 4 --device cpu --steps 3 --log-every 1 --outdir"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")


def shell(command, folder):
    """Exit code of the last `gen` of a pipeline, and what still came through."""
    gen = f"'{sys.executable}' -m gen"
    script = f"exec 3>&1; ({command.replace('gen', gen, 1)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "ending",
    [
        "2>&1; echo $? >&3) | head -1 >&2",
        pytest.param("2>&-; echo $? >&3)", marks=pytest.mark.slow),
        pytest.param("2>/dev/full; echo $? >&3)", marks=[pytest.mark.slow, pytest.mark.skipif(
            not Path("/dev/full").exists(), reason="this system has no full device")]),
    ],
)  # fmt: skip
def test_a_run_ends_well_though_nobody_hears_of_it(ending, tmp_path):
    result = shell(f"gen {TRAIN} runs {ending}", tmp_path)
    assert result.stdout == "0\n" and result.stderr.count("\n") <= 1
    assert (tmp_path / "runs/00000-dcgan-shapes/checkpoints/step-00000003.pt").exists()
    assert "running" not in (tmp_path / "runs/00000-dcgan-shapes/status.json").read_text()


@pytest.mark.parametrize("command", [LAYER, "--help", "layer --help"])
def test_nobody_reads_the_results(command, tmp_path):
    result = shell(f"gen {command}; echo $? >&3) | true", tmp_path)
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_results_that_cannot_be_printed_are_an_error(tmp_path):
    result = shell(f"gen {LAYER} --json - >/dev/full; echo $? >&3)", tmp_path)
    assert result.stdout == "1\n"
    assert "No space left" in result.stderr and "Traceback" not in result.stderr


def test_results_go_into_a_stream_and_never_replace_it(tmp_path):
    result = shell(f"gen {LAYER} --json /dev/stdout) | cat", tmp_path)
    assert result.stdout.startswith("{") or "\n{" in result.stdout
    assert Path("/dev/stdout").is_symlink()
    result = shell(f"gen {LAYER} --json /dev/stdout > all.txt)", tmp_path)
    text = (tmp_path / "all.txt").read_text()
    assert "Uneven" in text and '"pattern"' in text and text.index("Uneven") < text.index("{")


def test_what_is_printed_never_goes_into_a_file(tmp_path):
    """A closed stderr gives its number to the next file that is opened."""
    shell(f"gen {LAYER} --json a.json 2>&- >&-)", tmp_path)
    assert (tmp_path / "a.json").read_text().startswith("{")


def test_a_narrow_terminal_that_knows_no_escapes(tmp_path):
    pty = pytest.importorskip("pty")
    import fcntl
    import termios

    held, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    names = {"TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "gen", *TRAIN.split(), "runs"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=terminal, stderr=terminal,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | names,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(held, 4096):
            shown += part
    os.close(held)
    assert process.wait() == 0 and b"\x1b" not in shown
    bars = [part for part in re.split("[\r\n]+", shown.decode()) if "%|" in part]
    assert len(bars) >= 2 and max(map(len, bars)) <= 20
