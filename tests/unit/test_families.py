"""Every family's prompts: its markers where it wants them and nowhere else, whatever a document contains."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.families import CONTROL, FAMILIES, NoInfilling, family, parts
from inference.prefix_cache import common_prefix
from inference.tokens import Prompt
from inference.wire import FimRequest
from tests.unit.family_tokenizers import HTML, NAMES, named, other_text, spec_of, token, tokens_from, tokens_of

EVERY = [row.name for row in FAMILIES]
WORDS = [
    "return",
    " ret",
    "x",
    "_",
    " ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "(",
    "):\n",
    "=>",
    "12",
    '"""',
    "#",
    "é",
    "漢字",
    "😀",
]
TEXT = st.lists(st.sampled_from([*sorted(CONTROL), *WORDS]) | st.text("ab(: \n<>|", max_size=3), max_size=10).map(
    "".join
)
PREFIX = """import os


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):"""
SUFFIX = "\n\n\ndef remove(path):\n    os.remove(path)\n"


def prompt_of(name: str, request: FimRequest) -> Prompt:
    tokens = tokens_of(name)
    return tokens.prompt(request, tokens.markers(NAMES.get(name, "")))


def control_ids(name: str) -> set[int]:
    tokens = tokens_of(name)
    return {i for i in range(len(tokens.vocabulary)) if not tokens.vocabulary.bytes_of(i)}


def pieces(name: str, ids: list[int]) -> list[str | bytes]:
    """A prompt as its markers and what stands between them."""
    tokens = tokens_of(name)
    by_id = {i: text for text, i in tokens.markers(NAMES.get(name, "")).ids.items()}
    found: list[str | bytes] = [b""]
    for i in ids:
        if i in by_id:
            found += [by_id[i], b""]
        else:
            last = found[-1]
            assert isinstance(last, bytes)
            found[-1] = last + tokens.vocabulary.bytes_of(i)
    return [piece for piece in found if piece]


@pytest.mark.parametrize("name", EVERY)
def test_a_family_is_known_by_its_tokenizer_and_each_marker_is_one_token(name: str) -> None:
    row, tokens = named(name), tokens_of(name)
    markers = tokens.markers(NAMES.get(name, "some/model"))
    assert markers.family is row
    assert set(markers.ids) == set(row.markers)
    assert len(set(markers.ids.values())) == len(row.markers)
    assert all(tokens.vocabulary.bytes_of(i) == b"" for i in markers.ids.values())


def test_mellum_is_told_from_starcoder_by_its_name() -> None:
    control = set(named("mellum").control)
    assert family(control, "/models/mellum-4b").name == "mellum"
    assert family(control, "bigcode/starcoder").name == "starcoder"


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_marker_is_named_with_its_family(name: str) -> None:
    row = named(name)
    for text in (row.prefix, row.suffix):
        spec = spec_of(row)
        spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] != text]
        with pytest.raises(NoInfilling) as caught:
            tokens_from(spec).markers(NAMES.get(name, ""))
        assert text in str(caught.value)
        assert "take the tokenizer.json that was published" in str(caught.value)
        assert any(f"family {other.name} " in str(caught.value) for other in FAMILIES if other.prefix == row.prefix)


@pytest.mark.parametrize("name", EVERY)
def test_a_marker_with_two_ids_or_one_id_for_two_is_refused(name: str) -> None:
    row, model = named(name), NAMES.get(name, "")
    twice = spec_of(row)
    twice["added_tokens"].append(token(5000, row.prefix, special=True))
    with pytest.raises(NoInfilling, match=f"of the family {row.name} has several token ids"):
        tokens_from(twice).markers(model)
    shared = spec_of(row)
    ids = {entry["content"]: entry["id"] for entry in shared["added_tokens"]}
    next(e for e in shared["added_tokens"] if e["content"] == row.suffix)["id"] = ids[row.prefix]
    with pytest.raises(NoInfilling, match=f"two markers of the family {row.name} share one token id"):
        tokens_from(shared).markers(model)


def test_a_tokenizer_without_any_markers_says_which_families_are_known() -> None:
    with pytest.raises(NoInfilling, match="deepseek, qwen, codegemma"):
        family({"<s>", "</s>", "<|endoftext|>"}, "meta-llama/Llama-2-7b")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "deepseek",
            ["<｜begin▁of▁sentence｜>", "<｜fim▁begin｜>", b"a:", "<｜fim▁hole｜>", b"\nz", "<｜fim▁end｜>", b"\n b"],
        ),
        ("qwen", ["<|fim_prefix|>", b"a:\n", "<|fim_suffix|>", b"\nz", "<|fim_middle|>", b" b"]),
        ("codegemma", ["<bos>", "<|fim_prefix|>", b"a:\n", "<|fim_suffix|>", b"\nz", "<|fim_middle|>", b" b"]),
        ("granite-4", ["<|fim_prefix|>", b"a:\n", "<|fim_suffix|>", b"\nz", "<|fim_middle|>", b" b"]),
        ("granite", ["<fim_prefix>", b"a:", "<fim_suffix>", b"\nz", "<fim_middle>", b"\n b"]),
        ("mellum", ["<fim_suffix>", b"\nz", "<fim_prefix>", b"a:\n b", "<fim_middle>"]),
        ("starcoder2", ["<fim_prefix>", b"a:", "<fim_suffix>", b"\nz", "<fim_middle>", b"\n b"]),
        ("starcoder", ["<fim_prefix>", b"a:", "<fim_suffix>", b"\nz", "<fim_middle>", b"\n b"]),
        ("santacoder", ["<fim-prefix>", b"a:", "<fim-suffix>", b"\nz", "<fim-middle>", b"\n b"]),
        ("codellama", ["<s>", "▁<PRE>", b" a:", "▁<SUF>", b"\nz", "▁<MID>", b"\n b"]),
        ("codestral", ["<s>", "[SUFFIX]", b"\nz", "[PREFIX]", b" a:\n b"]),
    ],
)
def test_a_prompt_is_spelled_as_the_family_s_card_has_it(name: str, expected: list[str | bytes]) -> None:
    assert pieces(name, prompt_of(name, FimRequest("a:", "\nz", "\n b", heal=False)).ids) == expected


def test_the_table_of_prompts_above_has_every_family() -> None:
    marks: list[Any] = test_a_prompt_is_spelled_as_the_family_s_card_has_it.pytestmark  # pyright: ignore
    assert [case[0] for case in marks[0].args[1]] == EVERY


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=60)
@given(prefix=TEXT, suffix=TEXT, typed=TEXT, heal=st.booleans())
def test_no_marker_string_of_any_family_in_a_document_is_a_control_token(
    name: str, prefix: str, suffix: str, typed: str, heal: bool
) -> None:
    request, row = FimRequest(prefix, suffix, typed, heal=heal), named(name)
    prompt, control = prompt_of(name, request), control_ids(name)
    ids = tokens_of(name).markers(NAMES.get(name, "")).ids
    wanted = [ids[part.text] for part in parts(row, prefix, suffix, typed) if part.role == "marker"]
    assert [i for i in prompt.ids if i in control] == wanted
    assert pieces(name, prompt.ids) == told(name, request, prompt.held)


def spelled(name: str, text: str) -> bytes:
    """SentencePiece has no other U+2581 than the space."""
    return (text.replace("▁", " ") if name in ("codellama", "codestral", "codegemma") else text).encode()


def told(name: str, request: FimRequest, held: bytes) -> list[str | bytes]:
    """A request's prompt as `parts` has it, less what is held back at the cursor."""
    found: list[str | bytes] = []
    prompt = parts(named(name), request.prefix, request.suffix, request.typed)
    for part in prompt:
        if part.role == "marker":
            found.append(part.text)
            continue
        leads = part.role == "prefix" and part.text and name in ("codellama", "codestral")
        text = spelled(name, " " * bool(leads) + part.text)
        if held and part.role == ("typed" if any(p.role == "typed" for p in prompt) else "prefix"):
            assert text.endswith(held)
            text = text[: -len(held)]
        if found and isinstance(before := found[-1], bytes):
            found[-1] = before + text
        elif text:
            found.append(text)
    return found


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=60)
@given(prefix=TEXT, suffix=TEXT, typed=TEXT)
def test_markers_in_a_document_leave_the_prompt_as_other_text_would(
    name: str, prefix: str, suffix: str, typed: str
) -> None:
    control = control_ids(name)

    def frame(request: FimRequest) -> list[int]:
        return [i for i in prompt_of(name, request).ids if i in control]

    other = FimRequest(other_text(prefix), other_text(suffix), other_text(typed))
    assert frame(FimRequest(prefix, suffix, typed)) == frame(other)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=60)
@given(text=TEXT.filter(bool), seed=st.integers(0, 2**32))
def test_what_is_held_back_is_spelled_exactly_once(name: str, text: str, seed: int) -> None:
    """Any walk through the masks, as any model might take it."""
    tokens, chance = tokens_of(name), random.Random(seed)
    rest = held = prompt_of(name, FimRequest("x", "", "\n" + text)).held
    spelled = b""
    while rest:
        token = tokens.vocabulary.bytes_of(chance.choice(tokens.vocabulary.agreeing(rest)))
        assert token, "a control token was offered"
        spelled, rest = spelled + token, rest[len(token) :]
    assert spelled.startswith(held)


@pytest.mark.parametrize("name", EVERY)
def test_a_keystroke_changes_the_last_few_tokens_only(name: str) -> None:
    before: list[int] = []
    line = "\n    with open(path, 'w') as file:\n        file.write(text)"
    for end in range(1, len(line) + 1):
        ids = prompt_of(name, FimRequest(PREFIX, SUFFIX, line[:end])).ids
        assert len(ids) > 40
        if before:
            kept = common_prefix(before, ids, len(ids))
            assert len(ids) - kept <= 10, (line[:end], len(ids), kept)
        before = ids


@pytest.mark.parametrize("name", EVERY)
def test_a_word_is_held_back_with_its_space(name: str) -> None:
    assert prompt_of(name, FimRequest(PREFIX, SUFFIX, "\n    x = retu")).held == b" retu"
    assert prompt_of(name, FimRequest(PREFIX, SUFFIX, "\n    ")).held == b"    "


@pytest.mark.parametrize("name", EVERY)
def test_the_anchor_stands_where_the_tokens_of_the_whole_text_have_an_edge(name: str) -> None:
    """The prefix's tokens and the middle's are, one behind the other, those of the unbroken text."""
    tokens, row = tokens_of(name), named(name)
    for above in ("def write(path):", "x = [", "y = 1", "# text."):
        split = [part.text for part in parts(row, above, "", "\n    return x") if part.role in ("prefix", "typed")]
        assert [i for text in split for i in tokens.encode(text)] == tokens.encode("".join(split))


def test_lines_stay_apart_where_the_tokenizer_keeps_them_apart() -> None:
    assert {name for name in EVERY if tokens_of(name).by_line} == {"deepseek", "codellama", "codestral"}


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40)
@given(text=TEXT)
def test_ids_by_line_are_those_of_the_whole_text(name: str, text: str) -> None:
    tokens = tokens_of(name)
    assert tokens.encode_stable(text) == tokens.encode(text)
    assert tokens.decode(tokens.encode(text)) == spelled(name, text)


def test_html_is_text_to_codegemma_whose_tokenizer_has_tokens_for_it() -> None:
    tokens = tokens_of("codegemma")
    for tag in HTML:
        assert len(tokens.encode(tag)) == 1
        assert tokens.decode(tokens.encode(tag)) == tag.encode()
