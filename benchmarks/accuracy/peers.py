"""Statistics that others use for upsampling artifacts, written from their published formulas.

Each takes a set of gray images (N, H, W) and, where the original compares with real images, the
mean feature of a reference set; larger means more artifact. Where the original shows a picture of a
peak, the peak is read as its height over the median of the bins around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.ndimage import median_filter

Images = NDArray[np.float64]


def azimuthal_profile(images: Images) -> NDArray[np.float64]:
    """Mean over images of the azimuthal average of the log magnitude spectrum.

    Durall, Keuper, Keuper, "Watch your Up-Convolution", CVPR 2020, eq. 2; as their code has it: one
    FFT per image, rings by sorting the radii.
    """
    return np.mean([azimuthal_average(image) for image in images], axis=0)


def azimuthal_average(image: Images) -> NDArray[np.float64]:
    """One image's profile: the loop that the speed comparison runs."""
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    magnitude = 20 * np.log(np.abs(spectrum) + 1e-8)
    y, x = np.indices(magnitude.shape)
    radius = np.hypot(x - (x.max() - x.min()) / 2, y - (y.max() - y.min()) / 2)
    order = np.argsort(radius.flat)
    ring = radius.flat[order].astype(int)
    sums = np.cumsum(magnitude.flat[order], dtype=float)
    edges = np.where(np.diff(ring))[0]
    return np.diff(sums[edges]) / np.diff(edges)


def mean_dct(images: Images) -> NDArray[np.float64]:
    """Log of the mean absolute type-II DCT (Frank et al., ICML 2020, section 4)."""
    return np.log(np.abs(dctn(images, axes=(1, 2), norm="ortho")).mean(0) + 1e-12)


def distance(feature: NDArray, reference: NDArray) -> float:
    """RMS difference of two features."""
    return float(np.sqrt(np.mean((feature - reference) ** 2)))


def _peak(spectrum: NDArray, line: tuple[float, float]) -> float:
    """Value at the line over the median of the bins 3 … 6 around it."""
    height, width = spectrum.shape
    ky, kx = round(line[0] * height), round(line[1] * width)
    span = np.arange(-6, 7)
    box = spectrum[np.ix_((ky + span) % height, (kx + span) % width)]
    far = np.maximum(abs(span)[:, None], abs(span)) >= 3
    return float(spectrum[ky, kx] / np.median(box[far]))


def windowed_power(images: Images, line: tuple[float, float]) -> float:
    """Peak of the mean power spectrum under a Kaiser window, β = 8 (Karras et al. 2021)."""
    sides = [np.kaiser(n, 8) for n in images.shape[1:]]
    window = np.multiply.outer(*sides)
    window /= np.sqrt(np.sum(window**2))
    centered = images - images.mean()
    return _peak(np.mean(np.abs(np.fft.fft2(window * centered)) ** 2, axis=0), line)


def high_pass_mean(images: Images, line: tuple[float, float]) -> float:
    """Peak of the mean magnitude spectrum of x - median₃ₓ₃(x) (Wang et al., CVPR 2020, fig. 8)."""
    residual = images - median_filter(images, (1, 3, 3))
    return _peak(np.mean(np.abs(np.fft.fft2(residual)), axis=0), line)


def cross_difference(images: Images, line: tuple[float, float]) -> float:
    """Peak of the spectrum of |x₀₀ + x₁₁ - x₀₁ - x₁₀| (Bammey, "Synthbuster", 2023)."""
    cross = images[:, :-1, :-1] + images[:, 1:, 1:] - images[:, :-1, 1:] - images[:, 1:, :-1]
    even = np.abs(cross[:, : cross.shape[1] // 8 * 8, : cross.shape[2] // 8 * 8])
    return _peak(np.mean(np.abs(np.fft.fft2(even)), axis=0), line)


def corner_ratio(images: Images) -> float:
    """Power near (½, ½) over power near DC in the mean spectrum (mean FFT pictures read by eye)."""
    power = np.fft.fftshift(np.mean(np.abs(np.fft.fft2(images - images.mean())) ** 2, axis=0))
    n = images.shape[1] // 8
    corner = power[:n, :n].mean()
    middle = power.shape[0] // 2
    return float(corner / power[middle - n : middle + n, middle - n : middle + n].mean())


def scores(images: Images, line: tuple[float, float], reference: dict[str, NDArray]) -> dict:
    """All statistics of one set."""
    return {
        "azimuthal profile distance": distance(azimuthal_profile(images), reference["profile"]),
        "mean DCT distance": distance(mean_dct(images), reference["dct"]),
        "windowed power peak": windowed_power(images, line),
        "median-filtered mean FFT peak": high_pass_mean(images, line),
        "cross-difference grid": cross_difference(images, line),
        "corner/centre ratio": corner_ratio(images),
    }
