"""Tables, contrasts and figures of the study: `python benchmarks/study/report.py`.

With `--docs` it rewrites what is between the markers in docs/study.md and draws its two figures. A
level that was not detected enters a mean as its 95 % upper bound, and the mean then reads "≤".
Intervals are 95 % t-intervals; those of contrasts are over pairs of runs that share seed and model.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gen.analysis.report.figures import BLUE, GRAY, GREEN, INK, STYLE, VERMILION
from gen.system.files import write_atomically

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
PERIODS = ("2", "4")
BATCH = 64  # images of one step
MODELS = ("dcgan", "vae")
# dBc, about a hundredth of a gray level: a lower level, which floats can hold and pictures cannot,
# counts as none, bounded by this.
FLOOR = -80.0
UNEVEN = ("transposed-k3", "transposed-k5")
EVEN = ("transposed-k2", "transposed-k4", "transposed-k6")
REFERENCE = "transposed-k4"
REMEDIES = ("balanced-k4", "antialias-k4", "nearest", "bilinear", "subpixel")
Run = dict[str, Any]
Value = Callable[[Run], float]


def level(point: dict[str, Any], period: str) -> tuple[float, bool]:
    """(dBc, whether detected): the level, or the upper end of its interval where undetected."""
    found = point["periods"][period]
    known = found["level_dbc"] if found["detected"] else found["level_upper_dbc"]
    if known is None:  # detected, but noise took all the power; or no bound could be had
        known = found["level_upper_dbc"] or found["detection_limit_dbc"]
    return max(known, FLOOR), found["detected"] and known > FLOOR


def mean_level(runs: Sequence[Run], index: int, period: str) -> str:
    """Mean level of these runs at one point, ≤ where any is a bound, and how many were detected."""
    levels = [level(run["points"][index], period) for run in runs]
    found = sum(detected for _, detected in levels)
    sign = "" if found == len(levels) else "≤ "
    return f"{sign}{np.mean([db for db, _ in levels]):.1f} ({found}/{len(levels)})"


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Mean ± half the width of the 95 % t-interval."""
    values = np.array(list(values), float)
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {half_width(values):.{digits}f}"


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % t-interval of the mean."""
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def results(runs: list[Run], model: str) -> list[str]:
    """One row per upsampler, over its seeds."""
    header = ["upsampler", *(f"period {p} {when}" for when in ("start", "end") for p in PERIODS)]
    header += ["limits", "found at end by", "tail", "kernel distance", "recall", "minutes"]
    rows = []
    for name, own in by_upsampler(runs, model).items():
        last = [run["points"][-1] for run in own]
        limits = (np.mean([p["periods"][n]["detection_limit_dbc"] for p in last]) for n in PERIODS)
        rows.append([
            name,
            *(mean_level(own, index, period) for index in (0, -1) for period in PERIODS),
            ", ".join(f"{limit:.0f}" for limit in limits),
            statistics_of(last),
            spread(p["tail_db"][0] for p in last),
            spread((1000 * p["quality"]["kernel"] for p in last), 1),
            f"{np.mean([p['quality']['recall'] for p in last]):.2f}",
            f"{np.mean([minutes(run) for run in own]):.1f}",
        ])  # fmt: skip
    return table(header, rows)


def minutes(run: Run) -> float:
    """Processor time of the training of one run."""
    return run["cell"]["steps"] * BATCH / run["images_per_core_second"] / 60


def statistics_of(points: Sequence[dict[str, Any]]) -> str:
    """Which statistics find a grid of any period, and in how many of these points."""
    found = Counter(
        name for p in points for name in {n for q in p["periods"].values() for n in q["found"]}
    )
    order = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in order) or "none"


def by_upsampler(runs: list[Run], model: str) -> dict[str, list[Run]]:
    """Runs of one model by upsampler, transposed ones first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run["cell"]["model"] == model:
            found.setdefault(run["cell"]["upsampler"], []).append(run)
    order = ["transposed", "balanced", "antialias", "nearest", "bilinear", "subpixel"]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0].split("-")[0]), item)))


def end_level(period: str) -> Value:
    """Level at the end of training, or its upper bound."""
    return lambda run: level(run["points"][-1], period)[0]


def change(period: str) -> Value:
    """Level at the end minus at the start."""
    return lambda run: level(run["points"][-1], period)[0] - level(run["points"][0], period)[0]


def quality(name: str) -> Value:
    """A figure of quality at the end of training."""
    return lambda run: run["points"][-1]["quality"][name]


def pairs(runs: list[Run], value: Value, ours: Sequence[str], theirs: Sequence[str]) -> list[float]:
    """Mean of `value` over `ours` minus over `theirs`, for each seed and model."""
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    for run in runs:
        cell = run["cell"]
        found = groups.setdefault((cell["seed"], cell["model"]), {})
        found[cell["upsampler"]] = value(run)
    complete = [group for group in groups.values() if set(ours) | set(theirs) <= set(group)]
    return [
        float(np.mean([g[name] for name in ours]) - np.mean([g[name] for name in theirs]))
        for g in complete
    ]


def between_models(runs: list[Run], value: Value) -> list[float]:
    """`value` of the VAE minus the DCGAN, for each seed and upsampler."""
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    for run in runs:
        cell = run["cell"]
        key = (cell["seed"], cell["upsampler"])
        groups.setdefault(key, {})[cell["model"]] = value(run)
    return [g["vae"] - g["dcgan"] for g in groups.values() if len(g) == 2]


def sign(runs: list[Run], period: str, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """How a difference of levels reads where one side was not detected but only bounded."""

    def bounded(names: Sequence[str]) -> bool:
        levels = [level(run["points"][-1], period) for run in by_name(runs, names)]
        return not all(detected for _, detected in levels)

    return {(True, False): "≤ ", (False, True): "≥ ", (True, True): "between bounds: "}.get(
        (bounded(ours), bounded(theirs)), ""
    )


def by_name(runs: list[Run], names: Sequence[str]) -> list[Run]:
    """Runs of these upsamplers."""
    return [run for run in runs if run["cell"]["upsampler"] in names]


def contrasts(runs: list[Run]) -> dict[str, str]:
    """Effect by contrast, one for each claim of the literature, and the number of runs or pairs."""
    resize = ("nearest", "bilinear")
    found: dict[str, str] = {}

    def row(words: str, values: list[float], unit: str, digits: int = 1, bound: str = "") -> None:
        if values:
            found[words] = f"{bound}{spread(values, digits)}{unit} ({len(values)})"

    for period in PERIODS:
        at = f"level at period {period}"
        levels = [("k3, k5 minus k2, k4, k6", UNEVEN, EVEN)]
        others = ("transposed-k3", *REMEDIES)
        levels += [(f"{name} minus {REFERENCE}", (name,), (REFERENCE,)) for name in others]
        for words, ours, theirs in levels:
            for model in MODELS:
                own = [run for run in runs if run["cell"]["model"] == model]
                values = pairs(own, end_level(period), ours, theirs)
                bound = sign(own, period, ours, theirs)
                row(f"{at}, {model.upper()}: {words}", values, " dB", bound=bound)
        for names in (UNEVEN, EVEN, ("subpixel",)):
            own = by_name(runs, names)
            words = ", ".join(sorted({run["cell"]["upsampler"] for run in own}))
            row(f"{at}: end minus start of training, {words}", [*map(change(period), own)], " dB")
        transposed = by_name(runs, (*UNEVEN, *EVEN))
        both = between_models(transposed, end_level(period))
        row(f"{at}, transposed: VAE minus DCGAN", both, " dB")
    for name, measure in itertools.product(REMEDIES, ("kernel", "recall")):
        values = pairs(runs, quality(measure), [name], [REFERENCE])
        row(f"{measure}: {name} minus {REFERENCE}", values, "", 3)
    for words, names in (("transposed", (*UNEVEN, *EVEN)), ("resize", resize)):
        tails = [run["points"][-1]["tail_db"][0] for run in by_name(runs, names)]
        row(f"tail against the data, {words}", tails, " dB")
    tried = [run["repair"] for run in runs if run["repair"]]
    repaired = [r for r in tried if not r["refused"]]
    found["repair: runs that it repairs, of those with a layer to balance"] = (
        f"{len(repaired)} of {len(tried)}"
    )
    row("repair: PSNR", [f["psnr_db"] for f in repaired], " dB")
    for period in PERIODS:
        gains = [level(f["after"], period)[0] - level(f["before"], period)[0] for f in repaired]
        row(f"repair: level at period {period}, after minus before", gains, " dB")
    return found


def tables(sets: dict[str, list[Run]]) -> list[str]:
    """Lines of Markdown: results of each data set and model, then all contrasts side by side."""
    lines = []
    for (data, runs), model in itertools.product(sets.items(), MODELS):
        if by_upsampler(runs, model):
            lines += [f"**{model.upper()} on {data}**", "", *results(runs, model), ""]
    found = {data: contrasts(runs) for data, runs in sets.items()}
    words = dict.fromkeys(word for own in found.values() for word in own)
    rows = [[word, *(own.get(word, "") for own in found.values())] for word in words]
    lines += ["**Contrasts: effect, 95 % interval (runs or pairs)**", ""]
    return [*lines, *table(["contrast", *found], rows), ""]


def four_panels(panel: Callable[[Any, str, str], None]) -> bytes:
    """PNG of panel(axes, model, period) for both models and periods, with one legend."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for own, (model, period) in zip(axes.flat, itertools.product(MODELS, PERIODS), strict=True):
            panel(own, model, period)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    small = io.BytesIO()  # 64 colors are enough, at a third of the bytes
    few = Image.open(buffer).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()


SETS = (("o", BLUE), ("s", VERMILION), ("^", GREEN), ("D", INK))  # marker and color by data set


def draw(sets: dict[str, list[Run]]) -> bytes:
    """PNG: level at the end of training by upsampler and data set, with intervals and limits."""

    def panel(axes: Any, model: str, period: str) -> None:
        names = list(by_upsampler([run for runs in sets.values() for run in runs], model))
        for number, ((data, runs), (marker, color)) in enumerate(
            zip(sets.items(), SETS, strict=False)
        ):
            groups = by_upsampler(runs, model)
            for x, own in ((names.index(name), own) for name, own in groups.items()):
                x += 0.22 * (number - (len(sets) - 1) / 2)
                levels, detected = zip(
                    *(level(run["points"][-1], period) for run in own), strict=True
                )
                limits = [
                    run["points"][-1]["periods"][period]["detection_limit_dbc"] for run in own
                ]
                face = color if all(detected) else "white"
                half = half_width(levels) if len(levels) > 1 else 0
                axes.errorbar(x, np.mean(levels), half, color=color, lw=1, zorder=1)
                axes.plot(x, np.mean(levels), marker, color=color, mfc=face, ms=5)
                axes.plot(x, np.mean(limits), "_", color=GRAY, ms=9)
            axes.plot([], [], marker, color=color, label=data)
        axes.plot(
            [], [], "o", color=GRAY, mfc="white", label="not detected in every run: with bounds"
        )
        axes.plot([], [], "_", color=GRAY, ms=9, label="detection limit")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_title(f"{model.upper()}, period {period}", fontsize=9)
        axes.set_ylabel("level of the checkerboard (dBc)")
        axes.grid(axis="y", color="#EEEEEE")

    return four_panels(panel)


# Color-blind-safe (Okabe and Ito); the uneven kernels are the two warm ones.
LINES = {
    "transposed-k3": (VERMILION, "o"), "transposed-k5": ("#E69F00", "s"),
    "transposed-k4": (BLUE, "o"), "balanced-k4": (INK, "D"), "bilinear": (GREEN, "v"),
    "nearest": ("#56B4E9", "^"), "subpixel": ("#CC79A7", "P"),
}  # fmt: skip


def draw_training(runs: list[Run]) -> bytes:
    """PNG: mean level over training by upsampler; open where some run had only a bound."""

    def panel(axes: Any, model: str, period: str) -> None:
        groups = by_upsampler(runs, model)
        for name, (color, marker) in LINES.items():
            if not (own := groups.get(name)):
                continue
            steps = [point["step"] for point in own[0]["points"]]
            levels = np.array([[level(point, period) for point in run["points"]] for run in own])
            axes.plot(steps, levels[..., 0].mean(0), color=color, lw=1)
            axes.plot([], [], marker, ls="-", color=color, lw=1, ms=4, label=name)
            for step, db, found in zip(steps, *levels.mean(0).T, strict=True):
                face = color if found == 1 else "white"
                axes.plot(step, db, marker, color=color, mfc=face, ms=4)
        axes.set_title(f"{model.upper()}, period {period}", fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylabel("level (dBc)")

    return four_panels(panel)


def main() -> None:
    """Print the tables; with --docs also write them into docs/study.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="?", type=Path, default=ROOT / "runs/study/runs.jsonl")
    parser.add_argument("--docs", action="store_true", help="rewrite docs/study.md and its picture")
    given = parser.parse_args()
    if not given.runs.is_file():
        sys.exit(f"{given.runs}: no such file; python benchmarks/study/study.py makes it")
    runs = [json.loads(line) for line in given.runs.read_text().splitlines()]
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(Path(run["cell"]["data"]).stem, []).append(run)
    lines = tables(sets)
    print("\n".join(lines))
    if given.docs:
        page = ROOT / "docs" / "study.md"
        before, _, rest = page.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join([before + BEGIN, "", *lines, END + after])
        write_atomically(page, text.encode())
        first = next(iter(sets.values()))
        pictures = {"study.png": draw(sets), "study-training.png": draw_training(first)}
        for name, png in pictures.items():
            write_atomically(ROOT / "docs" / "img" / name, png)


if __name__ == "__main__":
    main()
