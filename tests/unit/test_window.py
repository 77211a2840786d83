"""The lines around a cursor, enough to say where it stands, and what the grammar finds wrong with an answer there."""

from __future__ import annotations

import time

import pytest

from lsp_server.languages import language_of
from lsp_server.soundness import Soundness
from lsp_server.window import FAR, NEAR, Window, window

CURSOR = "‸"


def at(text: str) -> tuple[Window, int]:
    before, after = text.split(CURSOR)
    row = before.count("\n")
    return window((before + after).split("\n"), row, lambda _: True), len(before) - before.rfind("\n") - 1


def errors(language: str, text: str, answer: str = "", covers: int = 0) -> int | None:
    place, column = at(text)
    return Soundness(language_of(language, ""), place, column).errors(answer, covers)


def method(name: str, lines: int) -> str:
    return f"  {name}() {{\n" + "    call(1);\n" * lines + "  }\n\n"


def test_a_small_document_is_taken_whole() -> None:
    place, _ = at("a\n\nb\n‸\nc\n\nd")
    assert ([*place.above], place.line, [*place.below]) == (["a", "", "b"], "", ["c", "", "d"])
    assert place.from_start
    assert place.to_end


def test_a_method_in_a_long_class_stands_in_its_class_and_nothing_else() -> None:
    text = "class A\n    extends B {\n" + method("f", 40) * 20 + method("g", 50).replace("call(1);", "‸", 1)
    place, _ = at(text + method("h", 60) * 12 + "}\n")
    assert [*place.above[:3]] == ["class A", "    extends B {", "  f() {"]
    assert place.below[-1] == "}"
    assert len(place.above) + len(place.below) < 2 * FAR
    assert place.from_start
    assert place.to_end
    assert errors("javascript", text + method("h", 60) * 12 + "}\n", "x = 1;") == 0


def test_a_head_with_its_brace_on_the_next_line_is_taken_with_it() -> None:
    text = "class A\n{\n" + method("f", 40) * 10 + "  ‸\n" + method("g", 40) * 10 + "}\n"
    assert [*at(text)[0].above[:2]] == ["class A", "{"]


def test_lines_without_a_seam_are_taken_up_to_a_limit() -> None:
    place, _ = at("x\n" * 5_000 + "‸" + "\nx" * 5_000)
    assert len(place.above) == FAR
    assert len(place.below) == FAR - 1
    assert NEAR < FAR


def test_a_seam_inside_a_string_is_none() -> None:
    lines = ["x = 1", "", "def f():", '    """', *["    text"] * 40, "", "  more", '    """', *["    pass"] * 3]
    place = window(lines, len(lines) - 1, lambda row: row < 3)
    assert place.above[0] == "def f():"


@pytest.mark.parametrize(
    ("language", "text", "answer", "covers", "expected"),
    [
        ("python", "x = f(‸", "1)", 0, 0),
        ("python", "x = f(‸)", "1)", 1, 0),
        ("python", "x = f(‸)", "1)", 0, 1),
        ("javascript", "if (a) {‸\n  b();\n}", "", 0, 0),
        ("javascript", "if (a) {‸\n  b();\n}", "\n}", 0, 1),
        ("go", "package a\n\nfunc f() {\n\t‸\n}", "return", 0, 0),
        ("nothing", "(‸", ")", 0, None),
    ],
)
def test_errors_are_those_of_the_text_with_the_answer(
    language: str, text: str, answer: str, covers: int, expected: int | None
) -> None:
    assert errors(language, text, answer, covers) == expected


def test_php_is_code_in_the_middle_of_a_file_too() -> None:
    text = "<?php\n\n" + "function f() {\n    return 1;\n}\n\n" * 80 + "function g() {\n    ‸\n}\n"
    assert errors("php", text, "return 1;") == 0
    assert errors("php", text, "return (1;") == 1


def test_parsing_takes_no_longer_than_it_may() -> None:
    broken = "x = f([{(" + "a, [b, {c: (d,\n" * 3_000
    place, column = at(broken + "‸" + "}])\n" * 3_000)
    soundness = Soundness(language_of("javascript", ""), place, column)
    for number in range(20):
        began = time.thread_time()
        soundness.errors(f"a{number}")
        assert time.thread_time() - began < 0.010
