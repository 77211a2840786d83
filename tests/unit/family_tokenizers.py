"""Small tokenizers of every family's kind, trained on this project's source: its markers, its way to split text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from inference import families, wire
from inference.families import FAMILIES, Family
from inference.tokens import Tokens

SOURCES = sorted(Path(wire.__file__).parent.glob("*.py"))[:12]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+")
SPLITS: dict[str, tuple[str, ...]] = {
    "deepseek": DEEPSEEK,
    "qwen": (QWEN,),
    "granite-4": (QWEN,),
    **dict.fromkeys(("granite", "mellum", "starcoder2", "starcoder", "santacoder"), (GPT2,)),
}
"""Of the byte-level ones; the others are SentencePiece's."""
UNFLAGGED = ("deepseek", "qwen")
"""Whose markers the published files do not flag as special."""
HTML = ("<table>", "</table>", "<h1>", "<s>")
NAMES = {"mellum": "JetBrains/Mellum-4b-base"}
"""Of models, where tokens don't tell the family."""


def spec_of(row: Family) -> dict[str, Any]:
    """A `tokenizer.json` of that family's kind."""
    spec = json.loads(_trained(row.name))
    size = max(spec["model"]["vocab"].values()) + 1
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    present = {token["content"] for token in spec["added_tokens"]}
    for text in row.control:
        if text not in present:
            spec["added_tokens"].append(token(size, text, special=row.name not in UNFLAGGED))
            size += 1
    if row.name == "qwen":
        spec["normalizer"] = {"type": "NFC"}
    if row.name == "codegemma":
        for text in ("\n\n", "\n\n\n", *HTML):
            spec["added_tokens"].append(token(size, text, special=False))
            size += 1
    return spec


def token(i: int, text: str, *, special: bool) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": text, "special": special, **plain}


def tokens_from(spec: dict[str, Any]) -> Tokens:
    """As it would be read from a model's folder."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "tokenizer.json")
        file.write_text(json.dumps(spec), "utf-8")
        return Tokens(file)


@cache
def tokens_of(name: str) -> Tokens:
    """Of the family with that name."""
    return tokens_from(spec_of(named(name)))


def named(name: str) -> Family:
    """The row of that name."""
    return next(row for row in FAMILIES if row.name == name)


def other_text(text: str) -> str:
    """Text in the same place and of the same length that is no family's marker."""
    for marker in sorted(families.CONTROL, key=len, reverse=True):
        text = text.replace(marker, "?" + marker[1:-1].replace("|", "!").replace("｜", "!").replace("<", "(") + "?")
    return text


@cache
def _trained(name: str) -> str:
    return (_byte_level(*SPLITS[name]) if name in SPLITS else _sentencepiece(name)).to_str()


def _byte_level(*patterns: str) -> Tokenizer:
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
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([file.read_text("utf-8") for file in SOURCES], trainer)
    return tokenizer


def _sentencepiece(name: str) -> Tokenizer:
    """BPE over text whose spaces are U+2581, with bytes to fall back on; each family writes that down otherwise."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # pyright: ignore
    ends = ["<bos>", "<eos>"] if name == "codegemma" else ["<s>", "</s>"]
    special = ["<unk>", *ends, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    lines = [line for file in SOURCES for line in file.read_text("utf-8").splitlines()]
    tokenizer.train_from_iterator(lines, trainer)  # so that no token holds a line break
    spec = json.loads(tokenizer.to_str())
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [] if name == "codegemma" else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    spec["decoder"] = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]}
    if name == "codellama":  # as published: all in the normaliser
        spec["pre_tokenizer"] = None
        spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]}
    elif name == "codestral":
        spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    else:
        split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        spec["normalizer"], spec["pre_tokenizer"] = space, split
    return Tokenizer.from_str(json.dumps(spec))
