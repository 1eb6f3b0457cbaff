"""What can be drawn: paths, walks, latents, classes, reconstructions, batch-norm statistics."""

import math
import signal
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gen.models.decoder import Decoder
from PIL import Image

import sample
from gen.images import to_float, to_uint8
from gen.runs.open import Run, load, open_run
from gen.sampling.norm import set_statistics
from gen.sampling.paths import interpolate, lerp, slerp, walk
from gen.sampling.samples import SampleOptions, make_samples
from gen.sampling.seeds import draw_inputs, draw_latents, sample_images
from gen.sampling.write import _write
from gen.training.loop import Trainer
from tests.conftest import small_config


@pytest.fixture(scope="module")
def run_of(small_dataset, tmp_path_factory):
    """Model and its options → directory of a run of two steps."""
    made = {}

    def make(model, **networks):
        key = (model, *networks.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp(model)
            config = small_config(model, networks, steps=2, batch_size=32)
            if networks:
                config = config.with_model(classes=3)
            assert Trainer(config, small_dataset, made[key]).run() == 0
        return made[key]

    return make


def command(*arguments):
    return CliRunner().invoke(sample.main, [str(a) for a in arguments])


def drawn(tmp_path, *arguments):
    """The array that a command writes, (N, H, W, C)."""
    result = command(*arguments, "--npy", tmp_path / "drawn.npy")
    assert result.exit_code == 0, result.output
    return np.load(tmp_path / "drawn.npy")


def latents_of(seed, length=100):
    return draw_latents([seed], length)[0]


# Paths


def test_slerp_keeps_the_norm_and_turns_at_one_speed():
    a, b = latents_of(0), latents_of(1)
    b = b * a.norm() / b.norm()
    path = slerp(a, b, torch.linspace(0, 1, 11)).double()
    assert torch.allclose(path.norm(dim=1), a.norm().double(), rtol=1e-6)
    units = path / path.norm(dim=1, keepdim=True)
    steps = torch.arccos((units[:-1] * units[1:]).sum(1))
    assert torch.allclose(steps, steps.mean(), rtol=1e-4)
    assert steps.sum() == pytest.approx(math.acos(float(units[0] @ units[-1])), rel=1e-4)


def test_lerp_is_straight_and_passes_nearer_to_the_origin():
    a, b = latents_of(0), latents_of(1)
    path = lerp(a, b, torch.linspace(0, 1, 5))
    assert torch.allclose(path[2], (a + b) / 2)
    assert path[2].norm() < 0.8 * min(a.norm(), b.norm())
    assert torch.equal(path[[0, 4]], torch.stack([a, b]))


@pytest.mark.parametrize("b", [1.0, -1.0, 2.0], ids=["same", "opposite", "parallel"])
def test_slerp_without_a_great_circle_goes_straight(b):
    a = latents_of(0)
    path = slerp(a, b * a, torch.linspace(0, 1, 3))
    assert torch.equal(path, lerp(a, b * a, torch.linspace(0, 1, 3)))


def test_a_walk_closes_and_passes_through_its_corners():
    corners = draw_latents(range(4), 50)
    path = walk(50, corners, 40)
    assert torch.equal(path[::10], corners)
    steps = (path.roll(-1, 0) - path).norm(dim=1)
    assert steps.max() < 1.5 * steps.min()
    assert walk(50, corners, 7).shape == (7, 50)


def test_classes_go_straight_beside_the_latents():
    decoder = Decoder(8, (16, 16), 3, 4, classes=3)
    ends = draw_inputs(decoder, [3, 8], [0, 2])
    path = interpolate("slerp", 8, ends, 3)
    vectors = decoder.embedding.weight.detach()
    assert torch.equal(path[:, 8:], torch.stack([vectors[0], path[1, 8:], vectors[2]]))
    assert torch.allclose(path[1, 8:], (vectors[0] + vectors[2]) / 2)
    assert torch.equal(path[:, :8], slerp(*ends[:, :8], torch.linspace(0, 1, 3)))


# Commands


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
@pytest.mark.parametrize("conditional", [False, True])
def test_ends_of_an_interpolation_are_the_images_of_its_seeds(run_of, tmp_path, kind, conditional):
    run = run_of("dcgan", **({"conditional": True} if conditional else {}))
    for options in ([], ["--truncation", 0.4]):
        frames = drawn(tmp_path, run, "--interpolate", kind, 3, 8, "--frames", 5, *options)
        seeds = drawn(tmp_path, run, "--seeds", "3,8", *options)
        assert np.array_equal(frames[[0, 4]], seeds)
        assert len(np.unique(frames, axis=0)) == 5
    strip = tmp_path / "strip.png"
    assert command(run, "--interpolate", kind, 3, 8, "--grid", strip).exit_code == 0
    with Image.open(strip) as image:
        assert image.size == (9 * 18 + 2, 18 + 2)


def test_a_walk_is_a_loop_of_the_stated_length_and_pace(run_of, tmp_path):
    run, gif = run_of("dcgan"), tmp_path / "walk.gif"
    command_line = [run, "--walk", 2.5, "--fps", 10, "--seeds", "4-8"]
    frames = drawn(tmp_path, *command_line, "--gif", gif)
    assert len(frames) == 25
    assert np.array_equal(frames[::5], drawn(tmp_path, run, "--seeds", "4-8"))
    with Image.open(gif) as image:
        assert image.info["loop"] == 0 and image.size == (16, 16)
        shown = []
        for number in range(image.n_frames):
            image.seek(number)
            shown += [np.asarray(image.convert("RGB"))] * round(image.info["duration"] / 100)
    assert np.abs(np.stack(shown).astype(int) - frames).mean() < 2


def test_truncation_takes_variety_away(run_of, tmp_path):
    run = run_of("dcgan")
    spread = [
        drawn(tmp_path, run, "--num", 20, "--truncation", psi).std(axis=0).mean()
        for psi in (0, 0.3, 1)
    ]
    assert spread[0] == 0 < spread[1] < spread[2]
    assert np.array_equal(
        drawn(tmp_path, run, "--num", 4, "--truncation", 1), drawn(tmp_path, run, "--num", 4)
    )


def test_latents_of_a_file_are_decoded_as_they_are(run_of, tmp_path):
    run = run_of("dcgan")
    expected = drawn(tmp_path, run, "--num", 40)
    for kind in (np.float32, np.float64):
        np.save(tmp_path / "z.npy", draw_latents(range(40), 6).numpy().astype(kind))
        latents = ("--latents", tmp_path / "z.npy")
        assert np.array_equal(drawn(tmp_path, run, *latents, "--batch-size", 7), expected)


def test_classes_are_asked_for_by_number_or_all(run_of, tmp_path):
    run = run_of("dcgan", conditional=True)
    every = drawn(tmp_path, run, "--seeds", "3-6", "--class", "all")
    apart = [drawn(tmp_path, run, "--seeds", "3-6", "--class", k) for k in range(3)]
    assert np.array_equal(every, np.concatenate(apart))
    assert not np.array_equal(apart[0], apart[1])
    by_seed = drawn(tmp_path, run, "--seeds", "3-6")
    assert np.array_equal(by_seed, [apart[seed % 3][seed - 3] for seed in range(3, 7)])
    folder, grid = tmp_path / "classes", tmp_path / "g.png"
    arguments = ("--seeds", "3-6", "--class", "all", "--outdir", folder, "--batch-size", 3)
    assert command(run, *arguments, "--grid", grid).exit_code == 0
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    assert found == [f"{k}/{seed:08d}.png" for k in range(3) for seed in range(3, 7)]
    for name, pixels in zip(found, every, strict=True):
        with Image.open(folder / name) as image:
            assert np.array_equal(np.asarray(image), pixels)
    with Image.open(grid) as image:
        assert image.size == (4 * 18 + 2, 3 * 18 + 2)
    np.save(tmp_path / "z.npy", draw_latents(range(3, 7), 6).numpy())
    latents = drawn(tmp_path, run, "--latents", tmp_path / "z.npy", "--class", 2)
    assert np.array_equal(latents, apart[2])


@pytest.fixture
def photos(tmp_path):
    """Seven images of noise, of two sizes, in three subfolders."""
    rng = np.random.default_rng(0)
    for number in range(7):
        folder = tmp_path / "photos" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        size = (16, 16) if number else (40, 30)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(("model", "conditional"), [("vae", 0), ("vae", 1), ("vaegan", 0)])
def test_reconstructions_stand_beside_their_images(run_of, tmp_path, photos, model, conditional):
    run = run_of(model, **({"conditional": True} if conditional else {}))
    pairs = drawn(tmp_path, run, "--reconstruct", photos)
    assert pairs.shape == (7, 16, 32, 3)
    order = ["0/0", "0/3", "0/6", "1/1", "1/4", "2/2", "2/5"]
    images = pairs[:, :, :16]
    for name, pixels in zip(order[1:], images[1:], strict=True):
        with Image.open(photos / f"{name}.png") as image:
            assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(drawn(tmp_path, run, "--reconstruct", photos, "--batch-size", 2), pairs)
    opened = open_run(run, device="cpu")
    batch = to_float(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))
    labels = [torch.tensor([0, 0, 0, 1, 1, 2, 2])] if conditional else []

    def decoded(part):
        return to_uint8(opened.decoder(opened.modules["encoder"](batch, *labels)[part], *labels))

    with torch.inference_mode():
        shown = decoded(0).permute(0, 2, 3, 1).numpy().astype(int)
        for weight in opened.decoder.parameters():  # two steps have not taught it to heed latents
            weight *= 10
        copies, others = (decoded(part).int() for part in (0, 1))
        made = make_samples("reconstruct", opened, SampleOptions(reconstruct=photos)).draw(range(7))
    assert np.abs(shown - pairs[:, :, 16:]).max() <= 1  # another batch size rounds differently
    assert (copies - made[..., 16:]).abs().max() <= 1
    assert (copies - others).abs().max() > 10  # of the mean, and not of the variance


# Writing


def test_a_signal_ends_writing_at_the_image_at_hand():
    caught, written = [], []

    def add(index, image):
        written.append(index)
        caught.extend([signal.SIGTERM] * (index == 4))

    assert _write([add], [3, 4, 5], torch.zeros(3, 1, 2, 2), caught) == 2
    assert written == [3, 4]


# Batch normalization


def test_batch_statistics_are_those_of_training_on_a_fixed_batch(run_of):
    seeds, pictures = range(64), {}
    for kind in ("running", "batch", "recalibrate"):
        decoder = load(run_of("dcgan"), device="cpu")
        set_statistics(decoder, kind)
        assert not decoder.training
        pictures[kind] = sample_images(decoder, seeds)
        assert torch.equal(sample_images(decoder, [70, 5])[1], pictures[kind][5])
        layer = decoder.stem[2]
        before = layer.running_mean.clone()
        decoder(draw_inputs(decoder, range(3)))
        assert torch.equal(layer.running_mean, before)
    live = load(run_of("dcgan"), device="cpu").train()
    with torch.no_grad():
        expected = to_uint8(live(draw_latents(seeds, 6)))
    # Running variances are unbiased, those of a batch are not: a factor of 1024/1023 at 4×4.
    assert (pictures["batch"].int() - expected.int()).abs().max() <= 1
    spread = [(pictures[kind].float() - expected.float()).abs().mean() for kind in pictures]
    assert spread[1] < spread[2] < spread[0]
    decoder = load(run_of("dcgan"), device="cpu")
    set_statistics(decoder, "batch")
    maps = decoder.stem[:2](draw_latents(seeds, 6))
    assert torch.allclose(decoder.stem[2].running_mean, maps.mean((0, 2, 3)), atol=1e-6)


def test_recalibration_is_the_mean_over_two_thousand_latents(run_of):
    decoder = load(run_of("dcgan"), device="cpu")
    set_statistics(decoder, "recalibrate")
    maps = decoder.stem[:2](draw_latents(range(2048), 6))
    assert torch.allclose(decoder.stem[2].running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(decoder.stem[2].running_var, maps.var((0, 2, 3)), rtol=0.01)


def test_statistics_by_command(run_of, tmp_path):
    run = run_of("dcgan")
    by_kind = {
        kind: drawn(tmp_path, run, "--num", 8, "--bn", kind)
        for kind in ("running", "batch", "recalibrate")
    }
    assert np.array_equal(by_kind["running"], drawn(tmp_path, run, "--num", 8))
    assert not np.array_equal(by_kind["running"], by_kind["batch"])
    assert not np.array_equal(by_kind["recalibrate"], by_kind["batch"])
    again = drawn(tmp_path, run, "--seeds", "5,2", "--bn", "batch", "--batch-size", 1)
    assert np.array_equal(again, by_kind["batch"][[5, 2]])


# Bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", str(2**63)], "no range of seeds"),
        (["--walk", "nan"], "finite"),
        (["--walk", "0"], "--walk"),
        (["--walk", "601"], "--walk"),
        (["--truncation", "nan"], "finite"),
        (["--truncation", "1.1"], "--truncation"),
        (["--interpolate", "cubic", "1", "2"], "lerp"),
        (["--interpolate", "lerp", "1", "-2"], "-2"),
        (["--interpolate", "lerp", "1", str(2**64)], "--interpolate"),
        (["--frames", "1"], "--frames"),
        (["--frames", "4"], "--frames does not go with --seeds"),
        (["--num", "3", "--seeds", "1"], "does not go with"),
        (["--num", "0"], "--num"),
        (["--num", str(2**64)], "--num"),
        (["--walk", "1", "--latents", "x.npy"], "--latents does not go with --walk"),
        (["--latents", "x.npy", "--truncation", "1"], "--truncation does not go with --latents"),
        (["--reconstruct", "x", "--bn", "batch"], "--bn does not go with --reconstruct"),
        (["--gif", "x.gif"], "--gif does not go with --seeds"),
        (["--interpolate", "lerp", "1", "2", "--fps", "10"], "--fps is for --gif or --walk"),
        (["--format", "npy"], "--format is for --outdir"),
        (["--class", "-1"], "write a class"),
        (["--class", "x"], "write a class"),
        (["--fps", "30"], "--fps"),
        (["--bn", "no"], "--bn"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_before_any_work(tmp_path, arguments, said):
    result = command("no-such-run", *arguments, "--grid", tmp_path / "g.png")
    assert result.exit_code == 2, result.output
    assert said in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("flag", "name"), [("--grid", "g.gif"), ("--gif", "g.png"), ("--npy", "g.png")]
)
def test_endings_say_what_is_written(tmp_path, flag, name):
    result = command("no-such-run", "--walk", 1, flag, tmp_path / name)
    assert result.exit_code == 2 and "must end in" in result.output


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def hostile_latents(folder):
    """Name of a file → what is said of it."""
    good = np.zeros((4, 6), np.float32)
    arrays = {
        "length": (np.zeros((4, 7)), "takes (N, 6)"),
        "flat": (np.zeros(6), "takes (N, 6)"),
        "empty": (np.zeros((0, 6)), "takes (N, 6)"),
        "nan": (np.where(np.arange(24).reshape(4, 6) == 13, np.nan, 0), "row 2 is not finite"),
        "overflow": (good.astype(np.float64) + 1e300, "row 0 is not finite"),
        "complex": (good.astype(complex), "must be numbers"),
        "text": (np.full((4, 6), "a"), "must be numbers"),
        "bool": (np.zeros((4, 6), bool), "must be numbers"),
    }
    for name, (array, _) in arrays.items():
        np.save(folder / f"{name}.npy", array)
    said = {f"{name}.npy": words for name, (_, words) in arrays.items()}
    np.save(folder / "objects.npy", np.array([[Evil()] * 6], object), allow_pickle=True)
    np.savez(folder / "archive.npy", good)
    (folder / "archive.npy.npz").rename(folder / "archive.npy")
    for name, rows in (("huge", 10**15), ("huger", 2**64), ("negative", -4)):
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 6)}
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(good.tobytes())
    np.save(folder / "cut.npy", good)
    (folder / "cut.npy").write_bytes((folder / "cut.npy").read_bytes()[:-8])
    (folder / "nothing.npy").write_bytes(b"")
    (folder / "letter.npy").write_bytes(b"dear reader")
    damaged = ("objects", "archive", "huge", "huger", "negative", "cut", "nothing", "letter")
    said |= {f"{name}.npy": "no .npy file of numbers" for name in damaged}
    return said | {"missing.npy": "No such file"}


def test_hostile_latents_are_one_line(run_of, tmp_path, capfd):
    run, target = run_of("dcgan"), tmp_path / "out.npy"
    for name, said in hostile_latents(tmp_path).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = command(run, "--latents", tmp_path / name, "--npy", target)
        assert result.exit_code == 1, (name, result.output)
        assert said in result.output and name in result.output
        assert result.output.count("\n") == 1, result.output
        assert "--debug" not in result.output, result.output
    assert "unpickled" not in capfd.readouterr().out
    assert not target.exists()


def test_what_a_run_cannot_draw_is_one_line(run_of, tmp_path, photos):
    plain, conditional, vae = run_of("dcgan"), run_of("dcgan", conditional=True), run_of("vae")
    guided = run_of("vae", conditional=True)
    (tmp_path / "empty").mkdir()
    (photos / "2" / "2.png").rename(photos / "1" / "2.png")
    (photos / "2" / "5.png").rename(photos / "1" / "5.png")
    for run, arguments, said in [
        (plain, ["--class", 0], "no classes"),
        (plain, ["--walk", 1, "--seeds", 7], "2 to 20 seeds, not 1"),
        (plain, ["--walk", 1, "--seeds", "0-20"], "2 to 20 seeds, not 21"),
        (plain, ["--latents", tmp_path], "no file"),
        (plain, ["--class", "all"], "no classes"),
        (conditional, ["--class", 3], "must be 0 to 2"),
        (plain, ["--reconstruct", photos], "has no encoder"),
        (vae, ["--reconstruct", tmp_path / "none"], "no such folder"),
        (vae, ["--reconstruct", tmp_path / "empty"], "holds no images"),
        (guided, ["--reconstruct", photos], "2 classes"),
    ]:
        result = command(run, *arguments, "--grid", tmp_path / "g.png")
        assert result.exit_code == 1, result.output
        assert said in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "g.png").exists()


def test_a_run_without_decoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="turns latents into images"):
        _ = Run(tmp_path, None, {"net": torch.nn.Linear(1, 1)}).decoder
