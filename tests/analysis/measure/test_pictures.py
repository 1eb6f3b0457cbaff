"""What pictures read from a meter."""

import numpy as np
import pytest

from gen.analysis.measure import Meter


def metered(images, periods=(2, 4), **options):
    meter = Meter(periods, (0, 255), **options)
    meter.update(images)
    return meter


def test_spectrum_of_white_noise_is_flat():
    generator = np.random.default_rng(0)
    images = generator.normal(127.5, 10, (400, 1, 32, 40))
    pictures = metered(images, (2,), pictures=True).compute().pictures
    spectrum = pictures.spectrum()
    assert spectrum.shape == (1, 32, 40)
    away = np.ones((32, 40), bool)
    away[14:19, 18:23] = False  # around DC, where the mean was taken out
    assert spectrum[0][away].mean() == pytest.approx(100, rel=0.02)
    profile = pictures.profile()
    assert profile.power[4:] == pytest.approx(np.full(len(profile.power) - 4, 100), rel=0.1)
    low, high = profile.band()
    assert (low <= profile.db).all() and (profile.db <= high).all()


def test_pictures_are_kept_only_on_demand(draw):
    assert metered(draw(10)).compute().pictures is None
