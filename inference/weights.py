"""From a model's name to a loaded model: the embedded starter, a folder, or a repository in the hub's cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from inference import starter, tokenizer_config
from inference.families import NoInfilling
from inference.tokenizer_config import TokenizerConfig
from inference.tokens import Markers, Tokens

if TYPE_CHECKING:
    import torch

    from inference.checkpoint import Source
    from inference.models import Model
    from inference.models.paged_model import PagedModel
    from inference.models.shapes import Shape

log = logging.getLogger(__name__)

CACHE_BYTES = {"cpu": 256 * 2**20, "cuda": 8 * 2**30}
"""Of KV at most: of the starter 24,000 tokens on a CPU, of DeepSeek-Coder-V2-Lite 270,000 on a GPU."""
SPARED = 0.25
"""Share of a device's free memory that the KV cache leaves to activations."""

Progress = Callable[[str, float], None]
"""Called with a stage in words and the share done, 0 to 1."""


class ModelNotFound(Exception):
    """No model of that name here; the message says what was looked for and what to do."""


@attrs.frozen
class Loaded:
    """Everything the engine needs. `markers` is None for a model that cannot infill; `no_infilling` says why."""

    model: Model[Any]
    tokens: Tokens
    markers: Markers | None
    no_infilling: str = ""
    config: TokenizerConfig = attrs.field(factory=lambda: TokenizerConfig([], "", {}))


def load(name: str, device: str, dtype: str, progress: Progress) -> Loaded:
    """Loads `name` ("starter", a folder, or a hub id that is in the cache).

    `device`: auto, cpu, cuda, cuda:N or mps; `dtype`: auto, float32, bfloat16, float16 or int8 (weights).
    Raises `ModelNotFound`, `starter.Damaged`, `checkpoint.Unreadable`, `memory.DoesNotFit`, `ValueError` (unknown
    device or dtype, unsupported tokenizer).
    """
    progress("checking the model's files", 0.05)
    folder = starter.FOLDER if name == "starter" else find(name)
    if name == "starter":
        starter.verify()
    progress("reading the tokenizer", 0.1)
    tokens = Tokens(folder / "tokenizer.json")
    try:
        markers, why = tokens.markers(name), ""
    except NoInfilling as error:
        markers, why = None, str(error)
    progress("importing torch", 0.15)
    import torch

    from inference import memory
    from inference.models.rope import Unsupported
    from inference.models.shapes import shape_of

    place = _device(device)
    kind = _dtype(dtype, place, name)
    fields = cast(dict[str, Any], json.loads((folder / "config.json").read_text("utf-8")))
    try:
        shape = shape_of(fields)
    except Unsupported as reason:
        log.info("through the transformers library: %s", reason)
        model = _through_transformers(folder, place, kind, progress)
    else:
        window = starter.WINDOW if name == "starter" else shape.max_position_embeddings
        words = str(kind).removeprefix("torch.")
        memory.check(shape, words, place, name)
        try:
            model = native(shape, _source(folder, shape, place, kind, progress), place, kind, window)
            model.prepare(lambda share: progress("preparing the device's kernels", 0.9 + 0.05 * share))
        except torch.OutOfMemoryError as error:  # somebody else took what was free
            free, total = torch.cuda.mem_get_info(place)
            needed = memory.wanted(shape, words, "cuda")
            raise memory.DoesNotFit(memory.message(shape, words, place, needed, free, total, name)) from error
    progress("first run", 0.95)
    sequence = model.begin([0] * 8, reuse=False)
    model.forward([(sequence, 7, 1)])
    model.forward([(sequence, 1, 1)])
    model.end(sequence, keep=False)
    read = tokenizer_config.read(folder)
    if markers and markers.family.bos:  # whatever its tokenizer says: a model whose holes begin so knows no other text
        read = attrs.evolve(read, opening=[markers.ids[markers.family.bos]])
    return Loaded(model, tokens, markers, why, read)


def native(shape: Shape, source: Source, device: str, kind: torch.dtype, window: int) -> PagedModel:
    """A model in this project's own engine. `kind`: int8 or the floats that the source gives."""
    import torch

    from inference.memory import SMALLEST_CACHE
    from inference.models.deepseek_v2 import DeepseekV2
    from inference.models.llama import Llama
    from inference.models.llama_config import LlamaConfig
    from inference.models.paged_model import PagedModel

    floats = _computes_in(kind, device)
    if isinstance(shape, LlamaConfig):
        model = Llama(shape, source, device, window)
    else:
        model = DeepseekV2(shape, source, device, window)
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 2**62
    room = min(CACHE_BYTES.get(device.partition(":")[0], 2**30), int(free * (1 - SPARED)))
    least = SMALLEST_CACHE if device == "cpu" else 1024  # pages that nobody writes to cost nothing
    slots = max(least, room // (shape.num_hidden_layers * shape.kv * floats.itemsize))
    return PagedModel(model, window, slots, floats, str(kind).removeprefix("torch."))


def _source(folder: Path, shape: Shape, device: str, kind: torch.dtype, progress: Progress) -> Source:
    """The folder's tensors; a float checkpoint wanted as int8 is converted once and kept, if the disk has room.

    Raises `Unreadable` before anything is read if one is missing or of another shape.
    """
    import platformdirs
    import torch

    from inference.checkpoint import Checkpoint
    from inference.conversion import NoRoom, converted
    from inference.random_weights import shapes

    def report(share: float) -> None:
        progress("loading the weights", 0.35 + 0.6 * share)

    if kind == torch.int8 and folder != starter.FOLDER:
        try:
            cache = Path(platformdirs.user_cache_dir("fimble")) / "int8"
            folder = converted(
                folder, cache, lambda share: progress("converting the weights to int8", 0.2 + 0.15 * share)
            )
        except (NoRoom, OSError) as error:
            log.warning("the int8 form is not kept: %s", error)
    floats = _computes_in(kind, device)
    wanted = kind == torch.int8
    checkpoint = Checkpoint(folder, device, floats, int8=wanted, dequantise=not wanted, progress=report)
    checkpoint.require(shapes(shape))
    return checkpoint


def _computes_in(kind: torch.dtype, device: str) -> torch.dtype:
    """The type of activations and latents."""
    import torch

    if kind != torch.int8:
        return kind
    return torch.float32 if device == "cpu" else torch.bfloat16


def find(name: str) -> Path:
    """The folder of a model given by path or hub id. Raises `ModelNotFound`."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        from inference import download

        try:
            folder = Path(download.cached(name))
        except Exception as error:
            begun = getattr(error, "snapshot_path", None)
            why = (
                "some of its files are not in the hub's cache"
                if begun
                else "it is neither a folder nor in the hub's cache"
            )
            raise ModelNotFound(
                f"no model {name!r}: {why}; get it with `fimble setup --model {name}`, or give the path of its folder"
            ) from error
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise ModelNotFound(f"{folder} holds no {file}, so it is not a complete model folder")
    return folder


def _through_transformers(folder: Path, device: str, dtype: torch.dtype, progress: Progress) -> Model[Any]:
    import torch

    if dtype == torch.int8:
        raise ValueError(
            "dtype int8 is for DeepSeek-V2, Llama, Qwen2 and Mistral models; use auto, float32, bfloat16 or float16 "
            "with this one"
        )
    progress("importing transformers", 0.35)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from inference.models.transformers_model import TransformersModel

    transformers_logging.disable_progress_bar()
    progress("loading the weights", 0.7)
    model = cast(Any, AutoModelForCausalLM).from_pretrained(folder, dtype=dtype, local_files_only=True)
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", 4096)
    return TransformersModel(model.to(device), int(limit))


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device {wanted!r}: this torch sees no CUDA device (torch {torch.__version__}); use cpu or auto"
        )
    try:
        return str(torch.device(wanted))
    except RuntimeError:
        raise ValueError(f"unknown device {wanted!r}; use auto, cpu, cuda, cuda:N or mps") from None


def _dtype(wanted: str, device: str, name: str) -> torch.dtype:
    import torch

    if wanted == "auto":
        return torch.int8 if device == "cpu" and name == "starter" else torch.bfloat16
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
    if wanted not in kinds:
        raise ValueError(f"unknown dtype {wanted!r}; use auto, {', '.join(kinds)}")
    return kinds[wanted]
