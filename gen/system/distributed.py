"""Several processes that act as one, as `torchrun --nproc-per-node N` starts them.

On one process nothing here does, costs or imports anything. Rank 0 speaks and writes for all.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from gen.system.errors import GenError, InputError

if TYPE_CHECKING:
    from torch import Tensor

_Value = TypeVar("_Value")

# The longest that one process waits for another: rank 0 may be downloading a data set.
PATIENCE = timedelta(minutes=30)


class ProcessLostError(GenError):
    """Another process ended without a word; one line."""


class _Group:
    """Which process this is; one of one until `joined`."""

    rank, world = 0, 1


def rank() -> int:
    """The number of this process, 0 … world_size() − 1."""
    return _Group.rank


def world_size() -> int:
    """How many processes act as one."""
    return _Group.world


def local_rank() -> int:
    """The number of this process on its own machine, which is that of its GPU."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else 0


def launch_rank() -> int:
    """The rank that torchrun gave this process, known before it has joined the others."""
    try:
        return _number("RANK", 0) if _number("WORLD_SIZE", 1) > 1 else 0
    except InputError:  # `joined` says so
        return 0


def _number(name: str, default: int | None = None) -> int:
    """A whole number that torchrun sets in the environment, or the default where it is not set."""
    text = os.environ.get(name, default)
    if not re.fullmatch(r"\d{1,9}", str(text), re.ASCII):
        state = "not set" if text is None else f"{text!r}"
        raise InputError(
            f"environment variable {name} is {state}; it must be a whole number. torchrun sets it "
            "together with the others; unset WORLD_SIZE to run one process"
        )
    return int(text)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started; they leave together.

    An error on one ends all, and one process says why: the first to fail. The others lose contact
    in their next exchange and exit with status 1 silently. Where a process was killed, the first to
    notice raises `ProcessLostError`.
    """
    if _number("WORLD_SIZE", 1) <= 1 or world_size() > 1:  # alone, or joined already
        yield
        return
    import torch.distributed as dist

    store = _join()
    try:
        yield
        _leave()
    except SystemExit:
        _leave()
        raise
    except Exception as error:
        if not _first_to_fail(store):
            sys.exit(getattr(error, "exit_code", 1))
        raise
    finally:
        dist.destroy_process_group()
        _Group.rank, _Group.world = 0, 1


def _join() -> Any:
    """Form the group; returns the store that outlives the failure of any worker."""
    number, count = (_number(name) for name in ("RANK", "WORLD_SIZE"))
    _number("LOCAL_RANK"), _number("MASTER_PORT")
    if not os.environ.get("MASTER_ADDR") or number >= count:
        raise InputError(
            f"environment: RANK is {number} of WORLD_SIZE {count}, MASTER_ADDR is "
            f"{os.environ.get('MASTER_ADDR')!r}; torchrun sets them together"
        )
    import torch
    import torch.distributed as dist

    # Its functions default to the group they find at import, and making an optimizer imports it:
    # they would keep the group, whose threads can then crash the interpreter at its end.
    import torch.distributed.nn.functional

    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend += ",cuda:nccl"
    store, number, count = next(dist.rendezvous("env://"))
    # torchrun restarts a group with the store of the one before: its addresses lead to the dead.
    store = dist.PrefixStore(f"gen/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    _Group.rank, _Group.world = number, count
    return store


def _leave() -> None:
    """Wait for all. Then torchrun terminates those that have not quite left when one has."""
    if sys.exc_info()[0] is SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()


def _first_to_fail(store: Any) -> bool:
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:  # the store went down with rank 0, which cannot have been heard of then
        return True


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        traceback.clear_frames(error.__traceback__)  # they hold the group
        raise ProcessLostError(
            f"process {rank()} lost contact with another, which was killed or hangs; "
            "what is saved stays"
        ) from error


def describe() -> str:
    """` × 4 processes`, or nothing for one."""
    return f" × {world_size()} processes" if world_size() > 1 else ""


def own_slice(count: int) -> slice:
    """This process's part of `count` items in order: contiguous, sizes differ by one at most."""
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def average(tensors: Sequence[Tensor], weight: float) -> None:
    """Replace float tensors by their sum over processes weighted by `weight`, in one exchange.

    Weights that add up to 1 make it a mean. All processes end with the same bits.
    """
    if world_size() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).mul_(weight)
    with _talking():
        dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def largest(number: int) -> int:
    """The largest of one small number per process; never waits for a GPU."""
    if world_size() == 1:
        return number
    import torch
    import torch.distributed as dist

    held = torch.tensor(number)
    with _talking():
        dist.all_reduce(held, dist.ReduceOp.MAX)
    return int(held)


def gather(value: _Value) -> list[_Value]:
    """The values of all processes in order on rank 0; an empty list on the others."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size()
    with _talking():
        dist.gather_object(value, values if rank() == 0 else None)
    return values if rank() == 0 else []


def broadcast(value: _Value) -> _Value:
    """Rank 0's value, on all."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    held = [value]
    with _talking():
        dist.broadcast_object_list(held)
    return held[0]


def wait() -> None:
    """Wait until all processes are here."""
    broadcast(gather(None))


@contextlib.contextmanager
def rank_zero_first() -> Iterator[None]:
    """Let rank 0 do alone what the others then find done, such as a download."""
    if rank():
        wait()
    yield
    if not rank():
        wait()
