"""What README and the tutorial print is run, command by command, so that none can rot.

Commands are read from the Markdown and run in their order in one folder, since later ones take what
earlier ones made. Training is cut to two steps.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import analyze
import sample
import train
from gen.commands.main import main as gen_main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "docs/tutorial.md"]
MAINS = {
    ("python", "train.py"): train.main,
    ("python", "sample.py"): sample.main,
    ("python", "analyze.py"): analyze.main,
    ("gen",): gen_main,
}
# Run as they stand, in a copy of the repository; of benchmarks, which take minutes, only --help.
PROCESSES = ("make demo", "python benchmarks/")
# What made the environment that the tests run in; what other tests run, or would never end.
ELSEWHERE = (
    "git clone ", "source .venv/", "pip install .", "gen demo", "make setup", "make test",
    'make demo PIP_ARGS="', "torchrun --nproc-per-node 2 train.py", "tensorboard --logdir ",
)  # fmt: skip
NAMES = r"(?:gen|python|make|torchrun|git|source|pip|tensorboard|cd|bash|sh) "


def commands(text: str) -> list[tuple[str, bool]]:
    """(command, whether it is within a sentence) in their order on the page.

    Of a block those after `$ ` or, where there is none, all lines that begin with a program.
    """
    found = []
    for block, inline in re.findall(r"^```\n(.*?)^```$|`([^`\n]+)`", text, re.M | re.S):
        lines = block.splitlines()
        printed = any(line.startswith("$ ") for line in lines)
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ") or not printed]
        named = re.fullmatch(
            r"gen \w+|python sample\.py|python analyze\.py \w+", inline
        )  # a command's name, not a command to run
        lines += [] if named else [inline]
        found += [(line, bool(inline)) for line in lines if re.match(NAMES, line)]
    return [(re.split(r"\s+#\s", command)[0].strip(), inline) for command, inline in found]


def in_process(command: str):
    """(main, arguments) of a command of ours, or None."""
    words = shlex.split(command)
    for prefix, main in MAINS.items():
        if tuple(words[: len(prefix)]) == prefix:
            return main, words[len(prefix) :]
    return None


def failures(text: str, examples: bool = False) -> list[str]:
    """Run the commands that are ours in the working directory; one line per failure.

    Args:
        text: a page.
        examples: train within sentences as well, instead of --dry-run; and nothing else.
    """
    failed = []
    for command, inline in commands(text):
        ours = in_process(command)
        example = inline and command.startswith(("python train.py", "gen train"))
        if not ours or command.startswith(ELSEWHERE) or (examples and not example):
            continue
        main, arguments = ours
        trains = main is train.main or arguments[:1] == ["train"]
        added = ["--steps", "2"] if trains else []  # the last of two --steps counts
        added += ["--dry-run"] * (example and not examples)
        result = CliRunner().invoke(main, [*arguments, *added], catch_exceptions=False)
        if "Refused:" in result.output:  # repairing what trained for two steps: a good answer
            newest = max(Path(arguments[1], "checkpoints").glob("*.pt"))
            shutil.copy(newest, arguments[arguments.index("-o") + 1])
        elif result.exit_code:
            failed.append(f"{command}: exit {result.exit_code}: {result.output.strip()[-300:]}")
    return failed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a few photographs."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", [DOCUMENTS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in DOCUMENTS[1:])]
)
def test_every_command_of_ours_runs(name, folder):
    assert failures((ROOT / name).read_text()) == []


def test_a_wrong_option_and_a_path_that_nothing_made_are_found(folder):
    page = "```\n$ python train.py dcgan --kernal 3\n```\n`python sample.py runs/x --grid g.png`"
    wrong, missing = failures(page)
    assert "No such option" in wrong and "runs/x" in missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_command_is_left_untested(name):
    found = commands((ROOT / name).read_text())
    assert len(found) >= 8
    for command, _ in found:
        assert in_process(command) or command.startswith((*ELSEWHERE, *PROCESSES)), command


def slug(heading: str) -> str:
    """Anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_and_pictures_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    dead = []
    for page in pages:
        text = re.sub(r"^(`{3,})\S*\n.*?^\1$", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
            path, _, anchor = "".join(link).partition("#")
            target = page.parent / path if path else page
            if path.startswith("http"):
                continue
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.M) if anchor else []
            if not target.exists() or (anchor and anchor not in map(slug, headings)):
                dead.append(f"{page.name}: {''.join(link)}")
    assert dead == []


@pytest.mark.slow
def test_examples_within_sentences_train(folder):
    assert failures((ROOT / "README.md").read_text(), examples=True) == []


@pytest.mark.slow
def test_every_other_command_runs_as_it_stands(tmp_path, monkeypatch):
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "data", "build", "__pycache__")
    copy = tmp_path / "gen"
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    (copy / ".venv").symlink_to(sys.prefix)
    makefile = copy / "Makefile"
    text = makefile.read_text()
    assert text.count("-m gen demo\n") == 1
    makefile.write_text(text.replace("-m gen demo\n", "-m gen demo --steps 2 2\n"))
    monkeypatch.setenv("PATH", f"{copy}/.venv/bin", prepend=":")
    found = [c for name in DOCUMENTS for c, _ in commands((ROOT / name).read_text())]
    for command in dict.fromkeys(found):
        if command.startswith(ELSEWHERE) or not command.startswith(PROCESSES):
            continue
        # The stamp may be older than the copy; the environment is what it is.
        command = command.replace("make ", "make -o .venv/.installed ", 1)
        command += " --help" * command.startswith("python benchmarks/")
        done = subprocess.run(["bash", "-c", command], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr[-500:]}"
