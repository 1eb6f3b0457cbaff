"""The matrix product's gradient against the plain one, once and twice."""

import pytest
import torch
from torch import nn

from models.strided import WORTH_IT, ByProduct, HalvingConv2d


@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
def test_gradients_are_those_of_differences(size):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    expected = nn.functional.conv2d(maps, weight, None, 2, 1)
    assert torch.equal(ByProduct.apply(maps, weight), expected)
    assert torch.autograd.gradcheck(ByProduct.apply, (maps, weight))
    assert torch.autograd.gradgradcheck(ByProduct.apply, (maps, weight))


def gradients(layer, maps, wanted):
    """Of maps and weight, as a discriminator's turn in bf16 computes them."""
    maps = maps.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(maps)
    by = out.grad_fn.name()
    return by, torch.autograd.grad((out.float() * wanted).sum(), (maps, layer.weight))


def test_large_layers_in_bf16_agree_with_plain_ones():
    torch.manual_seed(0)
    layer, plain = HalvingConv2d(256, 512, bias=False), nn.Conv2d(256, 512, 4, 2, 1, bias=False)
    assert layer.weight.numel() >= WORTH_IT
    plain.load_state_dict(layer.state_dict())
    maps, wanted = torch.randn(4, 256, 8, 8), torch.randn(4, 512, 4, 4)
    ours, theirs = gradients(layer, maps, wanted), gradients(plain, maps, wanted)
    assert "ByProduct" in ours[0] and "ByProduct" not in theirs[0]
    exact = torch.autograd.grad((plain(maps) * wanted).sum(), plain.weight)[0]
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert (a - b).norm() < 5e-3 * b.norm()
    ours_off, theirs_off = ((found[1][1] - exact).norm() for found in (ours, theirs))
    assert ours_off < 1.2 * theirs_off


def test_other_layers_are_plain():
    maps = torch.randn(2, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert "ByProduct" not in HalvingConv2d(8, 4, bias=False)(maps).grad_fn.name()
    large = HalvingConv2d(256, 512, bias=False)
    assert "ByProduct" not in large(torch.randn(2, 256, 8, 8)).grad_fn.name()
