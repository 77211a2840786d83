"""Text to token ids and back: a model's markers, prompts built from ids, and what is held back at the cursor.

Nothing a document contains can act as a control token: text is encoded by a copy of the tokenizer that has never heard
of the control tokens, and prompts are put together from ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import attrs
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer

from inference import tokenizer_file
from inference.conversation import pieces
from inference.families import Family, NoInfilling, family, parts
from inference.lines import Lines, independent
from inference.requests import Conversation, TextRequest
from inference.wire import FimRequest

LONGEST_PIECE = 32
"""Characters of a pre-token that is still held back whole; of a longer one only the last token is."""

WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s")
"""What is held back as one piece where the tokenizer itself cuts none."""


@attrs.frozen
class Markers:
    """A model's family, and the id of each of its markers in the model's tokenizer."""

    family: Family
    ids: dict[str, int]

    def __str__(self) -> str:
        return f"{self.family.name} ({', '.join(f'{text} {i}' for text, i in self.ids.items())})"


@attrs.frozen
class Prompt:
    """What the model is given, and the bytes before the cursor that its first tokens must spell out again."""

    ids: list[int]
    held: bytes


class BadPrompt(ValueError):
    """A prompt that this model can't be given."""


class Tokens:
    """One model's tokenizer, seen as this project needs it. Not thread-safe: the engine's thread owns it.

    `by_line` says whether its lines are independent, so that a keystroke costs as little in a long file as in a short.
    """

    def __init__(self, file: Path):
        """Reads a `tokenizer.json`. Raises `FileNotFoundError`, `ValueError` (see `tokenizer_file.read`)."""
        read = tokenizer_file.read(file)
        self._control, self._ambiguous, self._leads, self._splits = (
            read.control,
            read.ambiguous,
            read.leads,
            read.splits,
        )
        self._tokenizer = Tokenizer.from_str(json.dumps(read.spec))
        self.vocabulary = read.vocabulary
        literals = [str(token["content"]) for token in read.spec["added_tokens"]]
        # Not only the ids of samples: the vocabulary may hold a token across a line break that none of them brings out.
        apart = independent(self._spelled_pieces, literals) if read.splits else read.vocabulary.ends_at_line_breaks
        self.by_line = apart and independent(self._ids, literals)
        self._lines = Lines(self._ids, self.by_line)
        self._characters = self._tokens = 0
        self.encode(Path(__file__).read_text("utf-8"))  # the first measure of characters a token

    def markers(self, name: str = "") -> Markers:
        """The markers of the family that this tokenizer belongs to; `name`: the model's. Raises `NoInfilling`."""
        row = family(self._control, name)
        for text in row.markers:
            if text in self._ambiguous:
                raise NoInfilling(f"{text} of the family {row.name} has several token ids: {self._ambiguous[text]}")
            if set(self.encode(text)) & set(self._control.values()):
                raise NoInfilling(
                    f"{text} of the family {row.name} would become a control token inside a document; take the "
                    "tokenizer.json that was published with the model"
                )
        ids = {text: self._control[text] for text in row.markers}
        if len(set(ids.values())) != len(ids):
            raise NoInfilling(f"two markers of the family {row.name} share one token id: {ids}")
        return Markers(row, ids)

    def ends(self, markers: Markers) -> list[int]:
        """Ids of the family's control tokens: any of them ends an answer, for engines that must be told."""
        return sorted({self._control[text] for text in markers.family.control if text in self._control})

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

    @property
    def control(self) -> dict[str, int]:
        """The control tokens by what they are written as."""
        return self._control

    def text_prompt(self, request: TextRequest, opening: Sequence[int], markers: Markers | None) -> Prompt:
        """A text request's ids; `opening`: what the model's tokenizer puts before a text.

        Raises `NoInfilling` for a suffix without `markers`, `BadPrompt` for ids that are none and for no tokens at all.
        """
        given = request.prompt
        if isinstance(given, Conversation):
            ids = [i for piece in pieces(given.text, given.seam, self._control) for i in self._piece_ids(piece)]
        elif isinstance(given, tuple):
            if wrong := [i for i in given if not 0 <= i < len(self.vocabulary)]:
                raise BadPrompt(f"the prompt's token id {wrong[0]} is none of this model's {len(self.vocabulary):,}")
            ids = list(given)
        elif request.suffix is not None:
            if markers is None:
                raise NoInfilling("this model can't fill holes, so it takes no suffix")
            return self.prompt(FimRequest(given, request.suffix), markers)
        else:
            ids = [*opening]
            self._append(ids, " " + given if given and self._leads else given)
        if not ids:
            raise BadPrompt("the prompt is empty, and this model begins a text with nothing")
        return Prompt(ids, b"")

    def _piece_ids(self, piece: int | str) -> list[int]:
        return [piece] if isinstance(piece, int) else self.encode(piece)

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that `ids` spell; control tokens spell nothing."""
        return b"".join(self.vocabulary.bytes_of(i) for i in ids)

    def prompt(self, request: FimRequest, markers: Markers) -> Prompt:
        """The request as the model's family wants it told (see `families.parts`), less what is held back."""
        ids: list[int] = []
        held = b""
        prompt = parts(markers.family, request.prefix, request.suffix, request.typed)
        last = "typed" if any(part.role == "typed" for part in prompt) else "prefix"
        for part in prompt:
            text = part.text
            if part.role == "marker":
                ids.append(markers.ids[text])
                continue
            if part.role == "prefix" and text and self._leads:
                text = " " + text  # SentencePiece puts it before a text, but not before what follows the hole
            if request.heal and part.role == last:
                held = self._append_healed(ids, text)
            else:
                self._append(ids, text)
        return Prompt(ids, held)

    def _append_healed(self, ids: list[int], text: str) -> bytes:
        """Appends the ids of `text` without its unfinished last piece; returns the bytes of that piece.

        The piece is the tokenizer's own last pre-token (a word with its leading space, a run of spaces, a run of
        punctuation): whatever is typed next, the tokens before it stay as they are.
        """
        last = clean(text[text.rfind("\n") + 1 :])
        held = self._unfinished(last[-4 * LONGEST_PIECE :])
        if len(held) <= LONGEST_PIECE:
            self._append(ids, text, last.removesuffix(held))
            return held.encode()
        self._append(ids, text)
        return self.vocabulary.bytes_of(ids.pop())

    def _unfinished(self, text: str) -> str:
        """The last pre-token, and with it those that would be others without it, as spaces are before a digit."""
        pieces = self._pieces(text)
        for at in range(len(pieces) - 1, 0, -1):
            start = pieces[at][1][0]
            if self._pieces(text[:start]) == pieces[:at]:
                return text[start:]
        return text

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
        if not self._splits:
            return [(found.group(), found.span()) for found in WORD.finditer(text)]
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
