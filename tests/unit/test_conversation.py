"""A conversation's ids are those of transformers' template, and nothing that somebody wrote is a control token."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from inference import starter, tokenizer_config
from inference.conversation import BadConversation, conversation
from inference.requests import TextRequest
from inference.tokens import Tokens
from tests.models import V2_TEMPLATE

CHATML = (
    "{% for m in messages %}{{ bos_token + m.role + '\n' + (m.content | trim) + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{% endif %}"
)
TEMPLATES = {"DeepSeek-Coder-V2, as published": V2_TEMPLATE, "one that trims": CHATML}
SPECIAL = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
MARKERS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"]


@cache
def tokens() -> Tokens:
    return Tokens(starter.FOLDER / "tokenizer.json")


@cache
def theirs(template: str) -> Any:
    file = str(starter.FOLDER / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, chat_template=template, **SPECIAL)


def ids(template: str, messages: list[dict[str, str]]) -> list[int]:
    asked = conversation(template, SPECIAL, list(messages), tokens().control)
    return tokens().text_prompt(TextRequest(asked), [], None).ids


def reference(template: str, messages: list[dict[str, str]]) -> list[int]:
    made: Any = theirs(template).apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    return list(made if isinstance(made, list) else made["input_ids"])


TURNS = [
    {"role": "system", "content": "You are a careful programmer."},
    {"role": "user", "content": "write a quick sort algorithm in python."},
    {"role": "assistant", "content": "```python\ndef quick_sort(arr):\n    ...\n```"},
    {"role": "user", "content": "  now in C++, with tests \n"},
]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], TURNS[1:2], TURNS[:2]], ids=len)
def test_ids_equal_apply_chat_template(template: str, turns: list[dict[str, str]]) -> None:
    assert ids(template, turns) == reference(template, turns)


PIECES = [*"<>｜▁|ab \n", *MARKERS, "fim▁hole", "begin▁of▁sentence｜>", "<｜fim", "é", "\ud800"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from(list(TEMPLATES.values())))
def test_marker_strings_in_messages_stay_text_in_every_position(contents: list[str], template: str) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    control = set(tokens().control.values())
    plain = [{"role": turn["role"], "content": "x"} for turn in turns]
    found = ids(template, turns)
    assert [i for i in found if i in control] == [i for i in ids(template, plain) if i in control]
    spelled = tokens().decode(found).decode("utf-8", "replace")
    for text in contents:
        shown = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert shown.strip() in spelled, "nothing is lost either"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.sampled_from(list(TEMPLATES.values())))
def test_other_text_has_transformers_ids_whatever_it_is(contents: list[str], template: str) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    if not any(marker in "".join(contents) for marker in MARKERS):
        assert ids(template, turns) == reference(template, turns)


def test_a_template_s_own_refusal_is_said() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadConversation, match="roles must alternate"):
        conversation(template, SPECIAL, list(TURNS), tokens().control)
    everything = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    with pytest.raises(BadConversation, match="noncharacter"):
        conversation(V2_TEMPLATE, SPECIAL, [{"role": "user", "content": everything}], tokens().control)


def test_a_text_begins_as_the_model_s_own_tokenizer_begins_it(tmp_path: Any) -> None:
    import json
    import shutil

    shutil.copy(starter.FOLDER / "tokenizer.json", tmp_path)
    assert tokenizer_config.read(tmp_path).opening == []
    for add, expected in ((True, [0]), (False, [])):
        fields = {"add_bos_token": add, "bos_token": {"content": "<｜begin▁of▁sentence｜>"}, "chat_template": "x"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
        found = tokenizer_config.read(tmp_path)
        assert (found.opening, found.template) == (expected, "x")
    (tmp_path / "chat_template.jinja").write_text("from its own file")
    assert tokenizer_config.read(tmp_path).template == "from its own file"
