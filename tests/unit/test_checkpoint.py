"""Checkpoints: every tensor as it was saved, in each published layout; int8 as shipped; damage named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

from inference import starter
from inference.checkpoint import INDEX, Checkpoint, Int8, Unreadable, quantise, takes_int8
from inference.random_weights import RandomWeights, shapes

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}
PROJECTION = "model.layers.1.self_attn.o_proj.weight"


def reference(**changes: Any) -> DeepseekV2ForCausalLM:
    torch.manual_seed(1)
    model = DeepseekV2ForCausalLM(DeepseekV2Config(**{**SMALL, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # norms and biases too: equal ones would hide a mix-up
    return model


def published(model: DeepseekV2ForCausalLM) -> dict[str, Tensor]:
    """The model's weights by published names: one matrix an expert, where transformers packs them."""
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        at, _, kind = name.rpartition(".")
        if not at.endswith(".experts"):
            found[name] = tensor
            continue
        for expert, weight in enumerate(tensor):
            if kind == "gate_up_proj":
                found[f"{at}.{expert}.gate_proj.weight"], found[f"{at}.{expert}.up_proj.weight"] = weight.chunk(2)
            else:
                found[f"{at}.{expert}.down_proj.weight"] = weight
    if model.config.tie_word_embeddings:
        del found["lm_head.weight"]
    return found


@pytest.fixture(scope="module")
def model() -> DeepseekV2ForCausalLM:
    return reference()


@pytest.fixture
def shards(model: DeepseekV2ForCausalLM, tmp_path: Path) -> Path:
    """A folder as published: shards and their index."""
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    return tmp_path / "shards"


def test_shards_come_back_bit_by_bit(model: DeepseekV2ForCausalLM, shards: Path) -> None:
    assert len(list(shards.glob("*.safetensors"))) > 2
    source = Checkpoint(shards, "cpu", torch.float32)
    expected = published(model)
    for name, tensor in expected.items():
        assert source.has(name)
        assert source.shape(name) == tuple(tensor.shape)
        assert torch.equal(source.tensor(name), tensor), name
        matrix = source.matrix(name)
        assert isinstance(matrix, Tensor)
        assert torch.equal(matrix, tensor)
    assert set(source.stored) == set(expected)
    assert not source.has("model.layers.3.mlp.gate.weight")


@pytest.mark.parametrize("file", ["model.safetensors", "other.safetensors"])
def test_one_file_comes_back_bit_by_bit(model: DeepseekV2ForCausalLM, tmp_path: Path, file: str) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / file)
    source = Checkpoint(tmp_path, "cpu", torch.float32)
    for name, tensor in published(model).items():
        assert torch.equal(source.tensor(name), tensor), name


def test_a_tensor_comes_in_the_wanted_type(model: DeepseekV2ForCausalLM, shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.bfloat16)
    for name, tensor in published(model).items():
        assert source.tensor(name).dtype == torch.bfloat16
        assert torch.equal(source.tensor(name), tensor.bfloat16())


def test_on_a_cpu_in_the_stored_type_the_file_itself_is_the_tensor(shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.float32)
    assert source.tensor(PROJECTION).data_ptr() == source.tensor(PROJECTION).data_ptr()
    assert source.matrix(PROJECTION).data_ptr() == source.tensor(PROJECTION).data_ptr()  # type: ignore[union-attr]


def test_experts_are_packed_into_one_tensor(model: DeepseekV2ForCausalLM, shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.float32)
    packed = torch.zeros(4, 32, 32)
    for expert in range(4):
        source.into(f"model.layers.2.mlp.experts.{expert}.gate_proj.weight", packed[expert, :16])
        source.into(f"model.layers.2.mlp.experts.{expert}.up_proj.weight", packed[expert, 16:])
    assert torch.equal(packed, model.state_dict()["model.layers.2.mlp.experts.gate_up_proj"])


def test_progress_is_the_share_of_bytes_read_and_ends_at_all(shards: Path) -> None:
    seen: list[float] = []
    source = Checkpoint(shards, "cpu", torch.float32, progress=seen.append)
    for name in [*source.stored, *source.stored]:  # reading twice is no progress
        source.tensor(name)
    assert len(seen) == len(source.stored)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert seen[0] == pytest.approx(source.stored[next(iter(source.stored))].bytes / source._bytes)  # pyright: ignore


def test_the_starter_s_int8_form_is_read_as_it_is_and_as_floats() -> None:
    raw = load_file(starter.FOLDER / starter.WEIGHTS)
    source = Checkpoint(starter.FOLDER, "cpu", torch.float32)
    for name, tensor in starter.state_dict().items():
        assert torch.equal(source.tensor(name), tensor), name
        matrix = source.matrix(name)
        if raw[name].dtype == torch.int8:
            assert isinstance(matrix, Int8)
            assert torch.equal(matrix.values, raw[name])
            assert torch.equal(matrix.scale, raw[f"{name}_scale"].flatten())
        else:
            assert isinstance(matrix, Tensor)
            assert torch.equal(matrix, tensor)
    name = "model.layers.3.mlp.up_proj.weight"
    target = torch.zeros(source.shape(name), dtype=torch.bfloat16)
    source.into(name, target)
    assert torch.equal(target, starter.state_dict()[name].bfloat16())


def test_stored_int8_is_given_as_floats_on_demand() -> None:
    source = Checkpoint(starter.FOLDER, "cpu", torch.bfloat16, dequantise=True)
    for name, tensor in starter.state_dict().items():
        matrix = source.matrix(name)
        assert isinstance(matrix, Tensor)
        assert torch.equal(matrix, tensor.bfloat16()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_int8_is_off_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(64, 300) * torch.logspace(-3, 2, 64)[:, None]).to(dtype)
    weight[5] = 0
    before = weight.clone()
    made = quantise(weight)
    assert (made.values.dtype, made.scale.dtype) == (torch.int8, torch.float32)
    assert torch.equal(weight, before)
    exact = weight.double()
    step = exact.abs().amax(1, keepdim=True) / 127
    error = (made.values.double() * made.scale.double()[:, None] - exact).abs()
    assert (error <= step * (0.5 + 1e-5)).all()
    assert (made.values.abs().amax(1)[torch.arange(64) != 5] == 127).all()
    assert made.dequantised(dtype).dtype == dtype
    assert not made.dequantised(dtype)[5].any()
    assert (made.scale > 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_matrix_of_nan_or_infinities_is_not_quantised(tmp_path: Path, bad: float) -> None:
    weight = torch.ones(4, 4)
    weight[2, 1] = bad
    save_file({"lm_head.weight": weight}, tmp_path / "model.safetensors")
    with pytest.raises(Unreadable, match=r"lm_head\.weight in .*model\.safetensors holds infinities or NaN"):
        Checkpoint(tmp_path, "cpu", torch.float32, int8=True).matrix("lm_head.weight")


def test_what_is_quantised_on_demand(model: DeepseekV2ForCausalLM, shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.bfloat16, int8=True)
    floating: set[str] = set()
    for name, tensor in published(model).items():
        matrix = source.matrix(name)
        if isinstance(matrix, Tensor):
            floating.add(name.removeprefix("model.").split(".", 2)[-1] if ".layers." in name else name)
            assert torch.equal(matrix, tensor.bfloat16())
        else:
            expected = quantise(tensor)  # of what is stored, not of its rounding to bfloat16
            assert torch.equal(matrix.values, expected.values)
            assert torch.equal(matrix.scale, expected.scale)
        assert torch.equal(source.tensor(name), tensor.bfloat16())
    assert floating == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_a_layernorm.weight",
        "self_attn.kv_a_layernorm.weight",
        "self_attn.kv_b_proj.weight",
        "mlp.gate.weight",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; run `pytest -m gpu` where one is")
def test_a_cuda_device_gets_what_a_cpu_gets(shards: Path) -> None:
    for int8 in (False, True):
        here, there = (Checkpoint(shards, device, torch.bfloat16, int8=int8) for device in ("cpu", "cuda"))
        for name in here.stored:
            one, other = here.matrix(name), there.matrix(name)
            if isinstance(one, Int8):
                assert isinstance(other, Int8)
                assert other.values.is_cuda
                assert torch.equal(one.values, other.values.cpu()), name
                assert torch.equal(one.scale, other.scale.cpu()), name
            else:
                assert isinstance(other, Tensor)
                assert other.is_cuda
                assert torch.equal(one, other.cpu()), name


def test_a_gate_projection_is_no_router() -> None:
    assert takes_int8("model.layers.0.mlp.gate_proj.weight", (8, 8))
    assert not takes_int8("model.layers.1.mlp.gate.weight", (8, 8))
    assert not takes_int8("model.layers.1.mlp.gate.e_score_correction_bias", (8,))
    assert not takes_int8("model.layers.1.mlp.gate.e_score_correction_bias", (1, 8))


def truncate(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@pytest.mark.parametrize("damage", [truncate, empty, pointer])
def test_a_damaged_shard_is_named(shards: Path, damage: Callable[[Path], None]) -> None:
    shard = sorted(shards.glob("*.safetensors"))[1]
    damage(shard)
    with pytest.raises(Unreadable) as caught:
        Checkpoint(shards, "cpu", torch.float32)
    assert str(caught.value).startswith(f"{shard} is damaged or incomplete")
    assert "download it again" in str(caught.value)


def test_a_missing_shard_is_named(shards: Path) -> None:
    shard = sorted(shards.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(Unreadable) as caught:
        Checkpoint(shards, "cpu", torch.float32)
    assert str(caught.value).startswith(f"{shard} is missing")
    assert INDEX in str(caught.value)


def test_a_shard_that_lacks_what_the_index_promises_is_named(shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text())
    shard = shards / index["weight_map"][PROJECTION]
    kept = {name: tensor.clone() for name, tensor in load_file(shard).items() if name != PROJECTION}
    save_file(kept, shard)
    with pytest.raises(Unreadable) as caught:
        Checkpoint(shards, "cpu", torch.float32)
    assert str(caught.value).startswith(f"{shard} lacks {PROJECTION}")


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_named(shards: Path, text: str) -> None:
    (shards / INDEX).write_text(text)
    with pytest.raises(Unreadable) as caught:
        Checkpoint(shards, "cpu", torch.float32)
    assert str(caught.value).startswith(f"{shards / INDEX} is damaged")


def test_pickled_weights_are_refused_with_the_way_out(model: DeepseekV2ForCausalLM, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    torch.save(published(model), tmp_path / "pytorch_model.bin")
    with pytest.raises(Unreadable) as caught:
        Checkpoint(tmp_path, "cpu", torch.float32)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'pytorch_model.bin'} is pickled")
    exec(message.partition("in Python: ")[2])  # the advice works
    source = Checkpoint(tmp_path, "cpu", torch.float32)
    assert all(torch.equal(source.tensor(name), tensor) for name, tensor in published(model).items())


def test_a_folder_without_weights_or_with_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"holds no weights \(\*\.safetensors\)"):
        Checkpoint(tmp_path, "cpu", torch.float32)
    for name in "ab":
        save_file({name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(Unreadable, match=r"holds 2 safetensors files but no model\.safetensors\.index\.json"):
        Checkpoint(tmp_path, "cpu", torch.float32)


def test_a_tensor_that_is_not_there_is_named(shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.float32)
    for read in (source.tensor, source.matrix, source.shape, lambda name: source.into(name, torch.ones(1))):
        with pytest.raises(Unreadable, match="holds no tensor nothing"):
            read("nothing")


def test_a_tensor_of_another_shape_is_not_copied(shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.float32)
    with pytest.raises(Unreadable, match=r"holds model\.norm\.weight as \[32\], but \[4, 32\] is wanted"):
        source.into("model.norm.weight", torch.ones(4, 32))  # broadcasting would have hidden it


def test_a_checkpoint_is_held_to_its_config(shards: Path) -> None:
    source = Checkpoint(shards, "cpu", torch.float32)
    source.require(shapes(DeepseekV2Config(**SMALL)))
    with pytest.raises(Unreadable, match="is wanted"):
        source.require(shapes(DeepseekV2Config(**{**SMALL, "kv_lora_rank": 8})))
    with pytest.raises(Unreadable, match=r"no tensor model\.layers\.3\."):
        source.require(shapes(DeepseekV2Config(**{**SMALL, "num_hidden_layers": 4})))


@pytest.mark.parametrize("scale", [None, torch.ones(3), torch.ones(1, 4), torch.ones(4, dtype=torch.int8)])
def test_int8_needs_a_scale_a_row(tmp_path: Path, scale: Tensor | None) -> None:
    tensors = {"lm_head.weight": torch.ones(4, 4, dtype=torch.int8)}
    save_file(tensors | ({} if scale is None else {"lm_head.weight_scale": scale}), tmp_path / "model.safetensors")
    source = Checkpoint(tmp_path, "cpu", torch.float32)
    for read in (source.tensor, source.matrix):
        with pytest.raises(Unreadable, match=r"lm_head\.weight as int8 without one scale a row"):
            read("lm_head.weight")


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"lm_head.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    source = Checkpoint(tmp_path, "cpu", torch.float32)
    for read in (source.tensor, source.matrix):
        with pytest.raises(Unreadable, match=r"lm_head\.weight as F8_E4M3, which is not read here"):
            read("lm_head.weight")


def test_a_tied_model_has_no_head(tmp_path: Path) -> None:
    tied = reference(tie_word_embeddings=True)
    tied.save_pretrained(tmp_path)
    source = Checkpoint(tmp_path, "cpu", torch.float32)
    assert not source.has("lm_head.weight")
    source.require(shapes(tied.config))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"q_lora_rank": None},
    {"first_k_dense_replace": 0},
    {"first_k_dense_replace": 3},
    {"tie_word_embeddings": True},
    {"attention_bias": True},
    {"attention_bias": True, "q_lora_rank": None},
    {"n_shared_experts": 1, "n_routed_experts": 3},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_random_weights_have_the_names_and_shapes_of_the_reference(changes: dict[str, Any]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in published(reference(**changes)).items()}
    config = DeepseekV2Config(**{**SMALL, **changes})
    source = RandomWeights(config, "cpu", torch.float32)
    assert shapes(config) == expected
    for name, shape in expected.items():
        assert source.has(name)
        assert source.shape(name) == tuple(source.tensor(name).shape) == shape
    assert not source.has("model.layers.0.mlp.nothing")
    with pytest.raises(Unreadable, match="no tensor nothing"):
        source.tensor("nothing")


def test_random_weights_are_the_same_in_any_order_and_others_by_seed_and_name() -> None:
    config = DeepseekV2Config(**SMALL)
    names = list(shapes(config))
    for dtype in (torch.float32, torch.bfloat16):
        source, again = (RandomWeights(config, "cpu", dtype) for _ in range(2))
        first = {name: source.tensor(name) for name in names}
        second = {name: again.tensor(name) for name in reversed(names)}
        assert all(torch.equal(first[name], second[name]) for name in names)
        assert len({first[name].flatten()[:8].float().numpy().tobytes() for name in names}) == len(names)
        other = RandomWeights(config, "cpu", dtype, seed=1)
        assert not any(torch.equal(first[name], other.tensor(name)) for name in names)


def test_random_weights_keep_activations_sane() -> None:
    source = RandomWeights(DeepseekV2Config(**{**SMALL, "attention_bias": True}), "cpu", torch.float32)
    for name, shape in shapes(DeepseekV2Config(**{**SMALL, "attention_bias": True})).items():
        tensor = source.tensor(name)
        around = 1.0 if name.endswith("norm.weight") else 0.0
        deviation = shape[-1] ** -0.5 if len(shape) == 2 else 0.02
        assert abs(tensor.mean().item() - around) < 5 * deviation * tensor.numel() ** -0.5, name
        assert tensor.std().item() == pytest.approx(deviation, rel=0.6), name


def test_random_int8_is_the_quantised_form_of_the_same_numbers() -> None:
    config = DeepseekV2Config(**SMALL)
    floats, int8 = (RandomWeights(config, "cpu", torch.bfloat16, int8=asked) for asked in (False, True))
    for name, shape in shapes(config).items():
        made = int8.matrix(name)
        assert isinstance(made, Int8) == takes_int8(name, shape)
        if isinstance(made, Int8):
            assert torch.equal(made.values, quantise(floats.tensor(name)).values)
        else:
            assert torch.equal(made, floats.tensor(name))
        target = torch.zeros(2, *shape)
        int8.into(name, target[1])
        assert torch.equal(target[1], floats.tensor(name).float())
        assert not target[0].any()


def test_a_checkpoint_needs_no_more_than_torch_and_safetensors(tmp_path: Path) -> None:
    shutil.copytree(starter.FOLDER, tmp_path / "starter", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    code = (
        "import sys; sys.modules |= dict.fromkeys(['numpy', 'transformers', 'tokenizers', 'huggingface_hub'])\n"
        "import pathlib, torch; from inference.checkpoint import Checkpoint, Int8\n"
        "source = Checkpoint(pathlib.Path(sys.argv[1]), 'cpu', torch.bfloat16)\n"
        "assert isinstance(source.matrix('model.embed_tokens.weight'), Int8)\n"
        "assert source.tensor('model.norm.weight').dtype == torch.bfloat16"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "starter"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
