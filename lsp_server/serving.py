"""Runs the language server: on standard input and output, or for one client on a loopback address."""

from __future__ import annotations

import logging
import os
import sys

from inference.endpoint import WorkerSettings, endpoint
from lsp_server.server import server


def _prepare() -> None:
    """Leaves the workspace: nothing in it may be imported, and its folder must stay removable."""
    state = endpoint(WorkerSettings()).state
    os.chdir(state)
    logging.basicConfig(
        level=os.environ.get("FIMBLE_LOG", "WARNING").upper(),
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
    )


def serve_stdio() -> None:
    """Runs the server on standard input and output until the client exits."""
    if sys.stdin.isatty():
        print("fimble speaks LSP on standard input; `fimble --help` lists its commands", file=sys.stderr)
    _prepare()
    try:
        server.start_io()
    finally:
        server.metrics.flush()


def serve_tcp(host: str, port: int) -> None:
    """Runs the server for one client on a loopback address. Raises `ValueError` for any other address."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"{host} is not a loopback address; the language server has no authentication")
    _prepare()
    try:
        server.start_tcp(host, port)
    finally:
        server.metrics.flush()
