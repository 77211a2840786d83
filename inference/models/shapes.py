"""Which of the native engine's models a `config.json` describes."""

from __future__ import annotations

from typing import Any

from inference.models import deepseek_v2_config, llama_config
from inference.models.deepseek_v2_config import Config
from inference.models.llama_config import LlamaConfig

Shape = Config | LlamaConfig


def shape_of(fields: dict[str, Any]) -> Shape:
    """From a parsed `config.json`. Raises `Unsupported`, saying why it is none of them."""
    if fields.get("model_type") == "deepseek_v2":
        return deepseek_v2_config.config(fields)
    return llama_config.config(fields)
