"""Images with masks: the index of each pixel's class, and 255 where no class counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen.data.decode import BadImage, DataError, decode_indices, list_images

IGNORED = 255  # the index of pixels that neither train nor count
_HELD_OUT = 10  # of a folder, one image in so many is of the test split


@dataclass(frozen=True)
class Pairs:
    """Images and their masks, path by path; `relabel` (256,) maps what files hold to indices."""

    images: list[Path]
    masks: list[Path]
    relabel: np.ndarray | None = None

    def mask(self, index: int, classes: int) -> np.ndarray:
        """Indices (H, W), uint8, of one mask.

        Raises:
            BadImage: it cannot be read, or holds an index that is neither below `classes` nor 255.
        """
        path = self.masks[index]
        mask = decode_indices(path)
        if self.relabel is not None:
            mask = self.relabel[mask]
        highest = int(mask.max(initial=0, where=mask != IGNORED))
        if highest >= classes:
            raise BadImage(
                f"{path}: holds index {highest}; of {classes} classes it must be 0 … "
                f"{classes - 1}, or {IGNORED} to be ignored"
            )
        return mask

    def split(self, name: str) -> Pairs:
        """Every tenth pair, the last of fewer than ten, for "test"; the others for "train"."""
        last = len(self.images) - 1
        held = set(range(_HELD_OUT - 1, last + 1, _HELD_OUT)) or {last}
        rows = [i for i in range(last + 1) if (i in held) == (name == "test")]
        return Pairs([self.images[i] for i in rows], [self.masks[i] for i in rows], self.relabel)


def is_pair_folder(folder: Path) -> bool:
    """Whether a path is a folder that holds `images/` and `masks/`."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def list_pairs(folder: Path) -> Pairs:
    """The images and masks of a folder, matched by name without suffix, sorted by it.

    Raises:
        DataError: an image or a mask without partner, or two files of one stem.
    """
    images, masks = (_by_stem(folder / part) for part in ("images", "masks"))
    for stem in sorted(images.keys() ^ masks.keys()):
        path, part = (images[stem], "masks") if stem in images else (masks[stem], "images")
        raise DataError(f"{path}: has no partner {stem}.* in {folder / part}")
    if len(images) < 2:
        raise DataError(f"{folder}: holds one pair; two are needed, one of them to validate")
    stems = sorted(images)
    return Pairs([images[stem] for stem in stems], [masks[stem] for stem in stems])


def count_classes(pairs: Pairs, skip_bad: bool = False) -> int:
    """One more than the highest index of all masks, or of those that can be read.

    Raises:
        DataError: masks of background alone.
        BadImage: a mask that cannot be read, unless these are skipped.
    """
    highest = 0
    for path in pairs.masks:
        try:
            mask = decode_indices(path)
        except BadImage:
            if not skip_bad:
                raise
            continue
        highest = max(highest, int(mask.max(initial=0, where=mask != IGNORED)))
    if not highest:
        raise DataError(
            f"{pairs.masks[0].parent}: masks hold no index but 0 ({IGNORED} is ignored); write "
            "classes as 1, 2, …, or give --classes"
        )
    return highest + 1


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: of the same name as {found[stem].name}; keep one")
        found[stem] = path
    return found
