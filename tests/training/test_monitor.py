"""The live monitor: right numbers, in the log of every snapshot, for little time."""

import json

import pytest
import torch
from gen.models.decoder import Decoder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gen.analysis.layers.phases import find_last_enlarging, layer_gains
from gen.analysis.layers.steps import find_layers
from gen.analysis.layers.trace import trace
from gen.analysis.measure.meter import measure
from gen.sampling.seeds import draw_latents, sample_images
from gen.training.monitor import MEASURED_IMAGES, grid_metrics


def grown(upsample="transposed", size=(32, 32)):
    """A decoder with contrast and batch statistics of its own."""
    torch.manual_seed(0)
    network = Decoder(16, size, 3, 8, upsample, 3)
    with torch.no_grad():
        network.stages[-1].weight.mul_(20) if upsample == "transposed" else None
        for _ in range(20):
            network(torch.randn(64, 16))
    return network.eval()


def test_numbers_are_those_of_the_measurement():
    network = grown()
    samples, found = grid_metrics(network)
    assert torch.equal(samples, sample_images(network, range(MEASURED_IMAGES)))
    expected = measure(samples)
    for period in (2, 4):
        name = f"checkerboard/period{period}"
        assert found[f"{name}_dbc"] == expected.periods[period].level_dbc
        assert found.get(f"{name}_limit_dbc") == expected.periods[period].detection_limit_dbc
        assert found[f"{name}_detected"] == expected.periods[period].detected
    assert not any("period8" in name for name in found)  # 32 pixels hold no six periods of 8
    layers = trace(network, draw_latents(range(MEASURED_IMAGES), 16)).layers
    assert found["checkerboard/imbalance_db"] == pytest.approx(layers[-1].imbalance_db, abs=1)


@pytest.mark.parametrize("upsample", ["transposed", "subpixel"])
def test_gains_are_those_of_the_analysis(upsample):
    network = grown(upsample)
    found = find_layers(network, torch.randn(2, 16)).layers
    torch.testing.assert_close(layer_gains(find_last_enlarging(network)), found[-1].gains)


def test_resize_has_no_imbalance_and_no_hook_stays():
    network = grown("nearest")
    assert "checkerboard/imbalance_db" not in grid_metrics(network)[1]
    network = grown()
    grid_metrics(network)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_every_snapshot_is_logged(finished_run):
    folder = finished_run[1]
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "checkerboard/imbalance_db" in row]
    assert steps == [0, 3, 6]
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [e.step for e in events.Scalars("checkerboard/imbalance_db")] == steps


def test_it_costs_the_images_of_its_sheet_and_no_more():
    """Each image is drawn once: what the monitor needs of the layers, it sees meanwhile."""
    network, drawn = grown(), []
    network.register_forward_hook(lambda _, inputs, images: drawn.append(len(images)))
    grid_metrics(network)
    assert sum(drawn) == MEASURED_IMAGES
