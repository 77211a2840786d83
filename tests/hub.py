"""A hub for models on this machine: the routes that `huggingface_hub` asks, and connections that break when told to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

COMMIT = "5e0f1c0de5e0f1c0de5e0f1c0de5e0f1c0de5e0f"
"""The only one of the repository."""
LARGE = 2**20
"""Bytes from which a file is kept as the hub keeps large ones, under its sha256."""
PIECE = 2**18


@attrs.define(eq=False)
class Hub:
    """One repository; tests set what it does while it runs."""

    name: str
    folder: Path
    gated: bool = False
    """Files are refused, as to who has not accepted the terms."""
    breaks: list[int] = attrs.field(factory=list[int])
    """Bytes of a large file after which the connection is cut, one for each request that asks for one."""
    stalls: int = 0
    """Bytes of a large file after which nothing more comes, unless 0."""
    broken: bool = False
    """Every connection for a large file is cut at once."""
    asked: list[tuple[str, int]] = attrs.field(factory=list[tuple[str, int]])
    """Large files that were sent, and from which byte."""
    address: str = ""
    _told: dict[Path, dict[str, Any]] = attrs.field(factory=dict[Path, dict[str, Any]])

    def files(self) -> list[dict[str, Any]]:
        """Every file as the hub's API tells it."""
        return [self.described(file) for file in sorted(self.folder.iterdir())]

    def described(self, file: Path) -> dict[str, Any]:
        """One of them; what is told of it once stays true."""
        if file not in self._told:
            data = file.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            large = {"lfs": lfs} if len(data) >= LARGE else {}
            self._told[file] = {"path": file.name, "size": len(data), "oid": blob} | large
        return self._told[file]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        """See `do_GET`."""
        self.do_GET()

    def do_GET(self) -> None:
        """Every route."""
        path, hub = unquote(urlsplit(self.path).path), self.hub
        if path in (f"/api/models/{hub.name}", f"/api/models/{hub.name}/revision/main"):
            return self._json(self._info())
        if path == f"/api/models/{hub.name}/tree/{COMMIT}":
            return self._json([{"type": "file"} | file for file in hub.files()])
        resolved = re.fullmatch(rf"/{hub.name}/resolve/(?:main|{COMMIT})/([^/]+)", path)
        if resolved and (hub.folder / resolved[1]).is_file():
            if hub.gated:
                return self._refuse(403, "GatedRepo", "Access to this model is restricted")
            return self._file(hub.folder / resolved[1])
        self._refuse(404, "EntryNotFound" if resolved else "RepoNotFound", "not here")

    def _info(self) -> dict[str, Any]:
        card: dict[str, str] = {}
        readme = self.hub.folder / "README.md"
        if readme.is_file():
            head = readme.read_text().split("---\n")[1]
            card = dict(line.split(": ", 1) for line in head.splitlines())
        files = [
            {"rfilename": file["path"], "size": file["size"], "blobId": file["oid"]}
            | ({"lfs": {"sha256": file["lfs"]["oid"]} | file["lfs"]} if "lfs" in file else {})
            for file in self.hub.files()
        ]
        return {"id": self.hub.name, "sha": COMMIT, "private": False, "tags": [], "cardData": card, "siblings": files}

    def _file(self, file: Path) -> None:
        told = self.hub.described(file)
        data, etag = file.read_bytes(), told.get("lfs", told)["oid"]
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0")))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(data)
        if "lfs" in told:
            self.hub.asked.append((file.name, start))
            end = start if self.hub.broken else self.hub.breaks.pop(0) if self.hub.breaks else self.hub.stalls or end
        with contextlib.suppress(ConnectionError):  # the client is gone
            for at in range(start, end, PIECE):
                self.wfile.write(data[at : min(at + PIECE, end)])
            if self.hub.stalls:
                self.rfile.read(1)
        self.close_connection = end < len(data)

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Runs a hub on a loopback port, in threads."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
