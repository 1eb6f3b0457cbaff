"""Tables, contrasts and figures of the study: `python benchmarks/study/report.py [RUNS …]`.

With `--docs` it rewrites what is between the markers in docs/study.md, docs/study.csv with every
run, and the two figures. A level that was not detected enters a mean as its 95 % upper bound, and
the mean then reads "≤". Intervals are 95 % t-intervals; those of contrasts are over pairs of runs
that share seed and model.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import sys
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
UNKNOWN = "–"
FEWEST = 3  # values that have an interval
ORDER = ("transposed", "balanced", "antialias", "nearest", "bilinear", "subpixel")
QUALITY = ("kernel", "frechet", "precision", "recall")
# Settings that name a set where they differ from those of the study.
SETTINGS = {
    "size": (32, "{0}×{0}"), "steps": (800, "{:,} steps"),
    "opponent_width": (None, "opponent of width {}"),
}  # fmt: skip
Run = dict[str, Any]
Sets = dict[str, list[Run]]
Value = Callable[[Run], float]


def level(point: dict[str, Any], period: str) -> tuple[float, bool]:
    """(dBc, whether detected): the level, or the upper end of its interval where undetected."""
    found = point["periods"][period]
    known = found["level_dbc"] if found["detected"] else found["level_upper_dbc"]
    if known is None:  # detected, but noise took all the power; or no bound could be had
        known = found["level_upper_dbc"] or found["detection_limit_dbc"]
    return max(known, FLOOR), found["detected"] and known > FLOOR


def mean_level(runs: Sequence[Run], period: str) -> str:
    """Mean level at the end ± interval, ≤ where any is a bound, and how many were detected."""
    last = [run["points"][-1] for run in runs]
    levels = [level(point, period) for point in last if period in point["periods"]]
    if not levels:
        return ""
    found = sum(detected for _, detected in levels)
    sign = "" if found == len(levels) else "≤ "
    return f"{sign}{spread(db for db, _ in levels)} ({found}/{len(levels)})"


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Mean ± half the width of the 95 % t-interval, from three values on."""
    values = np.array(list(values), float)
    if len(values) < FEWEST:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {half_width(values):.{digits}f}"


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % t-interval of the mean."""
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def results(sets: Sets, cell: Callable[[list[Run]], str]) -> list[str]:
    """A table of `cell(runs of one upsampler)`: a row per upsampler, a column per model and set.

    Only sets of several upsamplers are shown.
    """
    columns = {}
    for model, data in itertools.product(MODELS, sets):
        runs = by_upsampler(sets[data], model)
        cells = {name: text for name, own in runs.items() if (text := cell(own))}
        if len(cells) > 1:
            columns[f"{model.upper()} {data}"] = cells
    names = {name for cells in columns.values() for name in cells}
    rows = [
        [name, *(cells.get(name, "") for cells in columns.values())]
        for name in sorted(names, key=rank)
    ]
    return table(["upsampler", *columns], rows)


def all_runs(sets: Sets) -> str:
    """CSV of every run: what it was, and what it left."""
    rows = []
    for (data, runs), model in itertools.product(sets.items(), MODELS):
        for run in itertools.chain(*by_upsampler(runs, model).values()):
            first, last, cell = run["points"][0], run["points"][-1], run["cell"]
            row = {"data": data, "model": model, "upsampler": cell["upsampler"]}
            row |= {"seed": cell["seed"], "decoder_width": run["decoder_width"]}
            periods = itertools.product((("start", first), ("end", last)), last["periods"])
            for (when, point), n in periods:
                period = point["periods"][n]
                for name in ("level", "level_low", "level_upper", "detection_limit"):
                    value = period[f"{name}_dbc"]
                    row[f"period{n}_{when}_{name}_dbc"] = "" if value is None else f"{value:.1f}"
                row[f"period{n}_{when}_found"] = " ".join(period["found"])
            row |= {"tail_db": f"{last['tail_db'][0]:.2f}"}
            row |= {name: f"{last['quality'][name]:.4g}" for name in QUALITY}
            rows.append(row | {"training_minutes": f"{minutes(run):.2f}"})
    out, columns = io.StringIO(), max(rows, key=len)  # period 8 is not in all
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def minutes(run: Run) -> float:
    """Processor time of the training of one run."""
    return run["cell"]["steps"] * BATCH / run["images_per_core_second"] / 60


def rank(upsampler: str) -> tuple[int, str]:
    """Order of upsamplers: transposed ones first."""
    return ORDER.index(upsampler.split("-")[0]), upsampler


def by_upsampler(runs: list[Run], model: str) -> dict[str, list[Run]]:
    """Runs of one model by upsampler, in the order of `rank`."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run["cell"]["model"] == model:
            found.setdefault(run["cell"]["upsampler"], []).append(run)
    return dict(sorted(found.items(), key=lambda item: rank(item[0])))


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


def difference(
    runs: list[Run], period: str, ours: Sequence[str], theirs: Sequence[str], seeds: list[float]
) -> str:
    """Mean of `seeds`, as a bound where one side was not detected in every run."""

    def bounded(names: Sequence[str]) -> bool:
        levels = [level(run["points"][-1], period) for run in by_name(runs, names)]
        return not all(detected for _, detected in levels)

    sides = bounded(ours), bounded(theirs)
    if all(sides):
        return UNKNOWN  # a difference of two bounds says nothing
    sign = "≤ " if sides[0] else "≥ " if sides[1] else ""
    return f"{sign}{spread(seeds)} dB ({len(seeds)})"


def by_name(runs: list[Run], names: Sequence[str]) -> list[Run]:
    """Runs of these upsamplers."""
    return [run for run in runs if run["cell"]["upsampler"] in names]


def contrasts(runs: list[Run]) -> dict[str, str]:
    """Effect by contrast, one for each claim of the literature, and the number of runs or pairs."""
    resize, transposed = ("nearest", "bilinear"), (*UNEVEN, *EVEN)
    found: dict[str, str] = {}

    def row(words: str, values: list[float], unit: str = " dB", digits: int = 1) -> None:
        if values:
            found[words] = f"{spread(values, digits)}{unit} ({len(values)})"

    for period, model in itertools.product(PERIODS, MODELS):
        own = [run for run in runs if run["cell"]["model"] == model]
        levels = [("k3, k5 minus k2, k4, k6", UNEVEN, EVEN)]
        levels += [(f"{name} minus {REFERENCE}", (name,), (REFERENCE,)) for name in REMEDIES]
        for words, ours, theirs in levels:
            if seeds := pairs(own, end_level(period), ours, theirs):
                words = f"period {period}, {model.upper()}: {words}"
                found[words] = difference(own, period, ours, theirs, seeds)
    for period in PERIODS:
        for words, names in (("transposed", transposed), ("subpixel", ("subpixel",))):
            own = by_name(runs, names)
            row(f"period {period}, {words}: end minus start", [*map(change(period), own)])
        both = between_models(by_name(runs, transposed), end_level(period))
        row(f"period {period}, transposed: VAE minus DCGAN", both)
    for (measure, scale, digits), name in itertools.product(
        (("kernel", 1000, 1), ("recall", 1, 2)), REMEDIES
    ):
        values = [scale * value for value in pairs(runs, quality(measure), [name], [REFERENCE])]
        row(f"{measure}: {name} minus {REFERENCE}", values, "", digits)
    for words, names in (("transposed", transposed), ("resize", resize)):
        if own := by_name(runs, names):
            row(f"tail, {words}", [run["points"][-1]["tail_db"][0] for run in own])
            traced = sum("trace" in names_of(run["points"][-1]) for run in own)
            found[f"found by trace, {words}"] = f"{traced} of {len(own)}"
    found |= repairs(runs)
    for model in MODELS:
        if own := [minutes(run) for run in runs if run["cell"]["model"] == model]:
            found[f"training minutes, {model.upper()}"] = f"{min(own):.1f} … {max(own):.1f}"
    return found


def names_of(point: dict[str, Any]) -> set[str]:
    """Which statistics find a grid of any period."""
    return {name for period in point["periods"].values() for name in period["found"]}


def gain(repair: Run, period: str) -> float:
    """Change of a period by repair: of its level, or of the bound where a side has no level."""
    before, after = (repair[side]["periods"][period] for side in ("before", "after"))
    name = "level_dbc" if before["detected"] and after["detected"] else "level_upper_dbc"
    return after[name] - before[name]


def repairs(runs: list[Run]) -> dict[str, str]:
    """How many runs `repair` repairs, and what that changes."""
    tried = [run["repair"] for run in runs if run["repair"]]
    done = [r for r in tried if not r["refused"]]
    found = {"repair: done, of runs with a layer to balance": f"{len(done)} of {len(tried)}"}
    for period in PERIODS if done else ():
        gains = [gain(repair, period) for repair in done]
        found[f"repair: period {period}, after minus before"] = f"{spread(gains)} dB ({len(done)})"
    if done:
        found["repair: PSNR"] = f"{spread(r['psnr_db'] for r in done)} dB ({len(done)})"
    return found


def tables(sets: Sets) -> list[str]:
    """Lines of Markdown: levels, and the high-frequency tail."""
    runs = itertools.chain(*sets.values())
    periods = sorted({n for run in runs for n in run["points"][-1]["periods"]}, key=int)
    cells: dict[str, Callable[[list[Run]], str]] = {
        f"Level at the end, period {n}, dBc": lambda runs, n=n: mean_level(runs, n) for n in periods
    }
    cells["High-frequency tail against the data, dB"] = lambda runs: spread(
        run["points"][-1]["tail_db"][0] for run in runs
    )
    lines = []
    for title, cell in cells.items():
        lines += [f"**{title}**", "", *results(sets, cell), ""]
    return lines


def contrast_table(sets: Sets) -> list[str]:
    """Lines of Markdown: all contrasts, one column per data set."""
    found = {data: contrasts(runs) for data, runs in sets.items()}
    words = dict.fromkeys(word for own in found.values() for word in own)
    rows = [[word, *(own.get(word, "") for own in found.values())] for word in words]
    rows = [row for row in rows if set(row[1:]) - {"", UNKNOWN}]
    return ["**Effect, 95 % interval (runs or pairs)**", "", *table(["", *found], rows), ""]


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
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    small = io.BytesIO()  # 64 colors are enough, at a third of the bytes
    few = Image.open(buffer).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()


SETS = (("o", BLUE), ("s", VERMILION), ("^", GREEN), ("D", INK))  # marker and color by data set


def draw(sets: Sets) -> bytes:
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
                half = half_width(levels) if len(levels) >= FEWEST else 0
                axes.errorbar(x, np.mean(levels), half, color=color, lw=1, zorder=1)
                axes.plot(x, np.mean(levels), marker, color=color, mfc=face, ms=5)
                axes.plot(x, np.mean(limits), "_", color=GRAY, ms=9)
            axes.plot([], [], marker, color=color, label=data)
        axes.plot([], [], "o", color=GRAY, mfc="white", label="not detected in every run")
        axes.plot([], [], "_", color=GRAY, ms=9, label="detection limit")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_title(f"{model.upper()}, period {period}", fontsize=9)
        axes.set_ylabel("level of the checkerboard (dBc)")
        axes.set_ylim(FLOOR, 5)
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


def read(files: Iterable[Path]) -> Sets:
    """Runs by data set, and by what differs from the settings of the study."""
    sets: Sets = {}
    for file in files:
        if not file.is_file():
            sys.exit(f"{file}: no such file; python benchmarks/study/study.py makes it")
        for run in map(json.loads, file.read_text().splitlines()):
            cell = run["cell"]
            names = [Path(cell["data"]).stem]
            names += [
                words.format(cell[name])
                for name, (usual, words) in SETTINGS.items()
                if cell.get(name, usual) != usual
            ]
            sets.setdefault(", ".join(names), []).append(run)
    return sets


def main() -> None:
    """Print the tables; with --docs also write them into docs/study.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = [ROOT / "runs/study/runs.jsonl"]
    parser.add_argument("runs", nargs="*", type=Path, default=usual)
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="runs in other settings")
    parser.add_argument("--docs", action="store_true", help="rewrite docs/study.md and its figures")
    given = parser.parse_args()
    sets, others = read(given.runs), read(given.also)
    lines = [*tables(sets), *contrast_table(sets)]
    if others:
        lines += ["### Longer, larger, and other training", "", *tables(others)]
    print("\n".join(lines))
    if given.docs:
        docs = ROOT / "docs"
        page = docs / "study.md"
        before, _, rest = page.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join([before + BEGIN, "", *lines, END + after])
        write_atomically(page, text.encode())
        write_atomically(docs / "study.csv", all_runs(sets | others).encode())
        write_atomically(docs / "img" / "study.png", draw(sets))
        training = draw_training(next(iter(sets.values())))
        write_atomically(docs / "img" / "study-training.png", training)


if __name__ == "__main__":
    main()
