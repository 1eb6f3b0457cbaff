"""Every step that enlarges is found, however it is written, with the period of its grid."""

import pytest
import torch

from gen.analysis.layers.steps import find_layers
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
