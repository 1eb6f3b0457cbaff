"""Image files in .zip and .tar archives, good and hostile."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen.data.decode import BadImage, DataError
from gen.data.stream import Selection, open_stream
from tests.data.test_stream import noise, read


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def pack(path: Path, files: dict[str, bytes], **settings) -> Path:
    """An archive of the kind that its suffix names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, settings.get("mode", "w")) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_are_images_in_the_order_of_their_names(tmp_path, suffix):
    pixels = noise(40, 9, 14, 3)
    names = [f"shard/{n:03d}.png" for n in range(40)]
    files = {name: png(image) for name, image in zip(names, pixels, strict=True)}
    extra = {"shard/000.cls": b"3", "__MACOSX/._000.png": b"x", "shard/.hidden.png": b"x"}
    path = pack(tmp_path / f"a{suffix}", dict(reversed(files.items())) | extra)
    images, said = read(path, workers=3)
    np.testing.assert_array_equal(images, pixels.transpose(0, 3, 1, 2))
    assert said == []
    (tmp_path / "folder").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "folder" / "b.png")
    both = open_stream([path, tmp_path / "folder"])
    assert both.count == sum(map(len, both.batches)) == 41


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/a.png", "C:\\a.png", "x\\..\\a.png"]
)
def test_names_outside_the_archive_are_refused(tmp_path, suffix, name):
    path = pack(tmp_path / f"a{suffix}", {"good.png": png(noise(8, 8)), name: b""})
    with pytest.raises(DataError, match=f"a{suffix}: holds .*a name outside the archive"):
        open_stream(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("b.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(info)
    with pytest.raises(DataError, match=r"holds b\.png, a link or device"):
        open_stream(tmp_path / "a.tar")
    linked = zipfile.ZipInfo("b.png")
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(linked, "/etc/passwd")
    with pytest.raises(DataError, match=r"holds b\.png, a link or device"):
        open_stream(tmp_path / "a.zip")


def test_two_files_of_one_name_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x/a.png", "x//a.png"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"holds two files named x/a\.png"):
        open_stream(tmp_path / "a.tar")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    from gen.data import archives

    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    path = pack(tmp_path / "a.zip", {"a.png": png(noise(8, 8)), "b.png": bytes(2 << 20)})
    assert path.stat().st_size < 10_000
    with pytest.raises(BadImage, match=r"a\.zip/b\.png: unpacks to 2,097,152 bytes; at most"):
        open_stream(path)
    images, said = read(path, skip_bad=True)
    assert len(images) == 1 and said[0].startswith("1 of 2 images left out: unreadable")


def test_what_is_no_archive_is_one_line(tmp_path):
    files = {"a.png": png(noise(8, 8))}
    for name in ("a.zip", "a.tar"):
        (tmp_path / name).write_bytes(b"words" * 500)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz"):
        pass
    for name in ("a.zip", "a.tar", "b.tar.gz"):
        with pytest.raises(DataError, match=rf"{name}: is no \.zip and no uncompressed \.tar"):
            open_stream(tmp_path / name)
    whole = pack(tmp_path / "c.tar", files).read_bytes()
    (tmp_path / "c.tar").write_bytes(whole[:540])
    with pytest.raises(DataError, match=r"c\.tar"):
        list(open_stream(tmp_path / "c.tar", Selection()).batches)
    with pytest.raises(DataError, match=r"d\.zip: holds no images"):
        open_stream(pack(tmp_path / "d.zip", {"a.txt": b"x"}))


def test_the_first_bytes_tell_the_kind(tmp_path):
    """A .tar whose last member is a .zip ends as a .zip does."""
    inner = pack(tmp_path / "labels.zip", {"a.txt": b"x"}).read_bytes()
    path = pack(tmp_path / "a.tar", {"a.png": png(noise(8, 8)), "labels.zip": inner})
    assert open_stream(path).count == 1


def test_sizes_that_no_file_has_are_one_line(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": str(2**80)}
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("b.png"))
    with pytest.raises(DataError, match=r"a\.tar: is no \.zip and no uncompressed \.tar"):
        open_stream(tmp_path / "a.tar")


def test_a_file_without_a_name_is_one_line(tmp_path):
    path = pack(tmp_path / "a.zip", {"nameless": png(noise(8, 8))})
    path.write_bytes(path.read_bytes().replace(b"nameless", bytes(8)))  # names end at a zero
    with pytest.raises(DataError, match=r"a\.zip: holds a file without a name"):
        open_stream(path)
