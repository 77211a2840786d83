"""The user's own settings file, below what an editor says: shared by all editors and the command line.

`settings.toml` in the configuration folder of the system (`~/.config/fimble` on Linux), with the names of the section
`fimble`: `model = "…"`, `[worker]`, `url = "…"`. `fimble setup` writes it, keeping what else stands there.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import platformdirs


def file() -> Path:
    """Where it lies, whether or not it exists."""
    return Path(platformdirs.user_config_dir("fimble")) / "settings.toml"


def read() -> tuple[dict[str, Any], list[str]]:
    """What it holds, and what was wrong with it; nothing if there is none."""
    path = file()
    try:
        return tomllib.loads(path.read_text("utf-8")), []
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, [f"the settings file {path} can't be read and is left out: {error}"]


def write(changes: dict[str, str]) -> Path:
    """Sets top-level names, keeping the rest of the file with its comments; "" takes a name out.

    Raises `OSError`, and `ValueError` if the file that is there can't be read.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = file()
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ValueError(f"the settings file {path} can't be read: {error}; mend or remove it") from error
    for name, value in changes.items():
        if value:
            document[name] = value
        elif name in document:
            del document[name]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_suffix(".new")
    new.write_text(tomlkit.dumps(document), "utf-8")
    new.replace(path)  # never half a file
    return path
