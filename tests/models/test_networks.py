"""Decoder, discriminator and encoder: shapes, initialization, size ladder."""

from itertools import pairwise

import pytest
import torch
from gen.models.blocks import size_ladder
from gen.models.build import build_modules
from gen.models.dcgan import Discriminator
from gen.models.decoder import Decoder
from gen.models.kinds import UPSAMPLERS
from gen.models.upsample import Subpixel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gen.config.networks import GeneratorConfig
from gen.config.run import MODELS, RunConfig

WEIGHTED = torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding
GENERATORS = sorted(n for n, kind in MODELS.items() if issubclass(kind.model, GeneratorConfig))
SIZES = [(8, 8), (28, 28), (32, 32), (34, 45), (64, 64), (128, 128), (9, 31)]


def build(model, **fields):
    run = RunConfig.from_dict({"model": {"model": model, **fields}})
    return build_modules(run.networks, run.model)


@given(st.tuples(st.integers(8, 600), st.integers(8, 600)))
def test_each_step_of_the_ladder_doubles_then_crops_at_most_one(size):
    ladder = size_ladder(size)
    assert ladder[-1] == size
    assert 4 <= min(ladder[0]) <= 6
    for small, large in pairwise(ladder):
        assert all(2 * s - n in (0, 1) for s, n in zip(small, large, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_decoder_reaches_every_size(size, upsample):
    decoder = Decoder(7, size, 3, 4, upsample, UPSAMPLERS[upsample].kernel_sizes[0])
    images = decoder(torch.randn(2, 7))
    assert images.shape == (2, 3, *size)
    assert images.abs().max() <= 1


@settings(deadline=None, max_examples=20)
@given(
    model=st.sampled_from(GENERATORS),
    size=st.tuples(st.integers(8, 50), st.integers(8, 50)),
    channels=st.sampled_from([1, 3, 4]),
    latent=st.integers(1, 9),
    width=st.integers(1, 5),
)
def test_every_network_takes_every_shape(model, size, channels, latent, width):
    modules = build(model, size=size, channels=channels, latent=latent, width=width)
    images = torch.zeros(2, channels, *size)
    decoder = next(m for m in modules.values() if isinstance(m, Decoder))
    assert decoder(torch.zeros(2, latent)).shape == images.shape
    if model == "dcgan":
        assert modules["discriminator"](images).shape == (2,)
    else:
        mean, log_variance = modules["encoder"](images)
        assert mean.shape == log_variance.shape == (2, latent)


@pytest.mark.parametrize("model", GENERATORS)
def test_initialization_is_dcgans(model):
    torch.manual_seed(0)
    for module in build(model, size=(32, 32), channels=3, width=32).values():
        for name, layer in module.named_modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                # 32 channels at least: the standard error of the deviation is at most 0.0025.
                assert abs(layer.weight.std() - 0.02) < 0.01, name
                assert abs(layer.weight.mean() - 1) < 0.02, name
                assert not layer.bias.any(), name
            elif getattr(layer, "weight", None) is not None:
                assert abs(layer.weight.std() - 0.02) < 0.002, name
                assert layer.bias is None or not layer.bias.any(), name


def test_initialization_keeps_icnr():
    decoder = Decoder(4, (16, 16), 1, 4, "subpixel", 3)
    layers = [m for m in decoder.modules() if isinstance(m, Subpixel)]
    assert len(layers) == 2
    for conv, _ in layers:
        sub_kernels = conv.weight.unflatten(0, (-1, 4))  # (C_out, 4, C_in, K, K)
        assert torch.equal(sub_kernels, sub_kernels[:, :1].expand_as(sub_kernels))
        assert conv.weight.std() > 0.01


def test_size_below_eight_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        size_ladder((8, 7))


def test_the_decoder_has_a_width_of_its_own():
    common = {"model": "dcgan", "size": (16, 16), "channels": 3, "latent": 7, "width": 4}
    plain = build(**common)
    wide = build(**common, decoder_width=6)
    shapes = {name: [w.shape for w in module.parameters()] for name, module in plain.items()}
    assert [w.shape for w in wide["discriminator"].parameters()] == shapes["discriminator"]
    alone = build(**{**common, "width": 6})["generator"]
    assert [w.shape for w in wide["generator"].parameters()] == [
        w.shape for w in alone.parameters()
    ]
    assert shapes["generator"] != [w.shape for w in alone.parameters()]


@pytest.mark.parametrize("classes", [0, 3])
def test_spectral_norm_holds_every_singular_value_at_one(classes):
    torch.manual_seed(0)
    critic = Discriminator((16, 16), 3, 8, classes, batch_norm=False, spectral_norm=True)
    labels = torch.arange(8) % 3 if classes else None
    for _ in range(50):  # one power iteration each
        critic(torch.randn(8, 3, 16, 16), labels)
    weights = [m.weight for m in critic.eval().modules() if isinstance(m, WEIGHTED)]
    assert len(weights) == 3 + 2 * (classes > 0)  # embeddings of the label at both ends
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
        assert largest == pytest.approx(1, abs=0.02)


def test_no_batch_norm_means_none_and_biases_instead():
    critic = Discriminator((32, 32), 3, 4, batch_norm=False)
    assert not [m for m in critic.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.bias is not None for m in critic.modules() if isinstance(m, WEIGHTED))


class Activations(TorchDispatchMode):
    """Notes whether gradients come to LeakyReLU in its maps' memory order."""

    def __init__(self):
        super().__init__()
        self.alike = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.leaky_relu_backward.default:
            self.alike.append(args[0].stride() == args[1].stride())
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_the_trunk_stay_in_the_order_of_its_maps(memory):
    network = Discriminator((32, 32), 3, 4).to(memory_format=memory)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=memory)
    with Activations() as seen:
        network(images).sum().backward()
    assert seen.alike == [True] * 3
