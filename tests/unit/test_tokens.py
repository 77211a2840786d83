"""Prompts from ids: nothing in a document is a control token, and healing neither loses nor repeats a character."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from inference import starter, wire
from inference.families import DEEPSEEK
from inference.lines import Lines
from inference.tokens import LONGEST_PIECE, Prompt, Tokens, clean
from inference.wire import FimRequest

TOKENS = Tokens(starter.FOLDER / "tokenizer.json")
MARKERS = TOKENS.markers()
CONTROL = set(MARKERS.ids.values())
SPELLED = list(DEEPSEEK.markers)
BOS, BEGIN, HOLE, END, EOS = (MARKERS.ids[text] for text in SPELLED)

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
    hole, end = ids.index(HOLE), ids.index(END)
    assert positions == [0, 1, hole, end]
    assert ids[:2] == [BOS, BEGIN]
    assert TOKENS.decode(ids[hole + 1 : end]).decode("utf-8") == suffix


@given(prefix=TEXT, typed=TEXT)
def test_prompt_and_held_back_bytes_spell_the_text_before_the_cursor(prefix: str, typed: str) -> None:
    prompt = TOKENS.prompt(FimRequest(prefix, "s", typed), MARKERS)
    end = prompt.ids.index(END)
    before = TOKENS.decode(prompt.ids[2 : prompt.ids.index(HOLE)])
    middle = TOKENS.decode(prompt.ids[end + 1 :])
    if typed:
        assert before == prefix.encode()
        assert middle + prompt.held == typed.encode()
    else:
        assert before + middle + prompt.held == prefix.encode()


@example(typed="    0", more="")
@given(typed=TEXT, more=TEXT)
def test_whatever_is_typed_next_the_prompt_without_the_held_piece_stays(typed: str, more: str) -> None:
    prompt = TOKENS.prompt(FimRequest("", "", "\n" + typed), MARKERS)
    kept = prompt.ids[prompt.ids.index(END) + 1 :]
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


SOURCES = sorted(Path(wire.__file__).parent.rglob("*.py"))
WHITE = ["\n", "\n\n", "\n  ", " \n", "\r\n", "\r", "\t", "  ", "      ", "\u2028", "\x85", "\xa0", "\ud800"]
CODE = st.lists(PIECES | st.sampled_from(WHITE) | st.text(max_size=3), max_size=20).map("".join)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK_V2 = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+"]


@cache
def tokens_split_by(*patterns: str) -> Tokens:
    """A small byte-level BPE tokenizer, trained on this project, whose pre-tokens the patterns isolate."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([file.read_text("utf-8") for file in SOURCES], trainer)
    with TemporaryDirectory() as folder:
        tokenizer.save(f"{folder}/tokenizer.json")
        return Tokens(Path(folder, "tokenizer.json"))


BY_LINE: dict[str, Callable[[], Tokens]] = {
    "starter": lambda: TOKENS,
    "deepseek-v2": lambda: tokens_split_by(*DEEPSEEK_V2),
}
WHOLE: dict[str, Callable[[], Tokens]] = {
    "gpt-2": lambda: tokens_split_by(GPT2),
    "qwen": lambda: tokens_split_by(QWEN),
    "line and its indent": lambda: tokens_split_by(r"\n *", r"\s?\p{L}+"),
    "line break before a bracket": lambda: tokens_split_by(r"\n[)}]|[\r\n]", r"\s?\p{L}+"),
    "blank lines": lambda: tokens_split_by(r"\n{2,}|\n", r"\s?\p{L}+"),
}


@pytest.mark.parametrize("name", BY_LINE)
@given(text=CODE)
def test_ids_by_line_are_those_of_the_whole_text(name: str, text: str) -> None:
    tokens = BY_LINE[name]()
    assert tokens.by_line
    assert tokens.encode_stable(text) == tokens.encode(text)


@pytest.mark.parametrize("name", WHOLE)
def test_a_tokenizer_whose_lines_depend_on_each_other_is_found_out(name: str) -> None:
    assert not WHOLE[name]().by_line


@pytest.mark.parametrize("name", WHOLE)
@given(text=CODE)
def test_where_lines_depend_on_each_other_texts_are_encoded_whole(name: str, text: str) -> None:
    tokens = WHOLE[name]()
    assert tokens.encode_stable(text) == tokens.encode(text)


def reference_prompt(tokens: Tokens, request: FimRequest) -> Prompt:
    """The prompt as it is defined: from whole texts, nothing remembered."""
    prefix, suffix, typed = clean(request.prefix), clean(request.suffix), clean(request.typed)
    before, held = typed or prefix, b""
    ids = tokens.encode(before)
    line = before[before.rfind("\n") + 1 :][-4 * LONGEST_PIECE :]
    if request.heal and line:
        cut: Any = tokens._tokenizer.pre_tokenizer.pre_tokenize_str  # pyright: ignore
        starts = [start for _, (start, _) in cut(line)]
        kept = max(start for i, start in enumerate(starts) if not start or cut(line[:start]) == cut(line)[:i])
        piece = line[kept:]
        if len(piece) <= LONGEST_PIECE:
            ids, held = tokens.encode(before[: len(before) - len(piece)]), piece.encode()
        else:
            held = tokens.vocabulary.bytes_of(ids.pop())
    first, last = (tokens.encode(prefix), ids) if typed else (ids, [])
    return Prompt([BOS, BEGIN, *first, HOLE, *tokens.encode(suffix), END, *last], held)


LONG = st.integers(20, 300).map(lambda n: "x" * n) | st.integers(20, 300).map(lambda n: " " * n)


@pytest.mark.parametrize("name", ["starter", "qwen"])
@given(prefix=CODE, end=st.just("") | LONG, suffix=CODE, typed=st.just("") | CODE, heal=st.booleans())
def test_a_prompt_is_what_whole_texts_give(
    name: str, prefix: str, end: str, suffix: str, typed: str, heal: bool
) -> None:
    tokens = (BY_LINE | WHOLE)[name]()
    for request in (
        FimRequest(prefix + end, suffix, typed, heal=heal),
        FimRequest(prefix, suffix, typed + end, heal=heal),
    ):
        assert tokens.prompt(request, MARKERS) == reference_prompt(tokens, request)


LETTERS = st.text("ab1 \t\r\n\n\n(é😀", max_size=30)
EDIT = st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(0, 12), LETTERS | st.sampled_from([*SPELLED, "\n"]))


@given(
    texts=st.tuples(LETTERS, LETTERS, st.lists(LETTERS, max_size=20).map("\n".join)),
    edits=st.lists(EDIT, max_size=12),
    chunk=st.sampled_from([1, 4, 16]),
    limit=st.sampled_from([150, 400, 10_000]),
)
def test_texts_edited_anywhere_in_any_order_encode_as_if_never_seen(
    texts: tuple[str, str, str], edits: list[tuple[int, float, int, str]], chunk: int, limit: int
) -> None:
    lines = Lines(encoded, True, chunk, limit)
    documents = list(texts)
    for which, place, deleted, inserted in edits:
        text = documents[which]
        at = round(place * len(text))
        documents[which] = text = text[:at] + inserted + text[at + deleted :]
        for part in (text, text[:at], text[at:], text):  # the document, and a prefix and a suffix of it
            ids = [7]
            lines.append(ids, part)
            assert ids == [7, *encoded(part)]
        ids = []
        lines.append(ids, text, "another end")
        assert ids == encoded(text[: text.rfind("\n") + 1] + "another end")


@cache
def encoded(text: str) -> list[int]:
    return TOKENS.encode(text)


@pytest.mark.parametrize("name", BY_LINE)
def test_edits_of_a_real_file_encode_as_if_never_seen(name: str) -> None:
    tokens, chance = BY_LINE[name](), random.Random(0)
    text = "".join(file.read_text("utf-8") for file in SOURCES[:3])
    for _ in range(40):
        at = chance.randrange(len(text))
        start = chance.choice([at, text.rfind("\n", 0, at) + 1])
        inserted = chance.choice(["x", "\n", "    \n", "", "é", "\r", text[at : at + 5000]])
        text = text[:start] + inserted + text[start + chance.choice([0, 1, 40, 4000]) :]
        cut = chance.randrange(len(text))
        for part in (text, text[:cut], text[cut:]):
            assert tokens.encode_stable(part) == tokens.encode(part)


class Counting:
    """An encoder that makes one id of each character and notes how many it was given."""

    def __init__(self):
        self.characters = 0

    def __call__(self, text: str) -> list[int]:
        self.characters += len(text)
        return [ord(c) for c in text[:1000]]

    def spent(self, lines: Lines, text: str) -> int:
        """Characters that `text` costs."""
        before = self.characters
        lines.append([], text)
        return self.characters - before


def numbered(count: int) -> list[str]:
    return [f"    total_{i} = self.compute(value, {i})\n" for i in range(count)]


def test_a_keystroke_in_a_long_file_encodes_its_line() -> None:
    encode, text = Counting(), numbered(10_000)
    lines = Lines(encode, True)
    assert encode.spent(lines, "".join(text)) == len("".join(text))
    for i in (0, 1, 5000, 9999):
        text[i] = f"changed {i}\n"
        assert encode.spent(lines, "".join(text)) == len(text[i])
        assert encode.spent(lines, "".join(text[:i]) + "ret") <= len("ret")
        assert encode.spent(lines, "ret" + "".join(text[i:])) <= len("ret" + text[i])


def test_of_a_remembered_text_only_the_lines_around_a_change_are_looked_up() -> None:
    encode, text = Counting(), numbered(10_000)
    lines = Lines(encode, True, limit=600_000)  # as many characters as the text has, a fraction of its cached lines
    encode.spent(lines, "".join(text))
    for i in (100, 5000, 9900):
        text[i] = f"changed {i}\n"
        assert encode.spent(lines, "".join(text)) < 6000
        assert encode.spent(lines, "".join(text)) == 0


def test_of_several_documents_each_stays_remembered_while_one_is_edited() -> None:
    encode, others = Counting(), [[f"{k} {line}" for line in numbered(2000)] for k in range(4)]
    lines = Lines(encode, True, limit=600_000)
    for other in others:
        encode.spent(lines, "".join(other))
    for i in range(40):
        others[0][i * 7] += "x\n"
        encode.spent(lines, "".join(others[0]))
    assert [encode.spent(lines, "".join(other)) for other in others] == [0, 0, 0, 0]


def test_small_edits_and_moves_leave_no_crowd_of_small_chunks() -> None:
    lines, text = Lines(Counting(), True), numbered(3000)
    for i in range(100, 2900):
        lines.append([], "".join(text[:i]))
    for i in range(0, 2900, 7):
        del text[i : i + 2]
        lines.append([], "".join(text))
    for remembered in lines._recent:  # pyright: ignore
        sizes = [len(chunk.text) for chunk in remembered.chunks]
        assert len(sizes) <= 2 + 2 * sum(sizes) / 2048
        assert sum(sizes) == remembered.size


@pytest.mark.parametrize("by_line", [True, False])
def test_what_is_cached_is_bounded_by_its_characters(by_line: bool) -> None:
    encode = Counting()
    lines = Lines(encode, by_line)
    encode.spent(lines, "kept\n")
    tracemalloc.start()
    assert encode.spent(lines, "x" * 50_000_000) == encode.spent(lines, "x" * 50_000_000)
    assert tracemalloc.get_traced_memory()[0] < 1_000_000
    assert encode.spent(lines, "kept\n") == 0
    for i in range(100):
        encode.spent(lines, f"{i}" * 300_000 + "\nlast")
    assert tracemalloc.get_traced_memory()[0] < 20_000_000
    tracemalloc.stop()


def test_characters_a_token_are_measured_over_remembered_text_too() -> None:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    before = tokens.chars_per_token
    for _ in range(50):
        tokens.encode_stable("1 2 3 4 5 6 7 8 9\n" * 100)
    assert tokens.chars_per_token < 1.2 < before
