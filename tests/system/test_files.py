"""Writing: whole or not at all, in real processes with a limit on what a file may grow to."""

import json
import math
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gen.system import distributed, signals
from gen.system.files import (
    NotRegularError,
    append,
    atomic_file,
    atomic_folder,
    lock_folder,
    open_regular,
    read_rows,
    remove_unfinished,
    write_atomically,
)
from gen.system.signals import caught_signals, interruptible, uninterrupted
from tests.conftest import PATIENCE, file_size_limit, link, make_pipe

ROOT = Path(__file__).resolve().parents[2]
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
ENDING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", [write_atomically, append])
def test_a_file_that_may_not_grow_keeps_what_it_had(call, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with file_size_limit(1000), pytest.raises(OSError) as error:
        call(file, b"x" * 1200)
    assert error.value.filename == str(file)
    assert error.value.strerror == (
        "cannot be written: File too large; what was saved before is intact"
    )
    assert file.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no directory to synchronize it")
def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_it_returns(
    tmp_path, monkeypatch
):
    """A spy on fsync sees what is synchronized, and what stands under the name by then."""
    folder, file, seen, fsync = tmp_path / "folder", tmp_path / "folder" / "file", [], os.fsync
    folder.mkdir()
    file.write_bytes(b"old")
    os.link(file, tmp_path / "kept")

    def spy(descriptor):
        fsync(descriptor)
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, file.read_bytes(), len(names_in(folder))))

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(file, b"new")
    assert seen == [("file", b"old", 2), ("directory", b"new", 1)]
    append(file, b"er")
    assert seen[2:] == [("file", b"newer", 1)]
    assert (tmp_path / "kept").read_bytes() == b"old"  # it was not written in place
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be written: No such file") as error:
        write_atomically(tmp_path / "none" / "file", b"new")
    assert error.value.filename == str(tmp_path / "none" / "file")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    script = "import sys; from gen.system.files import atomic_file\nwith atomic_file(sys.argv[1])"
    script += " as file:\n    file.write(b'half'); print('now', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path / "file.pt")]
    process = subprocess.Popen(command, cwd=ROOT, **PIPES)
    process.stdout.readline()
    process.kill()
    process.communicate()
    (tmp_path / ".hidden").write_text("the user's own")
    left = names_in(tmp_path)
    assert len(left) == 2 and left[0].startswith(".file.pt.")
    remove_unfinished(tmp_path)
    assert names_in(tmp_path) == [".hidden"]


LEAVING = """
import os, signal, sys
from pathlib import Path
from gen.system.files import atomic_file, atomic_folder
made = Path(sys.argv[1])
with atomic_folder(made) if sys.argv[2] == "folder" else atomic_file(made) as inside:
    (inside / "weights").write_text("half") if sys.argv[2] == "folder" else inside.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGKILL")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_next_command_removes_what_a_killed_one_left_and_nothing_in_use(kind, tmp_path):
    """Also of names with characters that patterns take for their own."""
    path, others = tmp_path / "a[1]*", [tmp_path / ".notes.tmp", tmp_path / ".a.backup00.tmp"]
    for other in others:
        other.write_text("the user's own")
    subprocess.run([sys.executable, "-c", LEAVING, str(path), kind], cwd=ROOT, check=False)
    assert len(names_in(tmp_path)) == 3
    with atomic_folder(path) if kind == "folder" else atomic_file(path):
        new = [name for name in names_in(tmp_path) if name.startswith(".a[1]*.")]
        assert len(new) == 1  # that of the dead process is gone
        remove_unfinished(tmp_path, path.name)
        assert set(new) < set(names_in(tmp_path))
    assert names_in(tmp_path) == [".a.backup00.tmp", ".notes.tmp", "a[1]*"]


def test_temporary_names_are_bounded_and_permissions_are_those_of_open(tmp_path):
    """The mask of permissions belongs to all threads, so it is never set to be read."""
    name, before = "ü" * 120 + ".json", os.umask(0o027)  # 245 bytes
    try:
        write_atomically(tmp_path / name, b"x")
        with atomic_folder(tmp_path / "folder") as made:
            (made / "x").touch()
    finally:
        os.umask(before)
    assert (tmp_path / name).read_bytes() == b"x"
    if os.name != "nt":
        modes = [(tmp_path / n).stat().st_mode & 0o777 for n in (name, "folder")]
        assert modes == [0o640, 0o750]


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("whole", "dangling"):
        link(tmp_path / name, tmp_path / "there" / name)
    (tmp_path / "there" / "whole").write_bytes(b"old")
    for name in ("whole", "dangling"):
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "there" / name).read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="no devices in folders")
def test_a_device_or_pipe_is_written_into(tmp_path):
    link(tmp_path / "null", Path(os.devnull))
    write_atomically(tmp_path / "null", b"x" * 100_000)
    assert (tmp_path / "null").is_symlink() and Path(os.devnull).is_char_device()
    make_pipe(tmp_path / "pipe")
    taken = []
    reader = threading.Thread(target=lambda: taken.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", b"x" * 100_000)  # more than a pipe holds at once
    reader.join(PATIENCE)
    assert taken == [b"x" * 100_000] and (tmp_path / "pipe").is_fifo()


def test_rows_add_up_and_a_torn_one_is_none(tmp_path):
    for step in range(3):
        append(tmp_path / "rows", json.dumps({"step": step}).encode() + b"\n")
    assert read_rows(tmp_path / "rows") == [{"step": 0}, {"step": 1}, {"step": 2}]
    append(tmp_path / "rows", b'3\n{"step": 3, "loss')
    assert read_rows(tmp_path / "rows") == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_directory_is_held_by_one_and_let_go_of_by_the_dead(tmp_path):
    pytest.importorskip("fcntl", reason="gen locks no directory where the system has no flock")
    script = "import sys; from pathlib import Path; from gen.system.files import lock_folder\n"
    script += "with lock_folder(Path(sys.argv[1])): print('now', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, **PIPES)
    process.stdout.readline()
    with (
        pytest.raises(BlockingIOError, match="another process is training here"),
        lock_folder(tmp_path),
    ):
        pass
    process.kill()
    process.communicate()
    with lock_folder(tmp_path):
        assert names_in(tmp_path) == []


@pytest.mark.parametrize("number", ENDING)
def test_signals_are_noted_raised_or_put_off(number):
    with caught_signals() as caught:
        signal.raise_signal(number)
        assert caught == [number]
        assert {signal.getsignal(n) for n in ENDING} == {signal.SIG_DFL}
    done = []
    with pytest.raises(KeyboardInterrupt) as error, interruptible():
        with uninterrupted():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("not this")
    assert error.value.args == (number,) and done == ["all of it"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught_signals() as caught:
            signal.raise_signal(signal.SIGHUP)
            assert not caught
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_echo_that_comes_late_interrupts_none_of_several_processes(monkeypatch):
    """One that left early, its work saved, would take the others' contact from them."""
    monkeypatch.setattr(distributed._Group, "world", 2)
    monkeypatch.setattr(signals._Last, "time", -math.inf)
    with interruptible():
        with caught_signals() as caught:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        monkeypatch.setattr(signals._Last, "time", -math.inf)
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(signal.SIGTERM)


def test_a_thread_is_never_interrupted():
    done = []

    def work():
        with uninterrupted():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def test_a_library_that_catches_everything_on_import_does_not_swallow_a_signal(tmp_path):
    (tmp_path / "careless.py").write_text(
        "import signal\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\n    import json\nexcept:\n    pass\n"
    )
    script = (
        "from gen.system.signals import interruptible\nwith interruptible():\n    import careless\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (143, "Interrupted.\n")


MEASURING = """
from gen.analysis.measure.meter import Meter
from gen.commands.main import analyze
update = Meter.update
def announced(meter, images):
    update(meter, images)
    print("measuring", flush=True)
    Meter.update = update
Meter.update = announced
analyze()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process that is sent SIGTERM at once")
def test_an_analysis_that_is_interrupted_leaves_no_report(finished, tmp_path):
    """A million samples would take minutes; the signal comes when the first are measured."""
    command = [sys.executable, "-c", MEASURING, "images", finished("vae"), "--num", 10**6]
    command += ["--report", tmp_path / "report", "--json", tmp_path / "numbers.json"]
    process = subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "measuring\n"
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, said) == (143, "Interrupted.\n")
    assert names_in(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="no devices in folders")
@pytest.mark.parametrize("call", [open_regular, read_rows, lambda path: append(path, b"x")])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe"])
def test_what_is_no_file_is_neither_waited_for_nor_changed(call, kind, tmp_path):
    path = tmp_path / "file"
    if kind == "pipe":
        make_pipe(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        make_pipe(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(NotRegularError) as error:
        call(path)
    assert error.value.filename == str(path) and error.value.exit_code == 1
    assert error.value.strerror.endswith(", not a file")


def test_rows_that_are_none_are_left_out_with_one_line(tmp_path, capsys):
    file, rows = tmp_path / "metrics.jsonl", [{"step": 0, "a": 1.5}, {"step": 7, "warnings": ["x"]}]
    spoiled = [
        b"3", b"[]", b"null", b"{}", b'{"a": 1}', b"[" * 100_000, b"\x00\x00", b'{"step": 5, "to',
    ]  # fmt: skip
    spoiled += [b'{"step": %s}' % step for step in (b'"a"', b"true", b"-1", b"1.0", b"9" * 11)]
    values = (b"NaN", b"1e999", b"[]", b"false", b"1" + b"0" * 400, b'"\xff"')
    spoiled += [b'{"step": 1, "a": %s}' % value for value in values]
    spoiled += [b'{"step": 1, "warnings": %s}' % value for value in (b'"x"', b"[3]", b"{}")]
    first, last = (json.dumps(row).encode() for row in rows)
    for line in spoiled:
        file.write_bytes(b"\n".join([first, line, last]))
        assert read_rows(file) == rows, line
        said = capsys.readouterr().err
        assert said == f"Warning: {file}: left out 1 lines that are no rows (first: line 2)\n"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_rows(file) == rows and capsys.readouterr().err == ""
