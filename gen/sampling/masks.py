"""Masks of images by a trained segmenter, and its logit maps for measuring.

from gen.sampling.masks import load_segmenter, predict
network, config = load_segmenter("runs/00000-unet-shapes")
mask = predict(network, config.model.size, image)  # uint8 (C, H, W) → (H, W)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.config.run import RunConfig
from gen.data.datasets import load_dataset
from gen.data.decode import DataError, decode, list_images
from gen.data.sources import resize
from gen.images import MID_GREY, encode_mask, to_float
from gen.runs.data import load_split
from gen.runs.open import Run, open_own_run
from gen.sampling.targets import Folder, file_sha256
from gen.system.errors import InputError

BATCH = 32
MAX_ASPECT_RATIO = 100  # the most that one side of an image may be longer than the other


def open_segmenter(path: Path | str, *, ema: bool = True, device: str = "auto") -> Run:
    """The run or checkpoint of a segmenter, in eval mode.

    Raises:
        CheckpointError: missing, damaged or foreign.
        ValueError: a run that predicts no masks.
    """
    run = open_own_run(path, ema=ema, device=device)
    if not run.predicts_masks:
        raise InputError(f"{path}: a {run.config.model.model}, which predicts no masks")
    return run


def load_segmenter(
    path: Path | str, *, ema: bool = True, device: str = "auto"
) -> tuple[nn.Module, RunConfig]:
    """The network of a run or checkpoint and its configuration; raises as `open_segmenter`."""
    run = open_segmenter(path, ema=ema, device=device)
    return run.modules["segmenter"], run.config


@torch.inference_mode()
def predict(network: nn.Module, size: tuple[int, int], image: Tensor) -> Tensor:
    """Class of each pixel, uint8 (H, W), of one image, uint8 (C, H, W).

    An image of another size is seen at the scale of training, as large as covers `size`; the logits
    are enlarged or reduced (bilinear) to its own size.
    """
    height, width = image.shape[1:]
    scale = max(size[0] / height, size[1] / width)
    seen = (max(size[0], round(scale * height)), max(size[1], round(scale * width)))
    if seen != (height, width):
        image = torch.tensor(resize(image.permute(1, 2, 0).numpy(), seen)).permute(2, 0, 1)
    device = next(network.parameters()).device
    logits = network(to_float(image[None]).to(device)).float()
    if seen != (height, width):
        logits = F.interpolate(logits, (height, width), mode="bilinear", antialias=True)
    return logits[0].argmax(0).to(torch.uint8).cpu()


def predict_folder(source: Path | str, images: Path, outdir: Path, ema: bool, device: str) -> str:
    """Write the masks of a folder of images, as PNG with palette named like them; what was done.

    An interrupted folder is continued, as one of samples is.

    Raises:
        DataError, BadImage: no images, unreadable ones, or two that give masks of one name.
        FolderError: `outdir` holds other files.
        ValueError: the run predicts no masks.
        CheckpointError: as `load_segmenter`.
    """
    from tqdm import tqdm

    paths: dict[str, Path] = {}
    for path in list_images(images):
        name = path.relative_to(images).with_suffix("").as_posix()
        if name in paths:
            raise DataError(f"{path}: would have the mask of {paths[name].name}; rename one")
        paths[name] = path
    run = open_segmenter(source, ema=ema, device=device)
    network, model, data = run.modules["segmenter"], run.config.model, run.config.data
    record = {"checkpoint": file_sha256(run.path), "images": str(images.absolute()), "ema": ema}
    record["device"] = next(network.parameters()).device.type
    names = [*paths]
    folder = Folder(outdir, record, names.__getitem__, "png", None)
    given = {"channels": model.channels, "background": data.background}
    for index, path in enumerate(tqdm(paths.values(), unit="img", disable=None)):
        if folder.holds(index):
            continue
        pixels = decode(path, max_pixels=data.max_image_pixels, **given)
        height, width = pixels.shape[:2]
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise DataError(
                f"{path}: {height}×{width} pixels; sides may differ {MAX_ASPECT_RATIO} times"
            )
        image = torch.from_numpy(np.rint(pixels).astype(np.uint8)).permute(2, 0, 1)
        folder.write(index, encode_mask(predict(network, model.size, image)))
    folder.flush()
    return f"{len(paths)} masks of {model.classes} classes → {outdir}{folder.finish()}"


class LogitMaps(nn.Module):
    """Images (B, C, H, W) → how far each class's logit is above the background's, over `scale`.

    (B, classes − 1, H, W). What all classes share changes no probability, nor these maps.
    """

    def __init__(self, segmenter: nn.Module, scale: float) -> None:
        super().__init__()
        self.segmenter, self.scale = segmenter, scale

    def forward(self, images: Tensor) -> Tensor:
        """The maps, of about [−1, 1]."""
        return margins(self.segmenter(images)) / self.scale


def open_logit_maps(
    run: Run, inputs: Path | None = None
) -> tuple[LogitMaps, Callable[[int], Tensor]]:
    """A segmenter as a network to be measured, and draw(n), at most n images that it is shown.

    Args:
        run: one that predicts masks.
        inputs: a folder or array of images; by default the run's own validation images.

    Raises:
        DataError, BadImage: the images cannot be read.
    """
    network, model = run.modules["segmenter"], run.config.model
    place = next(network.parameters()).device

    def draw(count: int) -> Tensor:
        if inputs:
            given = {"size": model.size, "channels": model.channels, "count": count}
            dataset = load_dataset(str(inputs.absolute()), root=Path(), **given)
        else:
            dataset = load_split(run.config, split="test", count=count)
        return to_float(dataset.fetch(range(len(dataset))).images).to(place)

    maps = LogitMaps(network, 1.0)
    with torch.inference_mode():
        maps.scale = float(maps(draw(BATCH)).abs().max()) or 1.0
    return maps, draw


def map_batches(maps: LogitMaps, images: Tensor) -> Iterator[np.ndarray]:
    """Yield logit maps as gray levels, float32 (≤ 32, classes − 1, H, W); 0 becomes 127.5."""
    for batch in images.split(BATCH):
        with torch.inference_mode():
            yield (maps(batch).float() * MID_GREY + MID_GREY).cpu().numpy()


def margins(logits: Tensor) -> Tensor:
    """Logits (B, classes, H, W) less those of the background: (B, classes − 1, H, W).

    What all classes share changes no probability, nor these.
    """
    return logits[:, 1:] - logits[:, :1]
