"""Documents that never leave this machine: by patterns over their names, a setting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

DEFAULT = (
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".htpasswd",
    ".git-credentials",
    "*credentials*",
    "*secret*",
    "*password*",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.asc",
    "*.gpg",
    "*.tfvars",
    "*.tfstate",
    ".ssh/*",
    ".aws/*",
    ".gnupg/*",
    ".kube/config",
    ".docker/config.json",
)
"""The setting `exclude`, unless the user gives another list."""


@lru_cache(256)
def excluded(uri: str, patterns: Sequence[str]) -> bool:
    """Whether a document, under its own name or the one that a link leads to, matches a pattern.

    A pattern without `/` is for the file's name, one with `/` for the end of its path; case does not count.
    """
    path = _path(uri)
    return any(_matches(name, pattern) for name in {path, os.path.realpath(path)} for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    parts = PurePosixPath(path.replace("\\", "/").casefold()).parts
    wanted = PurePosixPath(pattern.casefold()).parts
    tail = parts[-len(wanted) :]
    return len(tail) == len(wanted) and all(map(fnmatchcase, tail, wanted))


def _path(uri: str) -> str:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme and len(parts.scheme) > 1 else uri
