"""A stand-in for the Hugging Face hub: the few endpoints that `snapshot_download` uses, over HTTP.

Protocol: https://huggingface.co/docs/hub/api and what huggingface_hub 2.4 asks for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_canary_token"


@dataclass(slots=True)
class Hub:
    """Serves the files of a folder as the model `lab/tiny`.

    commit: what `main` is. gated: only for who sends `TOKEN`. torn: names of files that are sent with a wrong byte.
    broken: every answer is 503. asked: method and path of every request. url: as HF_ENDPOINT.
    """

    folder: Path
    commit: str = "c" * 40
    gated: bool = False
    torn: frozenset[str] = frozenset()
    broken: bool = False
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def names(self) -> list[str]:
        """Of all files."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def tree(self) -> list[dict[str, object]]:
        """What the hub states of each file; safetensors are kept as large files, by their sha256."""
        entries = []
        for name in self.names():
            data = (self.folder / name).read_bytes()
            entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries


def git_id(data: bytes) -> str:
    """The id of a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url` for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._respond()

        def do_GET(self) -> None:
            self._respond()

        def log_message(self, *_: object) -> None:
            pass

        def _respond(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            allowed = self.headers.get("authorization") == f"Bearer {TOKEN}"
            if hub.broken:
                self._answer(503)
            elif hub.gated and not allowed:
                self._answer(403 if self.headers.get("authorization") else 401, **{"X-Error-Code": "GatedRepo"})
            elif path in ("/api/models/lab/tiny", "/api/models/lab/tiny/revision/main"):
                self._json({"_id": "1", "id": "lab/tiny", "sha": hub.commit, "siblings": []})
            elif path.startswith("/api/models/lab/tiny/revision/"):
                self._answer(404, **{"X-Error-Code": "RevisionNotFound"})
            elif path == f"/api/models/lab/tiny/tree/{hub.commit}":
                self._json(hub.tree())
            elif path.startswith(f"/lab/tiny/resolve/{hub.commit}/"):
                self._file(path.removeprefix(f"/lab/tiny/resolve/{hub.commit}/"))
            else:
                self._answer(404, **{"X-Error-Code": "RepoNotFound"})

        def _file(self, name: str) -> None:
            data = (hub.folder / name).read_bytes()
            stated = {"ETag": f'"{git_id(data)}"', "X-Repo-Commit": hub.commit}
            if name.endswith(".safetensors"):
                stated["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
                stated["X-Linked-Size"] = str(len(data))
            if name in hub.torn:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self._answer(200, data, **stated)

        def _json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

        def _answer(self, status: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
