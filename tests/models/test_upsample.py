"""The mechanics of enlargement, against torch and against each other."""

import pytest
import torch
import torch.nn.functional as F
from gen.models.blocks import initialize
from gen.models.decoder import Decoder
from gen.models.kinds import UPSAMPLERS
from gen.models.upsample import Blur, Subpixel, Transposed, enlarger
from torch import nn
from torch.nn.utils import parametrize

from gen.analysis.layers.phases import balance, phase_gains

GEOMETRIES = [  # kernel, stride, padding, output_padding, dilation, groups
    (4, 2, 1, 0, 1, 1),
    (3, 2, 1, 1, 1, 1),
    (2, 2, 0, 0, 1, 2),
    (5, 3, 2, 2, 1, 1),
    (3, 1, 1, 0, 2, 2),
    (6, 4, 1, 3, 1, 4),
    (3, 2, 0, 1, 3, 1),
    (1, 2, 0, 1, 1, 4),
]


def zero_insertion(maps, stride):
    """(…, H, W) → (…, s(H−1)+1, s(W−1)+1) with the values on the lattice, zeros between."""
    height, width = maps.shape[-2:]
    shape = (*maps.shape[:-2], stride * (height - 1) + 1, stride * (width - 1) + 1)
    enlarged = maps.new_zeros(shape)
    enlarged[..., ::stride, ::stride] = maps
    return enlarged


def flipped_kernel(weight, groups):
    """ConvTranspose2d's (C_in, C_out/g, K, K) → conv2d's (C_out, C_in/g, K, K), flipped."""
    inputs, outputs, *kernel = weight.shape
    swapped = weight.view(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
    return swapped.reshape(groups * outputs, inputs // groups, *kernel).flip(-1, -2)


def by_zero_insertion(maps, weight, stride, padding, output_padding, dilation, groups):
    """Dumoulin and Visin 2016, relationship 14: insert zeros, pad by d(K−1)−p, correlate."""
    kernel = weight.shape[-1]
    border = dilation * (kernel - 1) - padding
    after = border + output_padding
    padded = F.pad(zero_insertion(maps, stride), (border, after, border, after))
    return F.conv2d(padded, flipped_kernel(weight, groups), dilation=dilation, groups=groups)


def by_matrix(maps, weight, stride, padding, output_padding, dilation, groups):
    """Product with the transpose of the matrix of the convolution that goes the other way."""
    kernel = weight.shape[-1]
    out = [
        (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
        for n in maps.shape[-2:]
    ]
    channels = weight.shape[1] * groups
    basis = torch.eye(channels * out[0] * out[1], dtype=maps.dtype).view(-1, channels, *out)
    images = F.conv2d(basis, weight, None, stride, padding, dilation, groups)
    matrix = images.flatten(1).T  # (inputs of the transposed layer, its outputs)
    return (maps.flatten(1) @ matrix).view(len(maps), channels, *out)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("reference", [by_zero_insertion, by_matrix])
def test_transposed_convolution_is(geometry, reference):
    kernel, *rest = geometry
    stride, padding, output_padding, dilation, groups = rest
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 4, 5, requires_grad=True)
    weight = torch.randn(4, 8 // groups, kernel, kernel, requires_grad=True)
    expected = F.conv_transpose2d(
        maps, weight, None, stride, padding, output_padding, groups, dilation
    )
    actual = reference(maps, weight, *rest)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)

    probe = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * probe).sum(), (maps, weight))
    found = torch.autograd.grad((actual * probe).sum(), (maps, weight))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=5e-5)


EVERY = [(name, kernel) for name, kind in UPSAMPLERS.items() for kernel in kind.kernel_sizes]


@pytest.mark.parametrize(("name", "kernel"), EVERY)
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 3)])
def test_doubles_exactly(name, kernel, size):
    layer = enlarger(name, 3, 5, kernel, True)
    assert layer(torch.zeros(2, 3, *size)).shape == (2, 5, 2 * size[0], 2 * size[1])


@pytest.mark.parametrize(("name", "kernel"), EVERY)
def test_places_the_image_without_shift(name, kernel):
    """The centroid of an impulse response lies at twice the position, to half an output pixel."""
    layer = enlarger(name, 1, 1, kernel, False)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.fill_(1)
        impulse = torch.zeros(1, 1, 15, 15)
        impulse[..., 7, 7] = 1
        response = layer(impulse)[0, 0].sum(0)
    centroid = (response * torch.arange(30)).sum() / response.sum()
    # Pixel 7 covers outputs 14 and 15, centered on 14.5; odd transposed kernels center on 14 or 15.
    assert abs(centroid - 14.5) <= 0.5 + 1e-4


def test_icnr_starts_as_nearest_enlargement():
    layer = Subpixel(3, 2, 3)
    conv, shuffle = layer
    nn.init.normal_(conv.weight)
    maps = torch.randn(1, 3, 6, 6)
    assert not torch.equal(layer(maps)[..., ::2, ::2], layer(maps)[..., 1::2, 1::2])
    layer.icnr_()
    enlarged = layer(maps)
    small = enlarged[..., ::2, ::2]
    nearest = F.interpolate(small, scale_factor=2, mode="nearest")
    torch.testing.assert_close(enlarged, nearest)
    assert shuffle.upscale_factor == 2


@pytest.mark.parametrize("kernel", UPSAMPLERS["balanced"].kernel_sizes)
def test_balanced_is_the_projection_and_keeps_constants(kernel):
    torch.manual_seed(0)
    layer = enlarger("balanced", 3, 5, kernel, True)
    initialize(layer)
    original = layer.parametrizations.weight.original
    assert original.std() < 0.03  # DCGAN's initialization reached what is trained
    torch.testing.assert_close(layer.weight, balance(original, 2, layer.padding))
    gains = phase_gains(layer.weight, 2, layer.padding).flatten(0, 1)
    torch.testing.assert_close(gains, gains[:1].expand_as(gains))
    response = layer(torch.randn(1, 3, 1, 1).expand(2, 3, 9, 9))[..., 6:-6, 6:-6]
    assert response.std((-2, -1)).max() < 1e-6 < response.abs().mean()


def test_balanced_stays_balanced_while_it_trains_and_comes_off():
    torch.manual_seed(0)
    layer = enlarger("balanced", 3, 4, 4, True)
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    maps, target = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 12, 12)
    before = layer.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(layer(maps), target).backward()
        optimizer.step()
    assert (layer.weight - before).abs().max() > 0.1
    expected = layer(maps)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is Transposed and list(layer.state_dict()) == ["bias", "weight"]
    assert torch.equal(layer(maps), expected)
    gains = phase_gains(layer.weight, 2, 1).flatten(0, 1)
    torch.testing.assert_close(gains, gains[:1].expand_as(gains), atol=1e-5, rtol=0)


def test_balanced_gradient_and_bf16_sums():
    layer = enlarger("balanced", 2, 2, 3, False).double()
    maps = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (maps,))
    project = layer.parametrizations.weight[0]
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, (weight,))
    with torch.autocast("cpu", torch.bfloat16):
        gains = phase_gains(project(torch.randn(8, 4, 4, 4)), 2, 1).flatten(0, 1)
    assert gains.dtype == torch.float32
    torch.testing.assert_close(gains, gains[:1].expand_as(gains))


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_blur_removes_period_two_to_the_border_and_keeps_constants(size):
    blur, rows = Blur(), torch.arange(size[0])[:, None]
    columns = torch.arange(size[1])
    for grid in ((-1.0) ** rows + 0 * columns, (-1.0) ** (rows + columns)):
        found = blur((3 + grid)[None, None])
        torch.testing.assert_close(found, torch.full_like(found, 3.0))
    spike = torch.zeros(1, 1, 5, 5)
    spike[..., 2, 2] = 16
    assert blur(spike)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_antialias_follows_every_enlargement():
    network = Decoder(5, (32, 32), 3, 4, antialias=True)
    assert sum(isinstance(module, Blur) for module in network.modules()) == 3
    images = network.eval()(torch.randn(2, 5))
    assert images.shape == (2, 3, 32, 32)
    plain = Decoder(5, (32, 32), 3, 4)
    assert len(list(plain.parameters())) == len(list(network.parameters()))
