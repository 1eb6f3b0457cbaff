"""U-Net and FCN: any size in, the same size out; enlargement that starts as interpolation."""

import pytest
import torch
import torch.nn.functional as F
from gen.models.build import build_modules
from gen.models.fcn import FCN, HEADS
from gen.models.kinds import UPSAMPLERS
from gen.models.upsample import enlarger
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gen.config.networks import FCNConfig, SegmenterConfig

SIZES = [(8, 8), (34, 45), (64, 64), (9, 31)]
EVERY = [(name, kernel) for name, kind in UPSAMPLERS.items() for kernel in kind.kernel_sizes]


def segmenter(model, size=(64, 64), **fields):
    torch.manual_seed(0)
    kind = FCNConfig if model == "fcn" else SegmenterConfig
    given = {"size": size, "channels": 3, "width": 2, "classes": 5, **fields}
    return build_modules({"segmenter": model}, kind(model, **given))["segmenter"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("upsample", "kernel"), EVERY)
@pytest.mark.parametrize("model", ["unet", "fcn"])
def test_a_network_reaches_every_size(model, upsample, kernel, size):
    network = segmenter(model, size, upsample=upsample, kernel_size=kernel, antialias=kernel == 3)
    assert network(torch.randn(2, 3, *size)).shape == (2, 5, *size)


@settings(deadline=None, max_examples=15)
@given(
    model=st.sampled_from(["unet", "fcn"]),
    trained=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    given=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    channels=st.sampled_from([1, 3, 4]),
    classes=st.integers(2, 9),
)
def test_a_network_takes_images_of_other_sizes_too(model, trained, given, channels, classes):
    network = segmenter(model, trained, channels=channels, classes=classes)
    assert network.eval()(torch.zeros(1, channels, *given)).shape == (1, classes, *given)


def test_padding_changes_nothing_but_the_margin():
    """An image cropped at the bottom and right is seen as it was, away from the cut."""
    network = segmenter("fcn", head="32s").eval()
    images = torch.randn(1, 3, 256, 256)
    cut = network(images[..., :150, :131])
    torch.testing.assert_close(cut[..., :8, :8], network(images)[..., :8, :8])


@pytest.mark.parametrize(("name", "kernel"), EVERY)
def test_enlargement_starts_as_bilinear_interpolation(name, kernel):
    torch.manual_seed(0)
    layer = enlarger(name, 3, 3, kernel, False)
    layer.interpolate_()
    maps = torch.randn(2, 3, 9, 12)
    found = layer(maps)[..., 4:-4, 4:-4]
    if kernel == 2:
        expected = F.interpolate(maps, scale_factor=2, mode="nearest")
    elif name in ("transposed", "balanced") and kernel % 2:  # samples on every other pixel
        wide = (2 * maps.shape[2] - 1, 2 * maps.shape[3] - 1)
        expected = F.interpolate(maps, size=wide, mode="bilinear", align_corners=True)
        expected = F.pad(expected, (0, 1, 0, 1))
    else:
        expected = F.interpolate(maps, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found, expected[..., 4:-4, 4:-4])


@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_enlargement_stays_and_learned_moves(name, fixed, small_dataset, tmp_path):
    from gen.training.loop import Trainer
    from tests.conftest import small_config

    config = small_config("fcn", {"upsample": name, "fixed_upsample": fixed})
    trainer = Trainer(config, small_dataset, tmp_path)
    before = {k: v.clone() for k, v in trainer.modules["segmenter"].state_dict().items()}
    assert trainer.run() == 0
    for key, value in trainer.modules["segmenter"].state_dict().items():
        if key.startswith("enlarge"):
            assert torch.equal(value, before[key]) == fixed, key
        elif key.endswith("weight"):
            assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("head", HEADS)
def test_a_head_scores_the_maps_of_its_strides(head):
    """A change of one pixel of the finest scored map moves what that stride covers, no more."""
    network = segmenter("fcn", head=head).eval()
    assert len(network.scores) == HEADS[head]
    maps = network.trunk.maps(torch.randn(1, 3, 64, 64))
    stride = int(head[:-1])
    assert maps[::-1][HEADS[head] - 1].shape[2:] == (64 // stride, 64 // stride)
    assert [conv.in_channels for conv in network.scores] == [16, 16, 8][: HEADS[head]]


def test_fcn_at_the_start_is_its_scores_interpolated():
    network = segmenter("fcn", head="8s").eval()
    images = torch.randn(1, 3, 128, 128)
    scores = [conv(m) for conv, m in zip(network.scores, network.trunk.maps(images)[::-1])]  # noqa: B905
    expected = scores[0]
    for stage in range(5):
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear")
        if stage < 2:
            expected = expected + scores[stage + 1]
    middle = slice(56, 72)
    # Borders differ: torch repeats the last sample, a transposed convolution sees zeros.
    found = network(images)
    torch.testing.assert_close(found[..., middle, middle], expected[..., middle, middle])


@pytest.mark.parametrize(("name", "kernel"), EVERY)
def test_unet_joins_maps_of_one_scale(name, kernel):
    """Enlarged maps far weaker than those they are joined with would be learned from late."""
    network, seen = segmenter("unet", width=8, upsample=name, kernel_size=kernel).train(), []
    for layer in [*network.enlarge, *network.down]:
        layer.register_forward_hook(lambda _, __, maps: seen.append(maps.detach().square().mean()))
    network(torch.randn(4, 3, 64, 64))
    stages = len(network.down)
    for across, enlarged in zip(seen[stages - 2 :: -1], seen[stages:], strict=True):
        assert 0.3 < (enlarged / across) ** 0.5 < 3


def test_unet_hands_across_what_pooling_loses():
    """A fine pattern whose every 2×2 mean and maximum is flat still reaches the output."""
    network = segmenter("unet", width=8).eval()
    nn.init.normal_(network.head.weight)
    flat, fine = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    fine[..., ::2, ::2] = 1e-3
    with torch.no_grad():
        for layer in network.enlarge:  # nothing comes from below
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    assert (network(fine) - network(flat)).abs().max() > 0


def test_fcn_without_heads_is_refused():
    with pytest.raises(KeyError):
        FCN(3, 2, 4, head="4s")
