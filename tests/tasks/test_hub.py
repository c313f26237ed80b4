"""Datasets from the hub: through `huggingface_hub` itself, from a hub that this test serves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.lift import LIFT

COMMIT = "0123456789" * 4
FILES = {"a/lift.hdf5": LIFT.read_bytes(), "b/other.hdf5": b"never asked for", "README.md": b"# Lift"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download takes."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/me/lift/revision/"):
            siblings = [{"rfilename": name, "size": len(body)} for name, body in FILES.items()]
            self._send(json.dumps({"id": "me/lift", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/api/datasets/me/lift/tree/"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": etag(b)} for n, b in FILES.items()]
            self._send(json.dumps(tree).encode())
        elif "/resolve/" in path and (name := path.split("/", 6)[6]) in FILES:
            self._send(FILES[name])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{etag(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def etag(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def download(path: str, home: Path, endpoint: str) -> str:
    """What a process of its own says: the hub's address is read when its library is imported."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tasks.demonstrations import DemonstrationError\n"
        "from tasks.demonstrations.hub import download, is_on_hub\n"
        "path = Path(sys.argv[1]); assert is_on_hub(path)\n"
        "try: print(download(path, lambda text: None))\n"
        "except DemonstrationError as error: print('refused:', error)\n"
    )
    environment = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, path],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_part_of_a_dataset_is_downloaded_and_kept(tmp_path: Path, endpoint: str) -> None:
    folder = Path(download("hf://me/lift/a", tmp_path, endpoint))
    assert [file.name for file in folder.iterdir()] == ["lift.hdf5"]
    assert (folder / "lift.hdf5").read_bytes() == LIFT.read_bytes()
    assert not (folder.parent / "b").exists()
    assert download("hf://me/lift/a", tmp_path, "http://127.0.0.1:9") == str(folder)  # the hub is away now
    assert download("hf://me/lift@v1/a/lift.hdf5", tmp_path, endpoint) == str(folder / "lift.hdf5")


def test_what_is_not_there_is_named(tmp_path: Path, endpoint: str) -> None:
    assert "refused: hf://me/lifts: the hub has no dataset of that name" in download(
        "hf://me/lifts", tmp_path, endpoint
    )
    assert "me/lift has nothing at c" in download("hf://me/lift/c", tmp_path, endpoint)
    assert "expected hf://OWNER/NAME" in download("hf://me", tmp_path, endpoint)
    away = download("hf://me/lift", tmp_path / "other", "http://127.0.0.1:9")
    assert away.startswith("refused: hf://me/lift cannot be downloaded: ")
    assert "hf download --repo-type dataset me/lift --local-dir FOLDER" in away
