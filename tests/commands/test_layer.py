"""`analyze.py layer` as its user meets it: what it draws, says, writes and refuses."""

import json

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image

import analyze
from tests.conftest import imported

UNEVEN = ["--kernel", "3", "--stride", "2", "--padding", "1", "--output-padding", "1"]


def run(*arguments):
    return CliRunner().invoke(analyze.main, ["layer", *map(str, arguments)])


def test_answers_at_once_and_without_torch():
    result, modules = imported("analyze.py", "layer", *UNEVEN, "--json", "-")
    assert result.returncode == 0, result.stderr
    assert "click" in modules and not modules & {"torch", "matplotlib", "scipy", "PIL"}
    assert json.loads(result.stdout)["pattern"] == [[1, 2], [2, 4]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (UNEVEN, "Uneven: interior pixels see 1 to 4 taps; equal weights would print a grid of "
         "period 2 with ±60 %"),
        (["--kernel", 4, "--stride", 2, "--padding", 1], "Even: every interior pixel sees 4 taps"),
        (["--kernel", 1, "--stride", 2], "Holes: 3 of 4 interior phases"),
        (["--kernel", 3, "--stride", 2, "--dilation", 2], "Holes: 3 of 4"),
        (["--kernel", "5x4", "--stride", "3x2"], "grid of period 3 "),
        (["--kernel", 5, "--stride", 3],
         "--kernel 6 --stride 3 --padding 2 --output-padding 1"),
        (UNEVEN, "--kernel 4 --stride 2 --padding 1 --output-padding 0"),
    ],
)  # fmt: skip
def test_says(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert said in result.output


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 3), (1, 2), (5, 4), (7, 3)])
def test_what_it_advises_is_even_and_enlarges_exactly(kernel, stride):
    instead = json.loads(run("--kernel", kernel, "--stride", stride, "--json", "-").stdout)[
        "instead"
    ]
    words = instead.split("(")[0].split()
    k, s, p, o = (int(words[words.index(name) + 1]) for name in
                  ("--kernel", "--stride", "--padding", "--output-padding"))  # fmt: skip
    counts = F.conv_transpose2d(torch.ones(1, 1, 9, 9), torch.ones(1, 1, k, k), None, s, p, o)
    assert counts.shape[-2:] == (9 * stride, 9 * stride)
    assert counts[..., 2 * s : -2 * s, 2 * s : -2 * s].unique().numel() == 1


def test_writes_json_and_picture(tmp_path):
    result = run(*UNEVEN, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["schema"] == 1 and values["holes"] == 0 and values["even"] is False
    expected = F.conv_transpose2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3), None, 2, 1, 1)
    assert values["counts"] == expected[0, 0].int().tolist()
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stride", 2], "--kernel"),
        (["--kernel", 0, "--stride", 2], "kernel size is 0; it must be at least 1"),
        (["--kernel", 3, "--stride", 0], "stride is 0"),
        (["--kernel", 3, "--stride", 2, "--output-padding", 2], "less than stride or dilation"),
        (["--kernel", 3, "--stride", 2, "--padding", 99], "leaves nothing"),
        (["--kernel", "x", "--stride", 2], "is not a size"),
        ([*UNEVEN, "--plot", "a.gif"], ".png"),
        ([*UNEVEN, "--json", "nowhere/a.json"], "directory that exists"),
    ],
)
def test_bad_values_are_one_line_of_usage(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
