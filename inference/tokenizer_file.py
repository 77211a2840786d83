"""A `tokenizer.json` as this project uses it: what is control apart from what is text, and no space put before text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import attrs

from inference import families
from inference.vocabulary import Vocabulary, kinds, token_bytes

TAG = re.compile(r"</?[a-z]+[1-6]?>")
"""HTML's, of which Gemma's tokenizer has many as tokens: they are text unless flagged, `<s>` too."""
TAGGED = re.compile(r"<.+>", re.DOTALL)


@attrs.frozen
class TokenizerFile:
    """What one file holds."""

    spec: dict[str, Any]
    """For `tokenizers.Tokenizer`, without the control tokens: text can't become one."""
    control: dict[str, int]
    """Control tokens by what they are written as."""
    ambiguous: dict[str, list[int]]
    """Those that the file gives several ids."""
    vocabulary: Vocabulary
    leads: bool
    """Whether this tokenizer by itself puts a space before a text, as SentencePiece does; `spec` does not."""
    splits: bool
    """Whether it cuts text into pieces before it looks for tokens; SentencePiece's don't."""


def read(file: Path) -> TokenizerFile:
    """Raises `FileNotFoundError`, `ValueError` (neither byte-level BPE nor BPE with bytes to fall back on)."""
    spec: dict[str, Any] = json.loads(file.read_text("utf-8"))
    added = cast(list[dict[str, Any]], spec.get("added_tokens") or [])
    vocab = cast(dict[str, int], spec["model"]["vocab"]) if isinstance(spec["model"]["vocab"], dict) else {}
    found: dict[str, set[int]] = {}
    for token in added:
        if is_control(token):
            found.setdefault(str(token["content"]), set()).add(int(token["id"]))
    splits = "ByteLevel" in kinds(spec.get("decoder"))
    for text in set[str]() if splits else families.CONTROL & vocab.keys() - {str(token["content"]) for token in added}:
        found[text] = {vocab[text]}  # SentencePiece's may stand among the ordinary tokens only
    spec["added_tokens"] = [token for token in added if str(token["content"]) not in found]
    for token in spec["added_tokens"]:  # the library numbers those anew that it does not find here
        vocab.setdefault(str(token["content"]), int(token["id"]))
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    leads = _without_leading_space(spec)
    hidden = {i for ids in found.values() for i in ids}
    return TokenizerFile(
        spec,
        {text: min(ids) for text, ids in found.items()},
        {text: sorted(ids) for text, ids in found.items() if len(ids) > 1},
        Vocabulary(token_bytes(spec, hidden)),
        leads,
        splits,
    )


def is_control(token: dict[str, Any]) -> bool:
    """Whether an added token is no text.

    Not all are flagged: neither DeepSeek's nor Qwen's markers are. So the known ones count, and the others by form.
    """
    content = str(token["content"])
    if token.get("special"):
        return True
    if content in families.CONTROL:
        return content not in ("<s>", "</s>")
    return bool(TAGGED.fullmatch(content)) and not TAG.fullmatch(content)


def _without_leading_space(spec: dict[str, Any]) -> bool:
    """Takes out whatever puts a space before each text; returns whether anything did."""
    leads = False
    for part in _components(spec.get("pre_tokenizer")):
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
            leads |= scheme != "never"
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
    normalizer = cast(dict[str, Any] | None, spec.get("normalizer"))
    if normalizer and normalizer.get("type") == "Prepend":
        spec["normalizer"], leads = None, True
    elif normalizer and normalizer.get("type") == "Sequence":
        steps = cast(list[dict[str, Any]], normalizer["normalizers"])
        normalizer["normalizers"] = [step for step in steps if step.get("type") != "Prepend"]
        leads |= len(normalizer["normalizers"]) < len(steps)
    return leads


def _components(part: Any) -> list[dict[str, Any]]:
    """A component of a `tokenizer.json`, and those nested in it."""
    if not isinstance(part, dict):
        return []
    fields = cast(dict[str, Any], part)
    nested = cast(list[Any], fields.get("pretokenizers") or [])
    return [fields, *(found for inner in nested for found in _components(inner))]
