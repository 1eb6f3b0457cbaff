"""Every step that enlarges is found, however it is written, with the period of its grid."""

import pytest
import torch
from torch import nn

from gen.analysis.layers.advice import advise
from gen.analysis.layers.blame import blame, generate
from gen.analysis.layers.phases import equalize_
from gen.analysis.layers.steps import find_layers, list_periods
from gen.analysis.layers.trace import trace
from tests.analysis.layers import networks as make

FOUND = [  # network, (kind, stride, final period) of its layers
    (make.views, [("views", (2, 2), 2)]),
    (make.tokens, [("views", (8, 8), 8)]),
    (make.patch_expanding, [("views", (2, 2), 4), ("views", (2, 2), 2)]),
    (make.scripted, [("transposed", (2, 2), 2)]),
    (make.fold, [("fold", (3, 3), 3)]),
    (make.unpool, [("unpool", (2, 2), 2)]),
    (make.frames, [("transposed", (2, 2), 4), ("transposed", (2, 2), 2)]),
    (make.separable, [("transposed", (1, 2), 2), ("transposed", (2, 1), 2)]),
    (make.modulated, [("transposed", (2, 2), 2)]),
    (make.zeros_between, [("views", (2, 2), 2)]),
    (make.wavelet, [("views", (2, 2), 2)]),
    (make.interleaved, [("views", (2, 1), 2)]),
    (make.indexed, [("index", (3, 3), 3)]),
    (make.by_numpy, [("views", (2, 2), 2)]),
    (make.repeated, [("views", (2, 1), 2), ("views", (1, 2), 2)]),
    (make.sampled, [("grid_sampler_2d", (3, 3), 3)]),
    (make.by_matrices, [("views", (2, 2), 2)]),
    (make.by_fourier, [("fft_c2r", (2, 2), 2)]),
    (make.channels_last, [("views", (2, 2), 2)]),
    (make.learned_constant, [("views", (2, 2), 2)]),
    (make.attention, [("views", (16, 16), 16)]),
    (
        make.reduced,
        [("transposed", (2, 2), 7), ("transposed", (2, 2), 7), ("resize", (7, 7), 7)],
    ),
    (lambda: make.reduced(16), [("transposed", (2, 2), 2), ("transposed", (2, 2), 1)]),
    (make.blurred_and_pooled, [("transposed", (4, 4), 1)]),
    (make.autoencoder, [("resize", (2, 2), 8), ("resize", (2, 2), 4), ("resize", (2, 2), 2)]),
    (make.super_resolution, [("subpixel", (3, 3), 3), ("resize", (3, 3), 3)]),
    (make.unet, [("transposed", (2, 2), 4), ("transposed", (2, 2), 2)]),
    (make.padded_shuffle, [("views", (2, 2), 2)]),
]


@pytest.mark.parametrize(("build", "wanted"), FOUND)
def test_finds_what_enlarges(build, wanted):
    torch.manual_seed(0)
    network, draw = build()
    layers = find_layers(network, draw(2)).layers
    assert [(layer.kind, layer.stride, layer.period) for layer in layers] == wanted


def test_periods_to_measure_follow_from_the_layers():
    layers = find_layers(*first_batch(lambda: make.super_resolution(6))).layers
    assert list_periods(layers) == (2, 3, 4, 6, 8)
    assert list_periods(layers, (5, 7)) == (5, 7)
    deep = nn.Sequential(*(nn.Upsample(scale_factor=4) for _ in range(3)))
    layers = find_layers(deep, torch.randn(2, 3, 4, 4)).layers
    assert [layer.period for layer in layers] == [64, 16, 4]
    assert list_periods(layers) == (2, 4, 8, 16, 32)  # divisors; 64 on request


def first_batch(build):
    network, draw = build()
    return network, draw(2)


def test_reductions_and_what_cannot_be_followed_are_said():
    _, (note,), unseen = find_layers(*first_batch(make.reduced))
    assert note.startswith("resize reduces 32x32 to 28x28: periods") and not unseen

    def stretch(n, x):
        at = torch.arange(28) * 16 // 28
        return n.up(x[:, :, at][..., at])

    network = make.Function(stretch, up=nn.ConvTranspose2d(3, 3, 4, 2, 1))
    layers, _, (unseen,) = find_layers(network, torch.randn(2, 3, 16, 16))
    assert [layer.name for layer in layers] == ["up"]
    assert unseen.endswith("maps grow from 16x16 to 28x28 by something that cannot be followed")


def test_a_layer_used_twice_has_two_names():
    up = nn.ConvTranspose2d(3, 3, 4, 2, 1)
    layers = find_layers(nn.Sequential(up, nn.ReLU(), up), torch.randn(2, 3, 8, 8)).layers
    assert [(layer.name, layer.period) for layer in layers] == [("0", 4), ("0#2", 2)]


@pytest.mark.parametrize("build", [build for build, _ in FOUND])
def test_balancing_changes_something_and_touches_nothing(build):
    """Both ways, on batches of other sizes than that in which the layers were found."""
    torch.manual_seed(0)
    network, draw = build()
    layers = [layer for layer in find_layers(network, draw(2)).layers if layer.period > 1]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = torch.cat([*generate(network, draw(24), 64)])
    for layer in layers:
        ways = ["activations"] + ["weights"] * (layer.weight is not None)
        for way in ways:
            after = torch.cat([*generate(network, draw(24), 64, [layer], way)])
            # What only repeats pixels has equal phases already.
            assert not torch.equal(before, after) or layer.kind in ("resize", "index", "views")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_networks_that_change_from_batch_to_batch_are_said():
    up = nn.ConvTranspose2d(3, 3, 4, 2, 1)
    network = make.Function(lambda n, x: n.up(x[..., : 8 + len(x)]), up=up)
    layers = find_layers(network, torch.randn(2, 3, 16, 16)).layers
    with pytest.raises(ValueError, match="a map of 32x22, not 32x20: the network must do the same"):
        list(generate(network, torch.randn(24, 3, 16, 16), 64, layers, "activations"))
    network = make.Function(lambda n, x: n.up(x) if len(x) == 2 else x, up=up)
    with pytest.raises(ValueError, match="did not repeat its calls"):
        list(generate(network, torch.randn(24, 3, 16, 16), 64, layers, "activations"))


def test_equal_phases_have_one_mean_and_one_response():
    random = torch.Generator().manual_seed(0)
    content = torch.randn(16, 2, 12, 12, generator=random)
    maps = content.repeat_interleave(2, 2).repeat_interleave(2, 3)
    uneven = maps.clone()
    uneven[..., ::2, 1::2] += 0.5 + 0.3 * maps[..., ::2, 1::2] - 0.2 * maps.flip(1)[..., ::2, 1::2]
    equalize_(uneven, (2, 2), (1, 1))
    phases = [uneven[..., r::2, c::2][..., 1:-1, 1:-1] for r in (0, 1) for c in (0, 1)]
    for phase in phases[1:]:
        assert (phase - phases[0]).mean().abs() < 0.01  # a ramp remains
    # Local means are smooth, so what is left of the responses is that to single pixels.
    assert (uneven - uneven.mean() - maps + maps.mean()).square().mean() < 0.02


def test_grids_of_earlier_layers_are_no_content():
    """A pattern of period 4 with a phase of its own in each cell of 2: no phase of 2 responds."""
    pattern = torch.zeros(4, 4)
    pattern[0, 1], pattern[2, 3] = 1.0, 1.0
    maps = (torch.randn(16, 1, 1, 1) + pattern.repeat(6, 6)).clone()
    before = maps.clone()
    equalize_(maps, (2, 2), (2, 2))
    fourth = torch.fft.fft2(maps - before).abs()[..., 6::12, 6::12]  # lines of period 4
    assert fourth.max() < 1e-3


@pytest.mark.slow
def test_sentences_about_published_kinds_of_networks():
    """A ×3 super-resolution network, and the decoder of a latent diffusion model."""
    network, draw = make.super_resolution()
    (sentence, *rest) = explain(network, draw(64))
    assert sentence.startswith("Period 3 at ") and "mostly up.1 (subpixel, kernel 3" in sentence
    assert "gen repair tries to balance it" in sentence and not rest
    network, draw = make.autoencoder()
    text = " ".join(explain(network, draw(64)))
    assert "training images" not in text and "gen repair" not in text
    assert "Interpolation has no weights to balance" in text


def explain(network, inputs):
    periods = list_periods(find_layers(network, inputs[:2]).layers)
    traced = trace(network, inputs, periods)
    blamed = blame(network, inputs, periods=periods)
    return advise(blamed.images, traced, blamed)
