"""`python -P -m inference.download ID [--card]`: a model's files from the hub, going on where it was cut off.

A process of its own, so that neither the language server nor its commands import the hub's library.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import huggingface_hub
from huggingface_hub import constants

WANTED = ["*.safetensors", "*.json", "*.jinja", "LICENSE*", "README.md"]
"""No other form of the weights, which would double the download."""

hub: Any = huggingface_hub


def card(name: str) -> dict[str, Any]:
    """The licence and the bytes of a model on the hub. Raises what the hub's library raises."""
    info: Any = hub.model_info(name, files_metadata=True, timeout=10)
    fields: Any = info.card_data.to_dict() if info.card_data else {}
    files = [file for file in info.siblings if Path(file.rfilename).suffix in (".safetensors", ".json", ".jinja")]
    text = ""
    for file in info.siblings:
        if file.rfilename.upper().startswith("LICENSE"):
            text = Path(hub.hf_hub_download(name, file.rfilename)).read_text("utf-8", "replace")
    return {
        "licence": fields.get("license_name") or fields.get("license") or "none named",
        "text": text,
        "size": sum(file.size or 0 for file in files),
        "free": shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free,
    }


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def main(arguments: list[str]) -> int:
    """Prints one JSON object: what was found, the folder, or the error; the exit status."""
    name = arguments[0]
    try:
        found = card(name) if "--card" in arguments else {"folder": hub.snapshot_download(name, allow_patterns=WANTED)}
    except Exception as error:  # noqa: BLE001  many kinds, all for the user
        found = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"}
    print(json.dumps(cast(dict[str, Any], found)))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
