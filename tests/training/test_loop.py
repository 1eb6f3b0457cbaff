"""The loop against a hand-written one, its averages, its snapshots and its resumption."""

import contextlib
import copy
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gen.images import to_float
from gen.runs.open import load_checkpoint
from gen.training.loop import Trainer, train_step
from tests.conftest import PATIENCE, small_config, wait_until
from tests.equality import content_differences

ROOT = Path(__file__).resolve().parents[2]


def make_trainer(model, dataset, folder, **training):
    return Trainer(small_config(model, **training), dataset, folder)


def float_batch(trainer, start=0):
    return trainer.to_device(trainer.dataset.fetch(range(start, start + 8)))


def test_gan_step_equals_the_hand_written_one(small_dataset, tmp_path):
    """Radford's step with .detach(), to the last bit."""
    trainer = make_trainer("dcgan", small_dataset, tmp_path)
    generator = copy.deepcopy(trainer.modules["generator"])
    discriminator = copy.deepcopy(trainer.modules["discriminator"])
    optimizers = [
        torch.optim.Adam(m.parameters(), 2e-4, (0.5, 0.999), fused=True)
        for m in (discriminator, generator)
    ]
    batch = float_batch(trainer)
    torch.manual_seed(5)
    for _ in range(3):
        optimizers[0].zero_grad()
        fakes = generator(torch.randn(8, 6))
        loss = F.softplus(-discriminator(batch.images)).mean()
        loss = loss + F.softplus(discriminator(fakes.detach())).mean()
        loss.backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        F.softplus(-discriminator(generator(torch.randn(8, 6)))).mean().backward()
        optimizers[1].step()
    torch.manual_seed(5)
    for step in range(3):
        train_step(trainer.objective, batch, step, contextlib.nullcontext())
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        for key, value in network.state_dict().items():
            assert torch.equal(value, trainer.modules[name].state_dict()[key]), key


@pytest.mark.parametrize("model", ["dcgan", "vaegan"])
def test_frozen_player_gets_no_gradient(model, small_dataset, tmp_path):
    trainer = make_trainer(model, small_dataset, tmp_path)
    seen = {}
    for phase in trainer.objective.phases:
        step = phase.optimizer.step
        phase.optimizer.step = lambda phase=phase, step=step: (
            seen.update(
                {
                    phase.name: {
                        name: any(w.grad is not None and w.requires_grad for w in m.parameters())
                        for name, m in trainer.modules.items()
                    }
                }
            ),
            step(),
        )
    train_step(trainer.objective, float_batch(trainer), 0, contextlib.nullcontext())
    assert list(seen) == [phase.name for phase in trainer.objective.phases]
    for turn, moved in seen.items():
        assert moved == {name: name == turn for name in trainer.modules}


def test_phase_that_is_not_due_is_left_out(small_dataset, tmp_path):
    trainer = make_trainer("dcgan", small_dataset, tmp_path)
    object.__setattr__(trainer.objective.phases[1], "every", 2)
    batch = float_batch(trainer)
    assert "loss/generator" in train_step(trainer.objective, batch, 0, contextlib.nullcontext())
    assert "loss/generator" not in train_step(trainer.objective, batch, 1, contextlib.nullcontext())


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("dcgan", "bf16"),
        ("vae", "fp32"),
        pytest.param("dcgan", "fp32", marks=pytest.mark.slow),
        pytest.param("vae", "bf16", marks=pytest.mark.slow),
    ],
)
def test_learns(model, precision, small_dataset, tmp_path):
    trainer = make_trainer(
        model, small_dataset, tmp_path, steps=60, precision=precision, log_every=5
    )
    assert trainer.run() == 0
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # Guessing costs 2 ln 2 = 1.39; the entropy of gray pixels, some 450 nats, is the VAE's floor.
    key, gain = {"dcgan": ("loss/discriminator", 0.2), "vae": ("loss/vae", 20)}[model]
    assert rows[-1][key] < rows[1][key] - gain


def test_average_covers_weights_and_batch_norm_buffers(small_dataset, tmp_path):
    trainer = make_trainer("dcgan", small_dataset, tmp_path, ema_half_life=16.0)
    generator = trainer.modules["generator"]
    decay = math.sqrt(0.5)  # two batches of eight are one half-life of sixteen
    expected = None
    for step in range(4):
        train_step(
            trainer.objective, float_batch(trainer, 8 * step), step, contextlib.nullcontext()
        )
        trainer.average.update_parameters(trainer.live)
        state = {k: v.double() for k, v in generator.state_dict().items() if v.is_floating_point()}
        expected = (
            {k: decay * expected[k] + (1 - decay) * v for k, v in state.items()}
            if expected
            else copy.deepcopy(state)
        )
    averaged = trainer.average.module["generator"].state_dict()
    assert any("running_var" in key for key in expected)
    for key, value in expected.items():
        torch.testing.assert_close(averaged[key].double(), value, rtol=1e-4, atol=1e-6)


def test_run_leaves_what_readme_says(finished_run):
    model, folder = finished_run
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "step-00000000.pt",
        "step-00000003.pt",
        "step-00000006.pt",
    ]
    assert (folder / "samples" / "samples-step-00000006.png").is_file()
    assert (folder / "samples" / "real-step-00000000.png").is_file()
    assert (folder / "samples" / "reconstructions-step-00000003.png").is_file() == ("vae" in model)
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 3, 4, 6]
    assert json.loads((folder / "config.json").read_text())["model"]["model"] == model


def test_tensorboard_can_read_the_events(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, folder = finished_run
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = events.Tags()["scalars"]
    wanted = {
        "dcgan": {"loss/generator", "d/real"},
        "vae": {"loss/vae", "vae/kl"},
        "vaegan": {"loss/encoder", "loss/decoder", "vae/kl", "d/real"},
    }[model]
    assert wanted <= set(scalars)
    assert [e.step for e in events.Scalars(sorted(wanted)[0])] == [2, 3, 4, 6]
    pictures = {"real", "samples"} | ({"reconstructions"} if "vae" in model else set())
    assert pictures == set(events.Tags()["images"])


@pytest.mark.parametrize("model", ["dcgan", "vae", "vaegan"])
def test_resumed_run_equals_the_unbroken_one(model, small_dataset, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    make_trainer(model, small_dataset, tmp_path / "whole", steps=11).run()
    make_trainer(model, small_dataset, tmp_path / "broken", steps=6).run()
    second = make_trainer(model, small_dataset, tmp_path / "broken", steps=11)
    second.load(load_checkpoint(tmp_path / "broken"))
    second.run()
    whole, broken = (load_checkpoint(tmp_path / name) for name in ("whole", "broken"))
    assert whole["step"] == broken["step"] == 11
    assert content_differences(whole, broken) == []
    steps = [
        json.loads(r)["step"] for r in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


def test_rows_past_the_checkpoint_go_on_resume(small_dataset, tmp_path):
    make_trainer("dcgan", small_dataset, tmp_path, steps=6).run()
    again = make_trainer("dcgan", small_dataset, tmp_path, steps=7)
    again.load(load_checkpoint(tmp_path / "checkpoints" / "step-00000003.pt"))
    again.run()
    rows = [
        json.loads(row)["step"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows == [0, 2, 3, 4, 6, 7]


def test_a_run_keeps_as_many_snapshots_as_it_is_told(small_dataset, tmp_path):
    Trainer(small_config(steps=11, snapshot_every=1, keep=2), small_dataset, tmp_path).run()
    steps = sorted(int(file.stem[5:]) for file in (tmp_path / "checkpoints").iterdir())
    assert steps == [0, 1, 2, 4, 8, 10, 11]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process that is sent SIGTERM at once")
@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGHUP", "SIGUSR1", "SIGUSR2")),
    ],
)
def test_a_signal_saves_and_exits(name, tmp_path):
    """tests/system/test_distributed.py sends SIGINT."""
    small = ["--size", "16", "--width", "4", "--device", "cpu"]
    command = [sys.executable, "train.py", "dcgan", *small]
    command += ["--steps", "1000000", "--log-every", "5", "--outdir", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "00000-dcgan-shapes" / "metrics.jsonl"
    try:
        wait_until(lambda: metrics.exists() and '"step": 5' in metrics.read_text(), process)
        process.send_signal(signal.Signals[name])
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.Signals[name], said
    step = load_checkpoint(tmp_path / "00000-dcgan-shapes")["step"]
    assert step > 0
    assert f"saved at step {step}" in said


def test_batches_reach_the_networks_as_minus_one_to_one(small_dataset, tmp_path):
    trainer = make_trainer("dcgan", small_dataset, tmp_path)
    images = float_batch(trainer).images
    assert torch.equal(images, to_float(small_dataset.fetch(range(8)).images))
    assert images.is_contiguous(memory_format=torch.channels_last)
