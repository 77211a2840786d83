"""Llama, Qwen2 and Mistral in the native engine compute what transformers computes, however they are split up."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from inference.checkpoint import Checkpoint, Int8
from inference.memory import weight_bytes
from inference.models import GivenUp, int8_cpu
from inference.models.int8_cpu import PACKED_ROWS
from inference.models.llama import Llama
from inference.models.llama_config import config, shapes
from inference.models.paged_model import PagedModel
from inference.models.rope import Unsupported
from inference.models.rows import Group, Rows
from inference.models.slots import Slots
from inference.weights import native
from tests.gpu.devices import DEVICES

ERROR = 1e-4
"""Largest relative error of float32 logits, ‖ours − theirs‖ / ‖theirs‖."""
INT8_ERROR = 1e-4 if int8_cpu.seven_bits() else 3e-4
"""The same of a single row of int8 against its weights made floats: activations have about 15 bits, without VNNI 20. Of
all rows together `ERROR` holds."""

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
LINEAR = {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-Coder 0.5B: tied": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen2.5-Coder 7B with YaRN": ("qwen2", {"rope_parameters": YARN, "num_attention_heads": 8}),
    "Llama 3.1": ("llama", {"rope_parameters": LLAMA3, "num_key_value_heads": 1}),
    "CodeLlama: no groups": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "DeepSeek-Coder V1: linear": ("llama", {"rope_parameters": LINEAR}),
    "Llama with every bias": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "heads wider than hidden": ("llama", {"head_dim": 32}),
    "Codestral": ("mistral", {"sliding_window": None, "head_dim": 24}),
}
ALL = pytest.mark.parametrize("variant", VARIANTS)
IDS = torch.randint(0, 300, (400,), generator=torch.Generator().manual_seed(3)).tolist()


def made(variant: str, place: Path) -> Path:
    """A folder as it is published: random weights of deviation 0.08, so that attention is not uniform; biases too."""
    kind, options = VARIANTS[variant]
    torch.manual_seed(sum(map(ord, variant)))
    configured, built = KINDS[kind]
    model = built(configured(**BASE | options))
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.08)
    model.save_pretrained(place, max_shard_size="50KB")
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each variant."""
    return {name: made(name, tmp_path_factory.mktemp("variant")) for name in VARIANTS}


def load(folder: Path, device: str, dtype: torch.dtype = torch.float32) -> PagedModel:
    shape = config(json.loads((folder / "config.json").read_text()))
    floats = dtype if dtype != torch.int8 else torch.float32 if device == "cpu" else torch.bfloat16
    source = Checkpoint(folder, device, floats, int8=dtype == torch.int8)
    source.require(shapes(shape))
    return native(shape, source, device, dtype, 4096)


@functools.cache
def transformers_model(folder: Path, device: str, dtype: torch.dtype) -> Any:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return cast(Any, KINDS[kind][1].from_pretrained(folder, dtype=dtype)).to(device).eval()


def reference(folder: Path, device: str, ids: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.inference_mode():
        return transformers_model(folder, device, dtype)(torch.tensor([ids], device=device)).logits[0].float()


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm(dim=-1).div(theirs.norm(dim=-1)).max())


@DEVICES
@ALL
def test_logits_are_those_of_transformers_cold_chunked_and_token_by_token(
    folders: dict[str, Path], variant: str, device: str
) -> None:
    model, theirs = load(folders[variant], device), reference(folders[variant], device, IDS)
    cold = model.begin(IDS, reuse=False)
    assert error(model.forward([(cold, 400, 400)]), theirs) < ERROR
    for size in (1, 7, 64, 200):
        chunked = model.begin(IDS, reuse=False)
        steps = range(0, 400, size)
        logits = torch.cat([model.forward([(chunked, min(size, 400 - at), min(size, 400 - at))]) for at in steps])
        assert error(logits, theirs) < ERROR, f"in steps of {size}"
        model.end(chunked, keep=False)
    model.end(cold, keep=True)
    model.check()


@DEVICES
@ALL
def test_the_cache_gives_the_same_wherever_it_is_split(folders: dict[str, Path], variant: str, device: str) -> None:
    """Sequences that begin alike and part anywhere, several in a forward, each with rows of its own number."""
    model, chance = load(folders[variant], device), random.Random(5)
    reused, rounds = 0, 12 if device == "cpu" else 4  # plain torch launches thousands of small kernels there
    for _ in range(rounds):
        texts = [IDS[: chance.randrange(2, 400)] + chance.choices(range(300), k=chance.randrange(1, 30))]
        texts += [[*chance.choice(texts)[: chance.randrange(1, 200)], chance.randrange(300)] for _ in range(2)]
        running = [model.begin(text, reuse=True) for text in texts]
        reused += sum(one.reused for one in running)
        last: dict[int, Tensor] = {}
        while pending := [(i, one) for i, one in enumerate(running) if one.computed < len(one.ids)]:
            rows = [(one, chance.randint(1, len(one.ids) - one.computed), 1) for _, one in pending]
            logits = model.forward(rows)
            last |= {i: row for (i, _), row in zip(pending, logits, strict=True)}
        for i, text in enumerate(texts):
            assert error(last[i], reference(folders[variant], device, text)[-1]) < ERROR
        for one in running:
            model.end(one, keep=chance.random() < 0.8)
        model.check()
    assert reused > 1000 * rounds // 12


@DEVICES
@ALL
def test_positions_up_to_the_last_are_those_of_transformers(
    folders: dict[str, Path], variant: str, device: str
) -> None:
    folder, count = folders[variant], 48
    shape = config(json.loads((folder / "config.json").read_text()))
    model = Llama(shape, Checkpoint(folder, device, torch.float32), device, shape.max_position_embeddings)
    theirs = transformers_model(folder, device, torch.float32)
    ids = torch.tensor(IDS[:count], device=device)
    everything = torch.arange(count, device=device)
    for start in (0, 4090, 65_500, 131_072 - count):
        pool = torch.zeros(shape.num_hidden_layers, count, shape.kv, device=device)
        slots = Slots(list(range(count)), device)
        rows = Rows(ids, everything + start, everything, [Group(0, count, count, slots)], everything)
        with torch.inference_mode():
            expected = theirs(ids[None], position_ids=(everything + start)[None]).logits[0]
        assert error(model.forward(pool, rows), expected) < ERROR, f"from position {start}"


@DEVICES
@ALL
def test_half_precision_errs_no_more_than_transformers_does(
    folders: dict[str, Path], variant: str, device: str
) -> None:
    folder = folders[variant]
    exact, theirs = reference(folder, device, IDS), reference(folder, device, IDS, torch.bfloat16)
    model = load(folder, device, torch.bfloat16)

    def typical(logits: Tensor) -> float:
        return float((logits - exact).norm(dim=-1).div(exact.norm(dim=-1)).median())

    for size in (400, 16, 1):
        sequence, steps = model.begin(IDS, reuse=False), range(0, 400, size)
        ours = torch.cat([model.forward([(sequence, min(size, 400 - at), min(size, 400 - at))]) for at in steps])
        model.end(sequence, keep=False)
        assert typical(ours) < 1.2 * typical(theirs), f"in steps of {size}"


@DEVICES
@ALL
def test_int8_is_its_weights_made_floats(folders: dict[str, Path], variant: str, device: str) -> None:
    folder = folders[variant]
    exact = load(folder, device, torch.int8)
    dequantised = Checkpoint(folder, "cpu", torch.float32, int8=True)
    theirs: Any = KINDS[VARIANTS[variant][0]][1].from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        for name, parameter in theirs.named_parameters():
            stored = dequantised.matrix(name) if parameter.ndim == 2 else dequantised.tensor(name)
            parameter.copy_(stored.dequantised(torch.float32) if isinstance(stored, Int8) else stored)
        expected = theirs(torch.tensor([IDS])).logits[0].to(device)
    for size in (400, PACKED_ROWS, 7, 1):
        sequence, steps = exact.begin(IDS, reuse=False), range(0, 400, size)
        ours = torch.cat([exact.forward([(sequence, min(size, 400 - at), min(size, 400 - at))]) for at in steps])
        assert error(ours, expected) < (INT8_ERROR if device == "cpu" else 3e-2), f"in steps of {size}"
        all_together = float((ours - expected).norm() / expected.norm())
        assert all_together < (ERROR if device == "cpu" else 3e-2), f"in steps of {size}"
        exact.end(sequence, keep=False)


def test_a_prompt_that_is_unwanted_is_broken_off_and_leaves_nothing_behind(folders: dict[str, Path]) -> None:
    model = load(folders["Qwen2.5-Coder 0.5B: tied"], "cpu")
    sequence, asked = model.begin(IDS, reuse=True), iter([False, True])
    with pytest.raises(GivenUp):
        model.forward([(sequence, 400, 1)], lambda: next(asked))
    assert (sequence.computed, model.figures()["slots_held"]) == (0, 0)
    fresh = model.begin(IDS, reuse=False)
    assert torch.equal(model.forward([(sequence, 400, 1)]), model.forward([(fresh, 400, 1)]))
    model.end(sequence, keep=False)
    model.end(fresh, keep=False)
    model.check()


def test_a_tied_model_has_its_one_table_as_int8_and_the_head_with_it(folders: dict[str, Path]) -> None:
    tied, apart = (Checkpoint(folders[name], "cpu", torch.float32, int8=True) for name in list(VARIANTS)[:2])
    assert isinstance(tied.matrix("model.embed_tokens.weight"), Int8)
    assert isinstance(apart.matrix("model.embed_tokens.weight"), Tensor)
    assert isinstance(apart.matrix("lm_head.weight"), Int8)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt_bigcode", {}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2}}),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
        ("mistral", {}),
        ("mistral", {"sliding_window": 4096}),
    ],
    ids=str,
)
def test_other_configurations_are_left_to_transformers(kind: str, change: dict[str, Any]) -> None:
    published = BASE | {"model_type": kind}
    with pytest.raises(Unsupported):
        config(published | change)
    assert config(BASE | {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False})
    assert config(BASE | {"model_type": "mistral", "sliding_window": None})


@pytest.mark.parametrize("scaling", [None, LLAMA3, YARN, LINEAR], ids=str)
def test_a_config_as_published_says_what_one_written_by_transformers_says(scaling: dict[str, Any] | None) -> None:
    written = BASE | {"model_type": "llama", "rope_parameters": scaling or {"rope_type": "default", "rope_theta": 2e4}}
    apart = dict(scaling) if scaling else {}
    theta = apart.pop("rope_theta", 2e4)
    published = BASE | {"model_type": "llama", "rope_theta": theta, "rope_scaling": apart or None}
    assert config(published) == config(written)
    if apart:
        published["rope_scaling"] = {"type" if name == "rope_type" else name: value for name, value in apart.items()}
        assert config(published) == config(written)


def test_what_a_model_takes_is_known_before_it_is_loaded(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        shape = config(json.loads((folder / "config.json").read_text()))
        source = Checkpoint(folder, "cpu", torch.bfloat16, int8=True)
        names = shapes(shape)
        assert weight_bytes(shape, "bfloat16") == sum(source.tensor(name).nbytes for name in names)
        kept = [source.matrix(name) for name in names]
        sizes = [k.values.nbytes + k.scale.nbytes if isinstance(k, Int8) else k.nbytes for k in kept]
        assert weight_bytes(shape, "int8") == sum(sizes)
