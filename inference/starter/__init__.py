"""The embedded starter model: 64M parameters, DeepSeek-V2 architecture, int8 with one scale a row.

MODEL_CARD.md says what it was trained on and how good it is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent
WEIGHTS = "model.int8.safetensors"
WINDOW = 2048
"""The rows it was trained on, in tokens; beyond that its positions were never seen."""

SHA256 = {
    "config.json": "90adaea4386a58ccf60b80b2cab70a7f0a4346d4b0ce009d953dd20eb8c76a5b",
    "tokenizer.json": "2220dc4c91c5fec4ff1d31881199d2fe4dc0a7cb1b488485f008da5f8bcad74e",
    "tokenizer_config.json": "39337f364c9b8d8180d9e714df62603b1c0c107e8ec354dc4397c89471d8761e",
    WEIGHTS: "ab01233d6738d7164600e2214220b472b7278013efe45971ff7279822f996be5",
}


class Damaged(Exception):
    """A file of the embedded model is missing or not what was shipped."""


def verify(folder: Path = FOLDER) -> None:
    """Checks every file against its hash (0.1 s). Raises `Damaged`, which names the file and the way out."""
    for name, expected in SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise Damaged(f"{folder / name} is missing; reinstall fimble") from None
        if found != expected:
            raise Damaged(f"{folder / name} is damaged (sha256 {found[:12]}…, not {expected[:12]}…); reinstall fimble")


def state_dict(folder: Path = FOLDER) -> dict[str, Tensor]:
    """The weights as float32 tensors by name: int8 × scale of its row, norms as they are."""
    import torch
    from safetensors import torch as safetensors

    stored: dict[str, Tensor] = cast(Any, safetensors).load_file(folder / WEIGHTS)
    return {
        name: tensor.float() * stored[f"{name}_scale"].view(-1, 1) if tensor.dtype == torch.int8 else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith("_scale")
    }
