"""Networks of others as samplers: whatever goes in and comes out, and whatever makes them."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from gen.commands.main import main
from gen.inputs import open_network
from gen.sampling.adapt import Inputs
from gen.system.errors import InputError
from tests import networks_of_others as others
from tests.conftest import ROOT

FILE = "tests/networks_of_others.py"


def opened(name, **options):
    return open_network(None, script=f"{ROOT / FILE}:{name}", **options)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def images():
    """What the plain network makes of its first four latents."""
    network = opened("plain")
    return network.draw_images(network.draw(4))


@pytest.mark.parametrize(
    "name",
    ["without_length", "pair", "logits_first", "mapping", "record", "array", "channels_last",
     "levels", "double", "Up", "Up.made", "Up.method", "holder.build", "Holder.Inner.build"],
)  # fmt: skip
def test_outputs_and_ways_to_build(name, images):
    network = opened(name)
    assert network.adapted.shape == (3, 16, 16)
    assert torch.equal(network.draw_images(network.draw(4)), images)


def test_half_precision_computes_in_float32(images):
    network = opened("half")
    assert {p.dtype for p in network.network.parameters()} == {torch.float32}
    made = network.draw_images(network.draw(4)).int()
    assert (made - images.int()).abs().max() <= 1
    assert opened("mixed").draw_images(opened("mixed").draw(4)).shape == images.shape


def test_video_is_an_image_per_frame(images, tmp_path):
    network = opened("video")
    assert network.adapted.frames == 2
    made = network.draw_images(network.draw(4))
    assert torch.equal(made[::2], images) and (made[1::2].int() + images).sub(255).abs().max() <= 1
    result = run(
        "sample", "--script", f"{FILE}:video", "--seeds", "1,3", "--outdir", tmp_path / "f"
    )
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "f").glob("*.png"))
    assert names == [f"0000000{seed}-000{frame}.png" for seed in (1, 3) for frame in (0, 1)]
    with Image.open(tmp_path / "f" / "00000003-0000.png") as picture:
        assert np.array_equal(np.asarray(picture), images[3].permute(1, 2, 0))


@pytest.mark.parametrize(
    "name", ["labels", "arrays", "batches", "pairs_in_batches", "integers", "function", "scripted"]
)
def test_inputs(name):
    network = opened(name)
    drawn = network.draw(10)
    assert isinstance(drawn, Inputs) and len(drawn) == 10 and len(drawn[2:5]) == 3
    parts = [network.draw_images(part) for part in drawn.split(4)]
    assert torch.equal(torch.cat(parts), network.draw_images(network.draw(10)))  # drawn anew


def test_latents_of_one_pixel():
    network = opened("column")
    assert network.draw_images(network.draw(3)).shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("breaks", "breaks failed: RuntimeError: no weights here"),
        ("scalar", "returned Tensor () float32; it must return images (B, C, H, W)"),
        ("text", "returned dict of caption: str; it must return images"),
        ("flat", "returned Tensor (2, 768) float32; it must"),
        ("listed", "returned Tensor (3, 1, 16, 16) float32 for 2 inputs"),
        ("odd", "for 2 inputs; it must return images"),
        ("bad_draw", "draw(n) gave what is no tensor or array"),
        ("raising_draw", "draw(2) failed: ZeroDivisionError"),
        ("wrong_draw", "failed on Tensor (2, 5) float32 (RuntimeError: mat1 and mat2 shapes"),
        ("named_draw", "draw(n) gave"),
        ("no_inputs", "draw(n) gave no inputs"),
        ("convolution_first", "the network has no whole number `latent`"),
        ("Nobody", "has no callable 'Nobody'"),
        ("needs_two", "failed: TypeError"),
        ("Labeled", "missing 1 required positional argument: 'labels'); give it what it takes"),
    ],
)
def test_what_cannot_be_taken_is_one_line(name, said):
    for command in (["sample", "--npy", "/dev/null/x.npy"], ["model"], ["compare"]):
        result = run(*command, "--script", f"{FILE}:{name}")
        if command[0] == "sample" and result.exit_code == 2:
            continue  # nowhere to write to
        assert result.exit_code == 1 and said in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1 and result.stderr.count(f":{name}") <= 2


def test_weights_go_into_a_network_that_takes_no_path(tmp_path):
    network = others.Weighted()
    with torch.no_grad():
        network.up.layers[4].bias.add_(0.25)
    bundle = {"ema": network.state_dict(), "model": others.Weighted().state_dict()}
    torch.save(bundle, tmp_path / "a.ckpt")
    script = f"{FILE}:Weighted"
    plain, shifted = (open_network(str(tmp_path / "a.ckpt"), script=script, key=key)
                      for key in ("model", "ema"))  # fmt: skip
    made = [n.draw_images(n.draw(2)).float().mean() for n in (plain, shifted)]
    assert made[1] > made[0] + 10
    with pytest.raises(InputError, match="choose one: --key ema or --key model"):
        open_network(str(tmp_path / "a.ckpt"), script=script)
    result = run("compare", tmp_path / "a.ckpt", "--script", script, "--key", "ema", "--num", 64)
    assert result.exit_code == 0 and "a.ckpt" in result.stdout
    assert FILE not in result.stdout  # it is how the file is opened, and no further network
    result = run("compare", "--script", f"{FILE}:plain", "--num", 64)
    assert result.exit_code == 0 and f"{FILE}:plain" in result.stdout


def test_a_script_imports_its_neighbors_and_its_own_models(tmp_path):
    """Two scripts in one process, each with modules of the same names."""
    text = (ROOT / FILE).read_text()
    for folder, shade in (("one", 0.5), ("two", -0.5)):
        (tmp_path / folder / "models").mkdir(parents=True)
        (tmp_path / folder / "models" / "__init__.py").touch()
        (tmp_path / folder / "models" / "networks.py").write_text(text)
        (tmp_path / folder / "shade.py").write_text(f"SHADE = {shade}")
        (tmp_path / folder / "load.py").write_text(
            "from models.networks import Up\nfrom shade import SHADE\n"
            "def build():\n    return Up(lambda images: images * 0 + SHADE)\n"
        )
    for folder, level in (("one", 191), ("two", 64), ("one", 191)):
        network = open_network(None, script=f"{tmp_path / folder / 'load.py'}:build")
        assert network.draw_images(network.draw(1)).unique().tolist() == [level]
    assert "gen.models" in sys.modules  # ours has another name


def test_a_factory_by_dotted_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    (tmp_path / "zoo" / "nets.py").write_text((ROOT / FILE).read_text())
    for name in ("zoo.nets:Up.made", "zoo.nets:holder.build", "zoo.nets:Up"):
        result = run("sample", "--factory", name, "--num", 2, "--npy", "out.npy")
        assert result.exit_code == 0, result.output
        assert np.load("out.npy").shape == (2, 16, 16, 3)


@pytest.fixture
def photos(tmp_path):
    """Six pictures of three sizes, one of them gray."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(40, 50), (70, 64), (33, 100)] * 2):
        pixels = rng.integers(0, 255, (*size, 3), np.uint8)
        picture = Image.fromarray(pixels if index else pixels[..., 0])
        picture.save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(("name", "size"), [("x2", 64), ("x3", 96), ("x4", 128), ("Pix2Pix", 32),
                                            ("gray_x2", 64)])  # fmt: skip
def test_networks_that_take_images(name, size, photos, tmp_path):
    result = run("sample", "--script", f"{FILE}:{name}", "--inputs", photos, "--num", 6,
                 "--npy", tmp_path / "o.npy")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "16 crops of 32x32 pixels of 6 images" in result.stderr
    channels = 1 if name == "gray_x2" else 3
    assert np.load(tmp_path / "o.npy").shape == (6, size, size, channels)


def test_crops_are_pixels_of_the_images(photos):
    network = opened("x2", inputs=photos, crop=(10, 20), value_range=(0, 1))
    (first,) = network.draw(3)[1:2].tensors()
    with Image.open(photos / "1.png") as picture:
        expected = np.asarray(picture)[:10, :20].transpose(2, 0, 1) / np.float32(255)
    assert np.allclose(first[0], expected, atol=1e-6)
    assert len(network.draw(10**6)) == 2 * (4 * 2 + 7 * 3 + 3 * 5)
    for options, said in (
        ({"crop": (200, 10)}, "no image of 200x10 pixels"),
        ({"inputs": photos / "none"}, "no folder with images"),
    ):
        with pytest.raises(Exception, match=said):
            opened("x2", **({"inputs": photos} | options))


def test_model_and_compare_take_images(photos, tmp_path):
    given = ["--script", f"{FILE}:x3", "--inputs", photos, "--crop", 8, "--range", "0,1"]
    result = run("compare", *given, "--num", 100)
    assert result.exit_code == 0 and "24x24" in result.stdout, result.output
    result = run("model", *given, "--num", 128, "--json", tmp_path / "m.json")
    assert result.exit_code == 0, result.output
    plain = json.loads((tmp_path / "m.json").read_text())
    assert plain["measurement"]["images"] == 128 and plain["measurement"]["size"] == [24, 24]


def test_a_folder_of_samples_is_continued(tmp_path):
    given = ["sample", "--script", f"{FILE}:plain", "--outdir", tmp_path / "out"]
    assert run(*given, "--num", 3).exit_code == 0
    (tmp_path / "out" / "00000001.png").unlink()
    again = run(*given, "--num", 5)
    assert again.exit_code == 0 and "2 were there" in again.output
    other = run(*given[:2], f"{FILE}:levels", *given[3:])
    assert other.exit_code == 1 and "another folder" in other.stderr
    alone = opened("plain")
    with Image.open(tmp_path / "out" / "00000004.png") as picture:
        image = alone.draw_images(alone.draw(5)[4:])[0]
        assert np.array_equal(np.asarray(picture), image.permute(1, 2, 0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grid", "a.png"], "name a run or checkpoint, or a network by --script"),
        (["--script", "x.py:f", "--grid", "a.png", "--bn", "batch"], "a network of others takes"),
        (["x.pt", "--inputs", "photos", "--grid", "a.png"], "are for a network of --script"),
    ],
)
def test_options_that_do_not_fit(arguments, said):
    result = run("sample", *arguments)
    assert result.exit_code == 2 and said in result.stderr


def test_programs_are_samplers(tmp_path, images):
    network = others.Up().layers
    with pytest.warns(FutureWarning):
        traced = torch.jit.trace(network, torch.zeros(2, others.Z))
        torch.jit.save(traced, tmp_path / "net.weights")
    result = run("sample", tmp_path / "net.weights", "--npy", tmp_path / "a.npy")
    assert result.exit_code == 1 and "holds code: a TorchScript program; run it" in result.stderr
    result = run("sample", "--script", tmp_path / "net.weights", "--num", 4, "--npy",
                 tmp_path / "a.npy")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not seen" not in result.stderr  # gen model follows it as any network
    script = ["--script", tmp_path / "net.weights"]
    result = run("repair", *script, "-o", tmp_path / "b.pt", "--num", 128)
    assert result.exit_code == 1 and "holds a TorchScript program, which" in result.stderr
    for dtype in (torch.float16, torch.float64):
        with pytest.warns(FutureWarning):
            torch.jit.save(torch.jit.script(others.Up().layers.to(dtype)), tmp_path / "net.weights")
        made = open_network(None, script=str(tmp_path / "net.weights"))
        assert (made.draw_images(made.draw(4)).int() - images.int()).abs().max() <= 1
    assert np.array_equal(np.load(tmp_path / "a.npy"), images.permute(0, 2, 3, 1))
    (tmp_path / "no.pt").write_bytes(b"PK\3\4" + bytes(99))
    for name in ("no.pt", "absent.pt"):
        result = run("sample", "--script", tmp_path / name, "--grid", tmp_path / "a.png")
        assert result.exit_code == 1 and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_onnx_files_are_samplers(tmp_path, images):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        program = torch.onnx.export(
            others.Labeled().eval(), (torch.zeros(2, others.Z), torch.zeros(2).long()),
            input_names=["z", "y"], dynamic_shapes=({0: "n"}, {0: "n"}), verbose=False, dynamo=True,
        )  # fmt: skip
    program.save(tmp_path / "net.bin")
    given = ["sample", "--script", tmp_path / "net.bin", "--num", 4]
    result = run(*given, "--npy", tmp_path / "a.npy")
    assert result.exit_code == 0, result.output
    network = others.Labeled().eval()
    (latents,) = opened("plain").draw(4).tensors()
    with torch.no_grad():
        wanted = network(latents, torch.zeros(4).long())
    made = np.load(tmp_path / "a.npy").transpose(0, 3, 1, 2)
    assert np.abs(made - (wanted * 127.5 + 127.5).round().numpy()).max() <= 1
    result = run("model", *given[1:3], "--num", 128)
    assert result.exit_code == 1 and "has no layers to explain" in result.stderr
    result = run("inspect", tmp_path / "net.bin")
    assert result.exit_code == 1 and "holds an ONNX graph; run it with --script" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AutoencoderKL", "VQModel"])
def test_diffusers_folders(tmp_path, name, photos):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 4,
              "up_block_types": ["UpDecoderBlock2D"] * 2, "block_out_channels": [8, 8]}  # fmt: skip
    model = getattr(diffusers, name)(sample_size=16, latent_channels=4, **blocks).eval()
    model.save_pretrained(tmp_path / "pipeline" / "vae")
    given = ["sample", "--diffusers", tmp_path / "pipeline", "--npy", tmp_path / "a.npy"]
    result = run(*given, "--num", 3)
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "a.npy").shape == (3, 16, 16, 3)
    network = open_network(None, diffusers=tmp_path / "pipeline")
    (latents,) = network.draw(2).tensors()
    assert latents.shape == (2, 4, 8, 8)
    scale = model.config.get("scaling_factor") or 1.0
    with torch.no_grad():
        wanted = model.decode(latents / scale).sample
        torch.testing.assert_close(network.network(network.draw(2)), wanted)
    assert run(*given, "--inputs", photos, "--num", 3).exit_code == 0
    assert np.load(tmp_path / "a.npy").shape == (3, 32, 32, 3)
    config = tmp_path / "pipeline" / "vae" / "config.json"
    for spoiled, said in (
        ('{"_class_name": "UNet2DModel"}', "holds a UNet2DModel; must be AutoencoderKL or VQModel"),
        ("{", "damaged"),
        (config.read_text().replace("8,", "16,"), "cannot be read"),
    ):
        config.write_text(spoiled)
        result = run(*given)
        assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1
