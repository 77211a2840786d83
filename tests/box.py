"""A machine with a worker that listens for other machines."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import attrs

from inference.endpoint import Endpoint, WorkerSettings, endpoint
from tests.conftest import FIMBLE


@attrs.frozen
class Box:
    """A machine with a worker that listens, and what its user saw."""

    env: dict[str, str]
    url: str
    where: Endpoint
    process: subprocess.Popen[str]

    @property
    def key(self) -> Path:
        """The file with the key that the worker made."""
        return Path(self.env["XDG_CONFIG_HOME"]) / "fimble" / "api-key"


def serving(env: dict[str, str], *options: str) -> Box:
    """Runs `fimble worker run --listen` until it says where it listens."""
    command = [FIMBLE, "worker", "run", "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    log = Path(re.findall(r"log: (.*)", process.stdout.readline())[0])
    deadline = time.monotonic() + 60
    while not (found := re.search(r"listening on \[\('127.0.0.1', (\d+)\)\]", log.read_text() if log.exists() else "")):
        assert time.monotonic() < deadline, process.stdout.read() if process.poll() is not None else "no port"
        time.sleep(0.05)
    return Box(env, f"http://127.0.0.1:{found[1]}", endpoint(WorkerSettings()), process)
