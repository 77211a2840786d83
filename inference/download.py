"""`python -P -m inference.download ID [--card]`: a model's files from the hub, going on where it was cut off.

A process of its own, so that neither the language server nor its commands import the hub's library.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from inference import blobs

WANTED = ["*.safetensors", "*.json", "*.jinja", "LICENSE*", "README.md"]
UNWANTED = ["*/*", "consolidated*"]
"""No other form of the weights, which would double the download."""
LARGE = 2**24
"""Bytes from which a file is worth going on with; `blobs` does that, the hub's library does not."""

hub: Any = huggingface_hub


def card(name: str) -> dict[str, Any]:
    """A model on the hub: its licence, that one's text, and bytes: all, those yet to come, those free on the disk.

    Raises what the hub's library raises.
    """
    info: Any = hub.model_info(name, files_metadata=True, timeout=10)
    fields: Any = info.card_data.to_dict() if info.card_data else {}
    text = ""
    for file in _wanted(info):
        if file.rfilename.upper().startswith("LICENSE"):
            text = Path(hub.hf_hub_download(name, file.rfilename)).read_text("utf-8", "replace")
    size = sum(file.size or 0 for file in _wanted(info))
    here = sum(blobs.present(name, file.lfs.sha256 if file.lfs else file.blob_id) for file in _wanted(info))
    return {
        "licence": fields.get("license_name") or fields.get("license") or "none named",
        "link": fields.get("license_link") or "",
        "text": text,
        "size": size,
        "missing": size - here,
        "free": shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free,
    }


def download(name: str) -> str:
    """The folder of a model, with all files that are wanted of it. Raises as `blobs.fetch` and the hub's library do."""
    info: Any = hub.model_info(name, files_metadata=True, timeout=10)
    for file in _wanted(info):
        if file.lfs and file.size >= LARGE and os.name != "nt":  # where there are no links, the cache copies
            blobs.fetch(name, info.sha, file.rfilename, file.size, file.lfs.sha256)
    return str(hub.snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED))


def cached(name: str) -> str:
    """The folder of a model of which the cache has all that is wanted, without asking the hub.

    Raises the hub's `LocalEntryNotFoundError`, as `IncompleteSnapshotError` if some files are lacking.
    """
    return str(hub.snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=True))


def _wanted(info: Any) -> list[Any]:
    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    files: list[Any] = info.siblings or []
    return [file for file in files if matches(file.rfilename, WANTED) and not matches(file.rfilename, UNWANTED)]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _failed(name: str, error: Exception) -> dict[str, Any]:
    """What went wrong, of which kind, and the folder if all files are here nevertheless."""
    kind: Literal["gated", "unknown", ""] = (
        "gated"
        if isinstance(error, GatedRepoError)
        else "unknown"
        if isinstance(error, RepositoryNotFoundError)
        else ""
    )
    said = (str(error).strip().splitlines() or ["no reason given"])[0]
    try:
        folder = cached(name)
    except Exception:  # noqa: BLE001  the first error is the one to tell
        folder = ""
    return {"error": f"{type(error).__name__}: {said}", "kind": kind, "folder": folder}


def main(arguments: list[str]) -> int:
    """Prints one JSON object: what was found, the folder, or the error; the exit status."""
    name = arguments[0]
    try:
        found = card(name) if "--card" in arguments else {"folder": download(name)}
    except KeyboardInterrupt:
        found = {"error": "interrupted", "kind": "", "folder": ""}
    except Exception as error:  # noqa: BLE001  many kinds, all for the user
        found = _failed(name, error)
    print(json.dumps(cast(dict[str, Any], found)))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
