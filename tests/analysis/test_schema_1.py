"""Measurements of schema 1, which version 0.1 wrote, are read and printed."""

import json

from gen.analysis.measure.result import Measurement


def test_a_measurement_of_schema_1_prints(version_0_1):
    plain = json.loads((version_0_1 / "measurement.json").read_text())
    assert plain["schema"] == 1
    old = Measurement.from_dict(plain)
    assert old.images == plain["images"] and set(map(str, old.periods)) == set(plain["periods"])
    for number, period in plain["periods"].items():
        assert old.periods[int(number)].level_dbc == period["level_dbc"]
    lines = str(old).splitlines()
    assert sum("schema 1" in line for line in lines) == 1
    assert Measurement.from_dict(json.loads(json.dumps(old.to_dict()))) == old
