"""What crosses between the language server and the worker: requests and replies as plain data.

Both sides import this module, so it imports neither torch nor pygls. On the wire each value is one JSON object;
a reply to `POST /v1/fim` is a stream of `Piece` lines closed by one `End` line a choice (newline-delimited JSON).
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, TypeVar, cast

import attrs
from cattrs import BaseValidationError, transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception

Priority = Literal["interactive", "background"]
EndReason = Literal[
    "eos", "line", "lines", "dedent", "suffix", "stop", "tokens", "window", "superseded", "cancelled", "repeated"
]
"""`stop`: one of a text request's own strings; `repeated`: an alternative that has no text of its own to offer."""

T = TypeVar("T")


def _between(low: float, high: float) -> Any:
    return attrs.validators.and_(attrs.validators.ge(low), attrs.validators.le(high))


def _is_pattern(_: Any, attribute: Any, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{attribute.name} is no regular expression: {error}") from error


@attrs.frozen
class Stops:
    """Where a completion ends, decided by the server from the syntax, applied by the worker while it decodes."""

    max_tokens: int = attrs.field(default=64, validator=_between(0, 1_000_000))
    """Most tokens generated (those that spell out the held-back piece included); 0 only warms the cache."""
    end_of_line: bool = False
    """End before the first line break, unless the line opens something: see `opens`."""
    opens: str = attrs.field(default="", validator=_is_pattern)
    """A regular expression for lines after which something is open, searched in a line with `head` before the first.

    Such a line, or one that leaves a bracket open, does not end the completion; it goes on to where a line stands no
    deeper than the one that opened. Empty: the first line break is the end, whatever stands before it."""
    head: str = ""
    """The cursor's line up to the cursor, as far as it matters to `opens` and to the indentation."""
    max_lines: int = attrs.field(default=0, validator=_between(0, 10_000))
    """End before the line break that would begin line `max_lines` + 1 of the completion; 0: no limit."""
    dedent_below: int = attrs.field(default=0, validator=_between(0, 1_000_000))
    """End before a non-blank new line indented by less than this many columns (a tab counts as one); 0: off."""
    closers: tuple[str, ...] = ()
    """A line one column below `dedent_below` that starts with one of these closes the block and is kept."""
    middles: tuple[str, ...] = ()
    """One that starts with one of these, `else` say, goes on with the block."""
    suffix_head: str = ""
    """The text after the hole to the end of its first non-blank line: the completion ends before it repeats that.

    If it begins with a line break, a whole line must not be repeated; else the rest of the cursor's line."""


@attrs.frozen
class Sampling:
    """`temperature` 0 is greedy; the rest applies only above 0. `seed` makes a sampled answer repeatable."""

    temperature: float = attrs.field(default=0.0, validator=_between(0, 10))
    top_p: float = attrs.field(default=1.0, validator=_between(0.0001, 1))
    top_k: int = attrs.field(default=0, validator=_between(0, 1_000_000))
    seed: int | None = None


@attrs.frozen
class FimRequest:
    """`POST /v1/fim`: fill the hole between `prefix` and `suffix`, the middle beginning with `typed`.

    The text before the cursor is `prefix + typed`; the prompt is `begin prefix hole suffix end typed`, so that only
    `typed` changes from keystroke to keystroke. All text has LF line breaks.
    """

    prefix: str
    suffix: str = ""
    typed: str = ""
    stops: Stops = attrs.field(factory=Stops)
    n: int = attrs.field(default=1, validator=_between(1, 16))
    alternatives: int = attrs.field(default=0, validator=_between(0, 8))
    """So many choices more, 1 to `alternatives`, of other texts: they branch off choice 0 where it was least certain.

    Only with `n` 1 and temperature 0. Each comes once its text is known to be new, with background priority."""
    sampling: Sampling = attrs.field(factory=Sampling)
    priority: Priority = "interactive"
    id: str = ""
    session: str = ""
    """Editor and document: a newer request of a session replaces the older one. Empty: never replaced."""
    heal: bool = True
    """Hold back the unfinished last piece before the cursor and generate only what extends it."""
    reuse: bool = True
    """Use and feed the prefix cache; False computes everything anew (for measuring and checking)."""
    top_logprobs: int = attrs.field(default=0, validator=_between(0, 20))
    """Report this many most likely tokens beside each one that was chosen (0 to 20)."""

    def __attrs_post_init__(self) -> None:
        if self.alternatives and (self.n > 1 or self.sampling.temperature > 0):
            raise ValueError("alternatives are of one greedy answer: leave n at 1 and temperature at 0")

    @property
    def choices(self) -> int:
        """How many `End`s the reply has."""
        return self.n + self.alternatives


@attrs.frozen
class Piece:
    """Text that became certain at one step. `logprob` is the sum over the step's tokens, in nats."""

    text: str
    logprob: float
    tokens: int = 1
    choice: int = 0
    top: tuple[tuple[str, float], ...] = ()
    """With `top_logprobs`: (token text, log-probability) of the likeliest tokens at this step."""


@attrs.frozen
class Timing:
    """Milliseconds since the worker read the request."""

    queued: float = 0.0
    first_token: float = 0.0
    total: float = 0.0


@attrs.frozen
class End:
    """The last line of a choice: why it ended, and what it cost, in tokens."""

    reason: EndReason
    prompt: int = 0
    reused: int = 0
    prefilled: int = 0
    decoded: int = 0
    timing: Timing = attrs.field(factory=Timing)
    choice: int = 0


@attrs.frozen
class Health:
    """`GET /health`: answered from the first second on, while the model still loads."""

    status: Literal["loading", "ready", "failed"]
    version: str
    model: str
    fingerprint: str
    """Of every setting that changes answers or memory; a server that wants another one must not use this worker."""
    pid: int
    stage: str = ""
    progress: float = 0.0
    error: str = ""
    device: str = ""
    dtype: str = ""
    window: int = 0
    """Longest prompt + completion, in tokens."""
    chars_per_token: float = 0.0
    """Measured over the text this worker has encoded so far."""
    infilling: bool = True
    """False: the model has no fill-in-the-middle markers; `POST /v1/fim` says which are missing."""
    idle_s: float = 0.0
    running: int = 0


@attrs.frozen
class Failure:
    """The body of an error answer. 413 (`too_long`) carries the figures, so that the caller can shrink its prompt."""

    error: Literal["malformed", "loading", "failed", "too_long", "no_infilling", "unauthorised", "out_of_memory"]
    message: str
    tokens: int = 0
    window: int = 0
    chars_per_token: float = 0.0


converter = make_converter(forbid_extra_keys=True)


def _exactly(kind: type[Any], *also: type[Any]) -> None:
    # cattrs would turn null into the text "None"; a malformed request must be refused instead.
    def hook(value: Any, _: Any) -> Any:
        if type(value) not in (kind, *also):
            raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
        return kind(value)

    converter.register_structure_hook(kind, hook)


_exactly(str)
_exactly(bool)
_exactly(int)
_exactly(float, int)


def _list_of_text(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {type(value).__name__}")
    return tuple(converter.structure(item, str) for item in cast(list[Any], value))


converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _list_of_text)


def _omit_defaults(cls: type[Any]) -> None:
    converter.register_unstructure_hook(cls, make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True))


def _lenient(cls: type[Any]) -> None:
    # Replies may grow fields; an older server must still read them.
    converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=False))


for _cls in (Stops, Sampling, FimRequest, Timing, Piece, End, Health, Failure):
    _omit_defaults(_cls)
for _cls in (Timing, Piece, End, Health, Failure):
    _lenient(_cls)


def dumps(value: Any) -> bytes:
    """One JSON object without line breaks, in ASCII (lone surrogates survive as escapes)."""
    return json.dumps(converter.unstructure(value), separators=(",", ":")).encode("ascii")


def _explain(error: BaseException, kind: type[Any] | None) -> str:
    # Our own checks say more than "invalid value".
    return str(error) if isinstance(error, ValueError | TypeError) else format_exception(error, kind)


def loads(data: bytes | str, cls: type[T]) -> T:
    """The value of one JSON object. Raises `ValueError` naming what does not fit."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, not {type(value).__name__}")
    try:
        return converter.structure(value, cls)
    except BaseValidationError as error:
        raise ValueError("; ".join(transform_error(error, format_exception=_explain))) from error
