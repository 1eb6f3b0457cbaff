"""What two runs that ought to be the same differ in, at zero tolerance."""

import json
from pathlib import Path

import torch

from gen.runs.checkpoint import run_checkpoints
from gen.runs.open import read_file


def flat(content, prefix=""):
    """Nested dicts and lists → {path: leaf}."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        return {prefix: content}
    return {k: v for key, part in items for k, v in flat(part, f"{prefix}/{key}").items()}


def content_differences(ours, theirs):
    """Paths at which two checkpoints differ, in any bit or value."""
    ours, theirs = flat(ours), flat(theirs)
    differing = sorted(ours.keys() ^ theirs.keys())
    for key in ours.keys() & theirs.keys():
        one, two = ours[key], theirs[key]
        if torch.is_tensor(one) and torch.is_tensor(two):
            same = one.dtype == two.dtype and torch.equal(one, two)
        else:
            same = type(one) is type(two) and one == two
        if not same:
            differing.append(key)
    return differing


def rows(run):
    """Rows of metrics.jsonl without what the clock says."""
    lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("speed/")} for line in lines
    ]


def run_differences(ours, theirs):
    """Paths at which two run directories differ: checkpoints, rows, sheets; empty where nowhere."""
    ours, theirs = Path(ours), Path(theirs)
    names = [[p.name for p in run_checkpoints(run)] for run in (ours, theirs)]
    differing = [f"files: {names}"] if names[0] != names[1] else []
    for name in set(names[0]) & set(names[1]):
        pair = [read_file(run / "checkpoints" / name) for run in (ours, theirs)]
        differing += [f"{name}:{key}" for key in content_differences(*pair)]
    if rows(ours) != rows(theirs):
        differing.append("metrics.jsonl")
    sheets = [
        {p.name: p.read_bytes() for p in (run / "samples").iterdir()} for run in (ours, theirs)
    ]
    if sheets[0] != sheets[1]:
        differing.append("samples")
    return differing
