"""From a model's name to a loaded model: the embedded starter, a folder, or a repository in the hub's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from inference import starter
from inference.tokens import Markers, NoInfilling, Tokens

if TYPE_CHECKING:
    from inference.models.transformers_model import TransformersModel

Progress = Callable[[str, float], None]
"""Called with a stage in words and the share done, 0 to 1."""


class ModelNotFound(Exception):
    """No model of that name here; the message says what was looked for and what to do."""


@attrs.frozen
class Loaded:
    """Everything the engine needs. `markers` is None for a model that cannot infill; `no_infilling` says why."""

    model: TransformersModel
    tokens: Tokens
    markers: Markers | None
    no_infilling: str = ""


def load(name: str, device: str, dtype: str, progress: Progress) -> Loaded:
    """Loads `name` ("starter", a folder, or a hub id that is in the cache).

    `device`: auto, cpu, cuda, cuda:N or mps; `dtype`: auto, float32, bfloat16 or float16.
    Raises `ModelNotFound`, `starter.Damaged`, `ValueError` (unknown device or dtype, unsupported tokenizer).
    """
    progress("checking the model's files", 0.05)
    folder = starter.FOLDER if name == "starter" else find(name)
    if name == "starter":
        starter.verify()
    progress("reading the tokenizer", 0.1)
    tokens = Tokens(folder / "tokenizer.json")
    try:
        markers, why = tokens.markers(), ""
    except NoInfilling as error:
        markers, why = None, str(error)
    progress("importing torch", 0.15)
    import torch

    place = _device(device)
    kind = _dtype(dtype, place, name)
    progress("importing transformers", 0.35)
    from transformers.utils import logging as transformers_logging

    from inference.models.transformers_model import TransformersModel

    transformers_logging.disable_progress_bar()
    progress("loading the weights", 0.7)
    model, window = _starter(place, kind) if name == "starter" else _from_folder(folder, place, kind)
    loaded = TransformersModel(model, window)
    progress("first run", 0.95)
    with torch.inference_mode():
        sequence = loaded.begin([0] * 8, reuse=False)
        loaded.forward([(sequence, 7)])
        loaded.forward([(sequence, 1)])
    return Loaded(loaded, tokens, markers, why)


def find(name: str) -> Path:
    """The folder of a model given by path or hub id. Raises `ModelNotFound`."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        import huggingface_hub

        try:
            folder = Path(cast(Any, huggingface_hub).snapshot_download(name, local_files_only=True))
        except Exception as error:
            raise ModelNotFound(
                f"no model {name!r}: it is neither a folder nor in the hub's cache; download it with "
                f"`hf download {name}` or give the path of its folder"
            ) from error
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise ModelNotFound(f"{folder} holds no {file}, so it is not a complete model folder")
    return folder


def _starter(device: str, dtype: Any) -> tuple[Any, int]:
    from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

    config = cast(Any, DeepseekV2Config).from_pretrained(starter.FOLDER)
    model = cast(Any, DeepseekV2ForCausalLM).from_pretrained(
        None, config=config, state_dict=starter.state_dict(), dtype=dtype
    )
    return model.to(device), starter.WINDOW


def _from_folder(folder: Path, device: str, dtype: Any) -> tuple[Any, int]:
    from transformers import AutoModelForCausalLM

    model = cast(Any, AutoModelForCausalLM).from_pretrained(folder, dtype=dtype, local_files_only=True)
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", 4096)
    return model.to(device), int(limit)


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


def _dtype(wanted: str, device: str, name: str) -> Any:
    import torch

    if wanted == "auto":
        return torch.float32 if device == "cpu" and name == "starter" else torch.bfloat16
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted not in kinds:
        raise ValueError(f"unknown dtype {wanted!r}; use auto, {', '.join(kinds)}")
    return kinds[wanted]
