"""What to do about a grid, in plain words, from trace and blame."""

from __future__ import annotations

from gen.analysis.layers.blame import Blame, LayerShare
from gen.analysis.layers.calls import Layer
from gen.analysis.layers.overlap import overlap, recommend
from gen.analysis.layers.trace import Trace
from gen.analysis.measure.result import Measurement

MAIN_SHARE = 0.5


def advise(measurement: Measurement, trace: Trace, blame: Blame) -> list[str]:
    """One or more sentences per detected period; one if there is none."""
    detected = [n for n, period in measurement.periods.items() if period.detected]
    if not detected:
        return [_describe_clean(measurement, trace)]
    return [
        sentence
        for period in detected
        for sentence in _advise_period(period, measurement, trace, blame)
    ]


def _describe_clean(measurement: Measurement, trace: Trace) -> str:
    limits = [
        f"period {n} below {p.detection_limit_dbc:.1f} dBc"
        for n, p in measurement.periods.items()
        if p.detection_limit_dbc is not None
    ]
    kinds = {t.layer.kind for t in trace.layers}
    why = " Its maps are enlarged by interpolation alone." if kinds == {"resize"} else ""
    return f"Nothing to repair: no grid found ({', '.join(limits) or 'nothing measurable'}).{why}"


def _advise_period(period: int, measurement: Measurement, trace: Trace, blame: Blame) -> list[str]:
    level = measurement.periods[period].level_dbc
    shown = "" if level is None else f" at {level:.1f} dBc"
    causes = trace.causes(period)
    if not causes:
        return [
            f"Period {period}{shown}: no layer of this network can make it, so it comes from "
            f"elsewhere: the training images (JPEG leaves 8) or what was done to the samples. "
            "Measure the data: gen images DATA."
        ]
    shares = sorted(blame.periods.get(period, ()), key=lambda share: -share.share)
    if not shares or not blame.images.periods[period].detected:
        return [
            f"Period {period}{shown}: can come from {', '.join(causes)}; too weak in the images "
            "of the counterfactuals to be shared out. Take more with --num."
        ]
    first = shares[0]
    if first.share < MAIN_SHARE:
        return [f"Period {period}{shown}: {_advise_shared(shares)}"]
    return [f"Period {period}{shown}: {_describe_cause(first)} {_advise_layer(first.layer, trace)}"]


def _advise_shared(shares: list[LayerShare]) -> str:
    rest = 1 - sum(share.share for share in shares)
    if rest < MAIN_SHARE:
        parts = ", ".join(f"{s.layer.name} {100 * s.share:.0f} %" for s in shares[:2])
        return f"shared by several layers ({parts}). Train again with --upsample balanced."
    return (
        f"balancing would leave {100 * rest:.0f} % of it: copies of what is not constant, which "
        "only smoother kernels (--antialias, nearest enlargement) take away, or a grid of the "
        "training data themselves (gen images DATA)."
    )


def _describe_cause(share: LayerShare) -> str:
    layer = share.layer
    kernel = "x".join(map(str, dict.fromkeys(layer.weight.shape[2:])))
    stride = "x".join(map(str, dict.fromkeys(layer.stride)))
    return (
        f"mostly {layer.name} ({layer.kind}, kernel {kernel}, factor {stride}), which has "
        f"{100 * share.share:.0f} % of it [{100 * share.low:.0f}, {100 * share.high:.0f}]."
    )


def _advise_layer(layer: Layer, trace: Trace) -> str:
    last = layer.leaves == max(t.layer.leaves for t in trace.layers if t.layer.weight is not None)
    after = (
        "gen repair balances it without training."
        if last
        else "Repairing an inner layer makes grids worse; train again with --upsample balanced "
        "or nearest."
    )
    if layer.kind != "transposed":
        return f"Its sub-kernels have grown apart. {after}"
    kernel, geometry = tuple(layer.weight.shape[2:]), layer.geometry
    counts = overlap(kernel, layer.stride, geometry["padding"], 0, geometry["dilation"], 24)
    if not counts.even:
        return f"Its kernel overlaps unevenly. {recommend(kernel, layer.stride, counts)} {after}"
    return f"Its geometry is even, its weights are not. {after}"
