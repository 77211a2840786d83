"""Where a worker lives: its settings, its socket and files, and the command that starts it. No torch, no aiohttp.

One worker a user and model. Its folder is this user's alone (0700, owner checked); on it stand the Unix socket, or,
where there are none, a file with a loopback port and a random token that only this user can read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import secrets
import stat
import subprocess
import sys
from pathlib import Path
from typing import Literal

import attrs
import platformdirs

LONGEST_SOCKET = 100
"""Bytes of a socket's path: the kernel's limit is 104 on macOS and 108 on Linux."""


class Unsafe(Exception):
    """The folder or the socket belongs to somebody else; nothing is sent there."""


@attrs.frozen
class WorkerSettings:
    """What a worker is started with. `model`, `device` and `dtype` decide its fingerprint."""

    model: str = "starter"
    """"starter", a folder, a GGUF file, or a hub id whose files are in the cache."""
    device: str = "auto"
    dtype: str = "auto"
    idle_minutes: float = 60.0
    """The worker exits after this long without a request; 0: never."""
    transport: Literal["auto", "unix", "tcp"] = "auto"
    listen: str = ""
    """HOST:PORT on which the worker is reached from elsewhere too, with a key (see `inference.keys`)."""
    url: str = ""
    """Where a worker of another machine is reached; nothing is started here then."""
    key_file: str = ""
    """Of `listen` and `url`, unless the environment has the key; empty: the default file."""

    @property
    def fingerprint(self) -> str:
        """Equal for two workers whose answers and memory are the same."""
        return hashlib.sha256(json.dumps([self.model, self.device, self.dtype]).encode()).hexdigest()[:16]

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, which llama.cpp serves inside the worker."""
        return self.model.lower().endswith(".gguf")

    @property
    def uses_unix(self) -> bool:
        """Whether the worker listens on a Unix socket (on Windows Python has none)."""
        return self.transport == "unix" or (self.transport == "auto" and os.name != "nt")


@attrs.frozen
class Endpoint:
    """The files of the worker of one model."""

    settings: WorkerSettings
    state: Path
    """This user's state folder: logs, and the working directory of every process."""
    socket: Path
    lock: Path
    address: Path
    """Loopback transport: port and token, as JSON."""

    @property
    def log(self) -> Path:
        """The worker's rotating log."""
        return self.state / f"worker-{self.socket.stem}.log"

    @property
    def crash_log(self) -> Path:
        """What the worker printed before its log was open, or as it died."""
        return self.state / f"worker-{self.socket.stem}.err"

    def command(self, python: str | None = None) -> list[str]:
        """The worker's command line. `-P` keeps the current folder off the module path."""
        return [
            python or sys.executable,
            "-P",
            "-m",
            "inference.worker",
            json.dumps(attrs.asdict(self.settings)),
        ]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Starts a worker that outlives this process. If one runs already the new one exits at once (file lock)."""
        with self.crash_log.open("wb") as errors:
            return subprocess.Popen(
                self.command(),
                cwd=self.state,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )

    def check_socket(self) -> None:
        """Raises `Unsafe` unless the socket is this user's; FileNotFoundError if there is none."""
        if os.name != "nt" and self.socket.lstat().st_uid != os.getuid():
            raise Unsafe(f"{self.socket} belongs to another user; remove it or ask them to")

    def write_address(self, port: int) -> str:
        """Publishes the loopback port with a new token, for this user's eyes only; returns the token."""
        token = secrets.token_urlsafe(32)
        new = self.address.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"port": port, "token": token}, file)
        new.replace(self.address)
        return token

    def read_address(self) -> tuple[int, str]:
        """Port and token of the loopback transport. FileNotFoundError if no worker published one."""
        if os.name != "nt" and self.address.lstat().st_uid != os.getuid():
            raise Unsafe(f"{self.address} belongs to another user; remove it or ask them to")
        fields = json.loads(self.address.read_text())
        return int(fields["port"]), str(fields["token"])


def llamacpp_missing() -> str:
    """What to do before a GGUF model can be served here; empty: nothing."""
    if importlib.util.find_spec("xllamacpp"):
        return ""
    return (
        "a GGUF model needs llama.cpp, as the package xllamacpp brings it: "
        f"{sys.executable} -m pip install xllamacpp (where it has no wheel, serve the file with llama.cpp's own "
        "llama-server and set `fimble.backend` to llamacpp)"
    )


def endpoint(settings: WorkerSettings) -> Endpoint:
    """The endpoint of the worker that these settings want; makes its folders. Raises `Unsafe`, `OSError`."""
    if settings.model != "starter" and (settings.is_gguf or Path(settings.model).expanduser().is_dir()):
        settings = attrs.evolve(settings, model=str(Path(settings.model).expanduser().resolve()))
    state = Path(platformdirs.user_state_dir("fimble"))
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The host's name: a home folder may be shared by several machines, a socket can't be.
    identity = f"{platform.node()}\0{state}\0{settings.model}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = _run_folder(state, name)
    return Endpoint(settings, state, folder / f"{name}.sock", folder / f"{name}.lock", folder / f"{name}.address")


def _run_folder(state: Path, name: str) -> Path:
    """The folder of sockets and locks, the same in every session of this user, whatever its environment."""
    folder = state / "run"
    if os.name != "nt" and len(os.fsencode(folder / f"{name}.sock")) > LONGEST_SOCKET:
        folder = Path("/tmp") / f"fimble-{os.getuid()}"  # only POSIX gets here: the loopback transport has no socket
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if os.name != "nt":
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise Unsafe(f"{folder} is not this user's own folder; remove it or set XDG_STATE_HOME")
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    return folder


def clean_environment() -> dict[str, str]:
    """The environment without what would let a workspace put modules in front of ours."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
    }
