"""Networks of others: what the user's code, a program in a file, or a diffusers folder gives.

The user names the code, and it runs by this explicit choice, as no checkpoint's ever does. A
builder returns (network, draw); `draw` is None where the network's own `latent` says what it takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen.runs.formats import ONNX, TORCH, format_of
from gen.runs.open import read_newest
from gen.runs.weights import fill_network
from gen.sampling.adapt import LATENTS, CallableNetwork, Inputs, collect
from gen.sampling.seeds import draw_latents
from gen.system.errors import GenError, InputError
from gen.system.files import read_regular
from gen.system.text import describe_error, shorten

Draw = Callable[[int], Inputs]


def build_from_code(
    named: str, is_file: bool, path: str | None, key: str | None
) -> tuple[nn.Module, Draw | None]:
    """What a callable makes: `--script file.py:name`, or `--factory package.module:name`.

    A class of networks is built without arguments and takes the weights of `path`. So does a
    network that a callable without arguments returns. Any other callable gets the path.

    Raises:
        InputError: there is no such callable, it fails, or it returns no network.
    """
    call = find_callable(named, is_file)
    takes_path = path is not None and not isinstance(call, nn.Module) and _takes_argument(call)
    if key and takes_path:
        raise InputError(f"--key is for networks that gen fills, and {named} takes the path itself")
    try:
        made = call if isinstance(call, nn.Module) else call(path) if takes_path else call()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise InputError(f"{named} failed: {text} (--debug shows where)") from error
    network, draw = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not callable(network):
        raise InputError(f"{named} returned {type(network).__name__}; it must return an nn.Module")
    if not isinstance(network, nn.Module):
        network = CallableNetwork(network)
    if path is not None and not takes_path:
        file, content = read_newest(path)
        try:
            fill_network(network, content, key)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
    return network, None if draw is None else _seeded(draw, named)


def find_callable(named: str, is_file: bool) -> Callable[..., Any]:
    """The callable that `--script` or `--factory` names; raises InputError if there is none."""
    return _from_file(named) if is_file else _from_module(named)


def takes_weights(call: Callable[..., Any]) -> bool:
    """Whether a callable is about weights from a file: it takes their path, or is a network."""
    return isinstance(call, nn.Module) or inspect.isclass(call) or _takes_argument(call)


def _takes_argument(call: Callable[..., Any]) -> bool:
    """Whether a callable is to be given the path: it takes an argument, and is no network class."""
    if inspect.isclass(call) and issubclass(call, nn.Module):
        return False
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)


def _seeded(draw: Callable[[int], Any], named: str) -> Draw:
    """The user's draw(n) as inputs, the same ones each time, whatever it does with its seed."""

    def inputs(count: int) -> Inputs:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return collect(draw(count), count)
        except GenError as error:
            raise InputError(f"{named}: {error}") from error
        except Exception as error:
            text = f"{type(error).__name__}: {shorten(error, 160)}"
            raise InputError(f"{named}: draw({count}) failed: {text}") from error

    return inputs


def draw_for(network: nn.Module, name: str) -> Draw:
    """Latents of seeds 0, 1, … for a network that says their length, or has it in its weights.

    Raises:
        InputError: no length is known.
    """
    named = (getattr(network, name, None) for name in LATENTS)
    length = next((n for n in named if type(n) is int and n > 0), None) or _first_width(network)
    if length is None:
        raise InputError(
            f"{name}: the network has no whole number `latent`; return (network, draw) "
            "where draw(n) gives n latents or maps, or give --inputs FOLDER for a network of images"
        )

    return lambda count: Inputs(range(count), lambda rows: (draw_latents(rows, length),))


def _first_width(network: nn.Module) -> int | None:
    """What the first layer takes, if it can be the first of a generator; else None."""
    first = next(
        (m for m in network.modules() if any(True for _ in m.parameters(recurse=False))), None
    )
    kind = getattr(first, "original_name", type(first).__name__)  # as TorchScript keeps it
    axis = {"Linear": 1, "ConvTranspose2d": 0}.get(kind)
    return None if axis is None else first.weight.shape[axis]


def _split(named: str, form: str) -> tuple[str, str]:
    place, colon, function = named.rpartition(":")
    if not colon or not place or not function:
        raise InputError(f"{named!r}; write {form}")
    return place, function


def _from_module(named: str) -> Callable[..., Any]:
    place, function = _split(named, "--factory package.module:callable")
    _put_first(Path.cwd())
    try:
        return _callable(importlib.import_module(place), function, named)
    except ModuleNotFoundError as error:
        raise InputError(f"--factory {named}: {error}") from error


def _from_file(named: str) -> Callable[..., Any]:
    place, function = _split(named, "--script file.py:callable")
    if not Path(place).is_file():
        raise InputError(f"--script {place}: no such file")
    spec = importlib.util.spec_from_file_location("gen_user_script", place)
    if spec is None or spec.loader is None:
        raise InputError(f"--script {place}: is no Python file")
    _put_first(Path(place).resolve().parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise InputError(f"--script {place} failed: {text} (--debug shows where)") from error
    return _callable(module, function, named)


def _put_first(folder: Path) -> None:
    """Let the user's modules import one another, whatever else has their names.

    Another script in the same process may have imported neighbors of the same names.
    """
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        theirs = file and any(Path(file).is_relative_to(known) for known in _folders)
        if theirs and name.partition(".")[0] in names and not Path(file).is_relative_to(folder):
            del sys.modules[name]
    _folders.add(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


_folders: set[Path] = set()  # of scripts that ran in this process


def _callable(module: Any, function: str, named: str) -> Callable[..., Any]:
    """An attribute of a module, by a dotted name; a method of a class is that of an instance."""
    found = module
    for name in function.split("."):
        owner, found = found, getattr(found, name, None)
        if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, name, None)):
            found = getattr(owner(), name)
    if not callable(found):
        raise InputError(f"{named}: has no callable {function!r}")
    return found


def build_from_program(path: Path) -> tuple[nn.Module, Draw | None]:
    """A TorchScript or ONNX file, by its bytes; of ONNX, the layers are not seen.

    Raises:
        InputError: it is neither, or damaged, or onnxruntime is not installed.
    """
    kind = format_of(path) if path.is_file() else None
    if kind not in (TORCH, ONNX):
        raise InputError(
            f"--script {path}: write FILE.py:CALLABLE, or name a TorchScript or ONNX file"
        )
    try:
        if kind == ONNX:
            network = OnnxNetwork(path)
            return network, network.draw
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch.jit itself
            return torch.jit.load(path, map_location="cpu"), None
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: an ONNX file, and {error}; pip install 'gen[onnx]'") from error
    except GenError:
        raise
    except Exception as error:
        text = shorten(" ".join(str(error).split()), 160)
        raise InputError(f"--script {path}: no sound {kind} program ({text})") from error


class OnnxNetwork(nn.Module):
    """An ONNX graph, which onnxruntime runs on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(read_regular(path), settings, providers)
        self.path = path

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs; a graph of one fixed batch size runs as often as it takes."""
        wanted = self.session.get_inputs()
        fixed = wanted[0].shape[0]
        size = fixed if isinstance(fixed, int) else len(inputs[0])
        parts = []
        for batch in zip(*(value.split(size) for value in inputs), strict=True):
            feed = {
                about.name: value.cpu().numpy().astype(_NUMPY.get(about.type, "float32"))
                for about, value in zip(wanted, batch, strict=True)
            }
            parts.append(self.session.run(None, feed))
        return tuple(torch.cat([*map(torch.from_numpy, part)]) for part in zip(*parts, strict=True))

    def draw(self, count: int) -> Inputs:
        """Normal numbers of the shape that each input has; whole numbers are 0, as class 0 is.

        Raises:
            InputError: an input has axes of no fixed length besides the first.
        """
        shapes = [about.shape[1:] for about in self.session.get_inputs()]
        if not all(isinstance(side, int) for shape in shapes for side in shape):
            raise InputError(
                f"{self.path}: takes {shapes[0]} of no fixed size; give --inputs FOLDER"
            )

        def take(rows: Sequence[int]) -> tuple[Tensor, ...]:
            values = []
            for about, shape in zip(self.session.get_inputs(), shapes, strict=True):
                drawn = draw_latents(rows, max(1, int(torch.tensor(shape).prod())))
                drawn = drawn.view(len(rows), *shape)
                values.append(drawn.long() * 0 if "int" in about.type else drawn)
            return tuple(values)

        return Inputs(range(count), take)


_NUMPY = {"tensor(float16)": "float16", "tensor(double)": "float64", "tensor(int64)": "int64",
          "tensor(int32)": "int32"}  # fmt: skip


class AutoencoderOutput(nn.Module):
    """The decoder of a diffusers autoencoder, or, for images, all of it."""

    def __init__(self, autoencoder: nn.Module, images: bool) -> None:
        super().__init__()
        self.autoencoder, self.images = autoencoder, images

    def forward(self, inputs: Tensor) -> Any:
        """Latents, as its diffusion model makes them, or images → images."""
        if self.images:
            return self.autoencoder(inputs)
        config = self.autoencoder.config
        scale, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
        return self.autoencoder.decode(inputs / scale + shift)


_AUTOENCODERS = ("AutoencoderKL", "VQModel")
_PLACES = ("", "vae", "vqvae", "movq")  # of a pipeline's folder


def build_from_diffusers(folder: Path, images: bool) -> tuple[nn.Module, Draw | None]:
    """The autoencoder of a diffusers folder, offline and from safetensors alone.

    Args:
        folder: of the autoencoder, or of a pipeline that has one.
        images: whether it is shown images; else its decoder takes latents.

    Raises:
        InputError: there is none, or diffusers is not installed.
    """
    configs = [folder / place / "config.json" for place in _PLACES]
    found = next((path for path in configs if path.is_file()), None)
    try:
        config = json.loads(read_regular(found)) if found else {}
        name = config.get("_class_name")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{found}: damaged ({shorten(error)})") from error
    if name not in _AUTOENCODERS:
        held = f"holds a {shorten(name)}" if name else "has no config.json of an autoencoder"
        raise InputError(f"--diffusers {folder}: {held}; must be {' or '.join(_AUTOENCODERS)}")
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise InputError(f"--diffusers needs {error.name}: pip install 'gen[diffusers]'") from error
    try:
        model = getattr(diffusers, name).from_pretrained(
            str(found.parent), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
        side = int(config.get("sample_size") or 256) >> len(model.config.block_out_channels) - 1
        channels = model.config.latent_channels
    except Exception as error:  # whatever diffusers raises for a folder that is not sound
        raise InputError(
            f"--diffusers {folder}: cannot be read ({describe_error(error)})"
        ) from error

    def take(rows: Sequence[int]) -> tuple[Tensor, ...]:
        return (draw_latents(rows, channels * side**2).view(-1, channels, side, side),)

    return AutoencoderOutput(model, images), lambda count: Inputs(range(count), take)
