"""Runs that go wrong: what is named, what is kept, and what status.json says of it."""

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from gen.runs.checkpoint import run_checkpoints
from gen.runs.open import load_checkpoint
from gen.system.files import read_rows
from gen.training.log import RunLog
from gen.training.loop import Trainer, train_step
from gen.training.metrics import Failure, FiniteCheck
from gen.training.state import TrainingError
from tests.conftest import file_size_limit, make_pipe, small_config

NAN, INF = float("nan"), float("inf")


def status(folder):
    return json.loads((folder / "status.json").read_text())


def test_the_first_failure_is_remembered():
    finite_check = FiniteCheck(["one", "two"], torch.device("cpu"))
    good, bad = torch.ones(()), torch.tensor(NAN)
    weights = [torch.ones(3), torch.ones(2, 2)]
    for phase in ("one", "two"):
        finite_check.update(phase, good, weights, 0)
    assert finite_check.first_failure() is None
    finite_check.update("two", good, [torch.ones(3), torch.tensor([1.0, -INF])], 3)
    assert finite_check.first_failure() == Failure(3, "two", "weights")
    finite_check.update("two", bad, weights, 3)  # of one turn the loss comes first
    assert finite_check.first_failure() == Failure(3, "two", "loss")
    finite_check.update("one", torch.tensor(INF), weights, 4)  # later changes nothing
    finite_check.update("two", bad, weights, 4)
    assert finite_check.first_failure() == Failure(3, "two", "loss")
    finite_check.update("one", good, [torch.tensor([NAN])], 3)  # of one step the earlier phase
    assert finite_check.first_failure() == Failure(3, "one", "weights")


def diverging(folder, dataset):
    """A VAE at a learning rate of 1: its loss overflows within a few steps."""
    folder.mkdir()
    config = small_config("vae", steps=400, snapshot_every=5, log_every=1)
    object.__setattr__(config.objective, "lr", 1.0)
    return Trainer(config, dataset, folder)


def first_bad_step(trainer):
    """Looks at each loss and weight after each step; counts from 1."""
    stream = iter(trainer.dataset_batches)
    for step in range(400):
        metrics = train_step(trainer.objective, next(stream), step, nullcontext())
        weights = [w for module in trainer.modules.values() for w in module.parameters()]
        if not metrics["loss/vae"].isfinite():
            return step + 1, "loss"
        if not all(weight.isfinite().all() for weight in weights):
            return step + 1, "weights"
    raise AssertionError("it did not diverge")


def test_a_run_that_diverges_stops_at_its_last_good_checkpoint(small_dataset, tmp_path):
    from gen.data.batches import batches

    judge = diverging(tmp_path / "judge", small_dataset)
    judge.dataset_batches = map(judge.to_device, batches(small_dataset, batch_size=8, seed=0))
    step, what = first_bad_step(judge)
    trainer = diverging(tmp_path / "run", small_dataset)
    with pytest.raises(TrainingError) as error:
        trainer.run()
    assert trainer.step == step  # it is looked for at the rhythm of the log
    said = str(error.value)
    assert said.startswith(f"{what} of phase elbo not finite in step {step}; step ")
    assert f"--resume {tmp_path / 'run'} --override lr=0.5" in said and "\n" not in said
    kept = [load_checkpoint(file) for file in run_checkpoints(tmp_path / "run")]
    good = 5 * ((step - 1) // 5)  # the last snapshot before
    assert kept[-1]["step"] == good and f"step {good} is saved and good" in said
    for content in kept:
        assert all(v.isfinite().all() for m in content["modules"].values() for v in m.values())
    assert status(tmp_path / "run")["state"] == "failed"
    assert status(tmp_path / "run")["step"] == good
    assert status(tmp_path / "run")["reason"] == said


def test_numbers_that_json_has_no_words_for_are_left_out(tmp_path):
    log = RunLog(tmp_path, 0)
    log.metrics(1, {"a": 1.0, "b": NAN, "c": INF})
    log.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1.0}]


def start(small_dataset, folder, **training):
    folder.mkdir(exist_ok=True)
    return Trainer(small_config("vae", **training), small_dataset, folder)


def test_status_of_a_run_that_ended(small_dataset, tmp_path):
    trainer, seen = start(small_dataset, tmp_path), []
    move = trainer.to_device

    def look(batch):
        seen.append((status(tmp_path)["state"], status(tmp_path)["step"]))
        return move(batch)

    trainer.to_device = look
    trainer.run()
    assert list(dict.fromkeys(seen)) == [("running", 0), ("running", 3)]
    found = status(tmp_path)
    assert (found["state"], found["step"], found["reason"]) == ("finished", 6, "")
    assert found["pid"] == os.getpid() and found["as_of"].endswith("+00:00")


@pytest.mark.parametrize(
    ("place", "step"), [("metrics", 4), ("pictures", 3), ("save", 3), ("to_device", 2)]
)
def test_a_signal_at_any_moment_is_answered_by_saving(place, step, small_dataset, tmp_path):
    """While metrics are logged, pictures are written, a checkpoint is saved, between steps."""
    trainer = start(small_dataset, tmp_path)
    holder = trainer if place in ("save", "to_device") else RunLog
    method, sent = getattr(holder, place), []

    def interrupted(*arguments):
        if trainer.step == step and not sent:
            sent.append(signal.raise_signal(signal.SIGTERM))
        return method(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, place, interrupted)
        assert trainer.run() == signal.SIGTERM
    saved = step + 1 if place == "to_device" else step  # the step that is under way is finished
    assert load_checkpoint(tmp_path)["step"] == saved
    found = status(tmp_path)
    assert (found["state"], found["step"], found["reason"]) == ("interrupted", saved, "SIGTERM")


def test_a_signal_after_the_last_step_changes_nothing(small_dataset, tmp_path):
    trainer = start(small_dataset, tmp_path)
    save = trainer.save

    def interrupted():
        save()
        if trainer.step == 6:
            signal.raise_signal(signal.SIGINT)

    trainer.save = interrupted
    assert trainer.run() == 0
    assert status(tmp_path)["state"] == "finished"


def test_a_full_disk_is_found_at_step_0_and_in_one_sentence(small_dataset, tmp_path):
    """The pictures fit into 30 kB, a checkpoint does not."""
    trainer = start(small_dataset, tmp_path)
    with file_size_limit(30_000), pytest.raises(OSError) as error:
        trainer.run()
    reason = "cannot be written: File too large; what was saved before is intact"
    assert Path(error.value.filename).name == "step-00000000.pt"
    assert error.value.strerror == reason
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert status(tmp_path)["state"] == "failed" and reason in status(tmp_path)["reason"]


def fill_up_at(step, place, trainer, patch):
    """At a step, a method of the log meets a full disk: /dev/full, or a file that may not grow."""
    method, spent = getattr(RunLog, place), []

    def spoiled(log, *arguments):
        if trainer.step == step and not spent:
            spent.append(step)
            if place == "pictures":
                for file in log.folder.glob("events.*"):  # which is opened for each event
                    file.unlink()
                    file.symlink_to("/dev/full")
            else:
                with file_size_limit(log.rows.stat().st_size):
                    return method(log, *arguments)
        return method(log, *arguments)

    patch.setattr(RunLog, place, spoiled)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_events_that_cannot_be_written_neither_end_nor_hang_a_run(
    small_dataset, tmp_path, monkeypatch, capsys
):
    trainer = start(small_dataset, tmp_path)
    fill_up_at(3, "pictures", trainer, monkeypatch)
    assert trainer.run() == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "Warning" in line]
    assert warnings == [
        f"Warning: {tmp_path}: events cannot be written (No space left on device); "
        "the run continues without TensorBoard events"
    ]
    assert load_checkpoint(tmp_path)["step"] == 6
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 2, 3, 4, 6]


def test_rows_that_cannot_be_written_end_a_run_that_can_be_resumed(
    small_dataset, tmp_path, monkeypatch
):
    trainer = start(small_dataset, tmp_path)
    with monkeypatch.context() as patch:
        fill_up_at(4, "metrics", trainer, patch)
        with pytest.raises(OSError, match="File too large") as error:
            trainer.run()
    assert error.value.filename == str(tmp_path / "metrics.jsonl")
    found = status(tmp_path)
    assert (found["state"], found["step"]) == ("failed", 3)
    again = start(small_dataset, tmp_path)
    again.load(load_checkpoint(tmp_path))
    assert again.run() == 0
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 2, 3, 4, 6]


def test_a_pipe_in_the_place_of_rows_ends_a_run_that_can_be_resumed(small_dataset, tmp_path):
    """To open it would wait for a reader, with every signal held back."""
    trainer = start(small_dataset, tmp_path)
    make_pipe(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="a pipe, device or socket, not a file"):
        trainer.run()
    assert status(tmp_path)["state"] == "failed"
    (tmp_path / "metrics.jsonl").unlink()
    assert start(small_dataset, tmp_path).run() == 0


def test_rows_that_are_none_end_no_run_that_is_resumed(small_dataset, tmp_path, capsys):
    assert start(small_dataset, tmp_path, steps=3).run() == 0
    rows = read_rows(tmp_path / "metrics.jsonl")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'3\n{"step": "a"}\n{"step": 1, "a": NaN}\n\xff\n{"step": 2, "torn')
    again = start(small_dataset, tmp_path)
    again.load(load_checkpoint(tmp_path))
    capsys.readouterr()
    assert again.run() == 0
    assert capsys.readouterr().err.count("left out 5 lines that are no rows") == 1
    assert read_rows(tmp_path / "metrics.jsonl")[: len(rows)] == rows
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 2, 3, 4, 6]


def test_tags_and_texts_of_events_are_printable(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0)
    log.metrics(0, {"a\ud800\x1b\n": 1.0}, ["<b>bold</b> \u202e"])
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == [r"a\ud800\x1b\n"]
    (text,) = events.Tensors("warnings/text_summary")
    assert text.tensor_proto.string_val[0].decode() == r"&lt;b&gt;bold&lt;/b&gt; \\u202e"
