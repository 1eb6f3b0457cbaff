"""A run that starts from another's weights: what fits is taken, the rest is named."""

import torch
from click.testing import CliRunner

import train
from gen.runs.open import load_checkpoint
from gen.runs.transfer import load_fitting_weights
from gen.training.loop import Trainer
from tests.conftest import small_config


def start(*arguments):
    common = ["--size", "16", "--width", "4", "--steps", "1", "--batch-size", "8", "--device"]
    return CliRunner().invoke(train.main, [*map(str, arguments), *common, "cpu"])


def test_what_fits_is_taken_and_the_rest_named(finished_run, small_dataset, tmp_path):
    model, folder = finished_run
    config = small_config(model, {"latent": 7}, steps=1)
    weights, report = load_fitting_weights(folder, config)
    decoder = "generator" if model == "dcgan" else "decoder"
    assert "of another shape: " in report and f"{decoder}.stem.0.weight (" in report
    trainer = Trainer(config, small_dataset, tmp_path)
    fresh = trainer.modules[decoder].state_dict()["stem.0.weight"].clone()
    trainer.load_weights(weights)
    stored = load_checkpoint(folder)["modules"]
    for name, module in trainer.modules.items():
        for key, value in module.state_dict().items():
            if key in weights[name]:
                assert torch.equal(value, stored[name][key]), key
    assert torch.equal(trainer.modules[decoder].state_dict()["stem.0.weight"], fresh)
    averaged = trainer.average.module[decoder].state_dict()
    assert torch.equal(averaged["stages.0.0.weight"], stored[decoder]["stages.0.0.weight"])


def test_parts_of_a_vae_go_into_a_vaegan(finished_run):
    model, folder = finished_run
    other = {"vae": "vaegan", "dcgan": "vaegan", "vaegan": "vae"}[model]
    weights, report = load_fitting_weights(folder, small_config(other))
    shared = {"dcgan": {"discriminator"}}.get(model, {"encoder", "decoder"})
    assert {name for name, tensors in weights.items() if tensors} == shared
    assert ("not there" in report) == (other == "vaegan")


def test_from_the_command_line(finished_run, tmp_path):
    model, folder = finished_run
    result = start(model, "--init-from", folder, "--latent", 6, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if ": took " in line]
    assert len(lines) == 1 and "another shape" not in lines[0] and "not there" not in lines[0]
    stored = load_checkpoint(folder)["modules"]
    first = load_checkpoint(tmp_path / f"00000-{model}-shapes/checkpoints/step-00000000.pt")
    for name, tensors in first["modules"].items():
        assert all(torch.equal(value, stored[name][key]) for key, value in tensors.items())
    assert first["step"] == 0


def test_bad_input_is_one_line(finished_run, tmp_path):
    model, folder = finished_run
    (tmp_path / "photo.pt").write_bytes(b"no checkpoint")
    other = {"vae": "unet", "dcgan": "fcn", "vaegan": "unet"}[model]
    for arguments, code, said in (
        ([model, "--init-from", folder, "--resume", folder], 2, "give only one"),
        ([model, "--init-from", tmp_path / "none"], 1, "no such run or checkpoint"),
        ([model, "--init-from", tmp_path / "photo.pt"], 1, "damaged, or no checkpoint"),
        ([other, "--init-from", folder], 1, "none of its weights fits"),
    ):
        result = start(*arguments, "--outdir", tmp_path / "runs")
        assert result.exit_code == code and said in result.output, result.output
        assert not (tmp_path / "runs").exists()
