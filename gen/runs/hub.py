"""Runs on the Hugging Face Hub, by `hf-hub:user/name` (extra `hub`)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from gen.runs.checkpoint import EXPORTED, CheckpointError
from gen.runs.formats import HUB
from gen.system.errors import InputError
from gen.system.text import printable, shorten

CONFIG = "config.json"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def check_name(name: str) -> str:
    """The name of a repository.

    Raises:
        InputError: it is not of the form `user/name`.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{shorten(name)}: is no repository of the Hub; write user/name")
    return name


def import_hub() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            "the Hub needs one package: pip install huggingface_hub (extra gen[hub])"
        ) from error
    return huggingface_hub


def fetch(address: str) -> Path:
    """The folder of `hf-hub:user/name` or `hf-hub:user/name@revision`, in the Hub's cache.

    Only the configuration and the weights are fetched. They come from one commit.

    Raises:
        CheckpointError: there is none, or the Hub cannot be reached and the cache has none.
        InputError: the library is missing, or the name has another form.
    """
    name, _, revision = address.removeprefix(HUB).partition("@")
    check_name(name)
    hub = import_hub()
    try:
        config = Path(hub.hf_hub_download(name, CONFIG, revision=revision or None))
        hub.hf_hub_download(name, EXPORTED, revision=config.parent.name)
    except Exception as error:  # of the library, its HTTP client, the disk
        raise CheckpointError(f"{printable(address)}: {reason(error)}") from error
    return config.parent


def check_push(name: str | None) -> None:
    """Raise InputError before any work where the name or the library is missing; None is fine."""
    if name:
        check_name(name)
        import_hub()


def push_folder(folder: Path, name: str) -> str:
    """Upload a folder as one commit to a repository, which is made where there is none.

    Returns:
        Its address on the Hub.

    Raises:
        InputError: the library is missing, or what the Hub answered.
    """
    hub = import_hub()
    try:
        address = hub.create_repo(check_name(name), exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="gen export")
    except Exception as error:
        raise InputError(
            f"{name}: not pushed: {reason(error)}. The folder is complete; to try again: "
            f"hf upload {name} {shlex.quote(str(folder))}"
        ) from error
    return str(address)


def reason(error: Exception) -> str:
    """The first line of what the Hub or its library says."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0] if lines else type(error).__name__, 160).rstrip(".")
