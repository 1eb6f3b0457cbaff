"""Convolutions as matrix products against the plain ones, in both directions, once and twice."""

import pytest
import torch
import torch.nn.functional as F
from gen.models.strided import DoublingConv2d, HalvingConv2d, Strided

PAIRS = {
    "halve": (False, F.conv2d, (2, 3, 6, 4)),
    "double": (True, F.conv_transpose2d, (2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_are_those_of_differences(name):
    doubles, plain, shape = PAIRS[name]

    def ours(maps, weight):
        return Strided.apply(maps, weight, doubles)

    torch.manual_seed(0)
    maps = torch.randn(shape, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(ours(maps, weight), plain(maps, weight, None, 2, 1))
    assert torch.autograd.gradcheck(ours, (maps, weight))
    assert torch.autograd.gradgradcheck(ours, (maps, weight))


def trained(layer, maps, wanted, precision):
    """Of one turn: how the maps came about, they, and the gradients of input and weight."""
    maps = maps.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        out = layer(maps)
    found = torch.autograd.grad((out.float() * wanted).sum(), (maps, layer.weight))
    return out.grad_fn.name(), (out.detach().float(), *found)


def layers(ours, channels):
    """A layer of ours, and torch's with the same weights."""
    torch.manual_seed(0)
    layer = ours(*channels, bias=False)
    plain = ours.__base__(*channels, 4, 2, 1, bias=False)
    plain.load_state_dict(layer.state_dict())
    return layer, plain


LARGE = {
    "halve": (HalvingConv2d, (256, 512), (4, 256, 8, 8), (4, 512, 4, 4)),
    "double": (DoublingConv2d, (512, 256), (4, 512, 4, 4), (4, 256, 8, 8)),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", LARGE)
def test_large_layers_agree_with_plain_ones(name, precision):
    ours, channels, incoming, outgoing = LARGE[name]
    layer, plain = layers(ours, channels)
    maps, wanted = torch.randn(incoming), torch.randn(outgoing)
    by, found = trained(layer, maps, wanted, precision)
    plainly, expected = trained(plain, maps, wanted, precision)
    assert "Strided" in by and "Strided" not in plainly
    _, exact = trained(plain.double(), maps.double(), wanted.double(), "fp32")
    for a, b, true in zip(found, expected, exact, strict=True):
        assert (a - true).norm() < max(1.2 * (b - true).norm(), 1e-6 * true.norm())


def test_other_layers_are_plain():
    small = HalvingConv2d(8, 4, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert "Strided" not in small(torch.randn(2, 8, 8, 8)).grad_fn.name()
    for ours, channels, incoming, _ in LARGE.values():
        maps = torch.randn(incoming)
        for other in (ours(*channels, bias=True), ours(*channels, bias=False).eval()):
            assert "Strided" not in other(maps).grad_fn.name()
    odd = HalvingConv2d(256, 512, bias=False)(torch.randn(2, 256, 7, 8))
    assert odd.shape == (2, 512, 3, 4) and "Strided" not in odd.grad_fn.name()
