"""Runs of earlier versions, with options that are gone, still load; one line names the option."""

import json

import pytest
import torch
from click.testing import CliRunner

import sample
import train
from gen.commands.export import export
from gen.config import run as config
from gen.runs.open import load_checkpoint
from gen.training.loop import Trainer
from tests.conftest import small_config

NOTE = "Note: grid_penalty is no longer an option of gen; it is ignored"


@pytest.fixture
def old_run(small_dataset, tmp_path):
    """A run of six steps as an earlier version wrote it: its objective has a grid penalty."""
    folder = tmp_path / "00000-dcgan-shapes"
    folder.mkdir()
    Trainer(small_config(), small_dataset, folder).run()
    for file in (folder / "checkpoints").iterdir():
        content = torch.load(file, weights_only=True)
        content["config"]["objective"]["grid_penalty"] = 0.5
        torch.save(content, file)
    (folder / "config.json").write_text(json.dumps(content["config"]))
    config._report_removed.cache_clear()
    return folder


def invoke(main, *arguments):
    """Run a command that must succeed and name the option once; returns what it printed."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("grid_penalty") == result.stderr.splitlines().count(NOTE) == 1
    config._report_removed.cache_clear()
    return result.output


def test_an_old_run_is_sampled_and_exported(old_run, tmp_path):
    invoke(sample.main, old_run, "--num", 2, "--npy", tmp_path / "samples.npy")
    invoke(export, old_run, "--outdir", tmp_path / "exported")
    exported = tmp_path / "exported" / "config.json"
    assert "grid_penalty" not in exported.read_text()
    stored = json.loads(exported.read_text())
    stored["objective"]["grid_penalty"] = 0.5
    exported.write_text(json.dumps(stored))
    invoke(sample.main, exported.parent, "--num", 2, "--npy", tmp_path / "again.npy")
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "samples.npy").read_bytes()


def test_an_old_run_is_resumed(old_run):
    invoke(train.main, "dcgan", "--resume", old_run, "--steps", 8)
    content = load_checkpoint(old_run)
    assert content["step"] == 8
    assert "grid_penalty" not in (old_run / "config.json").read_text()


def test_an_old_configuration_starts_a_run(old_run):
    printed = invoke(train.main, "dcgan", "--config", old_run / "config.json", "--dry-run")
    assert "generator" in printed


def test_an_option_that_never_existed_is_refused():
    with pytest.raises(ValueError, match="objective has no grid_prize"):
        config.RunConfig.from_dict({"objective": {"grid_prize": 1.0}})
