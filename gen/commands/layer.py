"""`gen layer`: the overlap of one transposed convolution, in the terminal, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen.commands.options import SIZE, Command, GroupedOption
from gen.commands.output import check_file, provenance, say, write_json

if TYPE_CHECKING:
    from gen.analysis.layers.overlap import Overlap

SHOWN = 12  # rows and columns drawn: the border and a few periods
PICTURES = (".png", ".svg", ".pdf")
Pair = tuple[int, int]


def explain_layer(
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    dilation: Pair,
    json_file: str | None,
    plot: Path | None,
) -> None:
    """Count, draw, judge, advise; no torch."""
    from gen.analysis.layers.overlap import overlap, recommend, verdict

    check_file("--json", json_file)
    check_file("--plot", plot, PICTURES)
    try:
        found = overlap(kernel, stride, padding, output_padding, dilation, size=(8, 8))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    sentence, instead = verdict(found), recommend(kernel, stride, found)
    text = f"{draw(found)}\n\n{sentence}\n{instead}"
    say(text, err=json_file == "-")
    if json_file:
        given = {
            "kernel": kernel, "stride": stride, "padding": padding,
            "output_padding": output_padding, "dilation": dilation,
        }  # fmt: skip
        plain = {
            "schema": 1, **given, "pattern": found.pattern.tolist(),
            "counts": found.counts.tolist(), "holes": found.holes, "even": found.even,
            "verdict": sentence, "instead": instead, **provenance([]),
        }  # fmt: skip
        write_json(plain, json_file, indent=None)
    if plot:
        plot_overlap(found, sentence, plot)


def draw(found: Overlap) -> str:
    """Taps per pixel of the output's top left corner; · is a hole."""
    corner = found.counts[:SHOWN, :SHOWN]
    width = len(str(corner.max()))
    head = "Taps behind each output pixel (8x8 input, top left corner; borders included):"
    rows = [" ".join(f"{count or '·':>{width}}" for count in row) for row in corner.tolist()]
    period = "x".join(map(str, found.stride))
    pattern = "; ".join(" ".join(map(str, row)) for row in found.pattern.tolist())
    return "\n".join([head, "", *(f"  {row}" for row in rows), "", f"Period {period}: {pattern}"])


def plot_overlap(found: Overlap, title: str, path: Path) -> None:
    """Write the same map as a picture."""
    import io

    from matplotlib.figure import Figure

    from gen.system.files import write_atomically

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(found.counts, cmap="viridis", vmin=0)
    figure.colorbar(shown, label="taps", shrink=0.8)
    axes.set(xlabel="output column (pixels)", ylabel="output row (pixels)")
    axes.set_title(title, fontsize=9, wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=120)
    write_atomically(path, buffer.getvalue())


def _option(name: str, text: str, **settings: Any) -> GroupedOption:
    settings |= {"type": SIZE, "show_default": True, "help": text}
    return GroupedOption([name], group="Layer", **settings)


layer = Command(
    "layer",
    help="Count the kernel taps behind each pixel of a transposed convolution: its overlap.",
    callback=explain_layer,
    params=[
        _option("--kernel", "kernel size, K or KHxKW", required=True),
        _option("--stride", "enlargement, S or SHxSW", required=True),
        _option("--padding", "pixels cut off each side", default="0"),
        _option("--output-padding", "pixels appended at the end", default="0"),
        _option("--dilation", "distance of neighboring taps", default="1"),
        GroupedOption(["--json", "json_file"], metavar="FILE|-", group="Output",
                      help="write JSON; - is stdout"),
        GroupedOption(["--plot"], metavar="FILE", type=click.Path(path_type=Path), group="Output",
                      help="draw the map: .png, .svg or .pdf"),
    ],
    examples="""
        gen layer --kernel 3 --stride 2 --padding 1 --output-padding 1
        gen layer --kernel 4 --stride 2 --padding 1 --json -
    """,
)  # fmt: skip
