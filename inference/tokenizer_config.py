"""What stands beside a `tokenizer.json`: the chat template, and what a text begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import attrs
from tokenizers import Tokenizer


@attrs.frozen
class TokenizerConfig:
    """Of one model's folder."""

    opening: list[int]
    """The ids that this tokenizer puts before a text: bos, or nothing."""
    template: str
    """Jinja; empty for a base model."""
    special: dict[str, str]
    """What a template may name: `bos_token`, `eos_token` …"""


def read(folder: Path) -> TokenizerConfig:
    """Raises `FileNotFoundError` without a `tokenizer.json`, and `ValueError` if a file is no JSON."""
    file = folder / "tokenizer_config.json"
    fields = cast(dict[str, Any], json.loads(file.read_text("utf-8"))) if file.is_file() else {}
    special = {name: text for name, value in fields.items() if name.endswith("_token") and (text := _text(value))}
    return TokenizerConfig(_opening(folder / "tokenizer.json", fields, special), _template(folder, fields), special)


def _opening(file: Path, fields: dict[str, Any], special: dict[str, str]) -> list[int]:
    tokenizer = Tokenizer.from_str(file.read_text("utf-8"))
    bos = tokenizer.token_to_id(special["bos_token"]) if "bos_token" in special else None
    if isinstance(fields.get("add_bos_token"), bool):  # goes before the file's own rule, as in transformers
        return [bos] if fields["add_bos_token"] and bos is not None else []
    plain, whole = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
    return whole[: whole.index(plain[0])] if plain and plain[0] in whole else []


def _template(folder: Path, fields: dict[str, Any]) -> str:
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    found = fields.get("chat_template")
    if isinstance(found, list):  # several by name
        named = {str(one["name"]): str(one["template"]) for one in cast(list[dict[str, Any]], found)}
        return named.get("default", "")
    return found if isinstance(found, str) else ""


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = cast(dict[str, Any], value).get("content")
    return value if isinstance(value, str) else ""
