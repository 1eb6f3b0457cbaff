"""Blame names the layer that was made uneven; shares add up; repair works or refuses."""

import math

import numpy as np
import pytest
import torch
from gen.models.upsample import enlarger
from torch import nn

from gen.analysis.layers.blame import Game, blame
from gen.analysis.layers.phases import balance
from gen.analysis.layers.repair import level, paired_changes, repair, replaced
from gen.analysis.layers.steps import find_layers
from gen.analysis.measure.meter import measure
from tests.analysis.layers import networks

WIDTHS = (16, 12, 8, 3)


def chain(seed, uneven, way):
    """A random DCGAN-like chain 6 → 48 of nearly even k4 s2 layers, one made uneven on purpose."""
    torch.manual_seed(seed)
    layers = []
    for index in range(3):
        kernel = 3 if index == uneven and way == "k3" else 4
        layer = nn.ConvTranspose2d(*WIDTHS[index : index + 2], kernel, 2, 1, kernel % 2)
        with torch.no_grad():
            layer.weight.normal_(0, (4 / (WIDTHS[index] * kernel**2)) ** 0.5)
            even = balance(layer.weight, 2, 1)
            if index != uneven or way == "pattern":
                layer.weight.copy_(even + 0.05 * (layer.weight - even))
            if index == uneven and way == "pattern":
                layer.weight[..., ::2, ::2] *= 3
        layers += [layer, nn.BatchNorm2d(WIDTHS[index + 1]), nn.ReLU()]
    network = nn.Sequential(*layers[:-2], nn.Tanh())
    with torch.no_grad():
        for _ in range(8):
            network(smooth_latents(64))
    return network.eval()


def smooth_latents(count):
    """Maps (N, C, 6, 6): a brightness of each channel and image, and some detail."""
    brightness = torch.randn(count, WIDTHS[0], 1, 1)
    return (brightness + 0.3 * torch.randn(count, WIDTHS[0], 6, 6)).relu()


def culprit(found, way="activations"):
    """Name of the layer with the most power over all detected periods; None where there is none."""
    totals = {}
    for period, shares in found.periods.items():
        measured = found.images.periods[period]
        for share in shares if measured.detected else ():
            power = share.ways[way].share * 10 ** (measured.level_dbc / 10)
            totals[share.layer.name] = totals.get(share.layer.name, 0.0) + power
    return max(totals, key=totals.get, default=None)


def named(seed):
    """Whether blame names the uneven layer of one random chain, by both ways of balancing."""
    uneven, made = seed % 3, ("k3", "pattern")[seed % 2]
    found = blame(chain(seed, uneven, made), smooth_latents(64))
    return [culprit(found, way) == str(3 * uneven) for way in ("activations", "weights")]


@pytest.mark.slow
def test_names_the_uneven_layer_in_20_of_20_random_networks():
    assert [named(seed) for seed in range(20)] == [[True, True]] * 20


def test_shares_of_players_who_add_up_are_their_own_parts():
    parts = np.array([[3.0 + 1j, 0.5], [-1.0, 0.25j], [0.0, 2.0]])
    rest = np.array([1.0, 1j])
    layers = find_layers(chain(0, 0, "k3"), smooth_latents(2)).layers
    blocks = np.ones((8, 1))
    game = Game(
        layers=layers,
        plain=blocks * (parts.sum(0) + rest),
        first=[blocks * (parts.sum(0) - part + rest) for part in parts],
        others=[blocks * (part + rest) for part in parts],
        every=blocks * rest,
    )
    mask, u = np.array([True, True]), parts.sum(0) + rest
    wanted = [(u.conj() * part).sum().real / (abs(u) ** 2).sum() for part in (*parts, rest)]
    found = game.shares(mask)
    np.testing.assert_allclose([found[x].share for x in layers] + [game.rest(mask)], wanted)
    assert sum(wanted) == pytest.approx(1)


def test_shares_of_players_who_interact_are_split_evenly():
    """A grid that stays until both layers are balanced belongs to both by half."""
    layers = find_layers(chain(0, 0, "k3"), smooth_latents(2)).layers[:2]
    one, none = np.ones((8, 1)), np.zeros((8, 1))
    found = Game(layers, one, [one, one], [one, one], none).shares(np.array([True]))
    assert [share.share for share in found.values()] == [0.5, 0.5]
    assert not any(share.is_cause for share in found.values())  # none lowers it alone


def test_blame_says_what_it_needs_and_what_it_left_out():
    network = chain(0, 0, "k3")
    with pytest.raises(ValueError, match="has 10 inputs; it takes at least 64"):
        blame(network, smooth_latents(10))
    holes = nn.Sequential(nn.ConvTranspose2d(WIDTHS[0], 8, 1, 2), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    found = blame(holes, smooth_latents(64))
    assert "0: a kernel of 1 taps leaves phases" in found.notes[0]
    assert [share.layer.name for share in found.periods[2]] == ["0", "1"]
    assert [share.weights is None for share in found.periods[2]] == [True, False]
    resize = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(WIDTHS[0], 3, 3, padding=1))
    assert culprit(blame(resize, smooth_latents(64))) is None


@pytest.mark.parametrize(
    ("build", "period"), [(networks.tokens, 8), (networks.wavelet, 2), (networks.fold, 3)]
)
def test_layers_without_weights_have_shares_as_well(build, period):
    torch.manual_seed(0)
    network, draw = build()
    found = blame(network, draw(64))
    (share,) = found.periods[period]
    assert share.weights is None and share.layer.period == period
    assert share.activations.is_cause and share.activations.share > 0.8


def smooth_layer():
    """Bilinear enlargement of mixed channels, its kernel multiplied by a phase pattern."""
    torch.manual_seed(0)
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    layer = nn.ConvTranspose2d(16, 3, 4, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(0.3 * torch.randn(16, 3, 1, 1) * torch.outer(tap, tap))
        layer.weight[..., ::2, ::2] *= 1.3
    return nn.Sequential(layer, nn.Tanh())


def smooth_maps(count):
    """Maps (N, 16, 24, 24) without detail."""
    torch.manual_seed(1)
    coarse = torch.randn(count, 16, 4, 4)
    return nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic").relu()


def test_repair_changes_the_last_layer_and_nothing_else():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(16, 16, 1), *smooth_layer())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = repair(network, smooth_maps(64))
    assert found.refused is None and found.reached and [*found.weights] == ["1.weight"]
    assert level(found.after, 2) < level(found.before, 2) - 10
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    found.apply(network)
    changed = [n for n, value in network.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == ["1.weight"]
    assert "4 of 16 input directions" in str(found)
    # What changes is the grid, and little else.
    grid = 10 ** (level(found.before, 2) / 10) * (1 - 10**-0.5) ** 2
    assert found.changed_dbc < 10 * math.log10(grid) + 1


def test_repair_changes_no_more_than_the_target_needs():
    network, maps = smooth_layer(), smooth_maps(64)
    full = repair(network, maps, target_dbc=-200.0, periods=(2,))
    assert not full.reached and "out of reach" in str(full)
    easy = repair(network, maps, target_dbc=level(full.before, 2) - 3, periods=(2,))
    assert easy.reached and easy.psnr_db > full.psnr_db


@pytest.mark.slow
def test_repair_promises_what_a_shared_layer_does():
    """One layer at two levels of a pyramid: its new weights are in both."""
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(3, 3, 4, 2, 1)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        up.weight.copy_(torch.eye(3)[..., None, None] * torch.outer(line, line))
        up.weight.add_(0.01 * torch.randn(up.weight.shape))
    network, maps = nn.Sequential(up, up), networks.soft(3, 24)(64)
    found = repair(network, maps, periods=(2, 4))
    assert found.layer.period == 2 and list(found.weights) == ["0.weight"]
    with torch.no_grad(), replaced(network, found.weights):
        measured = measure(network(maps[32:]), (2, 4), value_range=(-1, 1))
    for period in (2, 4):
        assert level(measured, period) == pytest.approx(level(found.after, period), abs=0.1)
        assert found.changes[period].falls


def test_repair_leaves_what_would_make_another_grid():
    """Maps whose stripes only the uneven kernel keeps out."""
    tap = torch.tensor([1.0, 0.0, 1.0])
    layer = nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.outer(tap, tap) / 10)
    coarse = 0.3 * torch.randn(64, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic")
    maps += 0.3 + 0.3 * (-1) ** torch.arange(24)
    assert "a line of period 4 would become stronger" in repair(layer, maps, periods=(2, 4)).refused


def test_repair_leaves_what_changes_more_than_the_grid():
    """A channel with a weak grid, and in its group one whose strong grid has either sign."""
    layer = nn.ConvTranspose2d(4, 2, 2, 2, groups=2)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[::2, :, 0, 0] += 0.05
        layer.weight[1::2] = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    maps = networks.soft(4, 24)(64)
    maps[:, ::2] += 1
    assert "more than the grid that it removes" in repair(layer, maps, periods=(2,)).refused


def test_paired_changes_judge_lines_against_their_own_spread():
    random = np.random.default_rng(0)
    shape, periods = (8, 3), np.array([2, 2, 4])
    lines = [(0.5, 0.5), (0.5, 0.0), (0.25, 0.25)]
    before = 1 + 0.3 * (random.normal(size=shape) + 1j * random.normal(size=shape))
    same = paired_changes(before, before, periods, lines, lines)
    assert not any(change.falls or change.growth for change in same.values())
    after = before * np.array([0.5, 1.0, 1.1])  # far less than the spread over blocks
    found = paired_changes(before, after, periods, lines, lines)
    assert found[2].falls and not found[2].growth
    assert found[4].growth == pytest.approx(0.21 * abs(before[:, 2].mean()) ** 2)
    assert not paired_changes(before, after, periods, lines, [])[4].growth  # the images' content


def test_repair_refuses():
    even = nn.Sequential(enlarger("transposed", WIDTHS[0], 3, 4, True), nn.Tanh())
    with torch.no_grad():
        even[0].weight.fill_(0.1)
    found = repair(even, smooth_latents(64), periods=(2,))
    assert found.refused and "Refused" in str(found)
    with pytest.raises(ValueError, match="not repaired"):
        found.apply(even)
    computed = nn.Sequential(enlarger("balanced", WIDTHS[0], 3, 4, True))
    with pytest.raises(ValueError, match="its weight is computed"):
        repair(computed, smooth_latents(64))
    with pytest.raises(ValueError, match="no enlarging layer to balance"):
        repair(nn.Upsample(scale_factor=4), smooth_latents(64))
    with pytest.raises(ValueError, match="takes at least 64"):
        repair(even, smooth_latents(63))


def test_images_too_small_for_any_period_are_undefined():
    maps = torch.randn(64, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    network = nn.ConvTranspose2d(4, 3, 4, 2, 1)
    assert all(period.undefined for period in blame(network, maps).images.periods.values())
    with pytest.raises(ValueError, match="period 2 needs images of at least 12×12"):
        repair(network, maps)
