"""Results: JSON there and back, the schema, files of version 0.1, the import."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gen.analysis.measure import Measurement, MeasurementError, measure, result


@pytest.fixture
def found(draw, pattern):
    images = draw(40, 3) + pattern((32, 32), (0.5, 0.5))
    return measure(images, reference=draw(40, 3, seed=1), value_range=(0, 255))


def fits(value, schema, root):
    """Whether a JSON value fits the part of JSON Schema that our schema uses."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rsplit("/")[-1]], root)
    if "anyOf" in schema:
        return any(fits(value, each, root) for each in schema["anyOf"])
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kinds |= {"integer": int, "number": (int, float)}
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    if schema["type"] == "array":
        return all(fits(each, schema["items"], root) for each in value)
    if schema["type"] == "object" and "properties" in schema:
        known = schema["properties"]
        return set(value) == set(known) and all(fits(value[k], known[k], root) for k in known)
    if schema["type"] == "object":
        return all(fits(each, schema["additionalProperties"], root) for each in value.values())
    return True


def test_schema_describes_results(found):
    schema = json.loads(Path(result.__file__).with_name("schema.json").read_text())
    plain = json.loads(json.dumps(found.to_dict()))
    assert fits(plain, schema, schema)
    assert not fits(plain | {"images": "forty"}, schema, schema)
    for name, part in schema["$defs"].items():
        names = {f.name for f in dataclasses.fields(getattr(result, name))} - {"pictures"}
        assert set(part["properties"]) == names


def test_json_and_back(found):
    plain = json.loads(json.dumps(found.to_dict()))
    again = Measurement.from_dict(plain)
    assert again == found and str(again) == str(found)
    assert found.reference is not None and found.difference.radial_db > 0


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3},
        {"images": "a"},
        {"images": 10**200},
        {"periods": {"2": 5}},
        {"lines": [{}]},
        {"size": [1]},
    ],
)
def test_damaged_files_are_refused(found, change):
    with pytest.raises(MeasurementError):
        Measurement.from_dict(found.to_dict() | change)
    with pytest.raises(MeasurementError):
        Measurement.from_dict([])


def test_importing_loads_nothing_else():
    code = (
        "import sys, gen.analysis.measure\n"
        "heavy = {'matplotlib', 'torchvision', 'tensorboard', 'PIL', 'scipy.stats', 'click'}\n"
        "ours = [m for m in sys.modules if m.startswith('gen.') and 'gen.analysis' not in m]\n"
        "ours.remove('gen.models')  # known by its name alone: nothing of it runs\n"
        "print(sorted(heavy & set(sys.modules)), ours)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_published_sheets(shared):
    from PIL import Image

    def tiles(name, size, gap):
        sheet = np.asarray(Image.open(shared / "sheets" / name).convert("RGB"))
        starts = [range(gap, n - size + 1, size + gap) for n in sheet.shape[:2]]
        cut = [sheet[y : y + size, x : x + size] for y in starts[0] for x in starts[1]]
        return np.stack(cut).transpose(0, 3, 1, 2)

    for clean in ("csinva_cifar10_real.png", "mimicry_cifar10_sngan.png"):
        assert not measure(tiles(clean, 32, 2)).detected
    assert measure(tiles("csinva_cifar10_dcgan_fake.png", 32, 2)).periods[2].p_value < 1e-8
    vae = measure(tiles("antixk_celeba64_vanillaVAE_k3s2.png", 64, 2)).periods
    assert vae[2].p_value < 1e-20 and vae[4].p_value < 1e-10
