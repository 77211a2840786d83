"""A vocabulary as bytes: what each token spells, and which tokens agree with bytes that must be spelled next.

The sorted list of spellings is a byte trie laid flat: the tokens below a node are one contiguous run in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any, cast

from cachetools import LRUCache

BYTE = re.compile("<0x[0-9A-F]{2}>")


class Vocabulary:
    """Spellings by id, and the reverse."""

    def __init__(self, spellings: list[bytes]):
        """`spellings[id]` is what token `id` spells; empty for control tokens, which are never offered."""
        self._spellings = spellings
        order = sorted((spelling, i) for i, spelling in enumerate(spellings) if spelling)
        self._sorted = [spelling for spelling, _ in order]
        self._ids = [i for _, i in order]
        self._agreeing: LRUCache[bytes, list[int]] = LRUCache(maxsize=512)

    def __len__(self) -> int:
        return len(self._spellings)

    def bytes_of(self, token: int) -> bytes:
        """What `token` spells; b"" for a control token."""
        return self._spellings[token]

    @property
    def ends_at_line_breaks(self) -> bool:
        """Whether no token goes on behind a line break."""
        return not any(b"\n" in spelling[:-1] for spelling in self._sorted)

    def agreeing(self, rest: bytes) -> list[int]:
        """Ids of the tokens that extend `rest` (it included) or that `rest` extends: the mask of token healing.

        Never empty while every single byte of `rest` is in the vocabulary, as it is in byte-level BPE
        and where bytes are fallen back on.
        """
        ids = self._agreeing.get(rest)
        if ids is None:
            ids = self._run(rest)
            for length in range(1, len(rest)):
                ids += self._exactly(rest[:length])
            self._agreeing[rest] = ids
        return ids

    def _run(self, prefix: bytes) -> list[int]:
        start = bisect_left(self._sorted, prefix)
        after = _successor(prefix)
        stop = len(self._sorted) if after is None else bisect_left(self._sorted, after, lo=start)
        return self._ids[start:stop]

    def _exactly(self, spelling: bytes) -> list[int]:
        found: list[int] = []
        at = bisect_left(self._sorted, spelling)
        while at < len(self._sorted) and self._sorted[at] == spelling:
            found.append(self._ids[at])
            at += 1
        return found


def _successor(prefix: bytes) -> bytes | None:
    """The smallest byte string greater than everything that begins with `prefix`; None if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, as `tokenizers`' ByteLevel uses them: character to byte."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + k): b for k, b in enumerate(others)}


def token_bytes(spec: dict[str, Any], hidden: set[int]) -> list[bytes]:
    """What each id of a parsed `tokenizer.json` spells; ids in `hidden` spell nothing.

    Raises `ValueError` for a tokenizer that is neither byte-level BPE nor BPE with bytes to fall back on.
    """
    decoders, vocab = kinds(spec.get("decoder")), spec["model"]["vocab"]
    if not isinstance(vocab, dict) or not decoders & {"ByteLevel", "ByteFallback"}:
        raise ValueError(
            "this tokenizer is neither byte-level BPE nor BPE with byte fallback, the kinds that are supported; "
            "choose a model with one of these"
        )
    ids = cast(dict[str, int], vocab)
    added = {int(token["id"]): str(token["content"]) for token in spec["added_tokens"]}
    size = max(max(ids.values()), *added, *hidden, 0) + 1
    spellings = [b""] * size
    alphabet = byte_alphabet()
    for text, i in ids.items():
        if i in hidden or i in added:
            continue
        if "ByteLevel" not in decoders:
            spellings[i] = _fallen_back(text)
        elif all(c in alphabet for c in text):
            spellings[i] = bytes(alphabet[c] for c in text)
    for i, text in added.items():
        if i not in hidden:
            spellings[i] = text.encode()
    return spellings


def _fallen_back(text: str) -> bytes:
    """What a token of SentencePiece spells: a byte as `<0x0A>`, or text in which U+2581 is a space."""
    return bytes([int(text[3:5], 16)]) if BYTE.fullmatch(text) else text.replace("\u2581", " ").encode()


def kinds(part: Any) -> set[str]:
    """The types named in a component of a `tokenizer.json`, nested sequences included."""
    if isinstance(part, list):
        return {kind for item in cast(list[Any], part) for kind in kinds(item)}
    if not isinstance(part, dict):
        return set()
    fields = cast(dict[str, Any], part)
    return {str(fields.get("type"))} | kinds(fields.get("decoders")) | kinds(fields.get("pretokenizers"))
