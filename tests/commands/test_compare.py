"""Tables, spectra, gates and JSON of the commands, as programs read them."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import analyze
from gen.commands.main import main
from tests.commands.test_images import SIGNS, assert_one_line, save_all, smooth

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three folders; the second has a grid, a name that spreadsheets run, and a smaller image."""
    folder = tmp_path_factory.mktemp("sets")
    clean = save_all(folder / "clean", smooth(30, channels=1))
    grid = save_all(folder / "=1+1", smooth(30, channels=1) * (1 + 0.05 * SIGNS[..., None]))
    Image.new("L", (9, 9)).save(grid / "x.png")
    return clean, grid, save_all(folder / "large", smooth(30, 40, 1))


@pytest.fixture(scope="module")
def validate():
    """Check a value against the definition of a command."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    import referencing

    measure, commands = (
        json.loads((ROOT / "gen" / folder / "schema.json").read_text())
        for folder in ("analysis/measure", "commands")
    )
    registry = referencing.Registry().with_resource(
        "measurement", referencing.Resource.from_contents(measure)
    )

    def check(text: str, name: str) -> dict:
        plain, schema = json.loads(text), {**commands, "$ref": f"#/$defs/{name}"}
        jsonschema.Draft202012Validator(schema, registry=registry).validate(plain)
        without = {key: value for key, value in plain.items() if key != "version"}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema, registry=registry).validate(without)
        return plain

    return check


def test_one_row_per_set_and_period(sets, tmp_path):
    result = run("compare", *sets, "--csv", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [(row["set"], row["period"]) for row in rows[:6:2]] == [
        ("clean", "2"), ("clean", "8"), ("'=1+1", "4")
    ]  # fmt: skip
    grid = rows[3]
    assert grid["detected"] == "True" and -14 < float(grid["level_dbc"]) < -10
    assert rows[2]["level_dbc"] == "" and rows[2]["undefined"].startswith("period 8 needs")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.read_csv(tmp_path / "t.csv")
    assert frame.shape[0] == 9 and frame.level_dbc.dtype == float


def test_json_has_a_schema_and_says_where_it_comes_from(sets, validate):
    plain = validate(run("compare", *sets, "--json", "-").stdout, "compare")
    assert [each["found"] for each in plain["sets"]] == [30, 31, 30]
    (left,) = plain["sets"][1]["left_out"]
    assert left == {"count": 1, "reason": "smaller than 32×32: 1 of 9×9"}
    plain = validate(run("images", sets[1], "--json", "-").stdout, "images")
    assert plain["found"] == 31 and plain["left_out"] == [left]
    assert plain["paths"] == [str(sets[1])] and plain["command"]
    validate(run("layer", "--kernel", 3, "--stride", 2, "--json", "-").stdout, "layer")


def test_json_of_a_network_has_a_schema(finished, validate):
    result = run("model", finished("dcgan"), "--num", 128, "--json", "-", "--fail-above", -90)
    assert result.exit_code in (3, 4), result.output
    validate(result.stdout, "model")


def test_spectra_are_drawn_and_written(sets, tmp_path):
    assert run("compare", *sets, "--spectra", tmp_path / "s.png").exit_code == 0
    with Image.open(tmp_path / "s.png") as drawn:
        assert drawn.width > 1000
    assert run("compare", *sets, "--spectra", tmp_path / "s.npz").exit_code == 0
    with np.load(tmp_path / "s.npz") as held:
        assert list(held["labels"]) == ["clean", "=1+1", "large"]
        assert held["spectrum_1"].shape == (32, 32) and held["spectrum_2"].shape == (40, 40)
        corner = held["spectrum_1"][0, 0] - held["spectrum_0"][0, 0]
        assert corner > 20  # dB: the grid
        assert held["frequency_2"].shape == held["power_2"].shape == held["low_2"].shape
    assert run("images", sets[0], "--json", tmp_path / "m.json").exit_code == 0
    refused = run("compare", tmp_path / "m.json", "--spectra", tmp_path / "n.png")
    assert_one_line(refused, 1, "m.json", "no spectra")
    assert not (tmp_path / "n.png").exists()


def test_a_gate_over_several_sets(sets, tmp_path):
    name = "<x>\x1b[31m"
    clean = sets[0].rename(sets[0].with_name(name))
    try:
        judged = ["--periods", 2, "--fail-above", -45, "--junit", tmp_path / "j.xml"]
        result = run("compare", clean, sets[1], *judged)
        alone = run("compare", clean, *judged[:-2])
    finally:
        clean.rename(sets[0])
    assert result.exit_code == 3 and alone.exit_code == 4
    assert "Above: =1+1: period 2: level -1" in result.stderr and "\x1b" not in result.stderr
    suite = ET.parse(tmp_path / "j.xml").getroot()[0]
    assert suite.attrib["tests"] == "2" and suite.attrib["failures"] == "2"
    cases = suite.findall("testcase")
    assert [case[0].attrib["type"] for case in cases] == ["inconclusive", "above"]
    assert cases[0].attrib["classname"] == r"<x>\x1b[31m"


def test_arrays_of_torch_and_several_paths(sets, tmp_path):
    images = torch.from_numpy(np.rint(smooth(30)).clip(0, 255).astype(np.uint8))
    torch.save(images, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", images.numpy())
    results = [run("images", tmp_path / name) for name in ("a.pt", "a.npy")]
    assert results[0].exit_code == 0 and results[0].stdout == results[1].stdout
    assert "uint8 is read as 0 (black) to 255 (white)" in results[0].stderr
    both = run("images", sets[0], sets[2])
    assert both.stdout.startswith("60 images of 2 sizes, 1 channel(s), in blocks of 32×32")
    cropped = CliRunner().invoke(
        analyze.main, ["images", str(sets[0]), str(sets[2]), "--crop", "32"]
    )
    assert cropped.stdout.startswith("60 images of 32×32")
    assert_one_line(run("images", sets[0], tmp_path / "a.npy"), 1, "measured alone")
