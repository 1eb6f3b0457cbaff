"""Draw images from a trained generator: image i depends on seed i alone."""

from __future__ import annotations

from pathlib import Path

import click

from gen.options import Command, GroupedOption


class Seeds(click.ParamType):
    """`0-63`, `7` or `0-3,8,20-23` → list of seeds."""

    name = "SEEDS"

    def convert(self, value, param, ctx) -> list[int]:
        """Parse, or fail with the forms."""
        seeds: list[int] = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            if not (first.isascii() and first.isdigit() and (last.isdigit() if dash else not last)):
                self.fail(f"{value!r}; write seeds as 7, 0-63 or 0-3,8", param, ctx)
            low, high = int(first), int(last or first)
            if high < low or high >= 2**63:
                self.fail(f"{part!r} is no range of seeds from 0 up", param, ctx)
            if len(seeds) + high - low >= 10**8:
                self.fail(f"{value!r} is over 100 million seeds", param, ctx)
            seeds.extend(range(low, high + 1))
        return seeds


def check_targets(grid: str | None, outdir: str | None, npy: str | None) -> None:
    """Fail before any work if there is nowhere to write to."""
    if not (grid or outdir or npy):
        raise click.UsageError("nothing to write: give --grid FILE, --outdir DIR or --npy FILE")
    for flag, path in (("--grid", grid), ("--npy", npy)):
        if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
            raise click.UsageError(f"{flag} {path}: must be a file in a directory that exists")
    if outdir and Path(outdir).exists() and not Path(outdir).is_dir():
        raise click.UsageError(f"--outdir {outdir}: is a file")


def sample(
    source: str,
    seeds: list[int],
    grid: str | None,
    outdir: str | None,
    npy: str | None,
    ema: bool,
    batch_size: int,
    device: str,
) -> None:
    """Load, draw, write."""
    check_targets(grid, outdir, npy)
    import numpy as np
    import torch
    from tqdm import tqdm

    from gen.images import make_grid, save_png
    from gen.sampling import load, sample_batches

    decoder = load(source, ema=ema, device=device)
    if outdir:
        Path(outdir).mkdir(parents=True, exist_ok=True)
    kept = []
    done = 0
    with tqdm(total=len(seeds), unit="img", disable=None) as progress:
        for images in sample_batches(decoder, seeds, batch_size):
            if outdir:
                for seed, image in zip(seeds[done : done + len(images)], images, strict=True):
                    save_png(Path(outdir) / f"{seed:08d}.png", image)
            if grid or npy:
                kept.append(images)
            done += len(images)
            progress.update(len(images))
    if grid:
        save_png(Path(grid), make_grid(torch.cat(kept)))
    if npy:
        with Path(npy).open("wb") as file:
            np.save(file, torch.cat(kept).permute(0, 2, 3, 1).numpy())
    written = ", ".join(str(path) for path in (grid, outdir, npy) if path)
    click.echo(
        f"{done} images of {decoder.sizes[-1][0]}x{decoder.sizes[-1][1]} → {written}", err=True
    )


def _option(*names: str, **settings) -> GroupedOption:
    return GroupedOption(list(names), group="Options", **settings)


main = Command(
    "sample",
    help=__doc__,
    callback=sample,
    params=[
        click.Argument(["source"], metavar="RUN_OR_CHECKPOINT"),
        _option("--seeds", type=Seeds(), default="0-63", help="7, 0-63 or 0-3,8  [default: 0-63]"),
        _option("--grid", metavar="FILE", help="write all images as one PNG sheet"),
        _option("--outdir", metavar="DIR", help="write one PNG per seed, named by it"),
        _option("--npy", metavar="FILE", help="write one uint8 array (N, H, W, C)"),
        _option(
            "--ema/--no-ema", default=True, help="averaged weights or the last  [default: ema]"
        ),
        _option(
            "--batch-size",
            type=click.IntRange(1),
            default=64,
            help="images held at once  [default: 64]",
        ),
        _option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "mps"]),
            default="auto",
            help="where to compute  [default: auto]",
        ),
    ],
    examples="""
        python sample.py runs/00000-dcgan-shapes --grid grid.png
        python sample.py runs/00000-dcgan-shapes --seeds 0-9999 --outdir samples/
        python sample.py runs/00000-dcgan-shapes/checkpoints/step-00001000.pt --npy samples.npy
    """,
)

if __name__ == "__main__":
    main()
