"""What `gen model` found in the layers, as tables of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen.analysis.layers.trace import own_level
from gen.analysis.report.tables import Table, number_of

if TYPE_CHECKING:
    from gen.analysis.layers.blame import Blame
    from gen.analysis.layers.trace import Trace

LAYERS = (
    "layer", "kind", "maps", "stride", "period", "imbalance dB", "predicted dBc", "born dBc",
    "passed on dBc",
)  # fmt: skip
SHARES = ("period", "layer", "by", "share", "95 %", "balanced")
GLOSSARY = {
    "Imbalance": "How much the weights of a layer's phases differ for its own inputs. 0 dB: the "
    "phases differ as much as they agree.",
    "Predicted": "Level that the mean input alone leaves in the layer's output.",
    "Born, passed on": "Level in the layer's own output, and in what arrives at the next layer. "
    "≤: not detected, upper bound.",
    "Share": "Part of the period's pattern in the images that vanishes with this layer (Shapley). "
    "Layers that cancel each other have shares below 0 or above 100 %.",
    "By": "How a layer is balanced. Activations: the phases of its output become alike. Weights: "
    "the phases of its weights do.",
    "Balanced": "Change of the period's level when this layer alone is balanced.",
    "Rest": "What remains when all layers are balanced.",
}


def layers_table(traced: Trace) -> Table:
    """One row per layer that enlarges: its geometry, imbalance, and the levels that it leaves."""
    rows = []
    for each in traced.layers:
        layer = each.layer
        sizes = ("×".join(map(str, size)) for size in (layer.small, layer.large))
        rows.append(
            [
                layer.name, layer.kind, " → ".join(sizes), "×".join(map(str, layer.stride)),
                str(layer.period) if layer.period > 1 else "none",
                number_of(each.imbalance_db), number_of(each.predicted_dbc),
                own_level(each.output, layer), own_level(each.passed_on, layer),
            ]
        )  # fmt: skip
    return Table(LAYERS, rows)


def shares_table(blamed: Blame) -> Table:
    """One row per detected period and layer: its share of the pattern, and what balancing does."""
    rows = []
    for period, shares in blamed.periods.items():
        if not blamed.images.periods[period].detected:
            continue
        rows += [
            [
                str(period), each.layer.name, way, f"{100 * s.share:.0f} %",
                f"{100 * s.low:.0f} … {100 * s.high:.0f} %", f"{s.balanced_db:+.1f} dB",
            ]
            for each in shares
            for way, s in each.ways.items()
        ]  # fmt: skip
        rows.append([str(period), "rest", "", f"{100 * blamed.rest[period]:.0f} %", "", ""])
    return Table(SHARES, rows)
