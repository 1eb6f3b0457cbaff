"""What version 0.1 wrote is loaded, sampled and resumed.

tests/runs/version_0_1.tar.xz (79 kB) holds what version 0.1 wrote: a DCGAN run of 20 steps, its
export, the samples of seeds 0 to 7 and a measurement as JSON. So that it compresses, Adam's moments
in the checkpoint are rounded to bfloat16, and the pictures, the events and step 0 are left out.
The same of a VAE is read from the shared data where they exist.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import sample
import train
from gen.runs.open import load, load_checkpoint
from tests.conftest import ROOT

SHARED = ROOT.parent / "shared" / "data" / "version-0.1"


def check_samples(source: Path, expected: Path, folder: Path) -> None:
    """Draw seeds 0 to 7; single gray levels may differ on a processor of another type.

    After 20 steps the images are nearly gray: every pixel is 127 or 128, on the side of its sign.
    """
    words = [source, "--num", 8, "--npy", folder / "samples.npy", "--device", "cpu"]
    result = CliRunner().invoke(sample.main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    drawn, stored = np.load(folder / "samples.npy"), np.load(expected)
    assert drawn.shape == stored.shape == (8, 16, 16, 3)
    differences = np.abs(drawn.astype(int) - stored)
    assert differences.max() <= 1 and differences.mean() < 0.001 < (stored != stored.min()).mean()


def test_a_run_and_its_export_give_the_same_pixels(version_0_1, tmp_path):
    sources = [version_0_1 / name for name in ("00000-dcgan-shapes", "export")]
    for source in sources:
        check_samples(source, version_0_1 / "dcgan-seeds-0-7.npy", tmp_path)
    run, export = (load(source, device="cpu").state_dict() for source in sources)
    assert run.keys() == export.keys() and all(torch.equal(run[name], export[name]) for name in run)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} does not exist")
def test_a_vae_gives_the_same_pixels(tmp_path):
    check_samples(SHARED / "00001-vae-shapes", SHARED / "vae-seeds-0-7.npy", tmp_path)


def test_a_run_is_resumed_with_its_optimizers(version_0_1):
    """Not bitwise on another machine; then one line says so."""
    folder = version_0_1 / "00000-dcgan-shapes"
    words = ["dcgan", "--resume", str(folder), "--steps", "22"]
    result = CliRunner().invoke(train.main, words)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("not bitwise") <= 1
    content = load_checkpoint(folder)
    assert content["step"] == 22
    for optimizer in content["optimizers"].values():
        assert {float(state["step"]) for state in optimizer["state"].values()} == {22.0}
