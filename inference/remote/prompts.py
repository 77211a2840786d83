"""Text on its way into a prompt whose tokens somebody else makes, or that goes out as token ids made here.

In either case nothing in a document acts as a control token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from inference.families import CONTROL, NoInfilling
from inference.remote.dialect import Unfit
from inference.wire import FimRequest, Stops

if TYPE_CHECKING:
    from inference.tokens import Markers, Tokens

T = TypeVar("T")

LONGEST_HELD = 32
"""Characters of a word that is held back whole; a longer one is not held back."""
_LAST_PIECE = re.compile(r" ?\w+\Z|[^\S\n]+\Z|[^\w\s]+\Z")
_CONTROL = re.compile("|".join(re.escape(text) for text in sorted(CONTROL, key=len, reverse=True)))
_HALF = re.compile("[\ud800-\udfff]")
BREAK = "\u2060"
"""Word joiner: nothing to see, and no tokenizer's marker has one."""


def cleaned(request: FimRequest) -> FimRequest:
    """`request` with lone surrogates, which neither JSON nor tokenizers take, as U+FFFD."""
    texts = {"prefix": request.prefix, "typed": request.typed, "suffix": request.suffix}
    odd = {name: text for name, text in texts.items() if _HALF.search(text)}
    clean = {name: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for name, text in odd.items()}
    return attrs.evolve(request, **clean)


def neutral(text: str) -> str:
    """`text` for an engine that takes only text: every family's markers are broken up by an invisible character."""
    return _CONTROL.sub(lambda found: found.group()[:1] + BREAK + found.group()[1:], text)


def apart(text: str) -> list[str]:
    """`text` in pieces, none of which holds a whole marker: for an engine's tokenizer, one call a piece."""
    cuts = [0, *(found.start() + 1 for found in _CONTROL.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts) if start < end]


def last_piece(text: str) -> str:
    """The unfinished piece before the cursor, as most tokenizers split: a word with its space, a run of either kind."""
    found = _LAST_PIECE.search(text, max(0, len(text) - 4 * LONGEST_HELD))
    return found.group() if found and len(found.group()) <= LONGEST_HELD else ""


def native_stops(stops: Stops) -> list[str]:
    """What an engine can stop at by itself; everything else is applied here, while it streams."""
    return ["\n"] if stops.end_of_line and not stops.opens else []


@attrs.frozen
class Ids:
    """A prompt of token ids, and the text that the answer must begin with."""

    ids: list[int]
    held: str


class Tokenizer:
    """Our own tokenizer code over the model's `tokenizer.json`. For one thread."""

    def __init__(self, tokens: Tokens, markers: Markers):
        self._tokens, self._markers = tokens, markers
        self.ends: list[int] = tokens.ends(markers)
        """Ids of control tokens that end an answer."""

    @property
    def chars_per_token(self) -> float:
        """Measured over all text so far."""
        return self._tokens.chars_per_token

    def prompt(self, request: FimRequest, *, heal: bool) -> Ids:
        """The request as the model's family wants it told."""
        made = self._tokens.prompt(attrs.evolve(request, heal=heal), self._markers)
        try:
            return Ids(made.ids, made.held.decode())
        except UnicodeDecodeError:  # a part of a character: no text can demand that
            return self.prompt(request, heal=False)


def tokenizer(path: str, model: str) -> Tokenizer:
    """Reads a `tokenizer.json`, or the one in a folder; `model` is the model's name. Raises `Unfit`."""
    from inference.tokens import Tokens  # late: the `tokenizers` package is for those who name a file

    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        tokens = Tokens(file)
        return Tokenizer(tokens, tokens.markers(model))
    except (OSError, ValueError, NoInfilling) as error:
        raise Unfit(f"`fimble.remote.tokenizer` {path} can't be used: {error}") from error


def joined(lists: Iterable[list[T]]) -> list[T]:
    """One list."""
    return [item for one in lists for item in one]
