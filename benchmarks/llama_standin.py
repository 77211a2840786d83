"""llama.cpp on a model of the starter's size, for comparison.

    pip install xllamacpp gguf

It can't load the starter itself: its `deepseek2` loader takes only the shapes of published models. So it gets a model
with random weights and the same number of parameters, layers and hidden units, in the shape that it is fastest with:
Llama's, 8 bits a weight (Q8_0). The time of a step does not depend on what the weights are.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np

CONTEXT, BATCH = 4096, 512
DISTINCT = 512
"""Rows of a matrix that are drawn; the others repeat them, as drawing takes longer than all that is timed."""
ADVICE = "pip install xllamacpp gguf"


@attrs.frozen
class Shape:
    """Of a model whose embedding is the output matrix too."""

    architecture: str
    """As llama.cpp names it."""
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    groups: int
    """Heads of keys and values."""
    inner: int
    biased: bool = False
    """Whether queries, keys and values have biases."""


STARTER = Shape("llama", 16384, 640, 12, 10, 10, 1472)
"""64.06 million parameters, the embedding counted once."""


def missing() -> str:
    """What to install before this can run; empty: nothing."""
    lacking = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"llama.cpp is left out: {' and '.join(lacking)} not installed ({ADVICE})" if lacking else ""


def versions() -> dict[str, str]:
    """Of what is installed."""
    names = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name)]
    return {name: importlib.metadata.version(name) for name in names}


def write_model(path: Path, shape: Shape = STARTER, seed: int = 1) -> int:
    """Writes the model with random weights; returns its number of parameters."""
    gguf: Any = importlib.import_module("gguf")
    chance, parameters = np.random.default_rng(seed), 0
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.groups)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>".encode() for i in range(shape.vocabulary)])
    writer.add_token_scores([0.0] * shape.vocabulary)
    writer.add_token_types([gguf.TokenType.UNKNOWN] + [gguf.TokenType.NORMAL] * (shape.vocabulary - 1))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def matrix(name: str, rows: int, columns: int) -> None:
        nonlocal parameters
        parameters += rows * columns
        values = chance.standard_normal((min(rows, DISTINCT), columns)).astype(np.float32) * 0.02
        kind = gguf.GGMLQuantizationType.Q8_0
        quantised = gguf.quants.quantize(values, kind)
        writer.add_tensor(f"{name}.weight", np.resize(quantised, (rows, quantised.shape[1])), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))

    hidden, shared = shape.hidden, shape.hidden // shape.heads * shape.groups
    matrix("token_embd", shape.vocabulary, hidden)
    norm("output_norm")
    for layer in (f"blk.{i}." for i in range(shape.layers)):
        for name, rows in (("attn_q", hidden), ("attn_k", shared), ("attn_v", shared)):
            matrix(layer + name, rows, hidden)
            if shape.biased:
                writer.add_tensor(f"{layer}{name}.bias", np.zeros(rows, np.float32))
        matrix(layer + "attn_output", hidden, hidden)
        matrix(layer + "ffn_gate", shape.inner, hidden)
        matrix(layer + "ffn_up", shape.inner, hidden)
        matrix(layer + "ffn_down", hidden, shape.inner)
        norm(layer + "attn_norm")
        norm(layer + "ffn_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return parameters


class LlamaCpp:
    """llama.cpp's own server, called in this process; one slot, whose prompt stays cached."""

    def __init__(self, threads: int, flash: bool, shape: Shape = STARTER):
        """`threads`: of prompts and of steps. `flash`: flash attention, which suits prompts, not steps, on a CPU."""
        module: Any = importlib.import_module("xllamacpp")
        parameters = module.CommonParams()
        with tempfile.TemporaryDirectory(prefix="fimble-") as folder:
            path = Path(folder) / "stand-in.gguf"
            write_model(path, shape)
            parameters.model.path = str(path)
            parameters.n_ctx, parameters.n_parallel = CONTEXT, 1
            parameters.n_batch, parameters.n_ubatch = CONTEXT, CONTEXT if flash else BATCH
            parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
            kind = "ENABLED" if flash else "DISABLED"
            parameters.flash_attn_type = getattr(module.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{kind}")
            parameters.cache_ram_mib = parameters.n_ctx_checkpoints = 0
            parameters.verbosity = -1
            self._server = module.Server(parameters)

    def complete(self, ids: list[int], tokens: int) -> dict[str, float]:
        """Generates exactly so many tokens; returns the server's own milliseconds. Raises `RuntimeError`."""
        asked = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
        reply: dict[str, Any] = self._server.handle_completions(asked | {"cache_prompt": True, "id_slot": 0})
        if reply.get("usage", {}).get("completion_tokens") != tokens:
            raise RuntimeError(f"llama.cpp did not generate {tokens} tokens: {str(reply)[:300]}")
        timings = reply["timings"]
        return {"own ms": timings["prompt_ms"] + timings["predicted_ms"], "prefilled": timings["prompt_n"]}
