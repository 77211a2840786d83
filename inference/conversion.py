"""A model folder's int8 copy, made once and kept in a cache, so that the next start reads half the bytes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs
from torch import Tensor

from inference.checkpoint import (
    FLOATS,
    ITEM_BYTES,
    Stored,
    Unreadable,
    contents,
    is_tied,
    open_file,
    quantised,
    takes_int8,
    weight_files,
)

FORM = 2
"""Raised when what is written changes, so that older copies are made anew."""
WEIGHTS = "model.safetensors"
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied as they are, where the model has them."""
MAPPED = 32 << 20
"""Bytes read through one mapping of a file; then it is mapped anew, so that what was read leaves this process."""


class NoRoom(Exception):
    """The disk is too full to keep the copy; the message has the figures."""


@attrs.frozen
class Part:
    """A tensor of the copy: its form and its place behind the header, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def converted(folder: Path, cache: Path, progress: Callable[[float], None] = lambda share: None) -> Path:
    """A folder like `folder` with its matrices as int8 (see `takes_int8`): `folder` itself if they already are.

    It is made in `cache` at the first call, whichever process is first, and found there by the next ones until the
    source's files change. Memory: one tensor. `progress`: the share done, 0 to 1; not called if there is nothing to do.
    Raises `Unreadable` for the source, `NoRoom` and `OSError` for the cache.
    """
    from filelock import FileLock

    files = weight_files(folder)
    stored = {name: tensor for file in files for name, tensor in contents(file).items()}
    if not _quantised_names(stored):
        return folder
    source, state = _identity(folder, files)
    target = cache / f"{source}-{state}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{source}.lock"):
        if _is_whole(target):
            return target
        # A killed conversion's, an older state's and a damaged one: none of them is ever read again.
        for left in [path for path in cache.iterdir() if path.name.startswith(f"{source}-")]:
            shutil.rmtree(left)
        partial = cache / f"{target.name}.partial"
        try:
            _write(folder, stored, partial, progress)
            partial.rename(target)
            _sync_folder(cache)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoRoom(f"the disk filled up while an int8 copy of {folder} was written to {cache}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # gone after a success; after an error, that is what counts
    return target


def _identity(folder: Path, files: list[Path]) -> tuple[str, str]:
    """The source's name in the cache, and its state: another one whenever a file of it may have changed."""
    place = folder.resolve()
    source = f"{place.name[:40]}-{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
    companions = [folder / name for name in COMPANIONS if (folder / name).is_file()]
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in [*files, *companions]]
    return source, hashlib.sha256(repr((FORM, seen)).encode()).hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether a finished copy is there and has kept its length."""
    try:
        return folder.is_dir() and bool(contents(folder / WEIGHTS))
    except Unreadable:
        return False


def _quantised_names(stored: Mapping[str, Stored]) -> set[str]:
    tied = is_tied(stored)
    return {name for name, t in stored.items() if t.dtype in FLOATS and takes_int8(name, t.shape, tied=tied)}


def _write(folder: Path, stored: Mapping[str, Stored], partial: Path, progress: Callable[[float], None]) -> None:
    parts = _plan(stored)
    header = _header(parts)
    companions = [folder / name for name in COMPANIONS if (folder / name).is_file()]
    data = max(part.end for part in parts.values())
    needed = len(header) + data + sum(file.stat().st_size for file in companions)
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise NoRoom(
            f"an int8 copy of {folder} takes {needed / 1e9:.2f} GB, and {partial.parent} has {free / 1e9:.2f} GB free; "
            "until there is room, each start converts the model anew"
        )
    partial.mkdir()
    for file in companions:
        with (partial / file.name).open("wb") as copy:
            copy.write(file.read_bytes())
            _sync(copy)
    written = 0
    with (partial / WEIGHTS).open("wb") as file:
        file.write(header)
        for name, tensor in _tensors(stored):
            part = parts[name]
            file.seek(len(header) + part.begin)
            _write_tensor(file, tensor, part)
            written += part.end - part.begin
            progress(written / data)
        _sync(file)
    _sync_folder(partial)


def _plan(stored: Mapping[str, Stored]) -> dict[str, Part]:
    """What is written, each type aligned to its size: the wider ones first."""
    forms: dict[str, tuple[str, tuple[int, ...]]] = {}
    quantises = _quantised_names(stored)
    for name, tensor in stored.items():
        if name in quantises:
            forms[name] = ("I8", tensor.shape)
            forms[f"{name}_scale"] = ("F32", (tensor.shape[0], 1))
        else:
            forms[name] = (tensor.dtype, tensor.shape)
    parts: dict[str, Part] = {}
    end = 0
    for name, (dtype, shape) in sorted(forms.items(), key=lambda item: (-ITEM_BYTES[item[1][0]], item[0])):
        begin, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        parts[name] = Part(dtype, shape, begin, end)
    return parts


def _header(parts: Mapping[str, Part]) -> bytes:
    """As the safetensors format wants it: its length in 8 bytes, then JSON, padded to 8 bytes."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, part in parts.items():
        fields[name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": (part.begin, part.end)}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _tensors(stored: Mapping[str, Stored]) -> Iterator[tuple[str, Tensor]]:
    """What is written, one by one, in the source's order."""
    opened: Any = None
    of, read = Path(), 0
    quantises = _quantised_names(stored)
    for name, tensor in stored.items():
        if tensor.file != of or read > MAPPED:
            opened, of, read = open_file(tensor.file, "cpu"), tensor.file, 0
        read += tensor.bytes
        weight = cast(Tensor, opened.get_tensor(name))
        if name not in quantises:
            yield name, weight
            continue
        made = quantised(weight, name, tensor.file)
        yield name, made.values
        yield f"{name}_scale", made.scale


def _write_tensor(file: BinaryIO, tensor: Tensor, part: Part) -> None:
    tensor = tensor.contiguous()
    size = part.end - part.begin
    if tensor.nbytes != size:
        raise RuntimeError(f"a tensor of {tensor.nbytes} bytes was to be written to a place of {size}")
    if size:
        file.write((ctypes.c_char * size).from_address(tensor.data_ptr()))  # its memory as it is, without numpy


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes new names in it last through a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
