"""Prompts from ids: nothing in a document is a control token, and healing neither loses nor repeats a character."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import starter, wire
from inference.tokens import DEEPSEEK, Tokens
from inference.wire import FimRequest

TOKENS = Tokens(starter.FOLDER / "tokenizer.json")
MARKERS = TOKENS.markers()
CONTROL = {MARKERS.begin, MARKERS.hole, MARKERS.end, MARKERS.bos, MARKERS.eos}
SPELLED = [DEEPSEEK.begin, DEEPSEEK.hole, DEEPSEEK.end, DEEPSEEK.bos, DEEPSEEK.eos]

WORDS = ["return", " ret", "x", "_", " ", "    ", "\t", "\n", "(", ").", "=>", "12", "'s", '"""', "#", "//", "\f"]
FOREIGN = ["é", "漢字", "😀", "e\u0301", "\u2028", "<｜▁pad▁｜>", "<｜fim", "｜>"]
PIECES = st.sampled_from([*SPELLED, *WORDS, *FOREIGN])
TEXT = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@given(prefix=TEXT, suffix=TEXT, typed=TEXT, heal=st.booleans())
def test_marker_strings_in_a_document_stay_text_wherever_they_stand(
    prefix: str, suffix: str, typed: str, heal: bool
) -> None:
    ids = TOKENS.prompt(FimRequest(prefix, suffix, typed, heal=heal), MARKERS).ids
    positions = [i for i, token in enumerate(ids) if token in CONTROL]
    hole, end = ids.index(MARKERS.hole), ids.index(MARKERS.end)
    assert positions == [0, 1, hole, end]
    assert ids[:2] == [MARKERS.bos, MARKERS.begin]
    assert TOKENS.decode(ids[hole + 1 : end]).decode("utf-8") == suffix


@given(prefix=TEXT, typed=TEXT)
def test_prompt_and_held_back_bytes_spell_the_text_before_the_cursor(prefix: str, typed: str) -> None:
    prompt = TOKENS.prompt(FimRequest(prefix, "s", typed), MARKERS)
    end = prompt.ids.index(MARKERS.end)
    before = TOKENS.decode(prompt.ids[2 : prompt.ids.index(MARKERS.hole)])
    middle = TOKENS.decode(prompt.ids[end + 1 :])
    if typed:
        assert before == prefix.encode()
        assert middle + prompt.held == typed.encode()
    else:
        assert before + middle + prompt.held == prefix.encode()


@given(typed=TEXT, more=TEXT)
def test_whatever_is_typed_next_the_prompt_without_the_held_piece_stays(typed: str, more: str) -> None:
    prompt = TOKENS.prompt(FimRequest("", "", "\n" + typed), MARKERS)
    kept = prompt.ids[prompt.ids.index(MARKERS.end) + 1 :]
    if len(prompt.held) < 4 * 32 and not _long_piece(typed):
        assert TOKENS.encode("\n" + typed + more)[: len(kept)] == kept


def _long_piece(text: str) -> bool:
    # A combining mark joins the piece before it; such text may re-split a letter further back.
    return any(ord(c) > 127 for c in text)


@given(text=TEXT.filter(bool), seed=st.integers(0, 2**32))
def test_masked_tokens_spell_the_held_piece_exactly_once(text: str, seed: int) -> None:
    """Any walk through the masks, as any model might take it: the piece is never lost and never typed twice."""
    held = TOKENS.prompt(FimRequest("", "", "\n" + text), MARKERS).held
    chance = random.Random(seed)
    spelled, rest = b"", held
    while rest:
        allowed = TOKENS.vocabulary.agreeing(rest)
        assert allowed, f"no token agrees with {rest!r}"
        token = TOKENS.vocabulary.bytes_of(chance.choice(allowed))
        assert token, "a control token was offered"
        spelled += token
        rest = rest[len(token) :]
    assert spelled.startswith(held)
    new = spelled[len(held) :]
    assert held + new == spelled


@pytest.mark.parametrize(
    "rest", [b" ", b"ret", b"    ", b"\n", "é".encode(), "é".encode()[:1], "😀".encode(), b"().", b"\xff"]
)
def test_the_mask_is_what_a_look_at_every_token_gives(rest: bytes) -> None:
    spellings = [TOKENS.vocabulary.bytes_of(i) for i in range(len(TOKENS.vocabulary))]
    brute = {i for i, t in enumerate(spellings) if t and (t.startswith(rest) or rest.startswith(t))}
    assert set(TOKENS.vocabulary.agreeing(rest)) == brute
    assert not brute & CONTROL


def test_every_token_spells_what_the_tokenizer_decodes() -> None:
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(starter.FOLDER / "tokenizer.json"))
    for text in (Path(wire.__file__).read_text("utf-8"), "漢字 😀 é\t\f\u2028"):
        ids = TOKENS.encode(text)
        assert ids == reference.encode(text, add_special_tokens=False).ids
        assert TOKENS.decode(ids).decode("utf-8") == text


def test_a_word_is_held_back_with_its_space_and_a_run_of_spaces_whole() -> None:
    held = {
        text: TOKENS.prompt(FimRequest("", "", text), MARKERS).held for text in ("\n  return", "\n    ", "x = a.", "\n")
    }
    assert held == {"\n  return": b" return", "\n    ": b"    ", "x = a.": b".", "\n": b""}


def test_of_a_very_long_word_only_the_last_token_is_held_back() -> None:
    prompt = TOKENS.prompt(FimRequest("", "", "\n" + "a" * 5000), MARKERS)
    assert 0 < len(prompt.held) < 32


def test_lone_surrogates_reach_the_tokenizer_as_replacement_characters() -> None:
    prompt = TOKENS.prompt(FimRequest("a\ud800", "\udc00b", "c\ud83d"), MARKERS)
    assert TOKENS.decode(prompt.ids).decode() + prompt.held.decode() == "a\ufffd\ufffdbc\ufffd"


def test_without_healing_nothing_is_held_back() -> None:
    prompt = TOKENS.prompt(FimRequest("", "", "\n  ret", heal=False), MARKERS)
    assert prompt.held == b""
    assert TOKENS.decode(prompt.ids) == b"\n  ret"


def test_characters_a_token_are_measured() -> None:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    assert 2 < tokens.chars_per_token < 5
    tokens.encode("9" * 20_000)
    assert tokens.chars_per_token < 2
