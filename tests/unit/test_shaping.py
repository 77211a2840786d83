"""What the answer does to the text around it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.brackets import scan
from lsp_server.languages import LANGUAGES, Inside, Language, language_of
from lsp_server.settings import Settings
from lsp_server.shaping import Shaped, balanced, echoes, without_following, without_loops, without_rest
from lsp_server.surroundings import Surroundings
from tests.unit.completing import Desk, ScriptedModel

CURSOR = "‸"


def around(text: str, closers: str = "", inside: Inside = "code", language: str = "javascript") -> Surroundings:
    """The surroundings of the mark; `closers` were closed by the editor and stand behind it."""
    before, after = text.split(CURSOR)
    *above, line = before.split("\n")
    rest, *below = after.removeprefix(closers).split("\n")
    return Surroundings(language_of(language, ""), inside, above, line, closers, rest, below)


CASES = [
    # situation, auto-closed, inside, answer → text, covered
    ("plain text is inserted as it is", "a = ‸", "", "code", "x + 1", Shaped("x + 1", 0)),
    ("an answer that closes the auto-closed bracket covers it", "f(‸)", ")", "code", "a, b)", Shaped("a, b)", 1)),
    ("one that does not leaves it standing", "f(‸)", ")", "code", "a, b", Shaped("a, b", 0)),
    ("a bracket that the answer opens is not the auto-closed one", "f(‸)", ")", "code", "g(x)", Shaped("g(x)", 0)),
    ("both close: two brackets, one covered", "f(‸)", ")", "code", "g(x))", Shaped("g(x))", 1)),
    ("nested pairs are covered in order", "f([‸])", "])", "code", "1])", Shaped("1])", 2)),
    ("a part of them too", "f([‸])", "])", "code", "1]", Shaped("1]", 1)),
    ("a quote closes its string", 'f("‸")', '")', "string", 'name")', Shaped('name")', 2)),
    ("an apostrophe inside does not", 'f("‸")', '"', "string", "it's", Shaped("it's", 0)),
    ("a string in the answer closes nothing", "f(‸)", ")", "code", 'g("a")', Shaped('g("a")', 0)),
    ("brackets inside strings don't count", "f(‸)", ")", "code", '")")', Shaped('")")', 1)),
    ("a bracket that stands there already is not doubled", "let a = { b: c‸ }", "", "code", "x }", Shaped("x", 0)),
    ("nor a bracket and semicolon", "f(‸);", "", "code", "a, b);", Shaped("a, b", 0)),
    ("what goes on behind the bracket covers it", "f(‸);", "", "code", "a).g();", Shaped("a).g();", 2)),
    ("unless more follows than brackets", "f(‸) + g(x)", "", "code", "a) * 2", Shaped("a", 0)),
    ("a bracket that the answer needs stays", "f(‸)", "", "code", "g(x)", Shaped("g(x)", 0)),
    ("one that the text before it needs stays too", "f(g(‸)", "", "code", "x)", Shaped("x)", 0)),
    ("a third is too much", "f(g(‸)", "", "code", "x))", Shaped("x)", 0)),
    ("words that happen to agree stay", "‸x", "", "code", "return x", Shaped("return x", 0)),
    ("an answer that only repeats is empty", "f(a‸)", "", "code", ")", Shaped("", 0)),
    ("a bracket that is closed on a line below stays out", "f(‸\n)", "", "code", "a)", Shaped("a", 0)),
    ("a brace closed below too", "if (a) {\n  ‸\n}", "", "code", "b();\n}", Shaped("b();", 0)),
    ("but one that is missing comes in", "if (a) {\n  ‸\n", "", "code", "b();\n}", Shaped("b();\n}", 0)),
    (
        "a brace for the outer block is missing",
        "{\n  if (a) {\n    ‸\n}",
        "",
        "code",
        "b();\n  }",
        Shaped("b();\n  }", 0),
    ),
    ("the string ends where it ends already", 'f("‸")', "", "string", 'a")', Shaped("a", 0)),
    ("the auto-closed brace moves below the block", "if (a) {‸}", "}", "code", "\n  b();", Shaped("\n  b();\n}", 1)),
    ("closing one block and opening another", "if (a) {\n‸\n}", "", "code", "} else {", Shaped("} else {", 0)),
    ("a type's bracket is not doubled", "Map<‸>", "", "code", "A, B>", Shaped("A, B", 0)),
    ("one of the answer's own is no double", "Map<‸>", "", "code", "A, Set<B>", Shaped("A, Set<B>", 0)),
]


@pytest.mark.parametrize(
    ("text", "closers", "inside", "answer", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_brackets(text: str, closers: str, inside: Inside, answer: str, expected: Shaped) -> None:
    assert balanced(answer, around(text, closers, inside)) == expected


def test_what_nobody_knows_is_left_alone() -> None:
    place = around("f(‸")
    place.complete = False
    assert place.missing is None
    assert balanced("a)", place) == Shaped("a)", 0)


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("‸\nreturn x", "y = 1\nreturn x", "y = 1"),
        ("‸\nreturn x\nmore", "y = 1\nreturn x\nmore", "y = 1"),
        ("‸\n\n  return x\nmore", "y = 1\n\nreturn x", "y = 1"),
        ("‸\nreturn x", "return x", ""),
        ("  ret‸\n  return x", "urn x", ""),
        ("‸\n}", "  if {\n  }", "  if {\n  }"),
        ("‸\n}", "a\n}", "a"),
        ("‸\nbreak;", "a\nbreak;\nb", "a\nbreak;\nb"),
        ("‸ + b\nreturn", "return", "return"),
        ("‸\n", "return", "return"),
    ],
)
def test_the_lines_below_are_not_repeated(text: str, answer: str, expected: str) -> None:
    assert without_following(answer, around(text)) == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("op‸(path)", "en(path, 1)", "en"),
        ("‸[0]", "f(x)[1]", "f(x)"),
        ("‸(x)", "(y)", "(y)"),
        ("‸ + 1", "f(x)", "f(x)"),
        ("if ‸{", "a {", "a "),
    ],
)
def test_the_bracket_after_the_cursor_ends_what_stands_before_it(text: str, answer: str, expected: str) -> None:
    assert without_rest(answer, around(text)) == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("import os\n‸", "import os", True),
        ("import os\n\n‸", "import os", True),
        ("import os\nimport o‸", "s", True),
        ("import os\n‸", "import os.path", False),
        ("import os\n‸ # why", "import os", False),
        ("  }\n‸", "  }", False),
        ("‸", "import os", False),
    ],
)
def test_the_line_above_is_not_repeated(text: str, answer: str, expected: bool) -> None:
    assert echoes(answer, around(text)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\nc", "a\nb\nc"),
        ("a\na\nb", "a\na\nb"),
        ("a\na\na", "a"),
        ("x\nfirst()\nsecond()\nfirst()\nsecond()\nfirst()", "x\nfirst()\nsecond()"),
        ("}\n}\n}", "}\n}\n}"),
        ("0,\n0,\n0,\n0,", "0,\n0,\n0,\n0,"),
        ("x = ab, ab, ab, ab, ab, ab", "x = ab,"),
        ("x = [0, 0, 0, 0, 0, 0, 0]", "x = [0, 0, 0, 0, 0, 0, 0]"),
        ("==========================", "=========================="),
        ("                    return True", "                    return True"),
        ("x" + " " * 30 + "= ab, ab, ab, ab, ab, ab", "x" + " " * 30 + "= ab,"),
    ],
)
def test_an_answer_that_goes_round_in_circles_ends_with_the_first(text: str, expected: str) -> None:
    assert without_loops(text) == expected


BITS = st.sampled_from([*"()[]{}\"'`a ,;", "\n", "ab", "\\"])


@given(
    text=st.lists(BITS, max_size=12).map("".join),
    closers=st.sampled_from(["", ")", "]", "}", '"', "'", "])", '")', "))"]),
    rest=st.lists(BITS.filter(lambda b: b != "\n"), max_size=4).map("".join),
)
def test_what_is_covered_is_a_subsequence_of_the_answer(text: str, closers: str, rest: str) -> None:
    """Or VS Code shows nothing; and the answer is never more than what the model wrote, but for what was there."""
    place = around(f"a({CURSOR}{closers}{rest}", closers)
    shaped = balanced(text, place)
    assert text.startswith(shaped.text) or shaped.text.endswith(closers[-1:])
    letters = iter(shaped.text)
    assert all(c in letters for c in (closers + rest)[: shaped.covers])


@given(st.lists(BITS, max_size=12).map("".join))
def test_a_balanced_text_has_nothing_unmatched(text: str) -> None:
    inner = "".join(c for c in text if c not in "()[]{}\"'`\\")
    javascript = language_of("javascript", "")
    assert scan(f"f({inner})[{inner}]", javascript).whole
    assert scan(f"f({inner})[{inner}]", javascript).closes == []
    assert scan(inner + ")", javascript).closes == [")"]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_strings_and_comments_are_found_wherever_a_language_has_them(language: Language) -> None:
    """`scan` looks for them only at certain characters."""
    samples = (
        "'a('",
        '"b("',
        "# c(",
        "// d(",
        "/* e( */",
        "-- f(",
        "<!-- g( -->",
        "`h(`",
        "[[ i( ]]",
        'r#"j("#',
        '= "k("',
    )
    for sample in samples:
        code = f"x {sample}"
        token = language.scanner.search(code)
        if token and "(" in token.group():
            assert scan(code, language).open == (), sample


@given(st.lists(st.one_of(BITS, st.sampled_from(["//", "/*", "*/", '"""', "#"])), max_size=20).map("".join))
def test_any_text_can_be_scanned(text: str) -> None:
    for name in ("javascript", "python", "rust", "ruby", "lua", "shellscript", "nothing"):
        found = scan(text, language_of(name, ""))
        assert all(text[place] == bracket for place, bracket in (*found.open, *found.loose))
        assert found.string < len(text)


def test_of_several_lines_as_many_are_taken_as_leave_no_error() -> None:
    """The model closes what it opens, and more; but what it opens is closed below the cursor."""
    said = "server.get('/', (request) => {\n    count(request)\n  })\n  next()\n})\n\nrun()\n"
    text = "const plugin = function (server, next) {\n  \n    return 'bar'\n  })\n  next()\n}\n"

    async def body() -> str | None:
        desk = Desk(ScriptedModel(lambda *_: said), text, language="javascript", settings=Settings(confidence=0))
        try:
            return await desk.text_at(text.index("\n    return"))
        finally:
            desk.close()

    assert asyncio.run(body()) == "server.get('/', (request) => {\n    count(request)"
