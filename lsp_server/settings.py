"""The user's settings, resolved in one place into one immutable value.

In the editor they are the section `fimble` of the configuration; the names below are the field paths of that section.
Below it lies the user's own file (`user_settings`), which every editor and the command line share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import attrs

from inference.endpoint import WorkerSettings
from lsp_server.backends import exclude
from lsp_server.backends.remote_settings import KEY_VARIABLE, Backend, Engine, RemoteSettings, kind_of


@attrs.frozen
class Settings:
    """Every setting with its default. See `FIELDS` for the names users write."""

    enabled: bool = True
    disabled_languages: tuple[str, ...] = ()
    model: str = "starter"
    device: str = "auto"
    dtype: str = "auto"
    layout: Literal["anchored", "psm"] = "anchored"
    healing: bool = True
    prefix_cache: bool = True
    completion_cache: bool = True
    """Type through what was suggested, and answer a text that was asked about before without the model."""
    speculation: bool = True
    """Ask, in the background, for what comes after a suggestion that is shown."""
    confidence: float = 0.05
    """Probability that the model must give to a suggestion for it to be shown unasked, and not only the words it surely
    begins with; 0 shows all."""
    max_delay_ms: int = 150
    """Most that an automatic request waits for the next key, as far as rhythm and latency advise it; 0: never."""
    prefix_tokens: int = 900
    suffix_tokens: int = 500
    line_tokens: int = 48
    block_tokens: int = 64
    max_lines: int = 8
    idle_minutes: float = 60.0
    transport: Literal["auto", "unix", "tcp"] = "auto"
    worker_url: str = ""
    """Where a worker of another machine is reached, with a key; then nothing is started here."""
    worker_key_file: str = ""
    backend: Backend = "worker"
    """Who answers: the worker, or an engine of others at `remote_urls`, spoken to as llama.cpp or as OpenAI."""
    remote_urls: tuple[str, ...] = ()
    remote_engine: Engine = "auto"
    remote_model: str = ""
    remote_tokenizer: str = ""
    remote_key_variable: str = KEY_VARIABLE
    remote_fallback: bool = False
    exclude: tuple[str, ...] = exclude.DEFAULT
    """Documents that no engine of others may see."""
    trace: bool = False
    """Send a `fimble/trace` notification about each request: what it cost and how it ended."""

    @property
    def worker(self) -> WorkerSettings:
        """What the worker must have been started with."""
        return WorkerSettings(
            self.model,
            self.device,
            self.dtype,
            self.idle_minutes,
            self.transport,
            url=self.worker_url,
            key_file=self.worker_key_file,
        )

    @property
    def remote(self) -> RemoteSettings | None:
        """The engines of others that answer; None: the worker does."""
        if self.backend == "worker":
            return None
        return RemoteSettings(
            kind_of(self.backend, self.remote_engine, self.remote_urls[0]),
            self.remote_urls,
            self.remote_model,
            self.remote_tokenizer,
            self.remote_key_variable,
            self.remote_fallback,
            self.exclude,
        )


Check = Callable[[Any], Any]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a non-empty text")
    return value


def _url(value: Any) -> str:
    wanted = "http://HOST:PORT or https://HOST, without a name or password in it"
    try:
        parts = urlsplit(_text(value))
        fits = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.password)
        fits = fits and parts.port != 0  # asking for the port checks it
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(wanted)
    return value


def _urls(value: Any) -> tuple[str, ...]:
    several = isinstance(value, list) and len(cast(list[Any], value)) > 0
    return tuple(map(_url, cast(list[Any], value))) if several else (_url(value),)


def _or_none(check: Check, none: Any = "") -> Check:
    """An empty field, as editors show one that is not set, is none."""
    return lambda value: none if value in ("", []) else check(value)


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value

    return check


def _number(low: float, high: float, kind: type[float] | type[int]) -> Check:
    def check(value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fits or (kind is int and value != int(value)):
            raise ValueError(f"a {'whole ' if kind is int else ''}number from {low:g} to {high:g}")
        return kind(value)

    return check


def _list_of(what: str) -> Check:
    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in cast(list[Any], value)):
            raise ValueError(f"a list of {what}")
        return tuple(cast(list[str], value))

    return check


FIELDS: dict[str, tuple[str, Check]] = {
    "enabled": ("enabled", _boolean),
    "disabledLanguages": ("disabled_languages", _list_of("language ids")),
    "model": ("model", _text),
    "device": ("device", _text),
    "dtype": ("dtype", _one_of("auto", "float32", "bfloat16", "float16", "int8")),
    "layout": ("layout", _one_of("anchored", "psm")),
    "healing": ("healing", _boolean),
    "prefixCache": ("prefix_cache", _boolean),
    "completionCache": ("completion_cache", _boolean),
    "speculation": ("speculation", _boolean),
    "confidence": ("confidence", _number(0, 1, float)),
    "maxDelayMs": ("max_delay_ms", _number(0, 2000, int)),
    "context.prefixTokens": ("prefix_tokens", _number(64, 65536, int)),
    "context.suffixTokens": ("suffix_tokens", _number(0, 65536, int)),
    "maxTokens.line": ("line_tokens", _number(1, 1024, int)),
    "maxTokens.block": ("block_tokens", _number(1, 4096, int)),
    "maxLines": ("max_lines", _number(1, 500, int)),
    "worker.idleMinutes": ("idle_minutes", _number(0, 1e6, float)),
    "worker.transport": ("transport", _one_of("auto", "unix", "tcp")),
    "worker.url": ("worker_url", _or_none(_url)),
    "worker.keyFile": ("worker_key_file", _or_none(_text)),
    "backend": ("backend", _one_of("worker", "openai", "llamacpp")),
    "remote.url": ("remote_urls", _or_none(_urls, ())),
    "remote.engine": ("remote_engine", _one_of("auto", "vllm", "sglang", "mistral", "generic")),
    "remote.model": ("remote_model", _or_none(_text)),
    "remote.tokenizer": ("remote_tokenizer", _or_none(_text)),
    "remote.keyVariable": ("remote_key_variable", _text),
    "remote.fallback": ("remote_fallback", _boolean),
    "exclude": ("exclude", _list_of("file name patterns")),
    "trace": ("trace", _boolean),
}
"""Setting name → field and check."""


def resolve(section: Any, user: Mapping[str, Any] | None = None) -> tuple[Settings, list[str]]:
    """Settings from the client's section `fimble` (nested objects or dotted names), and what was wrong with it.

    `user` lies below it: the user's own file. A value that does not fit keeps its default; unknown names are reported,
    null means unset.
    """
    chosen, problems = _checked(user, "in your settings file, ")
    if section is not None and not isinstance(section, dict):
        problems.append(f"the section `fimble` must be an object, not {type(section).__name__}; it is left out")
        section = None
    above, more = _checked(cast(dict[str, Any] | None, section), "")
    chosen |= above
    settings, problems = Settings(**chosen), problems + more
    if settings.backend != "worker" and not settings.remote_urls:
        problems.append(f"`fimble.backend` {settings.backend} needs `fimble.remote.url`, where that engine is")
        settings = attrs.evolve(settings, backend="worker")
    if (remote := settings.remote) and not remote.constrains:
        # What is typed since the anchor can't be healed there, and questions ahead cost money or others' time.
        fitting: dict[str, Any] = {"layout": "psm", "speculation": False}
        settings = attrs.evolve(settings, **{name: value for name, value in fitting.items() if name not in chosen})
    return settings, problems


def _checked(section: Mapping[str, Any] | None, where: str) -> tuple[dict[str, Any], list[str]]:
    """Fields and values of one section, and what was wrong with it."""
    chosen: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in _flat(section or {}).items():
        if name not in FIELDS:
            problems.append(f"{where}there is no setting `fimble.{name}`")
        elif value is not None:
            field, check = FIELDS[name]
            try:
                chosen[field] = check(value)
            except ValueError as wanted:
                problems.append(f"{where}`fimble.{name}` must be {wanted}, not {value!r}; using the default")
    return chosen, problems


def _flat(section: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            flat |= _flat(cast(dict[str, Any], value), f"{path}{name}.")
        else:
            flat[path + name] = value
    return flat
