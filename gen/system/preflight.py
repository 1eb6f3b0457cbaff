"""Check that torch and torchvision import together: `python -m gen.system.preflight`."""

import sys
from importlib.metadata import PackageNotFoundError, version


def _installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def find_problem() -> str | None:
    """One line that names a missing or mismatched torch/torchvision pair and the fix, or None."""
    try:
        import torch
        import torchvision  # noqa: F401  (its operators register, or fail to, on import)
    except (ImportError, RuntimeError, OSError) as error:
        pair = f"{_installed('torch')} with {_installed('torchvision')}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return (
            f"{pair} cannot be used together ({reason}); "
            "fix: `make clean setup`, which installs a matching pair from one index"
        )
    _ = torch
    return None


if __name__ == "__main__":
    sys.exit(find_problem())
