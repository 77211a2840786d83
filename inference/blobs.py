"""Large files into the hub's cache, so that a download goes on where it broke off, however long ago that was.

The hub's own library goes on within one process only: what it has of a file when that ends is deleted.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import huggingface_hub
from filelock import FileLock
from huggingface_hub import constants

hub: Any = huggingface_hub

CHUNK = 2**20
"""Bytes that are written at a time; what a broken connection costs at most."""
TRIES = 5
"""Connections in a row that bring nothing, after which it is given up."""
PAUSE = 1.0
"""Seconds before the next connection, doubled with each that brings nothing."""


class Damaged(Exception):
    """What came is not what the hub promised; the message names the file."""


class Short(Exception):
    """A connection ended before its file did."""


def place(name: str, digest: str) -> Path:
    """Where the cache keeps a file of the model `name` (a hub id) by its sha256, in hex."""
    return Path(constants.HF_HUB_CACHE) / _folder(name) / "blobs" / digest


def present(name: str, digest: str) -> int:
    """Bytes of a file that are here already, whole or begun."""
    blob = place(name, digest)
    return next((file.stat().st_size for file in (blob, _begun(blob)) if file.is_file()), 0)


def fetch(name: str, revision: str, file: str, size: int, digest: str) -> None:
    """Brings one file of `size` bytes with that sha256 into the cache, with a progress bar.

    Raises `Damaged`, `OSError` (the disk, or a refusal of the hub), and the HTTP library's errors once no connection
    brings anything any more.
    """
    blob = place(name, digest)
    begun, lock = _begun(blob), Path(constants.HF_HUB_CACHE) / ".locks" / _folder(name) / f"{digest}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the library's own, so that two never write the same
        if blob.exists():
            return
        have = present(name, digest)
        with hub.utils.tqdm(desc=file, total=size, initial=have, unit="B", unit_scale=True) as bar:
            _until_whole(lambda: _go_on(hub.hf_hub_url(name, file, revision=revision), begun, size, bar), begun)
        with begun.open("rb") as whole:
            if hashlib.file_digest(whole, "sha256").hexdigest() != digest:
                begun.unlink()
                raise Damaged(f"{file} came damaged: its sha256 is not the hub's")
        begun.rename(blob)


def _until_whole(go_on: Any, begun: Path) -> None:
    """Calls `go_on` until it ends well, on new connections while they bring something."""
    failed = 0
    while True:
        had = begun.stat().st_size if begun.exists() else 0
        try:
            return go_on()
        except OSError:  # a full disk, or an answer that is a refusal: trying again helps neither
            raise
        except Exception:  # the HTTP library's, of which the hub's library has used several
            failed = 0 if begun.exists() and begun.stat().st_size > had else failed + 1
            if failed == TRIES:
                raise
            time.sleep(PAUSE * 2 ** max(0, failed - 1))


def _go_on(url: str, begun: Path, size: int, bar: Any) -> None:
    """Appends what is lacking of a file."""
    headers: dict[str, str] = hub.utils.build_hf_headers() | {"Accept-Encoding": "identity"}
    with begun.open("ab") as out:
        have = out.tell()
        if have >= size:
            return
        headers |= {"Range": f"bytes={have}-"} if have else {}
        with hub.get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as reply:
            hub.utils.hf_raise_for_status(reply)
            if have and reply.status_code != 206:  # it sends the whole
                out.truncate(0)
                bar.update(-have)
            for chunk in reply.iter_bytes(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    if begun.stat().st_size < size:
        raise Short(f"{begun.stat().st_size:,} bytes came of {size:,}")


def _begun(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.part")


def _folder(name: str) -> str:
    return f"models--{name.replace('/', '--')}"
