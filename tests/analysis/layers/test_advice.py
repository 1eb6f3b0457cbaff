"""Situation → sentence: what is said about a grid, and what must never be said."""

import re

import pytest
import torch

from gen.analysis.layers.advice import advise
from gen.analysis.layers.blame import Blame, LayerShare, Share
from gen.analysis.layers.calls import Place
from gen.analysis.layers.steps import Layer
from gen.analysis.layers.trace import LayerTrace, Trace
from gen.analysis.measure.result import Measurement, Period

CLEAN = Period(p_value=0.5, detection_limit_dbc=-50.0, level_upper_dbc=-60.0)
GRID = Period(level_dbc=-30.0, p_value=1e-9, detected=True, found=("line",))
WEAK = Period(level_dbc=-50.0, p_value=0.03, detected=True, found=("line",))
TRACED = Period(p_value=0.5, detection_limit_dbc=-50.0, found=("trace",))
SMALL = Period(undefined="period 8 needs images of at least 48×48, these are 32×32")


def measurement(periods, size=(32, 32)):
    return Measurement(64, size, 3, None, periods, ())


def layer(name, period, kind="transposed", kernel=4, stride=2):
    """A layer with (transposed) or without weights."""
    values = {}
    if kind == "transposed":
        geometry = {"stride": (stride,) * 2, "padding": (1, 1), "dilation": (1, 1), "groups": 1}
        values = {"weight": torch.ones(3, 3, kernel, kernel), "geometry": geometry}
    place = Place((kind, period), "output")
    return Layer(
        name, kind, None, place, (stride,) * 2, (8, 8), (16, 16), period, **values
    )  # fmt: skip


def traced(layer, born=CLEAN):
    output = measurement({2: born})
    return LayerTrace(layer, torch.zeros(0), None, None, output, output)


def share(value, change, spread=0.1, change_spread=0.5):
    low, high = change - change_spread, change + change_spread
    return Share(value, value - spread, value + spread, change, low, high)


LAST, INNER = layer("last", 2), layer("inner", 4)
NEAREST, PIXELS = layer("up", 2, "resize"), layer("tokens", 8, "views", stride=8)
ODD = layer("odd", 2, kernel=3)


def situation(
    periods, layers, shares=(), rest=0.0, unseen=(), size=(32, 32), born=CLEAN, inputs=None
):
    """Arguments of `advise`; shares are (layer, activations, weights or None) of every period.

    `inputs` are the periods of inputs of 16×16 pixels.
    """
    found = measurement(periods, size)
    shown = inputs and measurement(inputs, (16, 16))
    trace = Trace(tuple(traced(x, born) for x in layers), found, (), tuple(unseen), shown)
    parts = tuple(LayerShare(x, a, w) for x, a, w in shares)
    blame = Blame(dict.fromkeys(periods, parts), dict.fromkeys(periods, rest), found, ())
    return found, trace, blame


DOWN, UP = share(0.9, -12.0), share(-0.6, 4.0)
# name: (situation, what is said, what is not)
TABLE = {
    "clean": (
        situation({2: CLEAN}, [LAST]),
        "Nothing to fix: no grid found (period 2 below -50.0 dBc).",
        "repair",
    ),
    "clean by interpolation": (
        situation({2: CLEAN}, [NEAREST]),
        "Its maps are enlarged by interpolation alone.",
        "repair",
    ),
    "clean images, a grid inside": (
        situation({2: CLEAN}, [LAST], born=GRID),
        "No grid in the images (period 2 below -50.0 dBc). Inside the network there is one after "
        "last",
        "Nothing to fix",
    ),
    "clean but for its trace": (
        situation({2: TRACED}, [NEAREST]),
        "Period 2 shows in the local variation of the pixels",
        "Nothing to fix",
    ),
    "nothing measurable": (
        situation({8: SMALL}, [PIXELS]),
        "Nothing can be said about a grid",
        "Nothing to fix",
    ),
    "a period that is too long": (
        situation({2: CLEAN, 8: SMALL}, [PIXELS]),
        "Period 8, which tokens can make, cannot be measured: it needs images of at least 48×48",
        "training images",
    ),
    "a period that was not asked for": (
        situation({2: CLEAN}, [PIXELS], size=(64, 64)),
        "Period 8, which tokens can make, was not measured; --periods 8 does.",
        "",
    ),
    "one layer": (
        situation({2: GRID}, [INNER, LAST], [(LAST, DOWN, DOWN)]),
        "Period 2 at -30.0 dBc: mostly last (transposed, kernel 4, factor 2): balancing it alone "
        "lowers the level by 12.0 dB (share 90 % [80, 100]). Its geometry is even, its weights are "
        "not. gen repair tries to balance it without training.",
        "training images",
    ),
    "a share that is certain, and nothing": (
        situation({2: GRID}, [LAST], [(LAST, share(0.001, -0.002, 0.0005, 0.001), None)], 1.0),
        "Period 2 at -30.0 dBc: can come from last, but no balancing lowers it",
        "in part",
    ),
    "an uneven kernel": (
        situation({2: GRID}, [ODD], [(ODD, DOWN, DOWN)]),
        "Its kernel overlaps unevenly. Instead: --kernel 4 --stride 2",
        "training images",
    ),
    "an inner layer": (
        situation({4: GRID}, [INNER, LAST], [(INNER, DOWN, DOWN)]),
        "Repairing an inner layer makes grids worse; train again with --upsample balanced",
        "gen repair",
    ),
    "a layer without weights": (
        situation({8: GRID}, [PIXELS], [(PIXELS, DOWN, None)]),
        "mostly tokens (views, factor 8): balancing it alone lowers the level by 12.0 dB",
        "gen repair",
    ),
    "interpolation": (
        situation({2: GRID}, [NEAREST], [(NEAREST, DOWN, None)]),
        "Interpolation has no weights to balance. Smoother enlarging lowers it",
        "nearest enlargement",
    ),
    "two ways that differ": (
        situation({2: GRID}, [LAST], [(LAST, DOWN, share(0.3, -2.0))]),
        "(share 90 % [80, 100]; by its weights the change is -2.0 dB)",
        "training images",
    ),
    "two ways that differ in what they remove": (
        situation({2: GRID}, [LAST], [(LAST, DOWN, share(0.85, -7.0))]),
        "lowers the level by 12.0 dB (share 90 % [80, 100]; by its weights the change is -7.0 dB)",
        "training images",
    ),
    "two ways that hardly differ": (
        situation({2: GRID}, [LAST], [(LAST, DOWN, share(0.85, -10.0))]),
        "lowers the level by 12.0 dB (share 90 % [80, 100]).",
        "by its weights",
    ),
    "a share above one, and one against it": (
        situation({2: GRID}, [INNER, LAST], [(LAST, share(2.79, -9.0), None), (INNER, UP, None)]),
        "lowers the level by 9.0 dB. Against it works inner (+4.0 dB).",
        "279 %",
    ),
    "several layers": (
        situation(
            {2: GRID},
            [INNER, LAST],
            [(LAST, share(0.5, -3.0), None), (INNER, share(0.4, -2.0), None)],
        ),
        "shared by last (transposed, kernel 4, factor 2): balancing it alone lowers the level by "
        "3.0 dB (share 50 % [40, 60]) and inner",
        "training images",
    ),
    "one layer, and one that hardly matters": (
        situation(
            {2: GRID},
            [INNER, LAST],
            [(LAST, DOWN, None), (INNER, share(0.1, -0.4, 0.05, 0.1), None)],
        ),
        "mostly last (transposed",
        "shared by",
    ),
    "layers that cancel": (
        situation(
            {2: GRID}, [INNER, LAST], [(LAST, share(1.8, 3.0), None), (INNER, UP, None)]
        ),
        "last and inner cancel each other: balancing one alone does not lower it (+3.0 dB for "
        "last, +4.0 dB for inner). Repair cannot help",
        "180 %",
    ),
    "a layer that others compensate": (
        situation(
            {4: GRID},
            [INNER, LAST],
            [(INNER, share(0.8, 7.0), None), (LAST, share(-0.01, 1.0, 0.1), None)],
        ),
        "inner has the largest share, but balancing it alone changes the level by +7.0 dB, because "
        "parts of the grid cancel each other. Repair cannot help; train again",
        "inner and last cancel",
    ),
    "no balancing lowers it": (
        situation({2: GRID}, [LAST], [(LAST, share(0.0, 0.1), None)], rest=0.97),
        "can come from last, but no balancing lowers it",
        "training images",
    ),
    "too weak": (
        situation({2: WEAK}, [LAST], [(LAST, share(0.3, 0.0, 0.5), None)]),
        "too weak to be shared out (p = 0.03). Take more samples with --num.",
        "training images",
    ),
    "uncertain but strong": (
        situation({2: GRID}, [LAST], [(LAST, share(0.3, 0.0, 0.5), None)]),
        "no share of a single layer is certain",
        "too weak",
    ),
    "no layer makes it": (
        situation({8: GRID}, [INNER, LAST]),
        "no layer of this network can make it (its layers make period 2 and period 4), so it was "
        "learned from the training images (JPEG leaves 8)",
        "gen repair",
    ),
    "inputs with the period": (
        situation({4: GRID}, [LAST], inputs={2: GRID}),
        "can make it (its layers make period 2). The inputs have period 2 at -30.0 dBc themselves, "
        "and the network can pass it on: show it inputs without that grid.",
        "training images",
    ),
    "inputs with the period, and a layer that makes it": (
        situation({4: GRID}, [INNER], [(INNER, DOWN, None)], inputs={2: GRID}),
        "nearest enlargement and a convolution. The inputs have period 2 at -30.0 dBc themselves, "
        "and the network can pass it on",
        "too weak",
    ),
    "inputs with little of the period": (
        situation({4: GRID}, [LAST], inputs={2: WEAK}),
        "or made afterwards. Measure the data: gen images DATA. The inputs have period 2 at -50.0 "
        "dBc themselves, which is too weak to explain it.",
        "pass it on",
    ),
    "inputs without the period": (
        situation({4: GRID}, [INNER], [(INNER, DOWN, None)], inputs={2: CLEAN}),
        "nearest enlargement and a convolution. The inputs have no grid of period 2 that can be "
        "detected.",
        "themselves",
    ),
    "a period that no input can have": (
        situation({2: GRID}, [LAST], [(LAST, DOWN, None)], inputs={4: GRID}),
        "mostly last",
        "inputs",
    ),
    "something was not seen": (
        situation({8: GRID}, [LAST], unseen=["at the end: maps grow from 8x8 to 20x20 by …"]),
        "not everything was seen (at the end: maps grow from 8x8 to 20x20 by …): its origin is "
        "unknown.",
        "training images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_situation_and_sentence(name):
    arguments, said, never = TABLE[name]
    text = " ".join(advise(*arguments))
    assert said in text
    assert not never or never not in text
    assert not re.search(r"\b(1[0-9][1-9]|1[1-9]0|[2-9]\d\d) %", text)  # no share above 100 %
    assert text.endswith(".")


def test_every_detected_period_has_its_sentence():
    arguments = situation({2: GRID, 4: GRID, 8: SMALL}, [INNER, LAST], [(LAST, DOWN, DOWN)])
    sentences = advise(*arguments)
    assert [re.match(r"Period (\d)", s)[1] for s in sentences] == ["2", "4"]
    assert not any("Nothing to fix" in sentence for sentence in sentences)
