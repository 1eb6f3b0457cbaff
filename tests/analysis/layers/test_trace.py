"""What layers do to constants, against the layers themselves; finding them in foreign networks."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from gen.models.decoder import Decoder
from torch import nn

from gen.analysis.layers.advice import advise
from gen.analysis.layers.blame import blame
from gen.analysis.layers.overlap import overlap
from gen.analysis.layers.phases import (
    balance,
    balance_subpixel,
    gain_lines,
    phase_gains,
    predicted_lines,
    subpixel_gains,
    weighted_imbalance,
)
from gen.analysis.layers.steps import find_layers
from gen.analysis.layers.trace import trace

GRID = [  # kernel, stride, padding, output_padding, dilation, groups
    (k, s, p, o, d, g)
    for k, s in itertools.product(range(1, 8), (2, 3, 4))
    for p, o, d, g in ((0, 0, 1, 1), ((k - 1) // 2, s - 1, 1, 2), (k // 2, 1, 2, 1))
]


def middle_period(maps, period):
    """One interior period (…, P, P), aligned to the lattice."""
    top, left = ((side - period) // 2 // period * period for side in maps.shape[-2:])
    return maps[..., top : top + period, left : left + period]


@pytest.mark.parametrize("geometry", GRID)
def test_overlap_is_the_transposed_convolution_of_ones(geometry):
    kernel, stride, padding, extra, dilation, _ = geometry
    size = (4, 6)
    expected = F.conv_transpose2d(
        torch.ones(1, 1, *size), torch.ones(1, 1, kernel, kernel), None, stride, padding, extra,
        1, dilation,
    )[0, 0]  # fmt: skip
    found = overlap(kernel, stride, padding, extra, dilation, size)
    assert torch.equal(torch.from_numpy(found.counts).float(), expected)
    wide = overlap(kernel, stride, padding, extra, dilation, 24)
    inside = middle_period(torch.from_numpy(wide.counts), stride)
    assert torch.equal(torch.from_numpy(wide.pattern), inside)
    assert found.holes == int((inside == 0).sum())


def test_overlap_takes_axes_apart_and_one_axis():
    found = overlap((3, 4), (2, 2), (1, 1), size=(5, 7))
    assert found.pattern.tolist() == [[2, 2], [4, 4]] and not found.even
    assert overlap((5,), (3,)).pattern.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("geometry", "said"),
    [
        ((0, 2), "kernel size is 0"),
        ((3, 0), "stride is 0"),
        ((3, 2, -1), "padding is -1"),
        ((3, 2, 0, 2), "output padding is 2"),
        ((3, 2, 20), "leaves nothing"),
        (((3, 3, 3), (2, 2)), "one per axis"),
    ],
)
def test_overlap_refuses_what_torch_refuses(geometry, said):
    with pytest.raises(ValueError, match=said):
        overlap(*geometry)


@pytest.mark.parametrize("geometry", GRID)
def test_predicted_lines_are_those_of_the_constant_response(geometry):
    kernel, stride, padding, extra, dilation, groups = geometry
    torch.manual_seed(kernel)
    layer = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, groups, False, dilation)
    mu = torch.randn(3, 4)
    response = layer(mu[..., None, None].expand(-1, -1, 20, 20))
    measured = torch.fft.fft2(middle_period(response, stride)) / stride**2  # (3, 6, s, s)
    predicted = predicted_lines(layer.weight, mu, stride, padding, dilation, groups)
    error = (predicted.permute(0, 3, 1, 2) - measured).abs().max()
    assert error <= 1e-5
    if stride > 2 or kernel % 2:
        assert measured[..., 0, 1].abs().max() > 1e-3  # there is something to predict


def test_one_dimensional_and_anisotropic_layers():
    torch.manual_seed(0)
    line = nn.ConvTranspose1d(3, 2, 5, 3, 1, bias=False)
    mu = torch.randn(3)
    response = line(mu[:, None].expand(3, 20)[None])[0]  # (2, L)
    measured = torch.fft.fft(response[:, 30:33]) / 3
    torch.testing.assert_close(predicted_lines(line.weight, mu, 3, 1).T, measured)
    plane = nn.ConvTranspose2d(3, 2, (3, 5), (2, 3), (1, 2), bias=False)
    response = plane(mu[:, None, None].expand(3, 20, 20)[None])[0]
    measured = torch.fft.fft2(response[:, 18:20, 30:33]) / 6
    predicted = predicted_lines(plane.weight, mu, (2, 3), (1, 2))
    torch.testing.assert_close(predicted.permute(2, 0, 1), measured)


@pytest.mark.parametrize(("factor", "groups"), [(2, 1), (3, 1), (2, 2)])
def test_subpixel_layers_have_the_same_lines(factor, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6 * factor**2, 3, padding=1, groups=groups, bias=False)
    mu = torch.randn(4)
    response = F.pixel_shuffle(conv(mu[:, None, None].expand(4, 12, 12)[None]), factor)[0]
    measured = torch.fft.fft2(middle_period(response, factor)) / factor**2
    predicted = gain_lines(subpixel_gains(conv.weight, factor, groups), mu)
    assert (predicted.permute(2, 0, 1) - measured).abs().max() <= 1e-5
    balanced = balance_subpixel(conv.weight, factor)
    assert gain_lines(subpixel_gains(balanced, factor, groups), mu)[0, 1].abs().max() <= 1e-6


@pytest.mark.parametrize("geometry", GRID)
def test_balance_equalizes_gains_by_the_smallest_change(geometry):
    kernel, stride, padding, _, dilation, groups = geometry
    torch.manual_seed(0)
    weight = torch.randn(4, 6 // groups, kernel, kernel, dtype=torch.float64)
    shape = (stride, padding, dilation, groups)
    if overlap(kernel, stride, padding, 0, dilation, 24).holes:
        with pytest.raises(ValueError, match="no weights balance it"):
            balance(weight, *shape)
        return
    balanced = balance(weight, *shape)
    before, after = (phase_gains(w, *shape).flatten(0, 1) for w in (weight, balanced))
    torch.testing.assert_close(after, before.mean(0).expand_as(after))
    # One kernel alone: the least-norm solution of "gains change by Ḡ − G" gives the same.
    basis = torch.eye(kernel**2, dtype=torch.float64).view(-1, 1, kernel, kernel)
    constraints = phase_gains(basis, stride, padding, dilation)[:, :, 0].flatten(0, 1)
    one = weight[0, 0].flatten()
    gains = constraints @ one
    nearest = one + torch.linalg.pinv(constraints) @ (gains.mean() - gains)
    torch.testing.assert_close(balanced[0, 0].flatten(), nearest)


def test_projector_restricts_the_change():
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 4, 4)
    vector = F.normalize(torch.randn(5), dim=0)
    changed = balance(weight, 2, 1, projector=torch.outer(vector, vector))
    assert predicted_lines(changed, vector, 2, 1).flatten(0, 1)[1:].abs().max() < 1e-6
    across = torch.randn(5)
    across -= (across @ vector) * vector
    unchanged = predicted_lines(weight, across, 2, 1)
    torch.testing.assert_close(predicted_lines(changed, across, 2, 1), unchanged)


def test_imbalance_is_the_power_of_lines_over_that_of_the_mean():
    torch.manual_seed(0)
    weight, means = torch.randn(5, 3, 3, 3), torch.randn(400, 5)
    moment = means.T @ means / len(means)
    lines = predicted_lines(weight, means, 2, 1).abs().square().sum((0, 3)).flatten()
    found = weighted_imbalance(phase_gains(weight, 2, 1), moment)
    torch.testing.assert_close(found, lines[1:].sum() / lines[0])
    assert weighted_imbalance(phase_gains(balance(weight, 2, 1), 2, 1), moment) < 1e-10


class Foreign(nn.Module):
    """Somebody's generator: functional calls, a skip branch, a crop, noise."""

    def __init__(self):
        super().__init__()
        self.first = nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.second = nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.PixelShuffle(2))
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3) / 6)

    def forward(self, maps):
        maps = self.first(maps).relu()[..., :11, :11]
        skip = F.interpolate(maps[:, :4], scale_factor=2)
        maps = self.second(maps) + skip + 0.1 * torch.randn(1)
        return F.conv_transpose2d(maps, self.weight, None, 2, 1, 1)


def test_finds_modules_and_functions_in_order_with_their_final_periods():
    torch.manual_seed(0)
    network = Foreign()
    layers, notes, unseen = find_layers(network, torch.randn(2, 8, 6, 6))
    assert [layer.kind for layer in layers] == ["transposed", "resize", "subpixel", "transposed"]
    assert [layer.name for layer in layers][::2] == ["first", "second.1"]
    assert [layer.period for layer in layers] == [8, 4, 4, 2]
    assert not notes and not unseen and network.training
    assert layers[1].gains is None and layers[3].gains.shape == (2, 2, 3, 4)


def test_stages_of_stride_one_have_no_lattice():
    maps = torch.randn(2, 3, 4, 4)
    padded = nn.Sequential(nn.ConvTranspose2d(3, 3, 2, 2), nn.ConvTranspose2d(3, 3, 4))
    assert [layer.name for layer in find_layers(padded, maps).layers] == ["0"]
    with pytest.raises(ValueError, match="must return images"):
        find_layers(nn.Flatten(), maps)


def test_dense_stem_of_one_pixel_has_no_lattice():
    stem = nn.Sequential(nn.ConvTranspose2d(9, 8, 3, 2), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    (layer,) = find_layers(stem, torch.randn(2, 9, 1, 1)).layers
    assert layer.name == "1" and layer.period == 2


def test_trace_shows_where_the_grid_is_born():
    torch.manual_seed(0)
    network = Decoder(16, (64, 64), 3, 8, "transposed", 4)
    with torch.no_grad():
        for stage in network.stages:
            layer = stage if isinstance(stage, nn.ConvTranspose2d) else stage[0]
            layer.weight.mul_(10).copy_(balance(layer.weight, 2, 1))
        uneven = network.stages[2][0]
        uneven.weight[..., ::2, ::2] *= 2
        for _ in range(5):
            network(torch.randn(64, 16))
    found = trace(network.eval(), torch.randn(128, 16))
    assert [t.layer.name for t in found.layers] == [
        "stages.0.0", "stages.1.0", "stages.2.0", "stages.3",
    ]  # fmt: skip
    assert [t.layer.period for t in found.layers] == [16, 8, 4, 2]
    assert found.causes(8) == ["stages.0.0", "stages.1.0"]
    imbalance = [t.imbalance_db for t in found.layers]
    assert imbalance[2] > -30 and max(imbalance[:2] + imbalance[3:]) < -80
    third, last = found.layers[2:]
    assert third.output.periods[2].detected and third.passed_on.periods[2].detected
    assert found.images.periods[4].detected
    level = third.output.periods[2].line_dbc
    assert third.predicted_dbc == pytest.approx(level, abs=1.5)
    # A balanced layer still leaves replicas of what is not constant, but no line of its own.
    lines = [p for p in last.output.lines if p.period == 2]
    assert max(line.line.gray_levels for line in lines) < 0.1 * max(
        p.line.gray_levels for p in third.output.lines
    )
    assert "stages.2.0" in str(found)


def test_the_inputs_of_an_image_network_are_measured_for_the_periods_of_its_images():
    """A grid of the inputs becomes one of as many times its period, and none of the layer's own."""
    torch.manual_seed(0)
    images = F.interpolate(torch.randn(64, 1, 6, 6), scale_factor=4, mode="bicubic")
    grid = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(12, 12)
    same = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ConvTranspose2d(4, 1, 4, 2, 1))
    twice = nn.ConvTranspose2d(1, 1, 4, 2, 1)
    assert trace(twice, images).inputs is None  # period 2 of the images is nothing in the inputs
    for network, shown, period, has in (
        (same, images, 2, "no grid of period 2"),
        (same, images + grid, 2, "period 2 at"),
        (twice, images + grid, 4, "period 2 at"),
    ):
        traced, blamed = trace(network, shown), blame(network, shown)
        sentences = advise(blamed.images, traced, blamed)
        (sentence,) = (s for s in sentences if s.startswith(f"Period {period} at"))
        assert f"The inputs have {has}" in sentence and "training images" not in sentence
