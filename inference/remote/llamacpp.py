"""llama.cpp's own server: `/completion` with token ids and a grammar, `/tokenize`, `/props`.

Without a `tokenizer.json` the server's own tokenizer makes the ids, piece by piece, so that no marker acts in a text.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from cachetools import LRUCache

from inference.families import CONTROL, Family, NoInfilling, Part, family, parts
from inference.remote.dialect import TEXT_CHARS_PER_TOKEN, Ask, Delta, Found, Loading, Token, TooLong, Unfit
from inference.remote.http import Http, Rejected
from inference.remote.prompts import Ids, Tokenizer, apart, joined, last_piece, native_stops, tokenizer
from inference.wire import FimRequest

BETWEEN = -1
"""No token's id."""
TEXTS = 64
"""Texts whose ids are remembered: prefixes and suffixes come again with each keystroke."""
SAMPLE = Path(__file__).read_text("utf-8")
"""Code, for the first measure of characters a token."""
ADVICE = "set `fimble.remote.tokenizer` to the model's tokenizer.json"


class LlamaCpp:
    """One llama.cpp server behind `http`, whose base has no `/v1`."""

    constrains, bills = True, False

    def __init__(self, http: Http, tokenizer_file: str = ""):
        self._http, self._file = http, tokenizer_file
        self._window = 0
        self._tokenizer: Tokenizer | None = None
        self._own: _OwnTokenizer | None = None

    @property
    def chars_per_token(self) -> float:
        """Measured over the prompts so far."""
        made = self._tokenizer or self._own
        return made.chars_per_token if made else TEXT_CHARS_PER_TOKEN

    async def look(self) -> Found:
        """Asks for its health, properties and markers."""
        try:
            await self._http.get("/health")
        except Rejected as error:
            if error.status == 503:
                raise Loading("llama.cpp is loading the model") from error
            raise
        props = cast(dict[str, Any], await self._http.get("/props"))
        model = str(props.get("model_alias") or props.get("model_path") or "")
        self._window = int(props["default_generation_settings"]["n_ctx"])
        if self._file and self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(tokenizer, self._file, model)
        elif not self._file:
            # Anew each time: the server may have come back with another model.
            self._own = await _OwnTokenizer.of(self._http, model)
        return Found(model, self._window)

    async def ask(self, request: FimRequest, *, heal: bool, likeliest: int) -> Ask:
        """Token ids, and the grammar of what they are to be followed by."""
        prompt = await self._prompt(request, heal=heal)
        sampling, most = request.sampling, request.stops.max_tokens
        if len(prompt.ids) + most > self._window:
            raise TooLong(len(prompt.ids), most, self._window)
        body: dict[str, Any] = {
            "prompt": prompt.ids,
            "n_predict": most,
            "temperature": sampling.temperature,
            "n_probs": likeliest if most else 0,
            "stop": native_stops(request.stops),
            "cache_prompt": request.reuse,
            "stream": True,
            "timings_per_token": True,  # most streams are closed before the last event, which has them anyway
        }
        if sampling.temperature:
            body |= {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": 0.0, "seed": sampling.seed or -1}
        if prompt.held:
            body["grammar"] = beginning_with(prompt.held)
        return Ask("/completion", body, prompt.held, len(prompt.ids))

    async def _prompt(self, request: FimRequest, *, heal: bool) -> Ids:
        if self._tokenizer:
            return self._tokenizer.prompt(request, heal=heal)
        assert self._own
        return await self._own.prompt(request, heal=heal)

    def read(self, event: dict[str, Any]) -> Delta:
        """An event of `/completion`."""
        timings = cast(dict[str, Any], event.get("timings") or {})
        kind = str(event.get("stop_type") or "")
        finished = {"limit": "length", "": ""}.get(kind, "stop") if event.get("stop") else ""
        return Delta(
            text=str(event.get("content") or ""),
            tokens=tuple(map(_token, cast(list[dict[str, Any]], event.get("completion_probabilities") or []))),
            finished=finished,
            stopped_at=str(event.get("stopping_word") or ""),
            prompt=event.get("tokens_evaluated") if timings else None,
            reused=timings.get("cache_n"),
            decoded=timings.get("predicted_n"),
        )


class _OwnTokenizer:
    """The server's tokenizer, for texts in which nothing is to be a marker."""

    def __init__(self, http: Http, row: Family, control: dict[str, int]):
        self._http, self._family, self._control = http, row, control
        self._known: LRUCache[str, list[int]] = LRUCache(TEXTS)
        self._characters = self._tokens = 0

    @classmethod
    async def of(cls, http: Http, model: str) -> _OwnTokenizer:
        """Finds the markers and, by them, the model's family. Raises `Unfit`."""
        strings = sorted(CONTROL)
        whole = await _ids(http, strings, special=True)
        control = {text: ids[0] for text, ids in zip(strings, whole, strict=True) if len(ids) == 1}
        try:
            row = family(control, model)
        except NoInfilling as error:
            raise Unfit(f"{model or 'the model'}: {error}") from error
        made = cls(http, row, control)
        (one,) = await _ids(http, ["a"])
        if await _text(http, one) != "a":
            raise Unfit(f"its tokenizer adds a space before each text; {ADVICE}")
        for text in row.markers:
            if control[text] in joined(await made.encode([text])):
                raise Unfit(f"{text} inside a document would become a control token; {ADVICE}")
        made._characters = made._tokens = 0
        await made.encode([SAMPLE])
        return made

    @property
    def chars_per_token(self) -> float:
        """Measured over all texts so far."""
        return self._characters / max(1, self._tokens)

    async def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, in which markers are ordinary characters."""
        found = {text: self._known.get(text) for text in texts}
        new = [text for text, ids in found.items() if ids is None]
        pieces = [apart(text) for text in new]
        ids = iter(await _ids(self._http, joined(pieces)) if joined(pieces) else [])
        for text, parted in zip(new, pieces, strict=True):
            found[text] = self._known[text] = made = joined([next(ids) for _ in parted])
            self._characters, self._tokens = self._characters + len(text), self._tokens + len(made)
        return [found[text] or [] for text in texts]

    async def prompt(self, request: FimRequest, *, heal: bool) -> Ids:
        """The request as the model's family wants it told, less what is held back."""
        told = parts(self._family, request.prefix, request.suffix, request.typed)
        last = max(i for i, part in enumerate(told) if part.role in ("typed", "prefix"))
        held = last_piece(told[last].text) if heal else ""
        told[last] = Part(told[last].role, told[last].text.removesuffix(held))
        texts = iter(await self.encode([part.text for part in told if part.role != "marker"]))
        return Ids(joined([self._control[p.text]] if p.role == "marker" else next(texts) for p in told), held)


def beginning_with(held: str) -> str:
    """A grammar in GBNF for texts that begin with `held`."""
    spelled = "".join({'"': '\\"', "\\": "\\\\", "\t": "\\t", "\r": "\\r"}.get(c, c) for c in held)
    return f'root ::= "{spelled}" [^\\x00]*'


async def _ids(http: Http, texts: list[str], *, special: bool = False) -> list[list[int]]:
    """Ids of each text by one call: llama.cpp takes texts and ids mixed, and leaves ids as they are."""
    content = [item for text in texts for item in (text, BETWEEN)]
    body = {"content": content, "add_special": False, "parse_special": special}
    ids = cast(list[int], (await http.post("/tokenize", body))["tokens"])
    found: list[list[int]] = [[]]
    for i in ids:
        if i == BETWEEN:
            found.append([])
        else:
            found[-1].append(i)
    return found[:-1]


async def _text(http: Http, ids: list[int]) -> str:
    return str((await http.post("/detokenize", {"tokens": ids}))["content"])


def _token(fields: dict[str, Any]) -> Token:
    tops = cast(list[dict[str, Any]], fields.get("top_logprobs") or [])
    top = tuple((str(other["token"]), float(other["logprob"])) for other in tops)
    return Token(str(fields["token"]), float(fields["logprob"]), top)
