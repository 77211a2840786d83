"""A completion ends with its line, or with its block where the cursor opens one."""

from __future__ import annotations

import pytest

from inference.stops import Stopper
from inference.wire import Stops
from lsp_server.languages import Inside, language_of
from lsp_server.stops import stops_for
from lsp_server.text import Position

CURSOR = "‸"


def stops(language_id: str, marked: str, inside: Inside = "code", left_out: str = "") -> Stops:
    """The stops at the mark; `left_out` are the auto-closed brackets that follow it."""
    before, after = marked.split(CURSOR)
    suffix = after.removeprefix(left_out)
    return stops_for(
        (before + after).split("\n"),
        Position(before.count("\n"), len(before.rpartition("\n")[2])),
        language_of(language_id, ""),
        inside,
        suffix,
        rest=suffix.partition("\n")[0],
        max_tokens_line=64,
        max_tokens_block=256,
        max_lines=20,
    )


def is_line(found: Stops) -> bool:
    assert found.end_of_line == (not found.dedent_below), found
    assert (found.max_tokens == 64) == (not found.max_lines) == (found.end_of_line and not found.opens), found
    return found.end_of_line


BLOCKS = [
    ("python", "def f(a):‸", 1, ()),
    ("python", "    if a:‸\n", 5, ()),
    ("python", "    if a:  ‸\n", 5, ()),
    ("python", "def f(\n    a,\n) -> int:‸", 1, ()),
    ("python", "def f():\n    ‸", 1, ()),
    ("python", "def f():  # why\n    ‸\n\nx = 1\n", 1, ()),
    ("python", "class A:\n    def f(self):\n        ‸", 5, ()),
    ("python", "def f():\n    # first add them up\n    ‸", 1, ()),
    ("python", "def f():\n\n\n    ‸", 1, ()),
    ("python", "\tfor a in b:\n\t\t‸", 2, ()),
    ("javascript", "function f() {‸", 1, ("}",)),
    ("javascript", "  } else {‸", 3, ("}",)),
    ("javascript", "  run(() => {\n    ‸\n  });", 3, ()),  # its end stands below
    ("javascript", "  run(() => {\n    ‸\n});", 3, ("}",)),
    ("typescript", "const f = (a: A): B => {‸", 1, ("}",)),
    ("java", "    void f() { // c\n        ‸\n    }", 5, ()),
    ("java", "    void f() { // c\n        ‸\n}", 5, ("}",)),
    ("go", "func f() {\n\t‸\n}", 1, ()),
    ("go", "func f() {\n\t‸\n", 1, ("}",)),
    ("go", "\tcase 1:\n\t\t‸", 2, ()),
    ("rust", "fn f<'a>(x: &'a str) {‸", 1, ("}",)),
    ("c", "int f()\n{\n  ‸", 1, ("}",)),
    ("cpp", "  for (;;) {‸", 3, ("}",)),
    ("csharp", "  if (x) /* c */ {‸", 3, ("}",)),
    ("ruby", "  def f(a)‸", 3, ("end",)),
    ("ruby", "a.each do |b|\n  ‸", 1, ("end",)),
    ("php", "<?php\nif ($x) {\n  ‸", 1, ("}",)),
    ("sh", "if x; then‸", 1, ("fi",)),
    ("sh", "  for i in 1; do\n    ‸", 3, ("done",)),
    ("lua", "local function f(a)\n  ‸", 1, ("end",)),
    ("lua", "  if a then‸", 3, ("end",)),
    ("json", '  "a": {\n    ‸', 3, ("}", "]")),
    ("yaml", "a:\n  ‸", 1, ()),
    ("css", "a {‸", 1, ("}",)),
    ("scss", ".a {\n  ‸", 1, ("}",)),
    ("nothing", "one\n  two\n    ‸", 3, ()),
]
LINES = [
    ("python", "‸"),
    ("python", "x = ‸"),
    ("python", "x = f(‸"),
    ("python", "x = {'a':‸"),
    ("python", "x = lambda a:‸"),
    ("python", "def f():\n    x = 1\n    ‸"),
    ("python", "def f():\n    x = 1\n        ‸"),
    ("python", "def f():\n    pass\n\n‸"),
    ("python", "x = 1\n\n    ‸"),
    ("python", "def f(): pass\n‸"),
    ("javascript", "const x = ‸"),
    ("javascript", "f('{'‸"),
    ("javascript", "}\n‸"),
    ("java", "int x = 1;\n‸"),
    ("go", "x := ‸"),
    ("rust", "let x = y‸"),
    ("cpp", "public:‸"),
    ("ruby", "return if x‸"),
    ("sh", "echo ${‸"),
    ("lua", "return x end‸"),
    ("yaml", "a: b‸"),
    ("toml", "[a]\n‸"),
    ("html", "<div>\n  ‸"),
    ("html", "<div>‸"),
    ("nothing", "one:\n‸"),
    ("nothing", "  one\n  ‸"),
    ("nothing", "one ‸"),
]


@pytest.mark.parametrize(("language_id", "marked", "dedent_below", "closers"), BLOCKS)
def test_where_a_block_opens_the_block_is_completed(
    language_id: str, marked: str, dedent_below: int, closers: tuple[str, ...]
) -> None:
    found = stops(language_id, marked)
    assert not is_line(found)
    assert (found.dedent_below, found.closers) == (dedent_below, closers)
    assert (found.max_tokens, found.max_lines) == (256, 20)


@pytest.mark.parametrize(("language_id", "marked"), LINES)
def test_anywhere_else_the_line_is_completed(language_id: str, marked: str) -> None:
    assert is_line(stops(language_id, marked))


@pytest.mark.parametrize(("language_id", "marked", "dedent_below", "closers"), BLOCKS)
def test_text_after_the_cursor_leaves_only_its_line_to_complete(
    language_id: str, marked: str, dedent_below: int, closers: tuple[str, ...]
) -> None:
    found = stops(language_id, marked.replace(CURSOR, CURSOR + " ) x "))
    assert is_line(found)
    assert found.suffix_head.startswith(" ) x")


@pytest.mark.parametrize("inside", ["string", "comment"])
def test_strings_and_comments_are_completed_by_the_line(inside: Inside) -> None:
    assert is_line(stops("python", "if x:‸", inside))
    assert is_line(stops("python", 'def f():\n    """\n    if x:\n        ‸', inside))


def test_directly_below_a_head_the_body_is_meant_even_before_the_editor_indents() -> None:
    for marked in ("    if a:\n‸", "    if a:\n    ‸", "    if a:\n  # c\n‸"):
        assert stops("python", marked).dedent_below == 5
    assert is_line(stops("python", "    if a:\n\n‸"))
    assert is_line(stops("python", "    if a:\n\n    ‸"))


def test_auto_closed_brackets_left_out_of_the_prompt_do_not_count_as_text() -> None:
    found = stops("javascript", "if (x) {‸}\ny();", left_out="}")
    assert (found.dedent_below, found.closers) == (1, ("}",))
    assert found.suffix_head == "\ny();"


def test_a_head_a_thousand_lines_up_is_not_looked_for() -> None:
    comments = "    # c\n" * 1000
    assert is_line(stops("python", f"def f():\n{comments}    ‸"))


@pytest.mark.parametrize(
    ("after", "head"),
    [
        ("", ""),
        ("\n", ""),
        ("  \n \n\t", ""),
        ("\nreturn x\nmore", "\nreturn x"),
        ("\n\n    return x  \nmore", "\n\n    return x"),
        ("  \n    return x", "\n    return x"),
        (" \t\n \n  }", "\n \n  }"),
        (", b)", ", b)"),
        (" + b)  \nmore", " + b)"),
    ],
)
def test_what_follows_must_not_be_repeated(after: str, head: str) -> None:
    assert stops("python", f"if x:{CURSOR}{after}").suffix_head == head
    assert stops("python", f"x = f(a{CURSOR}{after}").suffix_head == head


@pytest.mark.parametrize(
    ("language_id", "marked", "decoded", "kept"),
    [
        ("python", "def f(a):‸\nx = 1", "\n    b = a\n\n    return b\n\nx = 1", "\n    b = a\n\n    return b"),
        ("python", "    if a:\n        ‸\n    c()", "b()\n        d()\n    else:", "b()\n        d()"),
        ("python", "x = ‸", "f(1)\ny = 2", "f(1)"),
        ("javascript", "run(() => {\n  ‸", "a();\n  b();\n});\nc();", "a();\n  b();\n});"),
        ("javascript", "if (x) {‸}", "\n  a();\n}\nb();", "\n  a();\n}"),
        ("ruby", "  def f\n    ‸\n  end", "a\n    b\n  end\nend", "a\n    b"),
        ("lua", "if x then‸", "\n  y()\nend\nz()", "\n  y()\nend"),
        ("sh", "for i in 1; do‸", "\n  echo $i\ndone\nx", "\n  echo $i\ndone"),
        ("go", "func f() {\n\t‸\n}", "return 1\n}\n", "return 1"),
        ("yaml", "a:\n  ‸\nd: 1", "b: 1\n  c: 2\nd: 1", "b: 1\n  c: 2"),
    ],
)
def test_the_worker_keeps_exactly_the_block(language_id: str, marked: str, decoded: str, kept: str) -> None:
    stopper = Stopper(stops(language_id, marked, left_out="}" if "‸}" in marked else ""))
    text = "".join(stopper.feed(character) for character in decoded if stopper.reason is None)
    assert text + stopper.finish("eos") == kept
