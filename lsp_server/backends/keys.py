"""The key for an engine of others: from the environment or the system's keyring, never from settings, never logged."""

from __future__ import annotations

import asyncio
import logging
import os
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

SERVICE = "fimble"
"""In the keyring; the user name there is the engine's host."""


async def find(variable: str, url: str) -> str:
    """The key for the engine at `url`; empty: none is set."""
    if key := os.environ.get(variable, "").strip():
        return key
    return await asyncio.to_thread(_from_keyring, urlsplit(url).hostname or "")


async def whence(variable: str, url: str) -> str:
    """Where that key comes from, in words."""
    if os.environ.get(variable, "").strip():
        return f"with the key in {variable}"
    return "with a key from the keyring" if await find(variable, url) else "without a key"


def _from_keyring(host: str) -> str:
    try:
        keyring: Any = import_module("keyring")
    except ModuleNotFoundError:  # it is optional
        return ""
    try:
        return str(keyring.get_password(SERVICE, host) or "")
    except Exception as error:  # noqa: BLE001 - a locked or absent keyring, each backend has its own errors
        log.info("the keyring gives no key for %s: %s", host, type(error).__name__)
        return ""
