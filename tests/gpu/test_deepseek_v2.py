"""The native DeepSeek-V2 computes what transformers computes, in every form of the family, however it is split up."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

from inference import starter
from inference.checkpoint import Checkpoint, Int8
from inference.models import int8_cpu
from inference.models.deepseek_v2 import DeepseekV2
from inference.models.deepseek_v2_config import Unsupported, config
from inference.models.int8_cpu import PACKED_ROWS, Int8Cpu
from inference.models.paged_model import PagedModel
from inference.models.rows import Group, Rows
from inference.models.slots import Slots
from inference.tokens import Tokens
from inference.weights import native
from tests.gpu.devices import DEVICES

ERROR = 1e-4
"""Largest relative error of float32 logits, ‖ours − theirs‖ / ‖theirs‖."""
INT8_ERROR = 1e-4 if int8_cpu.seven_bits() else 3e-4
"""The same of a single row of int8 against its weights made floats, where activations have two digits: about 15 bits,
without VNNI 20. Of all rows together `ERROR` holds."""

BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 40,
    "num_hidden_layers": 3,
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
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
}
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
VARIANTS: dict[str, dict[str, Any]] = {
    "lite": {"rope_parameters": YARN},
    "236B": {
        "rope_parameters": YARN | {"mscale": 1.0},
        "q_lora_rank": 48,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
    },
    "dense, tied, no YaRN": {"first_k_dense_replace": 3, "n_routed_experts": 1, "tie_word_embeddings": True},
    "experts from the first layer, one shared": {"first_k_dense_replace": 0, "n_shared_experts": 1},
    "values narrower than keys": {"v_head_dim": 16, "q_lora_rank": 24},
}
ALL = pytest.mark.parametrize("variant", VARIANTS)


def made(variant: str, place: Path) -> Path:
    """A folder as it is published: random weights of deviation 0.08, so that attention and routing are not uniform."""
    torch.manual_seed(sum(map(ord, variant)))
    model = DeepseekV2ForCausalLM(DeepseekV2Config(**BASE | VARIANTS[variant]))
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.08)
    model.save_pretrained(place, max_shard_size="100KB")
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each variant."""
    return {name: made(name, tmp_path_factory.mktemp("variant")) for name in VARIANTS}


def load(folder: Path, device: str, dtype: torch.dtype = torch.float32) -> PagedModel:
    shape = config(json.loads((folder / "config.json").read_text()))
    floats = torch.float32 if dtype == torch.int8 else dtype
    return native(shape, Checkpoint(folder, device, floats, int8=dtype == torch.int8), device, dtype, 4096)


@functools.cache
def transformers_model(folder: Path, device: str, dtype: torch.dtype) -> Any:
    return cast(Any, DeepseekV2ForCausalLM.from_pretrained(folder, dtype=dtype)).to(device).eval()


def reference(folder: Path, device: str, ids: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.inference_mode():
        return transformers_model(folder, device, dtype)(torch.tensor([ids], device=device)).logits[0].float()


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest of a row."""
    return float((ours - theirs).norm(dim=-1).div(theirs.norm(dim=-1)).max())


def error_of_all(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


IDS = torch.randint(0, 300, (400,), generator=torch.Generator().manual_seed(3)).tolist()


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
    assert model.cache.held == 0, "what was computed anew is not to be found by others"
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
@pytest.mark.parametrize("variant", ["lite", "236B"])
def test_positions_up_to_the_last_are_those_of_transformers(
    folders: dict[str, Path], variant: str, device: str
) -> None:
    folder, count = folders[variant], 48
    shape = config(json.loads((folder / "config.json").read_text()))
    model = DeepseekV2(shape, Checkpoint(folder, device, torch.float32), device, shape.max_position_embeddings)
    theirs = transformers_model(folder, device, torch.float32)
    ids = torch.tensor(IDS[:count], device=device)
    everything = torch.arange(count, device=device)
    for start in (0, 4090, 65_500, 131_072 - count):
        pool = torch.zeros(shape.num_hidden_layers, count, shape.latent, device=device)
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
    ours = model.forward([(model.begin(IDS, reuse=False), 400, 400)])

    def typical(logits: Tensor) -> float:  # a near-tie in routing that falls otherwise changes single rows a lot
        return float((logits - exact).norm(dim=-1).div(exact.norm(dim=-1)).median())

    assert typical(ours) < 1.2 * typical(theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_is_its_weights_made_floats(folders: dict[str, Path], variant: str) -> None:
    folder, chooses = folders[variant], "dense" not in variant
    exact = load(folder, "cpu", torch.int8)
    dequantised = Checkpoint(folder, "cpu", torch.float32, int8=True)
    theirs: Any = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        for name, parameter in theirs.named_parameters():
            if ".experts." in name:  # packed here, published one by one
                continue
            stored = dequantised.matrix(name) if parameter.ndim == 2 else dequantised.tensor(name)
            parameter.copy_(stored.dequantised(torch.float32) if isinstance(stored, Int8) else stored)
        for i, layer in enumerate(theirs.model.layers):
            for e in range(getattr(getattr(layer.mlp, "experts", None), "num_experts", 0)):
                name = f"model.layers.{i}.mlp.experts.{e}."
                parts = [dequantised.matrix(f"{name}{part}_proj.weight") for part in ("gate", "up", "down")]
                gate, up, down = (p.dequantised(torch.float32) if isinstance(p, Int8) else p for p in parts)
                layer.mlp.experts.gate_up_proj[e].copy_(torch.cat([gate, up]))
                layer.mlp.experts.down_proj[e].copy_(down)
        expected = theirs(torch.tensor([IDS])).logits[0]
    for size in (400, PACKED_ROWS, 1):
        sequence = exact.begin(IDS, reuse=False)
        steps = range(0, 400, size)
        parts = [exact.forward([(sequence, min(size, 400 - at), min(size, 400 - at))]) for at in steps]
        logits = torch.cat(parts)
        # With experts not one near-tie may fall otherwise.
        assert error(logits, expected) < (ERROR if chooses else INT8_ERROR), f"in steps of {size}"
        assert error_of_all(logits, expected) < ERROR, f"in steps of {size}"
        exact.end(sequence, keep=False)


@pytest.fixture(params=[False, True], ids=["eight bits", "seven bits"])
def seven_bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """As on a processor with VNNI and as on one without."""
    if int8_cpu.seven_bits() and not request.param:
        pytest.skip("this processor's integer products overflow with eight bits")
    monkeypatch.setattr(int8_cpu, "seven_bits", lambda: request.param)
    monkeypatch.setattr(int8_cpu, "_buffers", type(int8_cpu._buffers)())
    return request.param


@torch.inference_mode()
@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("vnni", [True, False])
def test_int8_rows_do_not_depend_on_their_neighbours(
    seven_bits: bool, vnni: bool, digits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit among few rows; to float rounding between the kernels for few and for many."""
    if not vnni:
        monkeypatch.setattr(int8_cpu, "has_vnni", lambda: False)
    torch.manual_seed(1)
    weight = Int8(torch.randint(-127, 128, (200, 96), dtype=torch.int8), torch.rand(200) * 0.01)
    multiply, fine = Int8Cpu(weight, digits), seven_bits or digits == 3
    x = torch.randn(300, 96) * torch.logspace(-4, 4, 300)[:, None]
    few, exact = multiply(x[:PACKED_ROWS]), x @ weight.dequantised(torch.float32).T
    assert error(few, exact[:PACKED_ROWS]) < (2e-6 if fine else 1e-4)
    assert error(multiply(x), exact) < (2e-6 if fine else 1e-4)
    alone = torch.cat([multiply(row[None]) for row in x])
    assert torch.equal(multiply(x[:PACKED_ROWS]), alone[:PACKED_ROWS])
    assert error(multiply(x), alone) < (2e-6 if fine else 1e-6)
    assert multiply(torch.zeros(3, 96)).abs().max() == 0


def test_the_starter_is_what_transformers_makes_of_it() -> None:
    shape = config(json.loads((starter.FOLDER / "config.json").read_text()))
    source = Checkpoint(starter.FOLDER, "cpu", torch.float32)
    model = native(shape, source, "cpu", torch.int8, starter.WINDOW)
    theirs = DeepseekV2ForCausalLM.from_pretrained(
        None,
        config=DeepseekV2Config.from_pretrained(starter.FOLDER),
        state_dict=starter.state_dict(),
        dtype=torch.float32,
    ).eval()
    ids = Tokens(starter.FOLDER / "tokenizer.json").encode(Path(__file__).read_text("utf-8"))[:1200]
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
    logits = model.forward([(model.begin(ids, reuse=False), 1200, 1200)])
    assert error(logits, expected) < INT8_ERROR
    assert error_of_all(logits, expected) < ERROR


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "deepseek_v3"},
        {"attention_bias": True},
        {"norm_topk_prob": True},
        {"rope_scaling": {"type": "linear", "factor": 2}},
        {"num_key_value_heads": 2},
        {"topk_method": "noaux_tc"},
    ],
    ids=str,
)
def test_other_configurations_are_left_to_transformers(change: dict[str, Any]) -> None:
    published = BASE | {"model_type": "deepseek_v2", "rope_scaling": YARN}
    assert config(published).yarn
    with pytest.raises(Unsupported, match=next(iter(change)) if "rope" not in str(change) else "rotary"):
        config(published | change)
