"""The key of a worker that listens on the network: made once, kept in a file that only this user can read.

Never on a command line, where every user of a machine sees it, and never in a log.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import platformdirs

ENVIRONMENT = "FIMBLE_API_KEY"
SHORTEST = 16
"""Characters; what `serving` makes has 43."""


class BadKey(Exception):
    """There is no usable key; the message says where one was looked for and what to do."""


def default_file() -> Path:
    """Where the key lies unless a setting says otherwise."""
    return Path(platformdirs.user_config_dir("fimble")) / "api-key"


def source(file: str = "") -> str:
    """Where the key comes from, in words that may be printed."""
    return f"the environment variable {ENVIRONMENT}" if os.environ.get(ENVIRONMENT) else str(_path(file))


def serving(file: str = "") -> str:
    """The key that a worker asks for: from the environment, or from a file, which is made if it is missing.

    Raises `BadKey`.
    """
    if given := os.environ.get(ENVIRONMENT):
        return _checked(given, f"the environment variable {ENVIRONMENT}")
    path = _path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise BadKey(f"the key file {path} can't be made ({error.strerror}); set {ENVIRONMENT} instead") from error
    return _read(path)


def asking(file: str = "") -> str:
    """The key to show to a worker elsewhere: from the environment, or from a file. Raises `BadKey`."""
    if given := os.environ.get(ENVIRONMENT):
        return _checked(given, f"the environment variable {ENVIRONMENT}")
    return _read(_path(file))


def _path(file: str) -> Path:
    return Path(file).expanduser() if file else default_file()


def _read(path: Path) -> str:
    try:
        found = path.stat()
        if os.name != "nt" and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077):
            raise BadKey(f"the key file {path} must be yours and closed to others: chmod 600 {path}")
        return _checked(path.read_text("utf-8").strip(), f"the key file {path}")
    except FileNotFoundError:
        raise BadKey(
            f"there is no key: copy the worker's key file to {path} (chmod 600), or set {ENVIRONMENT}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"the key file {path} can't be read: {error}") from error


def _checked(key: str, where: str) -> str:
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise BadKey(f"{where} must hold one key of at least {SHORTEST} printable ASCII characters without spaces")
    return key
