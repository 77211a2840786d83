"""Text to token ids and back: a model's markers, prompts built from ids, and what is held back at the cursor.

Nothing a document contains can act as a control token: text is encoded by a copy of the tokenizer that has never heard
of the control tokens, and prompts are put together from ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
from cachetools import LRUCache
from tokenizers import Tokenizer

from inference.vocabulary import Vocabulary, token_bytes
from inference.wire import FimRequest

LONGEST_PIECE = 32
"""Characters of a pre-token that is still held back whole; of a longer one only the last token is."""


class NoInfilling(Exception):
    """The model has no usable fill-in-the-middle markers; the message says which are missing."""


@attrs.frozen
class Convention:
    """How a family of models spells an infilling prompt: `bos begin PREFIX hole SUFFIX end MIDDLE` (PSM)."""

    name: str
    begin: str
    hole: str
    end: str
    bos: str
    eos: str


# The bars are U+FF5C and the low lines U+2581; documentation that shows ASCII is a lossy copy.
# Source: DeepSeek-Coder-V2's model card and tokenizer; DeepSeek-Coder V1 spells them alike with other ids.
DEEPSEEK = Convention(
    name="deepseek",
    begin="<｜fim▁begin｜>",
    hole="<｜fim▁hole｜>",
    end="<｜fim▁end｜>",
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
)
CONVENTIONS = (DEEPSEEK,)


@attrs.frozen
class Markers:
    """The ids of a convention's control tokens in one tokenizer."""

    begin: int
    hole: int
    end: int
    bos: int
    eos: int


@attrs.frozen
class Prompt:
    """What the model is given, and the bytes before the cursor that its first tokens must spell out again."""

    ids: list[int]
    held: bytes


class Tokens:
    """One model's tokenizer, seen as this project needs it. Not thread-safe: the engine's thread owns it."""

    def __init__(self, file: Path):
        """Reads a `tokenizer.json`. Raises `FileNotFoundError`, `ValueError` (not byte-level BPE)."""
        spec: dict[str, Any] = json.loads(file.read_text("utf-8"))
        added = cast(list[dict[str, Any]], spec.get("added_tokens") or [])
        self._control = {str(token["content"]): int(token["id"]) for token in added if _is_control(token)}
        spec["added_tokens"] = [token for token in added if not _is_control(token)]
        spec["truncation"] = spec["padding"] = spec["post_processor"] = None
        self._tokenizer = Tokenizer.from_str(json.dumps(spec))
        self.vocabulary = Vocabulary(token_bytes(spec, hidden=set(self._control.values())))
        self._cache: LRUCache[str, list[int]] = LRUCache(maxsize=64)
        self._characters = self._tokens = 0
        self.encode(Path(__file__).read_text("utf-8"))  # the first measure of characters a token

    def markers(self, conventions: Sequence[Convention] = CONVENTIONS) -> Markers:
        """The markers of the first convention that this tokenizer has. Raises `NoInfilling`."""
        missing: list[str] = []
        for convention in conventions:
            spelled = attrs.asdict(convention)
            del spelled["name"]
            lacking = [text for text in spelled.values() if text not in self._control]
            missing.append(f"{convention.name}: {', '.join(lacking)}")
            if lacking:
                continue
            ids = {name: self._control[text] for name, text in spelled.items()}
            if len(set(ids.values())) != len(ids):
                raise NoInfilling(f"two markers of {convention.name} share one token id: {ids}")
            for text in spelled.values():
                if set(self.encode(text)) & set(self._control.values()):
                    raise NoInfilling(f"{text} inside a document would become a control token; refusing this tokenizer")
            return Markers(**ids)
        raise NoInfilling(
            f"no fill-in-the-middle markers in this tokenizer (missing, by family: {'; '.join(missing)}); "
            "choose a base model that was trained to infill, such as DeepSeek-Coder-V2-Lite-Base"
        )

    @property
    def chars_per_token(self) -> float:
        """Measured over all text encoded so far."""
        return self._characters / max(1, self._tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which marker strings are ordinary characters; no lone surrogates (see `clean`)."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        self._characters += len(text)
        self._tokens += len(ids)
        return ids

    def encode_stable(self, text: str) -> list[int]:
        """`encode` for text that comes again with the next keystroke: a prefix or a suffix."""
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = self.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that `ids` spell; control tokens spell nothing."""
        return b"".join(self.vocabulary.bytes_of(i) for i in ids)

    def prompt(self, request: FimRequest, markers: Markers) -> Prompt:
        """`bos begin prefix hole suffix end typed`, less what is held back before the cursor."""
        prefix, typed, held = clean(request.prefix), clean(request.typed), b""
        tail: list[int] = []
        if typed:
            tail, held = self._held_back(typed) if request.heal else (self.encode(typed), b"")
            before = self.encode_stable(prefix)
        elif request.heal:
            before, held = self._held_back(prefix)
        else:
            before = self.encode_stable(prefix)
        after = self.encode_stable(clean(request.suffix))
        return Prompt([markers.bos, markers.begin, *before, markers.hole, *after, markers.end, *tail], held)

    def _held_back(self, text: str) -> tuple[list[int], bytes]:
        """Ids of `text` without its unfinished last piece, and the bytes of that piece.

        The piece is the tokenizer's own last pre-token (a word with its leading space, a run of spaces, a run of
        punctuation): whatever is typed next, the tokens before it stay as they are.
        """
        line = text[text.rfind("\n") + 1 :][-4 * LONGEST_PIECE :]
        if not line:
            return self.encode_stable(text), b""
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(line)  # pyright: ignore
        start: int = pieces[-1][1][0]
        if len(line) - start <= LONGEST_PIECE:
            kept = text[: len(text) - len(line) + start]
            return self.encode_stable(kept), line[start:].encode()
        ids = self.encode(text)
        return ids[:-1], self.vocabulary.bytes_of(ids[-1])


def clean(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, as U+FFFD; its length in code points stays the same."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_control(token: dict[str, Any]) -> bool:
    # DeepSeek's FIM tokens are not flagged special, so their form decides too.
    content = str(token["content"])
    return bool(token.get("special")) or (content[:1] == "<" and content[-1:] == ">" and len(content) > 2)
