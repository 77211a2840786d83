"""DeepSeek-Coder-V2-Lite without its files: its published `config.json`, and a tokenizer of its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inference import starter
from inference.tokens import Tokens

LITE: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
    },
}
"""Less what does not change the computation."""


def grown_tokenizer(folder: Path, size: int) -> Tokens:
    """The starter's tokenizer with words added up to `size`, so that every id of a larger model spells something."""
    spec = json.loads((starter.FOLDER / "tokenizer.json").read_text("utf-8"))
    vocab = spec["model"]["vocab"]
    vocab |= {f"z{i}": i for i in range(len(vocab) + len(spec["added_tokens"]), size)}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return Tokens(folder / "tokenizer.json")
