"""Models by id, with the real hub client against a hub of this machine's own."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from rlm_runtime.engine.hub_model import needed_files

pytestmark = pytest.mark.e2e

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER = json.dumps({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
    "model.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + b"\x00" * 8,
    "pytorch_model.bin": b"pickle" * 1000,
    "onnx/model.onnx": b"onnx" * 1000,
}
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}


class Hub(BaseHTTPRequestHandler):
    """The three routes of the hub that a download uses."""

    sent: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/acme/gated") or ("/api/" not in path and "gated" in path):
            self.reply(403, b"", body, {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/acme/seven/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": oid(data)}
                for name, data in FILES.items()
            ]
            self.reply(200, json.dumps(tree).encode(), body, {})
        elif path.startswith("/api/models/acme/seven"):
            siblings = [{"rfilename": name} for name in FILES]
            card = {"id": "acme/seven", "sha": COMMIT, "siblings": siblings}
            self.reply(200, json.dumps(card).encode(), body, {})
        elif path.startswith(f"/acme/seven/resolve/{COMMIT}/"):
            name = path.split(f"{COMMIT}/")[1]
            if body:
                self.sent.append(name)
            facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(FILES[name])}"'}
            self.reply(200, FILES[name], body, facts)
        else:
            self.reply(404, b"", body, {"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


def oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.sent.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


PROGRAM = """
import json, sys
from rlm_runtime.engine import model_files
from rlm_runtime.errors import ModelError
try:
    plan = model_files.plan(sys.argv[1])
except ModelError:
    plan = None
try:
    folder = model_files.add(sys.argv[1], on_progress=lambda progress: None)
except ModelError as err:
    print(json.dumps({"error": str(err)}))
else:
    assert model_files.resolve(sys.argv[1]) == folder
    files = sorted(path.name for path in folder.path.iterdir())
    size = plan and plan.bytes_to_download
    print(json.dumps({"name": folder.name, "files": files, "bytes": size}))
"""


def add(model: str, endpoint: str, home: Path, **more: str) -> dict[str, object]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    mine = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "RLM_HOME": str(home / "rlm")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model],
        env=inherited | mine | {"NO_PROXY": "127.0.0.1"} | more,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def test_a_download_brings_the_needed_files_and_its_size_was_said(hub: str, tmp_path: Path) -> None:
    size = sum(len(FILES[name]) for name in NEEDED)
    assert add("acme/seven", hub, tmp_path) == {
        "name": "acme/seven",
        "files": sorted(NEEDED),
        "bytes": size,
    }
    assert set(Hub.sent) == NEEDED


def test_a_second_add_downloads_nothing_and_works_without_the_hub(hub: str, tmp_path: Path) -> None:
    add("acme/seven", hub, tmp_path)
    Hub.sent.clear()
    assert add("acme/seven", hub, tmp_path)["bytes"] == 0
    assert Hub.sent == []
    assert add("acme/seven", hub, tmp_path, HF_HUB_OFFLINE="1")["name"] == "acme/seven"


@pytest.mark.parametrize(
    ("model", "more", "remedy"),
    [
        ("acme/gated", {}, "Accept them"),
        ("acme/none", {}, "Check the spelling"),
        ("acme/seven", {"HF_HUB_OFFLINE": "1"}, "Unset HF_HUB_OFFLINE"),
        ("acme/seven", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "Check the network"),
    ],
)
def test_what_can_not_be_downloaded_says_why_and_what_to_do(
    hub: str, tmp_path: Path, model: str, more: dict[str, str], remedy: str
) -> None:
    assert remedy in str(add(model, hub, tmp_path, **more)["error"])


def test_second_copies_and_other_formats_are_not_needed() -> None:
    names = ["model-1.safetensors", "consolidated.safetensors", "onnx/model.safetensors", "a.bin"]
    assert needed_files([*names, "config.json"]) == ("config.json", "model-1.safetensors")
    assert needed_files(["weights.safetensors", "fp8/x.safetensors"]) == ("weights.safetensors",)
