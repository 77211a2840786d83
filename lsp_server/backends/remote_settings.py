"""Which engines of others are asked, how they are spoken to, and what they may see."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import attrs

from lsp_server.backends.exclude import DEFAULT

Backend = Literal["worker", "openai", "llamacpp"]
Engine = Literal["auto", "vllm", "sglang", "mistral", "generic"]
Kind = Literal["llamacpp", "vllm", "sglang", "mistral", "generic"]
KEY_VARIABLE = "FIMBLE_REMOTE_KEY"


@attrs.frozen
class RemoteSettings:
    """The settings `backend`, `remote.…` and `exclude`, as far as they concern engines of others."""

    kind: Kind
    urls: tuple[str, ...]
    model: str = ""
    tokenizer: str = ""
    key_variable: str = KEY_VARIABLE
    """The environment variable that holds the key."""
    fallback: bool = False
    """The local worker answers while no engine is there, and for documents that may not leave."""
    exclude: tuple[str, ...] = DEFAULT

    @property
    def constrains(self) -> bool:
        """Whether such engines can be made to begin an answer with what is held back, as the anchored layout needs."""
        return self.kind in ("llamacpp", "vllm", "sglang")


def kind_of(backend: Backend, engine: Engine, url: str) -> Kind:
    """What is spoken to an address."""
    if backend == "llamacpp":
        return "llamacpp"
    if engine != "auto":
        return engine
    host = urlsplit(url).hostname or ""
    return "mistral" if host == "mistral.ai" or host.endswith(".mistral.ai") else "generic"
