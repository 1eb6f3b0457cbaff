"""How well predicted masks agree with the true ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gen.data.datasets import Batch
from gen.data.masks import IGNORED
from gen.images import colorize, to_uint8
from gen.sampling.masks import margins

from .monitor import GridMonitor, Inspection

BATCH = 32  # images in one pass
SHOWN = 24


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Pixels, int64 (classes, classes), of each true (row) and predicted class (column).

    Pixels whose truth is 255 do not count. Masks are uint8 (B, H, W).
    """
    counts = truth != IGNORED
    pairs = truth[counts].long() * classes + predicted[counts].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def mean_iou(table: Tensor) -> float:
    """Intersection over union, TP / (TP + FP + FN), mean over classes that occur in either mask."""
    hits = table.diag().double()
    union = table.sum(0) + table.sum(1) - hits
    return float((hits / union)[union > 0].mean())


def pixel_accuracy(table: Tensor) -> float:
    """Share of the pixels that count which have their true class."""
    return float(table.diag().sum() / table.sum())


def inspect_masks(segmenter: nn.Module, preview: Batch) -> Inspection:
    """Agreement on preview images, the grid of the logit maps, and image | truth | prediction."""
    table, tiles = torch.zeros(0), []
    with GridMonitor(segmenter, value_range=(-1, 1)) as monitor:
        for start in range(0, len(preview.images), BATCH):
            images, masks = (
                part[start : start + BATCH] for part in (preview.images, preview.masks)
            )
            logits = segmenter(images).float()
            monitor.update(margins(logits))
            predicted = logits.argmax(1).to(torch.uint8)
            found = confusion_matrix(masks, predicted, logits.shape[1])
            table = found + table if len(table) else found
            if start < SHOWN:
                colors = [colorize(part.cpu()) for part in (masks, predicted)]
                photos = to_uint8(images[:, :3]).cpu().expand(-1, 3, -1, -1)
                tiles.append(torch.cat([photos, *colors], dim=-1))
    metrics = {}
    if table.any():  # else no pixel counts
        metrics = {"val/mean_iou": mean_iou(table), "val/pixel_accuracy": pixel_accuracy(table)}
    seen = Inspection({"masks": torch.cat(tiles)[:SHOWN]}, metrics | monitor.metrics())
    used = table.sum(0).nonzero().flatten().tolist()
    if len(used) == 1:
        seen.warnings = [f"every pixel of the validation images is taken for class {used[0]}"]
    return seen
