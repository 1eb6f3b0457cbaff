"""How far samples are from real images, in the features of a network; torch-fidelity computes it.

This module needs the extra `gen[metrics]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity import calculate_metrics

from gen.data.datasets import DATASETS, Dataset, find_channels, load_dataset
from gen.data.decode import DataError
from gen.data.order import epoch_order
from gen.data.stream import open_stream
from gen.quality.features import SEED, Features, open_features
from gen.runs.formats import holds_network
from gen.runs.open import load
from gen.sampling.seeds import sample_images
from gen.system.errors import InputError

SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance (Bińkowski et al. 2018)
NEIGHBORS = 3  # of precision and recall (Kynkäänniemi et al. 2019)
MIN_IMAGES = 32
CHUNK = 64  # images fetched at once


@dataclass(frozen=True)
class ImageSet:
    """Images by index, for whoever wants them one by one: uint8 (C, H, W) of one shape."""

    name: str
    count: int
    shape: tuple[int, int, int]
    fetch: Callable[[Sequence[int]], Tensor]  # indices → uint8 (B, C, H, W)


@dataclass(frozen=True)
class Quality:
    """Distances between `images` samples and as many reference images of one size.

    Attributes:
        frechet: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of the features (Heusel et al. 2017). Biased
            upward by an amount of the order 1/images: compare at equal numbers only.
        kernel: Squared maximum mean discrepancy, kernel (x·y/D + 1)³, unbiased (Bińkowski et al.
            2018): mean over random subsets; `kernel_std` is their standard deviation.
        precision: Share of samples within reach of a reference image's k-th neighbor
            (Kynkäänniemi et al. 2019); `recall` the same with the sides exchanged.
        undefined: Why there is no Fréchet distance, or None.
    """

    samples: str
    reference: str
    reference_images: int
    images: int
    size: tuple[int, int]
    channels: int
    features: str
    feature_words: str
    dimension: int
    frechet: float | None
    undefined: str | None
    kernel: float
    kernel_std: float
    subsets: int
    subset_size: int
    precision: float
    recall: float
    neighbors: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": 1, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        height, width = self.size
        of = f" (of {self.reference_images})" if self.reference_images > self.images else ""
        frechet = f"{self.frechet:.4g}" if self.frechet is not None else "undefined"
        why = self.undefined or "falls as images grow in number: compare equal numbers only"
        return "\n".join(
            [
                f"{self.images} images of {self.samples} against {self.images} of "
                f"{self.reference}{of}, {height}×{width}, {self.channels} channel(s)",
                f"Features: {self.features}, {self.dimension} per image: {self.feature_words}",
                f"Fréchet distance  {frechet:<10} {why}",
                f"kernel distance   {self.kernel:<10.4g} ± {self.kernel_std:.2g}, standard "
                f"deviation over {self.subsets} subsets of {self.subset_size}",
                f"precision         {self.precision:<10.4g} share of samples like the reference "
                f"({self.neighbors} nearest neighbors)",
                f"recall            {self.recall:<10.4g} share of the reference like a sample",
            ]
        )


def measure_quality(
    path: str,
    reference: str,
    features: str = "random",
    *,
    num: int = 10_000,
    size: tuple[int, int] | None = None,
    data_root: Path | str = "data",
    batch_size: int = 64,
    key: str | None = None,
) -> Quality:
    """Compare samples with a reference, the same number of each, at the samples' size.

    Args:
        path: A run or checkpoint, whose images of seeds 0, 1, … are taken; or images: a folder or
            an array file; or a data set's name, whose test images are taken at `size`.
        reference: A folder, file or name, as training takes it: resized to the samples' size
            with antialiasing and cropped at the center.
        features: `inception`, `classifier:RUN` or `random`.
        num: Images from each side at most; a fixed seed chooses them from larger sets.
        size: (H, W), for a data set's name as `path` only.
        data_root: Where the files of named sets lie.
        batch_size: Images that the feature network takes at once.
        key: The part of a file of weights of others as `path`, such as `g_ema`.

    Raises:
        ValueError: Fewer than `MIN_IMAGES`, or images that the features do not take.
        DataError, BadImage, CheckpointError: As `load_dataset` and `gen.runs.open.load`.
    """
    samples = open_samples(path, num, size, Path(data_root), key)
    real = _images(_load(reference, Path(data_root), samples.shape), samples.shape)
    images = min(num, samples.count, real.count)
    if images < MIN_IMAGES:
        raise InputError(
            f"{samples.count} samples and {real.count} reference images, --num {num}: "
            f"distances take {MIN_IMAGES} or more of each"
        )
    return compare_images(samples, real, open_features(features, samples.shape), images, batch_size)


def compare_images(
    samples: ImageSet, real: ImageSet, network: Features, images: int, batch_size: int = 64
) -> Quality:
    """Compare the first `images` of both, which have one shape and at least as many."""
    enough = images > network.dimension
    subset_size = min(SUBSET_SIZE, images // 2)
    found = calculate_metrics(
        input1=OrderedImages(samples, images, network.channels),
        input2=OrderedImages(real, images, network.channels),
        feature_extractor=network.extractor,
        **network.settings,
        fid=enough, kid=True, prc=True,
        kid_subsets=SUBSETS, kid_subset_size=subset_size,
        prc_neighborhood=NEIGHBORS, prc_batch_size=1000,
        rng_seed=SEED, batch_size=batch_size, cuda=torch.cuda.is_available(),
        save_cpu_ram=True, cache=False, verbose=False,
    )  # fmt: skip
    return Quality(
        samples=samples.name, reference=real.name, reference_images=real.count, images=images,
        size=samples.shape[1:], channels=samples.shape[0],
        features=network.name, feature_words=network.description, dimension=network.dimension,
        frechet=found.get("frechet_inception_distance"),
        undefined=None if enough else f"it takes more than {network.dimension} images of each",
        kernel=found["kernel_inception_distance_mean"],
        kernel_std=found["kernel_inception_distance_std"],
        subsets=SUBSETS, subset_size=subset_size,
        precision=found["precision"], recall=found["recall"], neighbors=NEIGHBORS, seed=SEED,
    )  # fmt: skip


def open_samples(
    path: str, num: int, size: tuple[int, int] | None, root: Path, key: str | None = None
) -> ImageSet:
    """The images to be judged; files must all have one size, for resizing would change the score.

    Raises:
        As `measure_quality`.
    """
    if path in DATASETS:
        if size is None:
            raise InputError(f"{path} has no size of its own; give --size")
        shape = (find_channels(path), *size)
        held = _images(_load(path, root, shape, "test"), shape)
        return dataclasses.replace(held, name=f"{path} (test)")
    if size is not None:
        raise InputError(f"--size is for a data set's name; the images of {path} have their own")
    if holds_network(Path(path)):
        network = load(path, key=key)
        shape = tuple(sample_images(network, [0]).shape[1:])
        return ImageSet(path, num, shape, lambda seeds: sample_images(network, seeds))
    stream = open_stream(Path(path))
    if stream.left_out:
        raise DataError(f"{path}: {stream.said()[-1]}; distances need images of one size")
    return _images(_load(path, root, stream.shape), stream.shape)


def _load(name: str, root: Path, shape: tuple[int, int, int], split: str = "train") -> Dataset:
    return load_dataset(name, root=root, channels=shape[0], size=shape[1:], split=split)


def _images(data: Dataset, shape: tuple[int, int, int]) -> ImageSet:
    """A data set in an order of its own seed: files are sorted, often by class."""
    order = epoch_order(SEED, 0, len(data))
    return ImageSet(
        data.name, len(data), shape, lambda indices: data.fetch(order[list(indices)]).images
    )


class OrderedImages(torch.utils.data.Dataset):
    """The first images one by one, as torch-fidelity reads them; only a few are in memory."""

    def __init__(self, images: ImageSet, count: int, channels: int) -> None:
        from tqdm import tqdm

        self.images, self.count, self.channels = images, count, channels
        self.start, self.held = -1, torch.empty(0)
        self.progress = tqdm(total=count, unit="img", desc=images.name, disable=None)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, uint8 (C, H, W), gray repeated where the features want RGB."""
        start = index - index % CHUNK
        if start != self.start:
            indices = range(start, min(start + CHUNK, self.count))
            self.start, self.held = start, self.images.fetch(indices)
            self.progress.update(len(indices))
        image = self.held[index - start]
        return image.expand(self.channels, -1, -1) if self.channels else image
