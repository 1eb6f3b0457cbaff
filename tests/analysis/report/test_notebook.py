"""A measurement in a notebook."""

import base64
import re

import numpy as np
import pytest

from gen import measure
from tests.analysis.report.test_html import Page, images


@pytest.mark.parametrize("depth", [0.0, 0.1])
def test_a_cell_shows_verdict_table_and_two_pictures(depth):
    found = measure(images(depth=depth), (2, 4, 16), value_range=(0, 255))
    text = found._repr_html_()
    page = Page(text)
    assert len(text.encode()) < 60_000 and len(page.images) == 2 and page.tags.count("tr") == 4
    for image in page.images:
        assert base64.b64decode(image["src"].partition(",")[2]).startswith(b"\x89PNG")
    verdict = "These images carry a checkerboard" if depth else "No checkerboard was found"
    assert verdict in page.text and "needs images of at least 96×96" in page.text


def test_repr_is_one_line_and_a_constant_set_has_no_pictures():
    found = measure(images(depth=0.1), (2, 4, 16), value_range=(0, 255))
    assert re.fullmatch(
        r"<Measurement of 24 images of 48×56; period 2: -\d+\.\d dBc, detected; "
        r"period 4: not detected, limit -\d+\.\d dBc; period 16: undefined>",
        repr(found),
    )
    flat = measure(np.zeros((5, 1, 32, 32), np.uint8))
    assert "Nothing could be measured" in flat._repr_html_() and "<img" not in flat._repr_html_()
    assert flat.plot().axes


@pytest.mark.parametrize("pictures", [False, True])
def test_plot_returns_a_figure(pictures):
    from matplotlib.figure import Figure

    found = measure(images(), (2, 4), value_range=(0, 255), pictures=pictures)
    figure = found.plot()
    assert isinstance(figure, Figure)
    # Levels and pattern; with pictures the spectrum and its color bar.
    assert len(figure.axes) == (4 if pictures else 2)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["period 4", "period 2"]
