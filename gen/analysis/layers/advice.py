"""Where a grid comes from and what to do about it, in plain words: every sentence of advice."""

from __future__ import annotations

from collections.abc import Sequence

from gen.analysis.layers.blame import Blame, LayerShare, Share
from gen.analysis.layers.overlap import overlap, recommend
from gen.analysis.layers.trace import Trace, input_period
from gen.analysis.measure.lattice import minimum_size
from gen.analysis.measure.result import Measurement, Period

MAIN_SHARE = 0.5
# Where shares, or changes in dB, differ by more between the ways, the change by weights is shown.
DIFFERENT = 0.25
DIFFERENT_DB = 3.0
MIN_CHANGE = 1.0  # dB: layers that lower a level by less are named only where no other does
COMPARABLE = 10.0  # dB: a grid of the inputs that is weaker by more does not explain one
WEAK = 0.01  # a p-value above it: detected, but hardly
SMOOTHER = "Smoother enlarging lowers it, such as --antialias or bilinear interpolation."
AGAIN = "train again with --upsample balanced, or with nearest enlargement and a convolution"


def advise(measurement: Measurement, trace: Trace, blame: Blame) -> list[str]:
    """One or more sentences per detected period, or one for none; then what was not measured."""
    detected = [n for n, period in measurement.periods.items() if period.detected]
    sentences = [
        _advise_period(n, measurement, trace, blame) + _describe_inputs(n, measurement, trace)
        for n in detected
    ]
    return [*(sentences or [_describe_clean(measurement, trace)]), *_unmeasured(measurement, trace)]


def _describe_clean(measurement: Measurement, trace: Trace) -> str:
    """What to say where no period was detected in the images."""
    measured = {n: p for n, p in measurement.periods.items() if not p.undefined}
    if not measured:
        return "Nothing can be said about a grid: no period can be measured in these images."
    limits = [
        f"period {n} below {p.detection_limit_dbc:.1f} dBc"
        for n, p in measured.items()
        if p.detection_limit_dbc is not None
    ]
    shown = ", ".join(limits) or "limits are above 0 dBc"
    inside = [t.layer.name for t in trace.layers if _is_detected(t)]
    traced = [str(n) for n, p in measured.items() if p.found]
    kinds = {t.layer.kind for t in trace.layers}
    why = " Its maps are enlarged by interpolation alone." if kinds == {"resize"} else ""
    if inside:
        return (
            f"No grid in the images ({shown}). Inside the network there is one after "
            f"{_join(inside)}; the layers that follow remove it.{why}"
        )
    if traced:
        return (
            f"No grid that the images share ({shown}). Period {_join(traced)} shows in the local "
            f"variation of the pixels, as interpolation leaves it; no weights make it.{why}"
        )
    return f"Nothing to fix: no grid found ({shown}).{why}"


def _is_detected(traced) -> bool:
    measured = [m for m in (traced.output, traced.passed_on) if m is not None]
    return any(m.detected for m in measured)


def _unmeasured(measurement: Measurement, trace: Trace) -> list[str]:
    """One sentence per period that a layer can make and that was not measured."""
    height, width = measurement.size
    makers: dict[int, list[str]] = {}
    for each in trace.layers:
        if each.layer.period > 1:
            makers.setdefault(each.layer.period, []).append(each.layer.name)
    found = []
    for period, names in makers.items():
        side = minimum_size(period)
        if min(height, width) < side:
            found.append(
                f"Period {period}, which {_join(names)} can make, cannot be measured: it needs "
                f"images of at least {side}×{side}, these are {height}×{width}."
            )
        elif period not in measurement.periods:
            found.append(
                f"Period {period}, which {_join(names)} can make, was not measured; "
                f"--periods {period} does."
            )
    return found


def _advise_period(period: int, measurement: Measurement, trace: Trace, blame: Blame) -> str:
    found = measurement.periods[period]
    shown = "" if found.level_dbc is None else f" at {found.level_dbc:.1f} dBc"
    head = f"Period {period}{shown}"
    causes = trace.causes(period)
    if not causes:
        shown = _inputs_explain(period, measurement, trace)
        return f"{head}: {_advise_without_cause(trace, shown)}"
    shares = blame.periods.get(period, ())
    certain = [s for s in shares if any(way.is_cause for way in s.ways.values())]
    named = [s for s in certain if _cause(s).balanced_db < -MIN_CHANGE] or certain
    against = [s for s in shares if s not in named and _compensates(s)]
    if named:
        return f"{head}: {_advise_named(named, against, trace)}"
    if len(shares) > 1 and any(abs(s.activations.share) > MAIN_SHARE for s in shares):
        return f"{head}: {_advise_cancelling(shares)}"
    if blame.rest.get(period, 1.0) > MAIN_SHARE:
        return (
            f"{head}: can come from {_join(causes)}, but no balancing lowers it: the copies that "
            f"enlarging leaves of edges and texture, or what the borders of maps print. {SMOOTHER}"
        )
    if found.p_value is not None and found.p_value > WEAK:
        return (
            f"{head}: can come from {_join(causes)}; too weak to be shared out "
            f"(p = {found.p_value:.2g}). Take more samples with --num."
        )
    return (
        f"{head}: can come from {_join(causes)}; no share of a single layer is certain, and "
        f"balancing any of them alone does not lower it. To remove it, {AGAIN}."
    )


def _found_in_inputs(period: int, measurement: Measurement, trace: Trace) -> tuple[int, Period]:
    """The period that the inputs must have to give images this one, and what they have of it."""
    if trace.inputs is None:
        return 1, Period(undefined="no images")
    number = input_period(period, measurement.size[0] // trace.inputs.size[0])
    return number, trace.inputs.periods.get(number, Period(undefined="1, or not looked for"))


def _inputs_explain(period: int, measurement: Measurement, trace: Trace) -> bool:
    _, found = _found_in_inputs(period, measurement, trace)
    level = measurement.periods[period].reading_dbc
    return found.detected and found.reading_dbc > level - COMPARABLE


def _describe_inputs(period: int, measurement: Measurement, trace: Trace) -> str:
    """Whether the inputs have the period themselves; empty where that is not known."""
    number, found = _found_in_inputs(period, measurement, trace)
    if found.undefined:
        return ""
    if not found.detected:
        return f" The inputs have no grid of period {number} that can be detected."
    text = f" The inputs have period {number} at {found.reading_dbc:.1f} dBc themselves"
    if not _inputs_explain(period, measurement, trace):
        return f"{text}, which is too weak to explain it."
    return f"{text}, and the network can pass it on: show it inputs without that grid."


def _advise_without_cause(trace: Trace, inputs_explain: bool) -> str:
    if trace.unseen:
        return (
            "no layer that was found can make it, but not everything was seen "
            f"({'; '.join(trace.unseen)}): its origin is unknown."
        )
    made = sorted({t.layer.period for t in trace.layers if t.layer.period > 1})
    can = f"its layers make {_join([f'period {n}' for n in made])}" if made else "none enlarges"
    if inputs_explain:
        return f"no layer of this network can make it ({can})."
    return (
        f"no layer of this network can make it ({can}), so it was learned from the training images "
        "(JPEG leaves 8) or made afterwards. Measure the data: gen images DATA."
    )


def _advise_named(named: Sequence[LayerShare], against: Sequence[LayerShare], trace: Trace) -> str:
    """Layers that make a grid, strongest first, and what to do."""
    ordered = sorted(named, key=lambda s: -_cause(s).share)
    first = ordered[0]
    words = [_describe_cause(s) for s in ordered]
    share = _cause(first).share
    start = "mostly " if share >= MAIN_SHARE else "in part "
    text = f"{start}{words[0]}" if len(words) == 1 else f"shared by {_join(words)}"
    if against:
        others = [f"{s.layer.name} ({s.activations.balanced_db:+.1f} dB)" for s in against]
        text += f". Against it works {_join(others)}"
    if {s.layer.kind for s in named} == {"resize"}:
        return f"{text}. Interpolation has no weights to balance. {SMOOTHER}"
    if len(words) > 1:
        return f"{text}. To remove all of it, {AGAIN}. {_advise_layer(first, trace)}"
    return f"{text}. {_advise_layer(first, trace)}"


def _advise_cancelling(shares: Sequence[LayerShare]) -> str:
    ordered = sorted(shares, key=lambda s: -abs(s.activations.share))[:2]
    first, second = (s.activations.share for s in ordered)
    if first * second > 0 or abs(second) < DIFFERENT:
        change = ordered[0].activations.balanced_db
        return (
            f"{ordered[0].layer.name} has the largest share, but balancing it alone changes the "
            f"level by {change:+.1f} dB, because parts of the grid cancel each other. Repair "
            f"cannot help; {AGAIN}."
        )
    changes = [f"{s.activations.balanced_db:+.1f} dB for {s.layer.name}" for s in ordered]
    return (
        f"{_join([s.layer.name for s in ordered])} cancel each other: balancing one alone does not "
        f"lower it ({', '.join(changes)}). Repair cannot help; {AGAIN}."
    )


def _cause(share: LayerShare) -> Share:
    """The way by which the layer is a cause; activations where both are."""
    return share.activations if share.activations.is_cause else share.weights or share.activations


def _compensates(share: LayerShare) -> bool:
    return any(way.is_compensation for way in share.ways.values())


def _describe_cause(share: LayerShare) -> str:
    """Name, kind, by how much balancing lowers the level, and the share where it is below all."""
    layer, found = share.layer, _cause(share)
    kernel = ""
    if layer.weight is not None:
        kernel = f", kernel {'x'.join(map(str, dict.fromkeys(layer.weight.shape[2:])))}"
    stride = "x".join(map(str, dict.fromkeys(layer.stride)))
    text = (
        f"{layer.name} ({layer.kind}{kernel}, factor {stride}): balancing it alone lowers the "
        f"level by {-found.balanced_db:.1f} dB"
    )
    more, other = [], share.weights
    if found.share <= 1:
        high = min(found.high, 1.0)
        more += [f"share {100 * found.share:.0f} % [{100 * found.low:.0f}, {100 * high:.0f}]"]
    if other and found is not other and _differ(found, other):
        more += [f"by its weights the change is {other.balanced_db:+.1f} dB"]
    return text + (f" ({'; '.join(more)})" if more else "")


def _differ(a: Share, b: Share) -> bool:
    shares, changes = abs(a.share - b.share), abs(a.balanced_db - b.balanced_db)
    return shares > DIFFERENT or changes > DIFFERENT_DB


def _advise_layer(share: LayerShare, trace: Trace) -> str:
    layer = share.layer
    balanceable = [t.layer for t in trace.layers if t.layer.gains is not None]
    repairs = share.weights is not None and share.weights.is_cause
    last = bool(balanceable) and layer.leaves == balanceable[-1].leaves
    if repairs and last:
        after = "gen repair tries to balance it without training."
    elif repairs:
        after = f"Repairing an inner layer makes grids worse; {AGAIN}."
    else:
        after = f"{AGAIN[0].upper()}{AGAIN[1:]}."
    if layer.kind == "transposed" and layer.gains is not None:
        kernel, geometry = tuple(layer.weight.shape[2:]), layer.geometry
        given = kernel, geometry["stride"], geometry["padding"], 0, geometry["dilation"], 24
        counts = overlap(*given)
        if not counts.even:
            return (
                "Its kernel overlaps unevenly. "
                f"{recommend(kernel, geometry['stride'], counts)} {after}"
            )
        return f"Its geometry is even, its weights are not. {after}"
    if layer.kind == "subpixel":
        return f"Its sub-kernels have grown apart. {after}"
    return after


def _join(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
