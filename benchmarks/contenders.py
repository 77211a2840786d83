"""The engines that are compared, each in a process of its own so that their threads never meet."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol

from benchmarks.engine_work import Prompt, common
from benchmarks.llama_standin import STARTER, Shape

THREADS = 2
"""Of every engine."""
FIMBLE, PLAIN, TRANSFORMERS = "fimble", "fimble, no drafts", "transformers generate"
LLAMA, FLASH = "llama.cpp", "llama.cpp, flash attention"
SETTLE = 0.15
"""Seconds for which nothing runs when another engine's turn comes."""


class Contender(Protocol):
    """An engine that keeps its cache from call to call."""

    def complete(self, prompt: Prompt, tokens: int) -> dict[str, float]:
        """Decodes so many tokens. Returns at least `decoded` and `prefilled`, in tokens."""
        ...

    def close(self) -> None:
        """Ends its threads."""
        ...


class Fimble:
    """This project's engine as a worker runs it."""

    def __init__(self, drafts: bool, model: Any = None):
        """`model`: in the starter's place, asked with its tokenizer."""
        from benchmarks.engine_client import load_starter, start

        self._engine = start(load_starter(), drafts=drafts, model=model)

    def complete(self, prompt: Prompt, tokens: int) -> dict[str, float]:
        """See `Contender`."""
        from benchmarks.engine_client import ask

        reply = ask(self._engine, prompt.limited(tokens, "editor document"))
        end = reply.end
        return {"own ms": end.timing.total, "decoded": end.decoded, "prefilled": end.prefilled}

    def close(self) -> None:
        """See `Contender`."""
        self._engine.close()


class Transformers:
    """`generate` of the transformers library in float32, over a cache that is cut to what the prompts share."""

    def __init__(self, model: Any = None) -> None:
        """`model`: of that library, in the starter's place."""
        import torch
        from transformers import DynamicCache, GenerationConfig
        from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

        from inference import starter

        torch.set_num_threads(THREADS)
        if model is None:
            config: Any = DeepseekV2Config.from_pretrained(starter.FOLDER)
            kind: Any = DeepseekV2ForCausalLM
            model = kind.from_pretrained(None, config=config, state_dict=starter.state_dict(), dtype=torch.float32)
        self._model: Any = model.eval()
        self._model.generation_config = GenerationConfig(do_sample=False, use_cache=True)  # no eos: as many as asked
        self._cache: Any = DynamicCache()
        self._ids: list[int] = []

    def complete(self, prompt: Prompt, tokens: int) -> dict[str, float]:
        """See `Contender`."""
        import torch

        held = self._cache.get_seq_length()
        shared = min(common(self._ids, prompt.ids), held, len(prompt.ids) - 1)
        if shared < held:
            self._cache.crop(shared - held)  # a negative number of tokens is dropped
        ids = torch.tensor([prompt.ids])
        made = self._model.generate(ids, past_key_values=self._cache, max_new_tokens=tokens)
        self._ids = made[0].tolist()
        return {"decoded": len(self._ids) - len(prompt.ids), "prefilled": len(prompt.ids) - shared}

    def close(self) -> None:
        """See `Contender`."""


class Llama:
    """The stand-in in llama.cpp, given the same ids (each is some row of its embedding)."""

    def __init__(self, flash: bool, shape: Shape = STARTER) -> None:
        from benchmarks.llama_standin import LlamaCpp

        self._server = LlamaCpp(THREADS, flash, shape)

    def complete(self, prompt: Prompt, tokens: int) -> dict[str, float]:
        """See `Contender`."""
        return self._server.complete(prompt.ids, tokens) | {"decoded": tokens}

    def close(self) -> None:
        """See `Contender`."""


def build(name: str) -> Contender:
    """The engine of that name."""
    if name == TRANSFORMERS:
        return Transformers()
    return Llama(flash=name == FLASH) if name in (LLAMA, FLASH) else Fimble(drafts=name == FIMBLE)


class Apart:
    """One engine in its own process."""

    def __init__(self, name: str, made: Callable[[str], Contender] = build):
        """Starts loading it; `made` makes the engine of a name. Raises `RuntimeError` if that fails."""
        os.environ["OMP_NUM_THREADS"] = str(THREADS)  # read by the child when it imports torch
        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, made, there), daemon=True)
        self._process.start()
        there.close()  # else the child's end would never be told of
        self.name = name
        self._answer()

    def complete(self, prompt: Prompt, tokens: int) -> dict[str, float]:
        """What the engine returns, with `ms` as it took in its process. Raises `RuntimeError`."""
        self._pipe.send((prompt, tokens))
        return self._answer()

    def settle(self, prompt: Prompt) -> None:
        """Nothing runs for a moment, then this engine does, on other text: it has its turn now."""
        time.sleep(SETTLE)
        self.complete(prompt, 1)
        time.sleep(SETTLE)

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> dict[str, float]:
        try:
            reply = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name} ended by itself") from None
        if isinstance(reply, str):
            raise RuntimeError(f"{self.name} failed: {reply}")
        return reply


def _serve(name: str, made: Callable[[str], Contender], pipe: Connection) -> None:
    try:
        contender = made(name)
        pipe.send({})
        while True:
            try:
                prompt, tokens = pipe.recv()
            except EOFError:
                return contender.close()
            began = time.perf_counter()
            figures = contender.complete(prompt, tokens)
            pipe.send(figures | {"ms": (time.perf_counter() - began) * 1000})
    except Exception:  # noqa: BLE001 - whatever it is, the parent raises it
        pipe.send(traceback.format_exc())


def spin() -> None:
    """Keeps one processor busy."""
    while True:
        pass
