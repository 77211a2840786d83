"""Where a model's tensors come from: a folder of safetensors in the published layout.

Matrices may be int8 with one scale a row: as stored (`NAME` as int8 beside `NAME_scale`), or quantised while loading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import attrs
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types that are read as floats, by safetensors' names; bytes an item."""
ITEM_BYTES = FLOATS | {"I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "I32": 4, "I64": 8, "F8_E4M3": 1, "F8_E5M2": 1}


class Unreadable(Exception):
    """A checkpoint is incomplete, damaged or of another form; the message names the file and what to do."""


@attrs.frozen
class Int8:
    """A matrix as int8 with one float32 scale a row: weight = values × scale[:, None]."""

    values: Tensor
    """int8 [out, in], -127 to 127."""
    scale: Tensor
    """float32 [out]."""

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The matrix in floats, [out, in]; computed in float32."""
        return self.values.float().mul_(self.scale[:, None]).to(dtype)


def quantise(weight: Tensor) -> Int8:
    """Rounds `weight` [out, in], on its device: each row in steps of its largest magnitude / 127.

    Raises `ValueError` if it holds infinities or NaN.
    """
    work = weight.to(torch.float32, copy=True)
    low, high = torch.aminmax(work, dim=1)
    scale = torch.maximum(-low, high) * (1 / 127)  # a division by a number rounds otherwise on CUDA than on a CPU
    if not torch.isfinite(scale).all():
        raise ValueError("holds infinities or NaN")
    scale.masked_fill_(scale == 0, 1.0)
    return Int8(work.div_(scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale)


def takes_int8(name: str, shape: tuple[int, ...], *, tied: bool = False) -> bool:
    """Whether a matrix is quantised on demand: those that are read whole at every token.

    Not the embedding, unless it is the head too (`tied`): one row of it is read, so nothing is gained. Not the router,
    where a small error picks another expert. Not `kv_b_proj`: absorbed into queries and outputs it is multiplied along
    both of its sides.
    """
    kept = ("mlp.gate.weight", "kv_b_proj.weight", *(() if tied else ("model.embed_tokens.weight",)))
    return len(shape) == 2 and name.endswith(".weight") and not name.endswith(kept)


def is_tied(names: Container[str]) -> bool:
    """Whether a model with tensors of these names has its embedding for a head."""
    return "lm_head.weight" not in names


class Source(Protocol):
    """Tensors by their published names. Each method but `has` raises `Unreadable` for a name that is not there."""

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape, without reading it."""
        ...

    def tensor(self, name: str) -> Tensor:
        """In floats, on the source's device in its dtype, whatever it is stored as."""
        ...

    def matrix(self, name: str) -> Tensor | Int8:
        """As the model shall keep it: int8 if it is stored or wanted so, else as `tensor`."""
        ...

    def into(self, name: str, target: Tensor) -> None:
        """Copies `tensor` into (a slice of) another one of the same shape."""
        ...


@attrs.frozen
class Stored:
    """One tensor of a file."""

    file: Path
    dtype: str
    """As safetensors names it: BF16, F32, I8 …"""
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Checkpoint:
    """A folder of safetensors as a `Source`: mapped, and brought to the device one tensor at a time.

    On a CPU a tensor that is stored in the wanted type is the mapped file itself.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        dtype: torch.dtype,
        *,
        int8: bool = False,
        dequantise: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ):
        """`int8`: quantise floating matrices (see `takes_int8`); `dequantise`: make floats of int8 ones.

        `progress`: told the share of bytes read, 0 to 1. Raises `Unreadable`.
        """
        self._folder, self._device, self._dtype, self._int8, self._progress = folder, device, dtype, int8, progress
        files = weight_files(folder)
        self._dequantise = dequantise
        self._open = {file: open_file(file, device) for file in files}
        self.stored = {name: tensor for file in files for name, tensor in contents(file).items()}
        for name, file in _index(folder).items():
            if name not in self.stored:
                raise Unreadable(f"{file} lacks {name}, which {folder / INDEX} promises; download that file again")
        self._bytes = max(1, sum(tensor.bytes for tensor in self.stored.values()))
        self._read: set[str] = set()
        self._bytes_read = 0

    def has(self, name: str) -> bool:
        """See `Source`."""
        return name in self.stored

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Source`."""
        return self._find(name).shape

    def tensor(self, name: str) -> Tensor:
        """See `Source`."""
        if self._find(name).dtype == "I8":
            return self._stored_int8(name).dequantised(self._dtype)
        return self._floats(name).to(self._dtype)

    def matrix(self, name: str) -> Tensor | Int8:
        """See `Source`."""
        stored = self._find(name)
        if stored.dtype == "I8":
            return self.tensor(name) if self._dequantise else self._stored_int8(name)
        weight = self._floats(name)
        if not (self._int8 and takes_int8(name, stored.shape, tied=is_tied(self.stored))):
            return weight.to(self._dtype)
        return quantised(weight, name, stored.file)

    def into(self, name: str, target: Tensor) -> None:
        """See `Source`."""
        self._expect(name, tuple(target.shape))
        if self._find(name).dtype == "I8":
            target.copy_(self._stored_int8(name).dequantised(torch.float32))
        else:
            target.copy_(self._floats(name))

    def require(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises `Unreadable` unless all of these tensors are there in these shapes (see `random_weights.shapes`)."""
        for name, shape in shapes.items():
            self._expect(name, shape)

    def _expect(self, name: str, shape: tuple[int, ...]) -> None:
        stored = self._find(name)
        if stored.shape != shape:
            raise Unreadable(
                f"{stored.file} holds {name} as {list(stored.shape)}, but {list(shape)} is wanted; "
                f"{self._folder / 'config.json'} belongs to another model, or the file does"
            )

    def _find(self, name: str) -> Stored:
        if name not in self.stored:
            raise Unreadable(f"{self._folder} holds no tensor {name}; its files are not all there: download it again")
        return self.stored[name]

    def _floats(self, name: str) -> Tensor:
        stored = self._find(name)
        if stored.dtype not in FLOATS:
            raise _unknown_type(name, stored)
        return self._get(name, stored)

    def _stored_int8(self, name: str) -> Int8:
        stored, scale = self._find(name), self.stored.get(f"{name}_scale")
        rows = stored.shape[0] if len(stored.shape) == 2 else -1
        if scale is None or scale.dtype not in FLOATS or scale.shape not in ((rows,), (rows, 1)):
            raise Unreadable(f"{stored.file} holds {name} as int8 without one scale a row; take a copy in bfloat16")
        return Int8(self._get(name, stored), self._get(f"{name}_scale", scale).float().flatten())

    def _get(self, name: str, stored: Stored) -> Tensor:
        tensor = cast(Tensor, self._open[stored.file].get_tensor(name))
        if name not in self._read:
            self._read.add(name)
            self._bytes_read += stored.bytes
            self._progress(self._bytes_read / self._bytes)
        return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a model: shards by its index, or the only one. Raises `Unreadable`."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index := _index(folder):
        shards = sorted(set(index.values()))
        for shard in shards:
            if not shard.is_file():
                raise Unreadable(f"{shard} is missing, which {folder / INDEX} names; download the model again")
        return shards
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise Unreadable(f"{folder} holds {len(found)} safetensors files but no {INDEX}; download the model again")
    if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise Unreadable(
            f"{pickled[0]} is pickled, and reading that can run code: use a copy in safetensors, or, if you "
            "trust it, convert it in Python: from transformers import AutoModelForCausalLM as Model; "
            f"Model.from_pretrained({str(folder)!r}, dtype='auto').save_pretrained({str(folder)!r})"
        )
    raise Unreadable(f"{folder} holds no weights (*.safetensors); download the model again")


def open_file(file: Path, device: str) -> Any:
    """A handle of safetensors whose tensors come on `device`. Raises `Unreadable`."""
    try:
        return cast(Any, safe_open)(file, framework="pt", device=device)
    except (SafetensorError, OSError) as error:
        raise Unreadable(f"{file} is damaged or incomplete ({error}); download it again") from error


def contents(file: Path) -> dict[str, Stored]:
    """What a file holds, by name, from its header alone. Raises `Unreadable`."""
    opened = open_file(file, "cpu")
    slices = ((name, opened.get_slice(name)) for name in opened.keys())  # noqa: SIM118  it is not a dict
    found = {name: Stored(file, part.get_dtype(), tuple(part.get_shape())) for name, part in slices}
    for name, tensor in found.items():
        if tensor.dtype not in ITEM_BYTES:
            raise _unknown_type(name, tensor)
    return found


def quantised(weight: Tensor, name: str, file: Path) -> Int8:
    """`quantise`, for a tensor of a file. Raises `Unreadable`."""
    try:
        return quantise(weight)
    except ValueError as error:
        raise Unreadable(f"{name} in {file} {error}; download it again") from error


def _unknown_type(name: str, stored: Stored) -> Unreadable:
    return Unreadable(f"{stored.file} holds {name} as {stored.dtype}, which is not read here; take a copy in bfloat16")


def _index(folder: Path) -> dict[str, Path]:
    """Tensor → file, as the index says; empty if there is none or one file holds all."""
    file = folder / INDEX
    if (folder / "model.safetensors").is_file() or not file.is_file():
        return {}
    try:
        names = cast(dict[str, str], json.loads(file.read_text("utf-8"))["weight_map"])
        return {name: folder / shard for name, shard in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{file} is damaged ({error!r}); download it again") from error
