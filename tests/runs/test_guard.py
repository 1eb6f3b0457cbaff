"""Torch files that take memory, time or trust are refused before torch reads them."""

import io
import pickle
import resource
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections import OrderedDict

import pytest
import torch

from gen.runs.checkpoint import CheckpointError
from gen.runs.open import load, read_file, read_newest
from tests.conftest import PATIENCE, ROOT, make_pipe
from tests.equality import content_differences
from tests.foreign_networks import ExampleGenerator

CONTENT = {
    "format": 1, "big": 10**30, "names": ["a", "b"], "pair": (1, 0.5), "none": None, "yes": True,
    "shape": torch.Size([2, 3]), "type": torch.float32, "by number": {0: "x"},
    "weights": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.bfloat16)),
    "whole": torch.arange(3), "flags": torch.tensor([True, False]), "empty": torch.zeros(0, 4),
    "views": torch.arange(24.0).view(4, 6)[1:, ::2], "scalar": torch.tensor(2.0),
    "parameter": torch.nn.Parameter(torch.ones(2)), "module": torch.nn.BatchNorm2d(2).state_dict(),
}  # fmt: skip


def refused(path, *said):
    with pytest.raises(CheckpointError) as caught:
        read_file(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 400
    assert not said or any(part in text for part in said), text


@pytest.fixture
def file(tmp_path):
    torch.save(CONTENT, tmp_path / "file.pt")
    return tmp_path / "file.pt"


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_of_plain_values_is_read(tmp_path, zipped):
    torch.save(CONTENT, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert content_differences(read_file(tmp_path / "a.pt"), CONTENT) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_others_are_read(tmp_path, zipped):
    network = torch.nn.DataParallel(ExampleGenerator((6, 8, 4, 3)))
    torch.save(network.state_dict(), tmp_path / "netG.pth", _use_new_zipfile_serialization=zipped)
    assert load(tmp_path / "netG.pth", device="cpu").latent == 6
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    state = {"epoch": 3, "optimizer": optimizer.state_dict(), "model": network.state_dict()}
    torch.save(state, tmp_path / "run.pth", _use_new_zipfile_serialization=zipped)
    assert read_file(tmp_path / "run.pth")["epoch"] == 3


def test_weights_that_python_2_wrote_are_read(tmp_path):
    """Its OrderedDict pickles as pairs, its strings as bytes."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, buffer, _use_new_zipfile_serialization=False)
    old = buffer.getvalue()
    head, tail = old.index(b"}q\x00X\x01\x00\x00\x00a"), old.index(b"Rq\rs.\x80")
    made = b"ccollections\nOrderedDict\n]](U\x01a" + old[head + 9 : tail] + b"Rq\rea\x85R."
    (tmp_path / "old.pth").write_bytes(old[:head] + made + old[tail + 5 :])
    content = read_file(tmp_path / "old.pth")
    assert type(content) is OrderedDict and torch.equal(content["a"], torch.arange(3.0))


# Archives


def repacked(path, compression=zipfile.ZIP_STORED, **changed):
    """The same entries as Python's zipfile writes them, with other contents of some."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(
                name, changed.get(name.partition("/")[2].partition(".")[0], old.read(name))
            )
    return buffer.getvalue()


def end(comment=b""):
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, len(comment)) + comment


@pytest.mark.parametrize(
    ("name", "spoil"),
    {
        "four bytes after": lambda data: data + b"PK\5\6",
        "another end after": lambda data: data + end(),
        "a comment": lambda data: data[:-2] + struct.pack("<H", 4) + b"PK\5\6",
        "a comment that is an end": lambda data: data[:-2] + struct.pack("<H", 22) + end(),
        "bytes before": lambda data: b"PK\3\4" + data,
        "an archive before": lambda data: data + data,
        "bytes in front of the directory": lambda data: (
            data[: (at := data.index(b"PK\1\2"))] + bytes(64) + data[at:]
        ),
        "a torn end": lambda data: data[:-1],
        "two counts of entries": lambda data: data[:-14] + b"\1\0\1\0" + data[-10:],
    }.items(),
)
@pytest.mark.parametrize("inside", ["compressed", "stored"])
def test_the_guard_cannot_be_switched_off(file, name, spoil, inside):
    """By what makes zipfile and torch see other archives, or zipfile none."""
    data = file.read_bytes()
    if inside == "compressed":
        data = repacked(file, zipfile.ZIP_DEFLATED)
    file.write_bytes(spoil(data))
    refused(
        file, "bytes before or after", "no entry", "leave gaps", "neither a zip", "wrong number"
    )


def entry_changed(data, name, **fields):
    """The archive with fields of one entry's place in the directory changed."""
    layout = "<4s6H3L5H2L"
    keys = ("sign", "made", "needed", "flags", "method", "time", "date", "crc", "packed", "size")
    keys += ("name", "extra", "comment", "disk", "internal", "external", "offset")
    place = data.index(b"PK\1\2")
    while True:
        values = dict(zip(keys, struct.unpack(layout, data[place : place + 46]), strict=True))
        found = data[place + 46 : place + 46 + values["name"]]
        if found.endswith(name.encode()):
            values |= fields
            return data[:place] + struct.pack(layout, *values.values()) + data[place + 46 :]
        place += 46 + values["name"] + values["extra"] + values["comment"]


def test_encrypted_overlapping_and_zip64_entries(file, tmp_path):
    data, path = repacked(file), tmp_path / "other.pt"
    for name, spoiled, said in (
        ("encrypted", entry_changed(data, "data/0", flags=1), "encrypted"),
        ("patched", entry_changed(data, "data/0", flags=0x20), "encrypted"),
        ("overlapping", entry_changed(data, "data/1", offset=0), "overlap"),
        ("overlapping by size", entry_changed(data, "data/0", packed=200, size=200), "overlap"),
        ("compressed", entry_changed(data, "data/0", method=8), "compressed"),
        ("damaged", entry_changed(data, "data/0", crc=5), "checksum"),
        ("directory", entry_changed(data, "data/0", external=16), "directories"),
    ):
        path.write_bytes(spoiled)
        refused(path, said)
        assert name
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            info = zipfile.ZipInfo(entry)
            info.extra = struct.pack("<2HQ", 1, 8, 28) if entry.endswith("data/0") else b""
            new.writestr(info, old.read(entry))
    path.write_bytes(buffer.getvalue())
    refused(path, "zip64 fields where none are needed")
    twice = io.BytesIO(data)
    with pytest.warns(UserWarning), zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("file/data.pkl", b"N.")
    path.write_bytes(twice.getvalue())
    refused(path, "two entries of one name")
    twice = io.BytesIO(data)
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("FILE/DATA.PKL", b"N.")  # torch's reader ignores case
    path.write_bytes(twice.getvalue())
    refused(path, "two entries of one name")


# Pickles


def written(pickled, tmp_path, zipped=True):
    """A file of torch with this pickle for its content."""
    torch.save({"a": torch.zeros(3)}, path := tmp_path / "file.pt")
    if zipped:
        path.write_bytes(repacked(path, data=pickled))
    else:
        buffer = io.BytesIO()
        torch.save({}, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(buffer.getvalue().replace(b"\x80\x02}q\x00.", b"\x80\x02" + pickled, 1))
    return path


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0%bX\3\0\0\0cpu%btQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n(%b%b%b%b\x89ccollections\nOrderedDict\n)RtR"


def tensor(count=b"K\3", offset=b"K\0", sizes=b"K\3\x85", strides=b"K\1\x85", key=b"0"):
    return REBUILD % (STORAGE % (key, count), offset, sizes, strides)


def nested(levels):
    """A key of tuples in tuples; its hash takes 2^levels steps."""
    return b"](K\1\x85q\0" + b"h\0h\0\x86q\0" * levels + b"}h\0K\0se."


NAMESPACE = b"cargparse\nNamespace\n)\x81}%bb."
DTYPE = b"cnumpy\ndtype\n(X\2\0\0\0%b\x89\x88tR"
ENCODED = b"X\6\0\0\0latin1tR."
HUGE = struct.pack("<i", 2**31 - 1)
LONG = pickle.LONG1 + b"\x09" + (2**61 - 1).to_bytes(9, "little")
PICKLES = {
    "a bytearray of 2 GiB": b"cbuiltins\nbytearray\nJ" + HUGE + b"\x85R.",
    "a set": b"cbuiltins\nset\n](K\1K\2e\x85R.",
    "a counter": b"ccollections\nCounter\n](K\1K\2e\x85R.",
    "an empty set": b"\x8f.",
    "a key of nested tuples": nested(45),
    "a key of a float": b"}G\0\0\0\0\0\0\0\0K\0s.",
    "keys of one hash": b"}(" + LONG + b"K\0u.",
    "lists 40 deep": b"]" * 40 + b"a" * 39 + b".",
    "a list in itself": b"]q\0h\0a.",
    "a dictionary below itself": b"}q\0X\1\0\0\0a]h\0as.",
    "a storage larger than its entry": tensor(count=b"M\0\x10") + b".",
    "a storage that is not there": tensor(key=b"9") + b".",
    "a storage of a negative size": tensor(count=b"J\xff\xff\xff\xff") + b".",
    "a tensor larger than its storage": tensor(sizes=b"J" + HUGE + b"\x85") + b".",
    "a tensor of stride 0": tensor(sizes=b"J" + HUGE + b"\x85", strides=b"K\0\x85") + b".",
    "a tensor that begins at its end": tensor(offset=b"K\1") + b".",
    "a tensor of 70 dimensions": tensor(sizes=b"(" + b"K\1" * 70 + b"t") + b".",
    "a state that hides a method": b"ccollections\nOrderedDict\n)R}X\5\0\0\0itemsK\0sb.",
    "an object of torch": b"ctorch\nTensor\n)\x81.",
    "a sparse tensor": b"ctorch._utils\n_rebuild_sparse_tensor\n)R.",
    "a call of a string": b"X\1\0\0\0a)R.",
    "code": b"cos\nsystem\nX\4\0\0\0true\x85R.",
    "opcodes of another protocol": b"\x80\4\x8c\1a.",
    "a namespace with a method": NAMESPACE % b"X\x0c\0\0\0__setstate__K\0s",
    "a namespace of numbers": NAMESPACE.replace(b")", b"K\1\x85") % b"",
    "a namespace 40 deep": NAMESPACE % (b"X\1\0\0\0a" + b"]" * 40 + b"a" * 39 + b"s"),
    "an object of another class": b"cdatetime\ntimedelta\n)\x81.",
    "a new ordered dictionary": b"ccollections\nOrderedDict\n)\x81.",
    "an array of objects": DTYPE % b"O8" + b".",
    "an array of text": DTYPE % b"S9" + b".",
    "a dtype with another state": DTYPE % b"f8" + b"K\3\x85b.",
    "a megabyte of bytes": b"c_codecs\nencode\n(X\0\0\x10\0" + b"a" * (1 << 20) + ENCODED,
    "bytes by another codec": b"c_codecs\nencode\n(X\1\0\0\0aX\3\0\0\0zlbtR.",
    "a number of no type": b"cnumpy._core.multiarray\nscalar\n(K\1K\2tR.",
    "a path of numbers": b"cpathlib\nPosixPath\nK\1\x85R.",
    "a memory of text": b"S'" + b"a" * 99 + b"'\n.",
    "nothing": b"",
    "no end": b"K\1",
    "values left over": b"K\1K\2",
    "a dictionary without a value": b"}(K\1u.",
    "items of a number": b"K\1(K\1K\2u.",
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_takes_neither_memory_nor_time(tmp_path, name, zipped):
    before, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused(written(PICKLES[name], tmp_path, zipped), "damaged, or no checkpoint", "holds code")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    assert time.process_time() - clock < 5


def test_the_pickles_are_refused_for_their_content(tmp_path):
    """Harmless neighbors of the same bytes are read."""
    state = b"(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    for pickled in (
        NAMESPACE % b"X\1\0\0\0aK\0s", DTYPE % b"f8" + state + b".",
        b"c_codecs\nencode\n(X\1\0\0\0a" + ENCODED, b"cpathlib\nPosixPath\nX\1\0\0\0a\x85R.",
        b"ccollections\nOrderedDict\n)R.", b"}K\0K\0s.", b"}X\1\0\0\0aK\0s.", tensor() + b".",
        b"]" * 30 + b"a" * 29 + b".", b"ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadata}sb.",
    ):  # fmt: skip
        read_file(written(pickled, tmp_path))


def test_many_small_values_are_counted(tmp_path):
    copies = b"q\0" + b"ccollections\nOrderedDict\nh\0\x85R" * 2000  # of a list of 100 pairs
    pairs = b"](" + b"".join(b"](X\2\0\0\0%02dK\0e" % number for number in range(100)) + b"e"
    refused(written(b"]" + pairs + copies + b"l.", tmp_path), "over 100,000 tensors")
    refused(written(b"]" * (5 << 20), tmp_path), "a huge one")


def test_tensors_that_share_their_values_are_counted(tmp_path):
    """A network built from a hundred views of one storage takes a hundred times the file."""
    values = torch.zeros(1000)
    for count, said in ((2, None), (20, "share their values")):
        torch.save([values.view(10, 100) for _ in range(count)], tmp_path / "a.pt")
        if said:
            refused(tmp_path / "a.pt", said)
        else:
            assert len(read_file(tmp_path / "a.pt")) == count


def test_a_directory_of_names_is_bounded(tmp_path):
    data = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 33 << 20, 4, 0)
    with (tmp_path / "a.pt").open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(4 + (33 << 20))
        file.seek(0, 2)
        file.write(data)
    refused(tmp_path / "a.pt", "bytes of names")


# What is no file


def test_pipes_and_devices_are_not_opened(finished, tmp_path, capsys):
    make_pipe(tmp_path / "a.pt")
    (tmp_path / "b.pt").symlink_to("/dev/zero")
    refused(tmp_path / "a.pt", "a pipe, device or socket, not a file")
    refused(tmp_path / "b.pt", "a pipe, device or socket, not a file")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    whole = finished("dcgan") / "checkpoints" / "step-00000006.pt"
    (run / "checkpoints" / whole.name).symlink_to(whole)
    make_pipe(run / "checkpoints" / "step-00000007.pt")
    assert read_newest(run)[1]["step"] == 6
    assert "step-00000007.pt: a pipe, device or socket, not a file" in capsys.readouterr().err


def test_links_that_change_meanwhile_never_hang_a_reader(file, tmp_path):
    """Another thread swaps a link between the file and a pipe as fast as it can."""
    make_pipe(tmp_path / "pipe")
    link, done, results = tmp_path / "link.pt", threading.Event(), set()
    link.symlink_to(file)

    def swap():
        while not done.is_set():
            for target in (tmp_path / "pipe", file):
                (tmp_path / "next").symlink_to(target)
                (tmp_path / "next").replace(link)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                results.add(content_differences(read_file(link), CONTENT) == [])
            except CheckpointError:
                results.add("refused")
    finally:
        done.set()
        thread.join()
    assert results <= {True, "refused"}


def test_a_hostile_pickle_ends_a_command_at_once(tmp_path):
    """Torch hashes such a key for hours in C code, where no signal reaches the interpreter."""
    path = written(nested(60), tmp_path)
    script = f"""
        import sys
        from gen.commands.main import main
        main(["inspect", {str(path)!r}])
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == 1 and "a key that is no string" in said
