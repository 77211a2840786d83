"""A model folder of another family, through transformers, on each device.

The same logits however they are computed, and an engine that works there.

The CPU rows run everywhere; the CUDA rows are marked `gpu`.
"""

from __future__ import annotations

import queue
import shutil
from pathlib import Path

import pytest
import torch
from transformers.models.starcoder2 import Starcoder2Config, Starcoder2ForCausalLM

from inference import starter
from inference.engine import Engine
from inference.models.transformers_model import TransformersModel
from inference.weights import Loaded, ModelNotFound, load
from inference.wire import End, Failure, FimRequest, Piece, Sampling, Stops
from tests.gpu.devices import DEVICES

# Any family that has no engine of its own (as in test_deepseek_v2.py and test_llama.py).
CONFIG = Starcoder2Config(
    vocab_size=16384,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    bos_token_id=0,
    eos_token_id=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder with random weights and the starter's tokenizer."""
    place = tmp_path_factory.mktemp("model")
    torch.manual_seed(7)
    Starcoder2ForCausalLM(CONFIG).save_pretrained(place)
    shutil.copy(starter.FOLDER / "tokenizer.json", place)
    return place


def loaded(folder: Path, device: str, dtype: str = "float32") -> Loaded:
    return load(str(folder), device, dtype, lambda _stage, _share: None)


IDS = torch.randint(10, 16000, (300,), generator=torch.Generator().manual_seed(3)).tolist()


@DEVICES
def test_logits_are_those_of_transformers_cold_chunked_stepwise_cached_and_forked(folder: Path, device: str) -> None:
    reference = Starcoder2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits[0]
    model = loaded(folder, device).model

    def close(logits: torch.Tensor, position: int) -> bool:
        difference = (logits.cpu() - expected[position]).norm() / expected[position].norm()
        return bool(difference < 1e-4)

    cold = model.begin(IDS, reuse=False)
    assert close(model.forward([(cold, 300, 1)])[0], 299)
    chunked = model.begin(IDS, reuse=False)
    chunks = [model.forward([(chunked, min(64, 300 - start), 1)]) for start in range(0, 300, 64)]
    assert close(chunks[-1][0], 299)
    model.end(chunked, keep=True)
    for length in (1, 2, 63, 200, 299, 300):
        again = model.begin(IDS[:length], reuse=True)
        assert again.reused == length - 1
        assert close(model.forward([(again, 1, 1)])[0], length - 1)
    stepwise = model.begin(IDS[:150], reuse=True)
    model.forward([(stepwise, 1, 1)])
    twin = model.fork(stepwise)
    stepwise.ids.append(IDS[150])
    twin.ids.append(IDS[0])
    both = model.forward([(twin, 1, 1), (stepwise, 1, 1)])
    assert close(both[1], 150)
    assert not close(both[0], 150)


@DEVICES
def test_the_engine_answers_there(folder: Path, device: str) -> None:
    one = loaded(folder, device)
    assert one.model.device.startswith(device)
    engine = Engine(one.model, one.tokens, one.markers)
    greedy = FimRequest("def f(x):", "\n", "\n    ret", Stops(max_tokens=8))
    texts = [
        text(engine, greedy),
        text(engine, greedy),
        text(engine, FimRequest("x", n=2, sampling=Sampling(1.0, seed=1))),
    ]
    assert texts[0] == texts[1]
    cpu = loaded(folder, "cpu")
    other = Engine(cpu.model, cpu.tokens, cpu.markers)
    assert text(other, greedy) == texts[0]
    engine.close()
    other.close()


@DEVICES
def test_half_precision_loads_and_answers(folder: Path, device: str) -> None:
    one = loaded(folder, device, "bfloat16")
    assert one.model.dtype == "bfloat16"
    engine = Engine(one.model, one.tokens, one.markers)
    text(engine, FimRequest("def f(x):", "\n", "\n    ret", Stops(max_tokens=8)))
    engine.close()


def text(engine: Engine, request: FimRequest) -> str:
    messages: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(request, messages.put)
    pieces: list[str] = []
    ends = 0
    while ends < request.n:
        message = messages.get(timeout=120)
        assert not isinstance(message, Failure), message
        if isinstance(message, Piece):
            pieces.append(message.text)
        ends += isinstance(message, End)
    return "".join(pieces)


def test_an_incomplete_folder_and_an_unknown_name_are_clear_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        loaded(tmp_path, "cpu")
    with pytest.raises(ModelNotFound, match="neither a folder nor in the hub's cache"):
        load("nobody/has-this", "cpu", "auto", lambda _stage, _share: None)
    with pytest.raises(ValueError, match="unknown device"):
        loaded(folder, "abacus")
    with pytest.raises(ValueError, match="unknown dtype"):
        loaded(folder, "cpu", "int3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_gpu_is_a_clear_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        loaded(folder, "cuda")


def test_a_model_whose_cache_cannot_be_cut_is_computed_anew(folder: Path) -> None:
    model = loaded(folder, "cpu").model
    assert isinstance(model, TransformersModel)
    model.cuts = False
    sequence = model.begin(IDS, reuse=True)
    model.forward([(sequence, 300, 1)])
    model.end(sequence, keep=True)
    assert model.begin(IDS, reuse=True).reused == 0
