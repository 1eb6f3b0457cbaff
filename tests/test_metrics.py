"""The metric of training loops: what one process, one batch or `measure` gives, all give."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen import measure

torchmetrics = pytest.importorskip("torchmetrics")

from gen.metrics import CheckerboardLevel

ROOT = Path(__file__).resolve().parents[1]


def images(count=60, size=32, depth=6.0, seed=0):
    """Smoothed noise with a grid of period 2, uint8 (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size + 4, size + 4, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1) * 200
    grid = depth * (-1.0) ** torch.arange(size) * (-1.0) ** torch.arange(size)[:, None]
    return (128 + smooth + grid).round().clamp(0, 255).byte()


def values(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def test_it_says_what_measure_says_for_any_batches():
    metric, found = CheckerboardLevel(), measure(images())
    for batch in images().split(7):
        metric(batch)  # also what this batch alone shows
    two, four = found.periods[2], found.periods[4]
    assert two.detected and not four.detected and found.periods[8].undefined
    expected = {
        "period2_dbc": two.level_dbc,
        "period2_limit_dbc": two.detection_limit_dbc,
        "period2_detected": 1.0,
        "period4_dbc": four.level_upper_dbc,
        "period4_limit_dbc": four.detection_limit_dbc,
        "period4_detected": 0.0,
    }
    assert values(metric) == pytest.approx(expected, abs=1e-4)
    metric.reset()
    metric.update(images(depth=0, seed=1))
    assert values(metric)["period2_detected"] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_it_takes_any_float_with_gradients(dtype):
    metric = CheckerboardLevel((2,), value_range=(-1, 1)).to(dtype)
    pixels = (images(20) / 127.5 - 1).to(dtype)
    metric.update(pixels.requires_grad_())
    assert all(map(math.isfinite, values(metric).values()))
    expected = measure(pixels.detach(), (2,), value_range=(-1, 1)).periods[2].level_dbc
    assert values(metric)["period2_dbc"] == pytest.approx(expected, abs=1e-4)


def test_undefined_periods_have_no_values_and_errors_are_one_line():
    metric = CheckerboardLevel()
    metric.update(torch.full((4, 3, 32, 32), 7, dtype=torch.uint8))
    assert metric.compute() == {}
    with pytest.raises(ValueError, match="periods are whole numbers"):
        CheckerboardLevel((1,))
    with pytest.raises(ValueError, match="after"):
        metric.update(images(4, 16))


def test_a_collection_keeps_metrics_with_different_options_apart():
    pixels, black_white = images(20).float(), (0, 255)
    metrics = torchmetrics.MetricCollection(
        {
            "two": CheckerboardLevel((2,), black_white),
            "four": CheckerboardLevel((4,), black_white),
            "same": CheckerboardLevel((4,), black_white),
            "shifted": CheckerboardLevel((2,), (-100, 155)),
            "mean": torchmetrics.MeanMetric(),
        }
    )
    for batch in pixels.split(10):
        metrics.update(batch)
    found = metrics.compute()
    assert len(metrics.compute_groups) == 4
    assert {"mean", "same_period4_dbc", "four_period4_dbc", "two_period2_dbc"} < found.keys()
    for name, low in (("two", 0), ("shifted", -100)):
        one = measure(pixels, (2,), value_range=(low, low + 255)).periods[2]
        assert float(found[f"{name}_period2_dbc"]) == pytest.approx(one.level_dbc, abs=1e-4)


WORKER = """
import json, sys, warnings
import torch, torch.distributed as dist
from gen import Meter
from gen.metrics import CheckerboardLevel
from tests.test_metrics import images
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
found = []
for first in (23, 60):  # uneven shares, and none for rank 1
    metric = CheckerboardLevel()
    own = images()[:first] if rank == 0 else images()[first:]
    for batch in own.split(9) if len(own) else []:
        metric.update(batch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method")  # of rank 1, without images
        found.append({name: float(value) for name, value in metric.compute().items()})
meter = Meter()
meter.update(images(4))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    meter.compute()
    other = Meter()
    other.update(images(4, seed=1))
    meter.merge(other)
    meter.compute()
said = [str(each.message) for each in caught if "alone" in str(each.message)]
dist.barrier()
dist.destroy_process_group()
print(json.dumps({"found": found, "said": said}))
"""


@pytest.mark.slow  # each process imports torchmetrics, which takes many seconds
def test_two_processes_give_what_one_gives(tmp_path):
    commands = [[sys.executable, "-c", WORKER, str(rank), tmp_path / "store"] for rank in range(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    workers = [subprocess.Popen(command, **pipes) for command in commands]
    one = CheckerboardLevel()
    one.update(images())
    for rank, worker in enumerate(workers):
        out, err = worker.communicate()
        assert worker.returncode == 0, err
        told = json.loads(out.splitlines()[-1])
        assert told["found"] == [pytest.approx(values(one), abs=1e-4)] * 2
        assert len(told["said"]) == 1
        assert f"4 images of process {rank} of 2 alone" in told["said"][0]


@pytest.mark.filterwarnings("ignore")  # Lightning's own, which change with its version
def test_a_lightning_trainer_logs_it(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.ConvTranspose2d(8, 3, 3, 2, 1, 1)
            self.checkerboard = CheckerboardLevel(value_range=(-1, 1))

        def training_step(self, batch, _):
            return self.network(batch).square().mean()

        def validation_step(self, batch, _):
            self.checkerboard.update(self.network(batch).tanh())

        def on_validation_epoch_end(self):
            self.log_dict(self.checkerboard.compute())
            self.checkerboard.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    latents = torch.randn(32, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = torch.utils.data.DataLoader(latents, 16)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), batches, batches)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"period2_dbc", "period2_limit_dbc", "period2_detected"} <= logged.keys()
    assert all(map(math.isfinite, logged.values())) and logged["period2_detected"] == 1
