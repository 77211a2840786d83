"""Models of every family in the engine: caching, healing, and answers that end where the model ends them."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from transformers import (
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from inference.engine import Engine
from inference.families import CONTROL, FAMILIES
from inference.models import Best
from inference.models.paged_model import PagedModel
from inference.models.transformers_model import TransformersModel
from inference.tokens import Tokens
from inference.weights import Loaded, load
from inference.wire import End, Failure, FimRequest, Piece, Stops
from tests.unit.family_tokenizers import NAMES, named, other_text, spec_of, tokens_of

EVERY = [row.name for row in FAMILIES]
PREFIX = "import os\n\n\ndef read(path):\n    return open(path).read()\n\n\ndef write(path, text):"
SUFFIX = "\n\n\ndef remove(path):\n    os.remove(path)\n"
SMUGGLED = "".join(f"    x = '{text}'\n" for text in sorted(CONTROL))
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@attrs.define(eq=False)
class Said:
    """A sequence of `Reciter`."""

    ids: list[int]
    prompt: int
    computed: int = 0
    reused: int = 0
    allowed: Tensor | None = None


class Reciter:
    """A model that says one text after any prompt, and then that it ends."""

    window, chunk, longest_chunk, device, dtype, cuts = 20_000, 20_000, 20_000, "cpu", "float32", False
    best: Best | None = None

    def __init__(self, says: list[int], vocabulary: int):
        self.costs: list[float] = []
        self._says, self._vocabulary = says, vocabulary

    def begin(self, ids: list[int], *, reuse: bool) -> Said:
        return Said(list(ids), len(ids))

    def fork(self, sequence: Said) -> Said:
        return attrs.evolve(sequence, ids=list(sequence.ids))

    def forward(self, rows: list[tuple[Said, int, int]], unwanted: Callable[[], bool] = lambda: False) -> Tensor:
        logits = torch.full((len(rows), self._vocabulary), -9.0)
        for row, (sequence, count, _) in enumerate(rows):
            sequence.computed += count
            logits[row, self._says[sequence.computed - sequence.prompt]] = 9.0
        return logits

    def ahead(self, sequences: list[Said]) -> Best | None:
        return None

    def cut(self, sequence: Said, length: int) -> None:
        del sequence.ids[length:]

    def end(self, sequence: Said, *, keep: bool) -> None: ...

    def shrink(self) -> bool:
        return False

    def forget(self) -> None: ...

    def figures(self) -> dict[str, int]:
        return {}


def answer(engine: Engine, request: FimRequest) -> tuple[str, End]:
    messages: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(request, messages.put)
    text = ""
    while isinstance(message := messages.get(timeout=60), Piece):
        text += message.text
    assert isinstance(message, End), message
    return text, message


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("typed", ["\n", "\n    if x == ret"])
def test_an_answer_with_every_marker_string_in_it_ends_where_the_model_ends_it(name: str, typed: str) -> None:
    """In a document that holds them all too, and the same in one that holds other text in their places."""
    tokens = tokens_of(name)
    markers = tokens.markers(NAMES.get(name, ""))
    wanted = "urn_value:\n" + SMUGGLED + "done"
    for change in (str, other_text):
        request = FimRequest(
            change(SMUGGLED) + PREFIX, SUFFIX + change(SMUGGLED), typed, Stops(max_tokens=5000), heal=True
        )
        held = tokens.prompt(request, markers).held
        assert bool(held) == (typed != "\n")
        says = [*tokens.encode(held.decode() + change(wanted)), markers.ids[markers.family.eos]]
        engine = Engine(Reciter(says, len(tokens.vocabulary)), tokens, markers)
        text, end = answer(engine, request)
        engine.close()
        read = tokens.decode(tokens.encode(change(wanted))).decode()  # SentencePiece's U+2581 is a space
        assert (text, end.reason, end.decoded) == (read, "eos", len(says))


def folder_of(name: str, place: Path, kind: str) -> Path:
    """A tiny random model with that family's tokenizer, as it is published."""
    spec = spec_of(named(name))
    (place / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    ids = [*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])]
    vocabulary = max(ids) + 1
    torch.manual_seed(1)
    model: Any
    if kind == "gpt_bigcode":
        model = GPTBigCodeForCausalLM(
            GPTBigCodeConfig(vocab_size=vocabulary, n_positions=4096, n_embd=32, n_layer=2, n_head=4)
        )
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, tie_word_embeddings=True, **SIZES))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES))
    for parameter in model.parameters():
        parameter.data.normal_(0.5, 0.2)
    model.save_pretrained(place)
    return place


CASES = [(name, "qwen2" if name == "qwen" else "llama", "float32") for name in EVERY]
CASES += [("starcoder", "gpt_bigcode", "float32"), ("qwen", "qwen2", "int8"), ("codellama", "llama", "int8")]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loaded, Engine]]:
    name, kind, dtype = request.param
    place = tmp_path_factory.mktemp("model") / str(NAMES.get(name, name)).replace("/", "-")
    place.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))  # of the int8 copy
        loaded = load(str(folder_of(name, place, kind)), "cpu", dtype, lambda _stage, _share: None)
    assert loaded.markers
    assert loaded.markers.family.name == name
    assert isinstance(loaded.model, TransformersModel if kind == "gpt_bigcode" else PagedModel)
    engine = Engine(loaded.model, loaded.tokens, loaded.markers)
    yield loaded, engine
    engine.close()


def test_typing_computes_the_last_few_tokens_and_answers_as_if_never_asked(case: tuple[Loaded, Engine]) -> None:
    _, engine = case
    line = "\n    with open(path) as file:\n        return file.write(text"
    prompts: list[int] = []
    for end in range(1, len(line) + 1, 3):
        request = FimRequest(PREFIX, SUFFIX, line[:end], Stops(max_tokens=4), session="editor document")
        text, cached = answer(engine, request)
        cold, end_of_cold = answer(engine, attrs.evolve(request, reuse=False, session=""))
        assert (text, cached.reason) == (cold, end_of_cold.reason)
        assert end_of_cold.reused == 0
        if prompts:
            assert cached.prompt - cached.reused <= 14, line[:end]
        prompts.append(cached.prompt)
    assert min(prompts) > 40


def test_of_a_tokenizer_file_that_is_neither_kind_the_error_says_so(tmp_path: Path) -> None:
    spec = spec_of(named("qwen"))
    spec["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    with pytest.raises(ValueError, match="neither byte-level BPE nor BPE with byte fallback"):
        Tokens(tmp_path / "tokenizer.json")
