"""To and from the Hub: its own client against a server of this test, which speaks its HTTP API."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from gen.runs.checkpoint import CheckpointError
from gen.runs.hub import fetch
from gen.runs.open import load
from gen.sampling.seeds import sample_images
from gen.system.errors import InputError

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Keeps the files of one commit; `server.files` is name → bytes, None before there is any."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.path)
        if self.server.refuses:
            return self.answer({"error": "You have no right to write here"}, 403)
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{self.server.address}/ada/shapes", "id": "1"})
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if self.path.endswith("/commit/main"):
            rows = [json.loads(line) for line in body.splitlines()]
            for row in rows:
                if row["key"] == "file":
                    content = base64.b64decode(row["value"]["content"])
                    self.server.files[row["value"]["path"]] = content
            url = f"{self.server.address}/ada/shapes/commit/{COMMIT}"
            return self.answer({"success": True, "commitUrl": url, "commitOid": COMMIT})
        return self.answer({"ok": True})  # the card's YAML is checked before a commit

    def do_GET(self):
        self.server.seen.append(self.path)
        _, place, name = self.path.partition("/resolve/")
        content = self.server.files.get(name.partition("/")[2]) if place else None
        if content is None and not place:
            return self.answer({"id": "ada/shapes", "sha": COMMIT, "siblings": []})
        if content is None or not self.path.startswith("/ada/shapes/"):
            return self.answer(
                {"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"}
            )
        tag = hashlib.sha1(content).hexdigest()
        return self.answer(content, 200, ETag=f'"{tag}"', **{"X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """The server; `hub.call(*arguments)` runs Python with its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.seen, server.refuses = {}, [], False
    server.address = f"http://127.0.0.1:{server.server_port}"
    given = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_x"}
    given |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def call(*arguments, **more):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT, env={**os.environ, **given, **more}, capture_output=True, text=True,
        )  # fmt: skip

    server.call = call
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
import sys, torch
from gen import load, sample_images
torch.save(sample_images(load(sys.argv[1], device="cpu"), range(3)), sys.argv[2])
"""


@pytest.mark.slow
def test_what_is_pushed_is_what_is_loaded(hub, finished_run, tmp_path):
    given = (finished_run[1], "--outdir", tmp_path / "new", "--license", "mit")
    done = hub.call("-m", "gen", "export", *given, "--push", "ada/shapes")
    assert done.returncode == 0, done.stderr
    assert f"Pushed: {hub.address}/ada/shapes" in done.stderr
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    done = hub.call("-c", LOAD, "hf-hub:ada/shapes", tmp_path / "images.pt")
    assert done.returncode == 0, done.stderr
    expected = sample_images(load(finished_run[1], device="cpu"), range(3))
    assert torch.equal(torch.load(tmp_path / "images.pt"), expected)
    fetched = {path.rpartition("/")[2] for path in hub.seen if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors"}
    # From the cache, without the server; and in every command that takes a run.
    offline = {"HF_HUB_OFFLINE": "1"}
    arguments = ("-m", "gen", "sample", "hf-hub:ada/shapes", "--seeds", "0-3", "--grid")
    done = hub.call(*arguments, tmp_path / "grid.png", **offline)
    assert done.returncode == 0 and (tmp_path / "grid.png").is_file(), done.stderr
    done = hub.call("-m", "gen", "images", "hf-hub:ada/shapes", "--num", 32, **offline)
    assert done.returncode == 0 and done.stdout.startswith("32 images of 16×16"), done.stderr


@pytest.mark.slow
def test_what_cannot_be_is_one_line(hub, finished_run, tmp_path):
    done = hub.call("-m", "gen", "sample", "hf-hub:ada/none", "--grid", tmp_path / "g.png")
    assert done.returncode == 1 and done.stderr.startswith("Error: hf-hub:ada/none: ")
    assert len(done.stderr.splitlines()) == 1
    hub.refuses = True
    export = ("-m", "gen", "export", finished_run[1], "--outdir")
    done = hub.call(*export, tmp_path / "new", "--push", "ada/shapes")
    assert done.returncode == 1 and "ada/shapes: not pushed: " in done.stderr
    assert f"hf upload ada/shapes {tmp_path / 'new'}" in done.stderr.splitlines()[-1]
    assert (tmp_path / "new" / "README.md").is_file()
    done = hub.call(*export, tmp_path / "bad", "--push", "../etc")
    assert done.returncode == 1 and "write user/name" in done.stderr
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("address", ["hf-hub:", "hf-hub:a", "hf-hub:a/b/c", "hf-hub:../../etc"])
def test_names_of_another_form_are_refused(address):
    with pytest.raises(InputError, match="write user/name"):
        load(address)


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install huggingface_hub \(extra gen\[hub\]\)"):
        fetch("hf-hub:ada/shapes")


def test_a_cache_without_it_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    class Offline:
        @staticmethod
        def hf_hub_download(*names, **options):
            options |= {"cache_dir": tmp_path, "local_files_only": True}
            return huggingface_hub.hf_hub_download(*names, **options)

    monkeypatch.setattr("gen.runs.hub.import_hub", lambda: Offline)
    with pytest.raises(CheckpointError, match="hf-hub:ada/shapes: ") as caught:
        load("hf-hub:ada/shapes")
    assert len(str(caught.value).splitlines()) == 1
