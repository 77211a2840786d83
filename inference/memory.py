"""What a model of the native engine takes of a device's memory, before anything is loaded."""

from __future__ import annotations

import math
import re

from inference.models.shapes import Shape

GIB = 2**30
SMALLEST_CACHE = 8192
"""Tokens of KV without which a model is of little use."""
WORKSPACE = {"cpu": 0.5 * GIB, "cuda": 2.5 * GIB}
"""Bytes for activations of a prompt's chunk, kernels and graphs, and the context of the device."""


class DoesNotFit(Exception):
    """A model is too large for the device; the message has the figures and what to change."""


def weight_bytes(config: Shape, dtype: str) -> int:
    """Bytes of all weights in `dtype` (float32, bfloat16, float16 or int8) as they are kept on a device."""
    from inference.checkpoint import is_tied, takes_int8
    from inference.random_weights import shapes

    floats = 4 if dtype == "float32" else 2
    total, wanted = 0, shapes(config)
    for name, shape in wanted.items():
        if dtype == "int8" and takes_int8(name, shape, tied=is_tied(wanted)):
            total += math.prod(shape) + 4 * shape[0]
        else:
            total += floats * math.prod(shape)
    return total + config.num_hidden_layers * config.made_besides * floats


def wanted(config: Shape, dtype: str, kind: str) -> int:
    """Bytes that loading a model on a device of this kind (cpu, cuda) takes at least, a small cache included."""
    floats = 4 if dtype == "float32" or (dtype == "int8" and kind == "cpu") else 2
    cache = SMALLEST_CACHE * config.num_hidden_layers * config.kv * floats
    return int(weight_bytes(config, dtype) + cache + WORKSPACE.get(kind, GIB))


def check(config: Shape, dtype: str, device: str, name: str = "") -> None:
    """Raises `DoesNotFit` if the device has too little memory free; `name` is the model's, for the way out."""
    kind = device.partition(":")[0]
    if kind not in WORKSPACE:
        return
    needed = wanted(config, dtype, kind)
    if kind == "cpu":
        import psutil

        memory = psutil.virtual_memory()
        free, total = int(memory.available), int(memory.total)
        if needed < 2 * GIB:  # what little is lacking, the system finds
            return
    else:
        import torch

        free, total = torch.cuda.mem_get_info(device)
    if needed > free:
        raise DoesNotFit(message(config, dtype, device, needed, free, total, name))


def message(config: Shape, dtype: str, device: str, needed: int, free: int, total: int, name: str = "") -> str:
    """What is missing, and what would help."""
    smaller = wanted(config, "int8", device.partition(":")[0])
    advice: list[str] = []
    if dtype != "int8" and smaller <= total:
        advice.append(f"set `dtype` to int8, which takes {smaller / GIB:.1f} GiB")
    if needed <= total:
        advice.append(f"close other programs that use {'memory' if device == 'cpu' else 'the device'}")
    elsewhere = "" if device == "cpu" else ", or `device` cpu if this computer has the memory"
    advice.append(f"choose a smaller model{elsewhere}")
    if smaller > total:
        advice.append(f"serve it on a machine with GPUs: {vllm(config, name)}; then set `backend` to openai")
    return (
        f"the model needs {needed / GIB:.1f} GiB on {device} as {dtype}, and {free / GIB:.1f} of {total / GIB:.1f} GiB "
        f"are free: {', or '.join(advice)}"
    )


CARD = 80 * GIB
"""Of the GPUs that a large model is served on."""


def vllm(config: Shape, name: str) -> str:
    """The command that serves a model with vLLM on as few GPUs of 80 GB as hold it; they go in powers of two."""
    cards = 1
    while weight_bytes(config, "bfloat16") > 0.9 * cards * CARD:
        cards *= 2
    context = min(8192, config.max_position_embeddings)
    return (
        f"`vllm serve {name or 'MODEL'} --dtype bfloat16 --tensor-parallel-size {cards} --max-model-len {context} "
        f"--trust-remote-code --enable-prefix-caching` ({cards} x 80 GB)"
    )


def ran_out(device: str, dtype: str, error: Exception) -> str:
    """What to tell the user when a device ran out of memory at work: what was wanted, what is free, what helps."""
    import torch

    size = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    needed = f"{size[1]} more were needed" if size else "more was needed than there is"
    free = ""
    if device.startswith("cuda"):
        left, total = (part / GIB for part in torch.cuda.mem_get_info(device))
        free = f", {left:.1f} of {total:.1f} GiB are free"
    return (
        f"out of memory on {device} ({dtype}): {needed}{free}; the prefix cache was dropped. Close other programs on "
        "the device, lower `context.prefixTokens`, or choose a smaller model or `dtype` int8"
    )
