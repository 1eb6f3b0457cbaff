"""Several processes act as one: real ones, over gloo."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed import TCPStore

from gen.runs.data import check_batch_size
from gen.runs.open import load_checkpoint
from gen.system import distributed
from gen.system.errors import InputError
from gen.training.loop import Trainer
from tests.conftest import PATIENCE, small_config, wait_until
from tests.equality import run_differences
from tests.system import distributed_worker
from tests.system.test_files import MEASURING

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def start():
    """Start the processes of one group as torchrun does, but without its own, which costs seconds.

    The store in which they meet stands here, as it does in torchrun.
    """
    if os.name == "nt":
        pytest.skip("Windows sends a process no signals, and torchrun needs them")
    stores = []

    def start(world, *arguments, **settings):
        stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        common |= {"MASTER_PORT": str(stores[-1].port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        return [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, **common, "PYTHONPATH": str(ROOT)}
                | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **settings,
            )
            for rank in range(world)
        ]

    return start


def finish(processes):
    """Exit codes and what was said, by rank; none outlives the test."""
    try:
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [p.returncode for p in processes], [out + err for out, err in said]


def images_to_measure(folder):
    """A folder with a bad file and one of another size, an array, sheets with empty cells."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (31, 24, 24, 3), np.uint8)
    np.save(folder / "photos.npy", pixels)
    np.save(folder / "few.npy", rng.integers(0, 255, (2, 128, 128, 1), np.uint8))
    for name in ("photos", "sheets"):
        (folder / name).mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "photos" / f"{index:02d}.png")
    (folder / "photos" / "20.png").write_bytes(b"no image")
    (folder / "photos" / "25.png").write_bytes((folder / "photos" / "25.png").read_bytes()[:-200])
    Image.fromarray(pixels[0, :20]).save(folder / "photos" / "30.png")
    for index in range(3):  # five tiles and an empty cell each
        sheet = np.zeros((51, 76, 3), np.uint8)
        for cell, image in enumerate(pixels[5 * index : 5 * index + 5]):
            y, x = 1 + 25 * (cell // 3), 1 + 25 * (cell % 3)
            sheet[y : y + 24, x : x + 24] = image
        Image.fromarray(sheet).save(folder / "sheets" / f"{index}.png")


@pytest.fixture(scope="module")
def worked(start, tmp_path_factory):
    """The folder in which two processes have left what they did."""
    folder = tmp_path_factory.mktemp("worked")
    images_to_measure(folder)
    (folder / "shared").mkdir()
    codes, said = finish(start(2, "tests/system/distributed_worker.py", folder))
    assert codes == [0, 0], said
    assert said[1] == ""
    (folder / "said").write_text(said[0])
    return folder


@pytest.mark.parametrize("model", ["dcgan", "vae"])
def test_two_processes_equal_one_on_the_joined_batch(model, worked, small_dataset, tmp_path):
    """Shares of 4 and 5 images, no noise, batch norm in eval: rounding alone differs."""
    first, second = (torch.load(worked / model / f"{rank}.pt") for rank in range(2))
    one = distributed_worker.noiseless_steps(model, small_dataset, tmp_path)
    for key in ("gradients", "weights"):
        assert len(one[key]) == len(first[key]) > 10
        for mine, other, alone in zip(first[key], second[key], one[key], strict=True):
            assert torch.equal(mine, other)
            bound = 1e-6 if key == "weights" else 1e-7 + 1e-5 * alone.abs().max()
            assert (mine - alone).abs().max() <= bound
    assert first["metrics"] == second["metrics"]
    assert first["metrics"] == pytest.approx(one["metrics"], rel=1e-6, abs=1e-6)


def results(folder):
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(2)]


def test_processes_hold_the_same_bits_after_training(worked):
    """Weights, averages, optimizers, batch-norm statistics; with noise, batch norm in training."""
    first, second = results(worked)
    assert first["digests"] == second["digests"]


def test_resumed_run_of_two_equals_the_unbroken_one(worked):
    found = run_differences(worked / "whole-0", worked / "broken-0")
    assert [path for path in found if not path.endswith("config/training/steps")] == []


def test_noise_differs_by_process_and_is_kept(worked):
    """At step 0: later, parts of 4 and 5 images would have taken unlike numbers of one stream."""
    states = load_checkpoint(worked / "whole-0/checkpoints/step-00000000.pt")["processes"]
    assert len(states) == 2
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])


def test_only_the_first_process_writes(worked):
    for name in ("whole", "broken"):
        assert not list((worked / f"{name}-1").iterdir())
    assert len(list((worked / "whole-0").glob("events.*"))) == 1


def test_shared_measurement_equals_that_of_one_process(worked, capsys):
    first, second = (result["measured"] for result in results(worked))
    alone = distributed_worker.measured(worked)
    assert first == second
    assert [len(case["first"]) for case in first] == [24, 9, 2, 24]
    for shared, one in zip(first, alone, strict=True):
        assert shared["first"] == one["first"]
        assert_close(shared["numbers"], one["numbers"])
    notes = [text.splitlines() for text in (capsys.readouterr().err, (worked / "said").read_text())]
    for note in ("images left out: smaller than", "images left out: tiles of one flat color"):
        for said in notes:
            assert sum(note in line for line in said) == 1


def test_shared_samples_are_those_of_one_process(worked):
    first, second = (result["sampled"] for result in results(worked))
    (worked / "alone").mkdir()
    assert first == distributed_worker.sampled(worked, "alone")
    assert "40 were there" in first[1] and second == ["", "", ""]
    shared, alone = (
        {p.relative_to(worked / name): p.read_bytes() for p in (worked / name).rglob("*.*")}
        for name in ("shared", "alone")
    )
    assert len(alone) == 72 and shared == alone


def test_sets_of_other_content_are_refused(worked):
    first, second = (result["other"] for result in results(worked))
    assert "holds other files as the processes see it" in first[0]
    assert first[1] == "" and second == ["", ""]


def test_sets_that_differ_and_batches_too_small_to_share_are_refused(worked, monkeypatch):
    first, second = (result["refused"] for result in results(worked))
    assert "holds 9, 10 images as the processes see it" in first and second == ""
    monkeypatch.setattr(distributed._Group, "world", 2)
    check_batch_size(4)
    with pytest.raises(ValueError, match="each of 2 processes needs 2 images of it"):
        check_batch_size(3)


def assert_close(a, b, where=""):
    """Numbers of nested dicts and lists agree to 1e-9, in dB to 1e-9 of the amplitude."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b)
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_close(*pair, f"{where}/{index}")
    else:
        bound = 20 * math.log10(1 + 1e-9) if "db" in where.split("/")[-1] else 1e-9
        assert a == (pytest.approx(b, rel=1e-9, abs=bound) if isinstance(b, float) else b), where


def test_one_process_goes_on_with_a_run_of_two(worked, small_dataset, tmp_path, capsys):
    trainer = Trainer(small_config("dcgan", batch_size=9, steps=7), small_dataset, tmp_path)
    trainer.load(load_checkpoint(worked / "whole-0"))
    said = capsys.readouterr().err
    assert "processes 2 → 1" in said and "not bitwise" in said
    assert said.count("\n") == 1
    assert trainer.run() == 0
    assert len(load_checkpoint(tmp_path)["processes"]) == 1


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TRAIN = ["train.py", "dcgan", "--size", 16, "--width", 4, "--batch-size", 8, "--device", "cpu"]
TRAIN += ["--log-every", 5, "--steps", 10**6]


def training_began(folder, processes):
    """Wait for the first row that says how training goes; returns the run's folder."""
    run = folder / "00000-dcgan-shapes"
    rows = run / "metrics.jsonl"
    wait_until(lambda: rows.exists() and "loss" in rows.read_text(), *processes)
    return run


@pytest.mark.slow
def test_sigterm_to_torchrun_is_saved_once_by_all(tmp_path):
    """With an echo: cluster managers signal torchrun, which passes it on, and its children too.

    torchrun passes it on when it has the processor: here an echo may come at any time.
    """
    late = "from gen.system import signals; signals.ECHO = 1e9; from train import main; main()"
    command = [sys.executable, "-c", late, *TRAIN[1:], "--outdir", tmp_path]
    command = shlex.join(map(str, command))
    script = (  # the shell outlives its signal, to note how train.py ended
        f"cd {tmp_path}; trap : TERM; (echo $BASHPID > pid.$RANK; cd {ROOT}; exec {command});"
        "echo $? > code.$RANK"
    )
    process = subprocess.Popen(
        [*TORCHRUN, "--no-python", "bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        run = training_began(tmp_path, [process])
        process.terminate()
        for rank in range(2):
            os.kill(int((tmp_path / f"pid.{rank}").read_text()), signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert [(tmp_path / f"code.{rank}").read_text() for rank in range(2)] == ["143\n"] * 2, said
    step = load_checkpoint(run)["step"]
    assert step > 0
    assert said.count("Stopped and saved") == said.count(f"saved at step {step};") == 1


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the threads of a process in /proc"
)


@needs_proc
def test_no_thread_of_the_group_outlives_it(worked):
    """One that is at work while the interpreter shuts down aborts the process: 134 for 143."""
    for rank in range(2):
        threads = (worked / f"threads-{rank}").read_text()
        assert threads and "gloo" not in threads


@needs_proc
@pytest.mark.slow
def test_no_thread_of_the_group_outlives_a_process_that_was_killed(start):
    script = """
        import os, signal, sys
        from pathlib import Path
        import torch
        from torch import optim
        from gen.system import distributed
        try:
            with distributed.joined():
                optim.Adam([torch.zeros(1)])  # imports what would keep the group
                distributed.wait()
                if distributed.rank():
                    os.kill(os.getpid(), signal.SIGKILL)
                distributed.wait()
        except distributed.ProcessLostError as error:
            lost = error
        print([task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")])
        """
    codes, said = finish(start(2, "-c", textwrap.dedent(script)))
    assert codes == [0, -9], said
    assert "gloo" not in said[0] and said[0].startswith("["), said


def test_signal_to_one_process_stops_all_after_the_same_step(start, tmp_path):
    processes = start(2, *TRAIN, "--outdir", tmp_path)
    run = training_began(tmp_path, processes)
    processes[1].send_signal(signal.SIGINT)
    codes, said = finish(processes)
    assert codes == [130, 130], said
    assert f"saved at step {load_checkpoint(run)['step']};" in said[0]
    assert said[1] == ""


def test_sigterm_while_a_measurement_is_shared_leaves_no_half_of_it(start, tmp_path):
    """A million images, a file full of holes; all are told, as torchrun does."""
    many = tmp_path / "many.npy"
    np.lib.format.open_memmap(many, "w+", np.uint8, (10**6, 64, 64))
    words = ["images", many, "--json", tmp_path / "a.json", "--report", tmp_path / "b"]
    processes = start(2, "-c", MEASURING, *words)
    try:
        assert [process.stdout.readline() for process in processes] == ["measuring\n"] * 2
    finally:
        for process in processes:
            process.terminate()
        codes, said = finish(processes)
    assert (codes, said) == ([143, 143], ["Interrupted.\n", ""])
    assert list(tmp_path.iterdir()) == [many]


def test_process_that_is_killed_ends_the_others(start, tmp_path):
    processes = start(2, *TRAIN, "--outdir", tmp_path)
    run = training_began(tmp_path, processes)
    processes[1].kill()
    codes, said = finish(processes)  # long before distributed.PATIENCE is over
    assert codes == [1, -signal.SIGKILL]
    errors = [line for line in said[0].splitlines() if "Error" in line]
    assert len(errors) == 1 and "lost contact" in errors[0], said
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_torchrun_restarts_after_a_process_was_killed(tmp_path):
    """Plain torch fails in half of such restarts: it finds addresses of the dead group."""
    command = [*TORCHRUN, "--max-restarts", "1", *TRAIN, "--steps", "20000", "--resume", "auto"]
    command += ["--snapshot-every", "5", "--outdir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        run = training_began(tmp_path, [process])
        killed = json.loads((run / "status.json").read_text())["pid"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: _pid_in(run) not in (None, killed), process)
        before = load_checkpoint(run)["step"]
        wait_until(lambda: load_checkpoint(run)["step"] > before, process)
        os.kill(_pid_in(run), signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert "from step" in said and said.count("Stopped and saved") == 1, said
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


def _pid_in(run):
    """The process that status.json names, once it runs."""
    status = json.loads((run / "status.json").read_text())
    return status["pid"] if status["state"] == "running" else None


@pytest.mark.slow
def test_full_disk_of_the_first_process_ends_all_with_one_line(start, tmp_path):
    """RLIMIT_FSIZE makes the checkpoint of step 0 fail; the second process writes nothing."""
    resource = pytest.importorskip("resource", reason="no limit on a file's size")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, 8192))
    processes = start(2, *TRAIN, "--outdir", tmp_path, preexec_fn=limit)
    codes, said = finish(processes)
    assert codes == [1, 1], said
    errors = [line for line in "".join(said).splitlines() if "Error" in line]
    assert len(errors) == 1 and "File too large" in errors[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["gan"],
        ["vae", "--seed", "x"],
        pytest.param(["vae", "--lr", "nan"], marks=pytest.mark.slow),  # each imports torch
    ],
)
def test_arguments_that_err_are_named_once(start, arguments):
    codes, said = finish(start(2, "train.py", *arguments))
    assert codes == [2, 2], said
    assert "".join(said).count("Error") == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "RANK is 2 of"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "http"}, "'http'"),
    ],
)
def test_half_an_environment_is_named(values, named, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=named), distributed.joined():
        pass
