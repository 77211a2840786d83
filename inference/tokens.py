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
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer

from inference.lines import Lines, independent
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
    """One model's tokenizer, seen as this project needs it. Not thread-safe: the engine's thread owns it.

    `by_line` says whether its lines are independent, so that a keystroke costs as little in a long file as in a short.
    """

    def __init__(self, file: Path):
        """Reads a `tokenizer.json`. Raises `FileNotFoundError`, `ValueError` (not byte-level BPE)."""
        spec: dict[str, Any] = json.loads(file.read_text("utf-8"))
        added = cast(list[dict[str, Any]], spec.get("added_tokens") or [])
        self._control = {str(token["content"]): int(token["id"]) for token in added if _is_control(token)}
        spec["added_tokens"] = [token for token in added if not _is_control(token)]
        spec["truncation"] = spec["padding"] = spec["post_processor"] = None
        self._tokenizer = Tokenizer.from_str(json.dumps(spec))
        self.vocabulary = Vocabulary(token_bytes(spec, hidden=set(self._control.values())))
        literals = [str(token["content"]) for token in spec["added_tokens"]]
        # The pieces too: the vocabulary may hold a token across a line break that no sample brings out.
        self.by_line = independent(self._spelled_pieces, literals) and independent(self._ids, literals)
        self._lines = Lines(self._ids, self.by_line)
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
        """Measured over all text encoded so far, however often it came and whether or not its ids were remembered."""
        return self._characters / max(1, self._tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which marker strings are ordinary characters; lone surrogates count as U+FFFD."""
        ids = self._ids(text)
        self._measure(len(text), len(ids))
        return ids

    def encode_stable(self, text: str) -> list[int]:
        """`encode` for text that comes again with the next keystroke, a little changed."""
        ids: list[int] = []
        self._append(ids, text)
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that `ids` spell; control tokens spell nothing."""
        return b"".join(self.vocabulary.bytes_of(i) for i in ids)

    def prompt(self, request: FimRequest, markers: Markers) -> Prompt:
        """`bos begin prefix hole suffix end typed`, less what is held back before the cursor."""
        ids, held = [markers.bos, markers.begin], b""
        if request.heal and not request.typed:
            held = self._append_healed(ids, request.prefix)
        else:
            self._append(ids, request.prefix)
        ids.append(markers.hole)
        self._append(ids, request.suffix)
        ids.append(markers.end)
        if request.heal and request.typed:
            held = self._append_healed(ids, request.typed)
        else:
            self._append(ids, request.typed)
        return Prompt(ids, held)

    def _append_healed(self, ids: list[int], text: str) -> bytes:
        """Appends the ids of `text` without its unfinished last piece; returns the bytes of that piece.

        The piece is the tokenizer's own last pre-token (a word with its leading space, a run of spaces, a run of
        punctuation): whatever is typed next, the tokens before it stay as they are.
        """
        last, held = clean(text[text.rfind("\n") + 1 :]), ""
        if near := last[-4 * LONGEST_PIECE :]:
            held = near[self._pieces(near)[-1][1][0] :]
        if len(held) <= LONGEST_PIECE:
            self._append(ids, text, last.removesuffix(held))
            return held.encode()
        self._append(ids, text)
        return self.vocabulary.bytes_of(ids.pop())

    def _append(self, ids: list[int], text: str, last: str | None = None) -> None:
        before = len(ids)
        self._lines.append(ids, text, last)
        self._measure(len(text), len(ids) - before)

    def _measure(self, characters: int, tokens: int) -> None:
        self._characters += characters
        self._tokens += tokens

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(clean(text), add_special_tokens=False).ids

    def _pieces(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """The pre-tokens of `text`, in the byte alphabet, and from where to where they stand in it."""
        splitter = cast(PreTokenizer | None, self._tokenizer.pre_tokenizer)
        return splitter.pre_tokenize_str(text) if splitter else [(text, (0, len(text)))]

    def _spelled_pieces(self, text: str) -> list[str]:
        return [piece for piece, _ in self._pieces(text)]


def clean(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, as U+FFFD; lines stay lines.

    Its length in code points stays the same, unless the two halves of a pair stand beside each other.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_control(token: dict[str, Any]) -> bool:
    # DeepSeek's FIM tokens are not flagged special, so their form decides too.
    content = str(token["content"])
    return bool(token.get("special")) or (content[:1] == "<" and content[-1:] == ">" and len(content) > 2)
