"""What a torch file may hold, checked before `torch.load` reads it.

`torch.load(weights_only=True)` runs no code, but a small file can still take any amount of memory
or time: by compressed entries, by `bytearray(n)`, by keys that take hours to hash. This module
checks every byte of the archive, then reads the pickle with placeholders for tensors. It accepts
what `torch.save` writes of tensors, numbers, strings and containers of these, and nothing else.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PosixPath
from struct import pack, unpack
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar, NamedTuple

from gen.runs.formats import LEGACY
from gen.system.errors import GenError

_DIRECTORY, _PICKLE = 32 << 20, 4 << 20  # bytes of the largest table of contents and pickle
_DEPTH, _DIMENSIONS, _TENSORS = 32, 8, 100_000
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_WIDTHS = {  # storage type → bytes of a value
    "Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2,
    "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
_DTYPE = re.compile(r"(b?float|u?int)\d+|bool")
_PLACE = re.compile(r"(cpu|cuda|mps|xpu|hpu|xla|npu)(:\d+)?")
_OPCODES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE "
    "SHORT_BINSTRING EMPTY_TUPLE EMPTY_LIST EMPTY_DICT TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS "
    "SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BINPERSID BUILD NEWOBJ"
)
# Plain values that bundles of others hold next to their weights, such as `args`.
_RECORDS = ("argparse.Namespace", "types.SimpleNamespace")
_PATHS = ("pathlib.PosixPath", "pathlib._local.PosixPath")
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMBER = re.compile(r"[fiu][1248]|b1")
_LARGER = "a tensor larger than what is stored of it"

Claim = Callable[[str, int], None]  # called with the key and the bytes of every storage


class UnsafeFileError(GenError):
    """A file that could take memory or time, or that two readers could read differently."""


class HoldsCodeError(UnsafeFileError):
    """A file that holds code, which is not run: a TorchScript program, or a pickled object."""

    def __init__(self, problem: str, script: bool = False) -> None:
        super().__init__(f"holds code: {problem}")
        self.script = script


def require(condition: object, problem: str) -> None:
    """Raise UnsafeFileError with the problem unless the condition holds."""
    if not condition:
        raise UnsafeFileError(problem)


def plain_classes() -> list[Any]:
    """What `torch.load` is to build besides tensors, for `torch.serialization.safe_globals`."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    types_of = [type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "b1")]
    types_of += [type(np.dtype(code)) for code in ("u1", "u2", "u4", "u8")]
    named = [(scalar, name) for name in _SCALARS] + [(PosixPath, name) for name in _PATHS]
    return [Namespace, SimpleNamespace, np.dtype, *types_of, *named]


def check_torch_file(file: BinaryIO) -> None:
    """Refuse a file that takes more than its size in memory, or whose checksums differ.

    The first bytes decide the format, as they do for torch.

    Raises:
        UnsafeFileError: the file holds something else than `torch.save` writes of plain values.
        Exception: any that `zipfile` and `pickle` raise for damaged files.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(_PICKLE)
    if start.startswith(b"PK\3\4"):
        _check_archive(file, size)
        return
    require(start.startswith(LEGACY), "neither a zip archive nor an older file of torch")
    pickles, claimed = io.BytesIO(start), {}
    for _ in range(5):  # magic number, version, system, content, keys of the storages
        _Reader(pickles, claimed.__setitem__, size).load()
    require(sum(claimed.values()) <= size, _LARGER)


def _check_archive(file: BinaryIO, size: int) -> None:
    start, count = _find_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        entries, end = archive.infolist(), 0
        require(len(entries) == count, "a wrong number of entries")
        if any("/code/" in entry.filename for entry in entries):
            raise HoldsCodeError("a TorchScript program", script=True)
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            require(0 <= entry.header_offset - end <= 24, "entries that overlap or leave gaps")
            file.seek(entry.header_offset + 26)
            end = entry.header_offset + 30 + sum(unpack("<2H", file.read(4))) + entry.compress_size
            directory = entry.is_dir() or entry.external_attr & 0x10
            require(not directory, "directories, which torch would read as any memory")
            require(not entry.flag_bits & ~0x808, "encrypted entries")
            stored = entry.compress_type == zipfile.ZIP_STORED
            require(stored, "compressed entries, which torch never writes")
            long = max(entry.file_size, entry.header_offset) >= _MAX_32
            require(long or not entry.extra, "zip64 fields where none are needed")
            require(entry.filename == entry.orig_filename, "a name with a zero byte")
        require(archive.start_dir == start and 0 <= start - end <= 24, "bytes of no entry")
        sizes = {entry.filename: entry.file_size for entry in entries}
        require(len({name.lower() for name in sizes}) == len(entries), "two entries of one name")
        broken = archive.testzip()
        require(broken is None, f"checksum of {broken!a} differs")
        root = entries[0].filename.partition("/")[0]
        require(sizes.get(f"{root}/data.pkl", _PICKLE) < _PICKLE, "no data.pkl, or a huge one")

        def claim(key: str, count: int) -> None:
            require(count <= sizes.get(f"{root}/data/{key}", -1), _LARGER)

        _Reader(io.BytesIO(archive.read(f"{root}/data.pkl")), claim, size).load()


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Start and entries of the directory; it and its end must be the last bytes of the file."""
    file.seek(max(0, size - 98))
    tail, records = file.read(), b""
    count, length, start = unpack("<H2L", tail[-12:-2])
    if tail[-42:-38] == b"PK\6\7":  # zip64, which torch always writes (APPNOTE.TXT 4.3.14)
        count, length, start = unpack("<3Q", tail[32:56])
        records = pack("<4sQ4s2L4Q", b"PK\6\6", 44, tail[12:16], 0, 0, count, count, length, start)
        records += pack("<4sLQL", b"PK\6\7", 0, size - 98, 1)
    short = min(count, _MAX_16), min(count, _MAX_16), min(length, _MAX_32), min(start, _MAX_32)
    records += pack("<4s4H2LH", b"PK\5\6", 0, 0, *short, 0)
    whole = tail.endswith(records) and start + length == size - len(records)
    require(whole, "bytes before or after the archive, or no end")
    require(length <= _DIRECTORY, f"over {_DIRECTORY:,} bytes of names")
    return start, count


class _Storage(NamedTuple):
    values: int
    width: int


class _Placeholder:
    """What stands for a tensor or a dtype; it holds nothing."""


class _Record(_Placeholder):
    """What stands for a namespace: a call makes one, and a state fills it."""

    def __call__(self) -> _Record:
        return _Record()


class _NumberType(_Placeholder):
    """What stands for a dtype of NumPy; its state says that its bytes are little-endian."""


class _Reader(pickle._Unpickler):
    """Reads one pickle as torch does, whose reader is a copy of Python's, without its tensors.

    A pickle can call nothing but methods of this class, whatever it names.
    """

    dispatch: ClassVar = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _OPCODES.split())
    }

    def __init__(self, file: BinaryIO, claim: Claim, size: int) -> None:
        super().__init__(file, encoding="utf-8")
        self.claim, self.size = claim, size
        self.storages: dict[str, _Storage] = {}
        self.states: list[Any] = []
        self.made = self.bytes = 0

    def load(self) -> None:
        try:
            content = super().load()
        except KeyError as error:
            raise UnsafeFileError(f"opcode {error}, which torch never writes") from error
        _height([content, *self.states], 0, {})

    def find_class(self, module: str, name: str) -> Any:
        calls = {
            "collections.OrderedDict": self.ordered, "torch.Size": _numbers,
            "torch._utils._rebuild_parameter": self.parameter,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
        }  # fmt: skip
        calls |= dict.fromkeys(_RECORDS, _Record()) | dict.fromkeys(_PATHS, _path)
        calls |= dict.fromkeys(_SCALARS, _scalar)
        calls |= {"numpy.dtype": _number_type, "_codecs.encode": _few_bytes}
        kind, storage, _ = name.partition("Storage")
        if module == "torch" and (width := _WIDTHS.get(storage and kind)):
            return _Storage(0, width)
        if module == "torch" and _DTYPE.fullmatch(name):
            return _Placeholder()
        full = f"{module}.{name}"
        if full not in calls:
            raise HoldsCodeError(f"a pickled {full[:60]!a}, which is no part of a tensor")
        return calls[full]

    def persistent_load(self, pid: Any) -> _Storage:
        word, kind, key, place, count, *view = pid
        known = word == "storage" and isinstance(kind, _Storage) and view in ([], [None])
        known = known and type(key) is str and _PLACE.fullmatch(place)
        require(known and type(count) is int and count >= 0, "a storage that torch never writes")
        made = _Storage(count, kind.width)
        require(self.storages.setdefault(key, made) == made, "two storages of one key")
        self.claim(key, count * kind.width)
        return made

    def ordered(self, items: Any = ()) -> Any:  # Python 2 gives pairs
        self.count(1 + len(items))
        return OrderedDict(_checked(items))

    def parameter(self, tensor: Any, *flags: Any) -> Any:
        require(isinstance(tensor, _Placeholder) and _plain(*flags), "no parameter")
        self.count(1)
        return tensor

    def tensor(self, storage: Any, offset: Any, sizes: Any, strides: Any, *flags: Any) -> Any:
        require(isinstance(storage, _Storage) and (not flags or _plain(*flags)), "no tensor")
        values = math.prod(_numbers(sizes))
        steps = zip(_numbers(sizes), _numbers(strides), strict=True)
        last = sum(_numbers((offset,))) + sum((size - 1) * step for size, step in steps)
        require(not values or max(values, last + 1) <= storage.values, _LARGER)
        self.bytes += values * storage.width
        require(self.bytes <= 2 * self.size, "tensors that share their values many times")
        self.count(1)
        return _Placeholder()

    def count(self, number: int) -> None:
        self.made += number  # what takes far more memory than the opcodes that make it
        require(self.made <= _TENSORS, f"over {_TENSORS:,} tensors")

    def put(self, items: list[Any]) -> None:
        require(isinstance(self.stack[-1], dict), "items of no dictionary")
        self.stack[-1].update(_checked(zip(items[::2], items[1::2], strict=True)))

    def build(self) -> None:
        """Take the versions of modules, which `state_dict()` adds to its dictionary.

        Also the attributes of a namespace, and the byte order of a dtype of NumPy.
        """
        state, built = self.stack.pop(), self.stack[-1]
        if type(built) is _NumberType:
            require(state in _ORDERS, "a dtype that NumPy never writes")
            return
        versions = type(built) is OrderedDict and type(state) is dict
        versions = versions and state.keys() == {"_metadata"}
        record = type(built) is _Record and type(state) is dict
        record = record and not any(name.startswith("__") for name in map(str, state))
        require(versions or record, "a state of no state dict")
        self.states.append(state)

    def new(self) -> None:
        """Make a namespace."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        require(type(kind) is _Record and arguments == (), "an object of no plain kind")
        self.count(1)
        self.stack.append(_Record())

    dispatch[pickle.SETITEMS[0]] = lambda self: self.put(self.pop_mark())
    dispatch[pickle.SETITEM[0]] = lambda self: self.put([self.stack.pop(), self.stack.pop()][::-1])
    dispatch[pickle.BUILD[0]] = build
    dispatch[pickle.NEWOBJ[0]] = new


_ORDERS = [(3, order, None, None, None, -1, -1, 0) for order in ("<", "|")]


def _is_text(value: Any) -> bool:
    return type(value) is str


def _path(*parts: Any) -> _Placeholder:
    require(all(map(_is_text, parts)), "no path")
    return _Placeholder()


def _number_type(code: Any, align: Any, copy: Any) -> _NumberType:
    known = _is_text(code) and _NUMBER.fullmatch(code) and type(align) is type(copy) is bool
    require(known, "a dtype that is no number's")
    return _NumberType()


def _few_bytes(text: Any, encoding: Any) -> _Storage:
    require(_is_text(text) and len(text) <= 16 and encoding == "latin1", "bytes of no number")
    return _Storage(len(text), 1)


def _scalar(kind: Any, data: Any) -> _Placeholder:
    require(type(kind) is _NumberType and type(data) is _Storage, "no number of NumPy")
    return _Placeholder()


def _checked(items: Any) -> list[tuple[Any, Any]]:
    """Pairs of key and value. Nested tuples and chosen integers could take hours as keys."""
    pairs = [(key, value) for key, value in items]
    known = all(type(k) is str or (type(k) is int and 0 <= k < 1 << 31) for k, _ in pairs)
    require(known, "a key that is no string or small integer")
    return pairs


def _numbers(values: Any) -> tuple[int, ...]:
    plain = type(values) is tuple and all(type(value) is int and value >= 0 for value in values)
    require(plain and len(values) <= _DIMENSIONS, "a shape that torch never writes")
    return values


def _plain(requires_grad: Any, hooks: Any) -> bool:
    return type(requires_grad) is bool and type(hooks) is OrderedDict and not hooks


def _height(value: Any, depth: int, heights: dict[int, int]) -> int:
    """Levels of containers in a value; refuses those nested too deep, or in themselves."""
    if not isinstance(value, dict | list | tuple):
        return 0
    require(depth < _DEPTH, f"values nested over {_DEPTH} deep")
    if id(value) not in heights:
        inner = value.values() if isinstance(value, dict) else value
        heights[id(value)] = 1 + max((_height(v, depth + 1, heights) for v in inner), default=0)
    require(depth + heights[id(value)] <= _DEPTH, f"values nested over {_DEPTH} deep")
    return heights[id(value)]
