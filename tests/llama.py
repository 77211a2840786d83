"""A real llama.cpp server over a random Llama-shaped model that has the starter's tokenizer, FIM markers included.

What it writes is noise; that it is asked rightly, how it reuses prompts and what it keeps to, is real.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp as untyped

from inference import starter
from inference.remote.http import Http

xllamacpp: Any = untyped
ROOT = Path(__file__).parents[1]

HIDDEN, LAYERS, HEADS, INNER, CONTEXT = 64, 2, 4, 128, 2048


def write_model(path: Path, *, layers: int = LAYERS, breaks: bool = True) -> None:
    """Writes the model: random weights, the vocabulary, merges and markers of the starter's `tokenizer.json`.

    `breaks`: it breaks lines now and then; else hardly ever. More layers make it slower.
    """
    spec: dict[str, Any] = json.loads((starter.FOLDER / "tokenizer.json").read_text("utf-8"))
    vocab = dict(spec["model"]["vocab"])
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    texts = {i: text for text, i in (vocab | added).items()}
    size = max(texts) + 1
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-llm")
    writer.add_token_list([texts.get(i, f"[unused {i}]") for i in range(size)])
    kinds = [
        gguf.TokenType.CONTROL if texts.get(i) in added or i not in texts else gguf.TokenType.NORMAL
        for i in range(size)
    ]
    writer.add_token_types(kinds)
    merges = spec["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(added["<｜begin▁of▁sentence｜>"])
    writer.add_eos_token_id(added["<｜end▁of▁sentence｜>"])
    chance = np.random.default_rng(1)

    def matrix(name: str, rows: int, columns: int, scale: float, louder: tuple[int, ...] = ()) -> None:
        values = chance.standard_normal((rows, columns)) * scale
        values[list(louder)] *= 2  # likelier than the others where likely at all
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    matrix("token_embd", size, HIDDEN, 1.0)
    matrix("output", size, HIDDEN, 1.0, louder=(vocab["Ċ"],) if breaks else ())
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in (f"blk.{i}." for i in range(layers)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(layer + name, HIDDEN, HIDDEN, 0.3)
        matrix(layer + "ffn_gate", INNER, HIDDEN, 0.3)
        matrix(layer + "ffn_up", INNER, HIDDEN, 0.3)
        matrix(layer + "ffn_down", HIDDEN, INNER, 0.3)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{layer}{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(file: Path, port: int = 0, threads: int = 1) -> Any:
    """A server over a model; it lives as long as what is returned, whose `listening_address` is where it is."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.model_alias = str(file), {"noise"}
    parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = CONTEXT, 2, True
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
    parameters.cache_ram_mib, parameters.port, parameters.verbosity = 0, port, -1
    return xllamacpp.Server(parameters)


async def decoding(http: Http) -> int | None:
    """How many tokens the answer in hand has so far, as the server says; None: it does nothing."""
    slots: Any = await http.get("/slots")
    return next((slot["next_token"][0]["n_decoded"] for slot in slots if slot["is_processing"]), None)


async def freed(http: Http) -> int:
    """Waits until the server does nothing any more; how many tokens the last answer had when that was seen last."""
    began, last = time.monotonic(), 0
    while (now := await decoding(http)) is not None:
        assert time.monotonic() - began < 60, "it goes on for nobody"
        last = now
        await asyncio.sleep(0.005)
    return last


class Process:
    """A server in a process of its own, to be killed."""

    def __init__(self, file: Path, port: int = 0):
        command = [sys.executable, "-m", "tests.llama", str(file), str(port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.address = self._process.stdout.readline().strip()
        assert self.address.startswith("http"), "the server did not start"

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()


if __name__ == "__main__":
    running = serve(Path(sys.argv[1]), int(sys.argv[2]))
    print(running.listening_address, flush=True)
    threading.Event().wait()
