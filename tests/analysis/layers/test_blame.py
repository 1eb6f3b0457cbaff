"""Blame names the layer that was made uneven; shares add up; repair mends or refuses."""

import numpy as np
import pytest
import torch
from gen.models.upsample import enlarger
from torch import nn

from gen.analysis.layers.blame import blame, shapley
from gen.analysis.layers.phases import balance
from gen.analysis.layers.repair import level, repair

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


def culprit(found):
    """Name of the layer with the most power over all detected periods; None where there is none."""
    totals = {}
    for period, shares in found.periods.items():
        measured = found.images.periods[period]
        for share in shares if measured.detected else ():
            power = share.share * 10 ** (measured.level_dbc / 10)
            totals[share.layer.name] = totals.get(share.layer.name, 0.0) + power
    return max(totals, key=totals.get, default=None)


def named(seed):
    """Whether blame names the uneven layer of one random chain."""
    uneven, way = seed % 3, ("k3", "pattern")[seed % 2]
    found = blame(chain(seed, uneven, way), smooth_latents(64))
    return culprit(found) == str(3 * uneven)


def test_names_the_uneven_layer():
    assert named(0)


@pytest.mark.slow
def test_names_the_uneven_layer_in_20_of_20_random_networks():
    assert [named(seed) for seed in range(20)] == [True] * 20


def test_shares_of_players_who_add_up_are_their_own_parts():
    parts = np.array([[3.0 + 1j, 0.5], [-1.0, 0.25j], [0.0, 2.0]])
    found = {
        frozenset(chosen): parts.sum(0) - sum((parts[i] for i in chosen), np.zeros(2))
        for chosen in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    }
    np.testing.assert_allclose(shapley(found, 3), parts)


def test_shares_of_players_who_interact_are_split_evenly():
    """A grid that stays until both layers are balanced belongs to both by half."""
    found = {
        frozenset(s): np.array([0.0 if len(s) == 2 else 1.0]) for s in ((), (0,), (1,), (0, 1))
    }
    np.testing.assert_allclose(shapley(found, 2), [[0.5], [0.5]])


def test_blame_says_what_it_needs_and_what_it_left_out():
    network = chain(0, 0, "k3")
    with pytest.raises(ValueError, match="has 10 inputs; it takes at least 64"):
        blame(network, smooth_latents(10))
    holes = nn.Sequential(nn.ConvTranspose2d(WIDTHS[0], 8, 1, 2), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    found = blame(holes, smooth_latents(64))
    assert "0: a kernel of 1 taps leaves phases" in found.notes[0]
    assert [share.layer.name for share in found.periods[2]] == ["1"]
    resize = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(WIDTHS[0], 3, 3, padding=1))
    assert culprit(blame(resize, smooth_latents(64))) is None


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


def test_repair_mends_the_last_layer_and_nothing_else():
    network = nn.Sequential(nn.Conv2d(16, 16, 1), *smooth_layer())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = repair(network, smooth_maps(128))
    assert found.refused is None and found.reached and found.parameter == "1.weight"
    assert level(found.after, 2) < level(found.before, 2) - 10
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    found.apply(network)
    changed = [n for n, value in network.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == ["1.weight"]
    assert f"{found.rank} of 16 input directions" in str(found)


def test_repair_takes_the_smallest_rank_that_meets_the_target():
    network, maps = smooth_layer(), smooth_maps(128)
    full = repair(network, maps, target_dbc=-200.0)
    assert not full.reached and "out of reach" in str(full)
    easy = repair(network, maps, target_dbc=level(full.before, 2) - 3)
    assert easy.reached and easy.rank < full.rank and easy.psnr_db > full.psnr_db


def test_repair_leaves_alone_what_would_print_another_grid():
    """Two maps: a bright one, and one whose stripes only the uneven kernel keeps out."""
    tap = torch.tensor([1.0, 0.0, 1.0])
    layer = nn.ConvTranspose2d(2, 1, 3, 2, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.ones(3, 3), 2 * torch.outer(tap, tap)])[:, None] / 20)
    coarse = 0.3 * torch.randn(64, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic")
    maps[:, 0] += 3
    maps[:, 1] += 0.3 + 0.3 * (-1) ** torch.arange(24)
    # With both signs of the second the two are uncorrelated: each is a direction of its own.
    maps = torch.stack([maps, maps * torch.tensor([1, -1])[:, None, None]], 1).flatten(0, 1)
    found = repair(layer, maps)
    assert found.refused is None and found.rank == 1
    assert level(found.after, 2) < level(found.before, 2) - 1
    maps[:, 0] = 0
    assert "period 4 would get worse" in repair(layer, maps).refused


def test_repair_refuses():
    even = nn.Sequential(enlarger("transposed", WIDTHS[0], 3, 4, True), nn.Tanh())
    with torch.no_grad():
        even[0].weight.fill_(0.1)
    found = repair(even, smooth_latents(128))
    assert found.refused and "Refused" in str(found)
    with pytest.raises(ValueError, match="not repaired"):
        found.apply(even)
    computed = nn.Sequential(enlarger("balanced", WIDTHS[0], 3, 4, True))
    with pytest.raises(ValueError, match="its weight is computed"):
        repair(computed, smooth_latents(128))
    with pytest.raises(ValueError, match="no enlarging layer to balance"):
        repair(nn.Upsample(scale_factor=4), smooth_latents(64))
    with pytest.raises(ValueError, match="takes at least 64"):
        repair(even, smooth_latents(63))


def test_images_too_small_for_any_period_are_undefined():
    maps = torch.randn(64, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    network = nn.ConvTranspose2d(4, 3, 4, 2, 1)
    assert all(period.undefined for period in blame(network, maps).images.periods.values())
    assert "undefined" in repair(network, maps).refused
