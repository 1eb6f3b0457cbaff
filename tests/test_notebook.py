"""docs/tutorial.ipynb runs as it is; its own assertions hold what its text says."""

from pathlib import Path

import pytest

nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
FILE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def kinds(notebook):
    """What every cell shows: text, HTML, pictures. Numbers differ with the processor."""
    return [
        [sorted(o.get("data", [o["output_type"]])) for o in cell.get("outputs", [])]
        for cell in notebook.cells
    ]


@pytest.mark.slow  # half a minute, most of it imports
@pytest.mark.filterwarnings("ignore")  # those of Jupyter, which change with its version
def test_the_notebook_runs_and_shows_what_it_holds(monkeypatch):
    pytest.importorskip("torchmetrics")
    root = FILE.parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))
    notebook = nbformat.read(FILE, as_version=4)
    held = kinds(notebook)
    where = {"metadata": {"path": root}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert kinds(notebook) == held and any("text/html" in kind for cell in held for kind in cell)


def test_its_pictures_are_small():
    assert FILE.stat().st_size < 150_000
