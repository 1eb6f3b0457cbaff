"""A run that was stopped anywhere and resumed ends as the unbroken one: equal in every bit."""

import contextlib
import functools
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import gen.training.loop as loop
from gen.data.datasets import load_dataset
from gen.runs.open import load_checkpoint
from gen.training.loop import Trainer, train_step
from tests.conftest import small_config
from tests.equality import content_differences, rows, run_differences

STEPS = 11
# 37 images in batches of eight: an epoch is four steps, and one image is left over.
STOPS = {"first step": 0, "mid-epoch": 6, "epoch's end": 8, "last step": 10}


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing more is saved."""


def die():
    raise Killed


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same PNG files: in memory, read ahead by no thread of their own, and by two."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (37, 16, 16, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    common = {"root": folder, "size": (16, 16), "channels": 3}
    return {
        "memory": load_dataset(str(folder), **common),
        "workers": load_dataset(str(folder), **common, workers=2, memory_limit=0),
    }


def start(model, dataset, folder):
    folder.mkdir(exist_ok=True)
    config = small_config(model, steps=STEPS, snapshot_every=4, log_every=3)
    object.__setattr__(config.data, "flip", True)
    return Trainer(config, dataset, folder)


def stop(trainer, step, end):
    """Let a run end before it takes `step`, counted from 0; a polite one saves there."""
    move = trainer.to_device
    if end is terminate and step:
        step -= 1  # the step that is under way is finished

    def moved(batch):
        if trainer.step == step and batch.images.shape[0] == 8:
            end()
        return move(batch)

    trainer.to_device = moved
    try:
        assert trainer.run() == signal.SIGTERM
    except Killed:
        assert end is die


def resume(model, dataset, folder, mutate=lambda content: None):
    trainer = start(model, dataset, folder)
    content = load_checkpoint(folder)
    mutate(content)
    trainer.load(content)
    assert trainer.run() == 0


@pytest.fixture(scope="module")
def whole(datasets, tmp_path_factory):
    """Model → folder of its unbroken run, made once."""

    @functools.cache
    def get(model):
        folder = tmp_path_factory.mktemp(f"whole-{model}")
        assert start(model, datasets["memory"], folder).run() == 0
        return folder

    return get


def check(model, place, end, way, datasets, whole, tmp_path):
    stop(start(model, datasets[way], tmp_path / "broken"), STOPS[place], end)
    resume(model, datasets[way], tmp_path / "broken")
    assert run_differences(tmp_path / "broken", whole(model)) == []


@pytest.mark.parametrize(
    ("model", "place", "end", "way"),
    [
        ("dcgan", "first step", die, "memory"),
        ("dcgan", "mid-epoch", terminate, "workers"),
        ("dcgan", "last step", die, "workers"),
        ("vae", "mid-epoch", die, "workers"),
        ("vae", "epoch's end", terminate, "memory"),
    ],
)
def test_resumed_run_ends_as_the_unbroken_one(model, place, end, way, datasets, whole, tmp_path):
    check(model, place, end, way, datasets, whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dcgan", "vae", "vaegan"])
@pytest.mark.parametrize("place", STOPS)
@pytest.mark.parametrize("end", [die, terminate])
@pytest.mark.parametrize("way", ["memory", "workers"])
def test_wherever_it_is_stopped(model, place, end, way, datasets, whole, tmp_path):
    check(model, place, end, way, datasets, whole, tmp_path)


# What would go wrong if a part of the state were not kept: the comparison above must see it.


def forget_noise(content):
    content["processes"][0]["cpu"] = torch.Generator().manual_seed(1).get_state()


def forget_optimizer(name):
    def forget(content):
        content["optimizers"][name]["state"] = {}

    return forget


def forget_average(content):
    for key in content["ema"]:
        content["ema"][key] = content["modules"][key.partition(".")[0]][key.partition(".")[2]]


def forget_means(content):
    content["processes"][0]["means"] = {"sums": {}, "counts": {}}


def forget_statistics(content):
    for key, value in content["modules"]["generator"].items():
        if "running_mean" in key:
            value.zero_()


@pytest.fixture(scope="module")
def broken(datasets, tmp_path_factory):
    """Model → folder of a run that was stopped between two rows of its log, made once."""

    @functools.cache
    def get(model):
        folder = tmp_path_factory.mktemp(f"broken-{model}")
        stop(start(model, datasets["memory"], folder), 5, terminate)
        return folder

    return get


@pytest.mark.parametrize(
    ("model", "forget"),
    [
        ("dcgan", forget_noise),
        ("dcgan", forget_optimizer("discriminator")),
        ("dcgan", forget_optimizer("generator")),
        ("dcgan", forget_average),
        ("dcgan", forget_means),
        ("dcgan", forget_statistics),
        ("vae", forget_noise),
        ("vae", forget_optimizer("elbo")),
        ("vae", forget_average),
    ],
)
def test_what_is_not_kept_is_missed(model, forget, datasets, whole, broken, tmp_path):
    shutil.copytree(broken(model), tmp_path / "run")
    resume(model, datasets["memory"], tmp_path / "run", forget)
    assert run_differences(tmp_path / "run", whole(model)) != []


def test_the_place_in_the_data_is_not_missed(datasets, whole, broken, tmp_path, monkeypatch):
    stream = loop.batches
    monkeypatch.setattr(loop, "batches", lambda *a, start_step, **k: stream(*a, start_step=0, **k))
    shutil.copytree(broken("dcgan"), tmp_path / "run")
    resume("dcgan", datasets["memory"], tmp_path / "run")
    assert run_differences(tmp_path / "run", whole("dcgan")) != []


def test_an_interruption_saves_and_logs_nothing_that_an_unbroken_run_does_not(broken, whole):
    stopped = rows(broken("dcgan"))
    assert stopped == rows(whole("dcgan"))[: len(stopped)]
    assert load_checkpoint(broken("dcgan"))["step"] == 5


def test_killed_between_the_row_of_a_snapshot_and_its_checkpoint(datasets, whole, tmp_path):
    trainer = start("vae", datasets["memory"], tmp_path / "run")
    save = trainer.save
    trainer.save = lambda: die() if trainer.step == 8 else save()
    with pytest.raises(Killed):
        trainer.run()
    assert rows(tmp_path / "run")[-1]["step"] == 8  # logged, but not saved
    resume("vae", datasets["memory"], tmp_path / "run")
    assert run_differences(tmp_path / "run", whole("vae")) == []


def test_a_snapshot_draws_no_noise(datasets, tmp_path):
    """Else the rhythm of snapshots would shape the run."""
    trainer = start("vae", datasets["memory"], tmp_path / "run")
    looked, trainer.inspect = [], None

    def inspect(log, progress, values):
        before = torch.get_rng_state()
        seen = Trainer.inspect(trainer, log, progress, values)
        looked.append(torch.equal(before, torch.get_rng_state()))
        return seen

    trainer.inspect = inspect
    trainer.run()
    assert looked == [True] * 4


def test_a_torn_last_line_is_no_row(datasets, whole, broken, tmp_path):
    shutil.copytree(broken("vae"), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss/va')
    resume("vae", datasets["memory"], tmp_path / "run")
    assert run_differences(tmp_path / "run", whole("vae")) == []


def test_settings_of_optimizers_come_from_the_configuration(datasets, broken, tmp_path):
    """Or an override of --lr would change nothing."""
    trainer = start("dcgan", datasets["memory"], tmp_path / "run")
    for phase in trainer.objective.phases:
        phase.optimizer.param_groups[0]["lr"] = 0.125
    trainer.load(load_checkpoint(broken("dcgan")))
    for phase in trainer.objective.phases:
        assert phase.optimizer.param_groups[0]["lr"] == 0.125
        assert phase.optimizer.state


def test_conditions_that_changed_are_named(datasets, broken, tmp_path, capsys):
    content = load_checkpoint(broken("dcgan"))
    start("dcgan", datasets["memory"], tmp_path / "run").load(content)
    assert capsys.readouterr().err == ""
    content["conditions"] |= {"torch": "1.0", "images": 36}
    start("dcgan", datasets["memory"], tmp_path / "run").load(content)
    said = capsys.readouterr().err
    assert f"torch 1.0 → {torch.__version__}, images 36 → 37" in said and "not bitwise" in said
    assert "threads" not in said and said.count("\n") == 1


def test_tensorboard_shows_each_step_once(datasets, tmp_path):
    """Events that were written after the checkpoint that a run goes on from are purged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stop(start("vae", datasets["memory"], tmp_path / "run"), 7, die)
    resume("vae", datasets["memory"], tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/vae")] == [3, 4, 6, 8, 9, 11]
    assert [event.step for event in events.Images("samples")] == [0, 4, 8, 11]


def test_two_threads_give_the_same_bits_twice(datasets, tmp_path):
    """All else here runs on one; these maps are large enough for torch to share them out."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data = load_dataset("shapes", root=tmp_path, size=(32, 32), channels=3, count=16)
        config, ends = small_config("vae", {"size": (32, 32), "width": 16}, batch_size=16), []
        for _ in range(2):
            trainer = Trainer(config, data, tmp_path)
            assert trainer.conditions()["threads"] == 2
            batch = trainer.to_device(data.fetch(range(16)))
            torch.manual_seed(0)
            for step in range(2):
                train_step(trainer.objective, batch, step, contextlib.nullcontext())
            ends.append({name: m.state_dict() for name, m in trainer.modules.items()})
    finally:
        torch.set_num_threads(before)
    assert content_differences(*ends) == []


def test_equality_sees_one_bit():
    weights = torch.ones(3)
    changed = weights.clone()
    changed[1] = torch.nextafter(changed[1], torch.tensor(2.0))
    assert content_differences({"a": [weights, 1]}, {"a": [weights.clone(), 1]}) == []
    assert content_differences({"a": [weights, 1]}, {"a": [changed, 1]}) == ["/a/0"]
    assert content_differences({"a": [weights, 1]}, {"a": [weights, True]}) == ["/a/1"]
