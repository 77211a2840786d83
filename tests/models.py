"""Small random models in the shapes that are published, as folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

from inference import starter

# DeepSeek-Coder-V2-Lite-Instruct and -Instruct, tokenizer_config.json, as published.
V2_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
}
TINY: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "rope_parameters": YARN,
}


def random_weights(model: Any) -> Any:
    """The model with weights of deviation 0.08, so that attention and routing are not uniform."""
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.08)
    return model


def instruct(folder: Path, template: str = V2_TEMPLATE, **changes: Any) -> Path:
    """A random model of DeepSeek-Coder-V2-Lite's form with the starter's tokenizer; without `template` a base model.

    `changes`: fields of its configuration that differ from `TINY`.
    """
    torch.manual_seed(5)
    model = random_weights(DeepseekV2ForCausalLM(DeepseekV2Config(**TINY | changes)))
    cast(Any, model).save_pretrained(folder, max_shard_size="24MB")
    shutil.copy(starter.FOLDER / "tokenizer.json", folder)
    fields = json.loads((starter.FOLDER / "tokenizer_config.json").read_text()) | {"add_bos_token": True}
    if template:
        fields["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


def starter_in_floats(folder: Path, licence: str = "deepseek-license") -> Path:
    """The starter as models are published: bfloat16 in two files, a README with its licence, and what nobody needs."""
    made = DeepseekV2ForCausalLM(DeepseekV2Config.from_pretrained(starter.FOLDER))
    made.load_state_dict(starter.state_dict(), strict=False)
    made.tie_weights()
    cast(Any, made).to(torch.bfloat16).save_pretrained(folder, max_shard_size="100MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(starter.FOLDER / name, folder)
    (folder / "README.md").write_text(f"---\nlicense: other\nlicense_name: {licence}\nlicense_link: LICENSE\n---\n")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "modeling_deepseek.py").write_text("raise SystemExit('never to be run')\n")
    return folder
