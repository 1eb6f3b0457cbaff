"""Runs of earlier versions, with options that are gone, still load; one line names the option."""

import pytest
from click.testing import CliRunner

import sample
import train
from gen.commands.export import export
from gen.config import run as config

RUN = "00000-dcgan-shapes"
NOTE = "Note: grid_penalty is no longer an option of gen; it is ignored"


@pytest.fixture
def old(version_0_1):
    """Files of version 0.1, for a process that has named no option yet."""
    config._report_removed.cache_clear()
    return version_0_1


def invoke(main, *arguments):
    """Run a command that must succeed and name the option once; returns what it printed."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("grid_penalty") == result.stderr.splitlines().count(NOTE) == 1
    config._report_removed.cache_clear()
    return result.output


def test_an_old_run_is_exported(old, tmp_path):
    invoke(export, old / RUN, "--outdir", tmp_path / "new")
    assert "grid_penalty" in (old / "export" / "config.json").read_text()
    assert "grid_penalty" not in (tmp_path / "new" / "config.json").read_text()


@pytest.mark.parametrize("source", [RUN, "export"])
def test_an_old_run_or_export_is_sampled(old, source, tmp_path):
    invoke(sample.main, old / source, "--num", 2, "--npy", tmp_path / "samples.npy")


def test_an_old_run_is_resumed(old):
    assert "grid_penalty" in (old / RUN / "config.json").read_text()
    invoke(train.main, "dcgan", "--resume", old / RUN, "--steps", 21)
    assert "grid_penalty" not in (old / RUN / "config.json").read_text()


def test_an_old_configuration_starts_a_run(old):
    printed = invoke(train.main, "dcgan", "--config", old / RUN / "config.json", "--dry-run")
    assert "generator" in printed


def test_an_option_that_never_existed_is_refused():
    with pytest.raises(ValueError, match="objective has no grid_prize"):
        config.RunConfig.from_dict({"objective": {"grid_prize": 1.0}})
