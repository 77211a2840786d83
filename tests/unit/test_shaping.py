"""What the answer does to the text around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.shaping import Shaped, shape, unmatched

CASES = [
    # answer, auto-closed after the cursor, rest of the line → text, covered
    ("plain text is inserted as it is", "x + 1", "", "", Shaped("x + 1", 0)),
    ("white space at the end goes", "x + 1 \n\n", "", "", Shaped("x + 1", 0)),
    ("nothing but white space is no answer", "  \n ", "", "", None),
    ("an answer that closes the auto-closed bracket covers it", "a, b)", ")", "", Shaped("a, b)", 1)),
    ("one that does not leaves it standing", "a, b", ")", "", Shaped("a, b", 0)),
    ("a bracket that the answer opens is not the auto-closed one", "g(x)", ")", "", Shaped("g(x)", 0)),
    ("both close: two brackets, one covered", "g(x))", ")", "", Shaped("g(x))", 1)),
    ("nested pairs are covered in order", "1])", "])", "", Shaped("1])", 2)),
    ("a part of them too", "1]", "])", "", Shaped("1]", 1)),
    ("a quote closes its string", 'name")', '")', "", Shaped('name")', 2)),
    ("an apostrophe inside does not", "it's", '"', "", Shaped("it's", 0)),
    ("a string in the answer closes nothing", 'f("a")', ")", "", Shaped('f("a")', 0)),
    ("brackets inside strings don't count", '")")', ")", "", Shaped('")")', 1)),
    ("a bracket that stands there already is not doubled", "nt: 0 }", "", " }", Shaped("nt: 0", 0)),
    ("nor a bracket and semicolon", "a, b);", "", ");", Shaped("a, b", 0)),
    ("a bracket that the answer needs stays", "f(x)", "", ")", Shaped("f(x)", 0)),
    ("words that happen to agree stay", "return x", "", "x", Shaped("return x", 0)),
    ("an answer that only repeats is none", ")", "", ")", None),
]


@pytest.mark.parametrize(("text", "closers", "rest", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_shape(text: str, closers: str, rest: str, expected: Shaped | None) -> None:
    assert shape(text, closers, rest) == expected


BITS = st.sampled_from([*"()[]{}\"'`a ,;", "\n", "ab", "\\"])


@given(
    text=st.lists(BITS, max_size=12).map("".join),
    closers=st.sampled_from(["", ")", "]", "}", '"', "'", "])", '")', "))"]),
    rest=st.lists(BITS.filter(lambda b: b != "\n"), max_size=4).map("".join),
)
def test_what_is_covered_is_a_subsequence_of_the_answer(text: str, closers: str, rest: str) -> None:
    """Or VS Code shows nothing; and the answer is never more than what the model wrote."""
    shaped = shape(text, closers, rest)
    if shaped is None:
        return
    assert text.startswith(shaped.text)
    assert shaped.text.strip()
    letters = iter(shaped.text)
    assert all(c in letters for c in closers[: shaped.covers])
    assert shaped.covers <= len(closers)


@given(st.lists(BITS, max_size=12).map("".join))
def test_a_balanced_text_has_nothing_unmatched(text: str) -> None:
    inner = "".join(c for c in text if c not in "()[]{}\"'`\\")
    assert unmatched(f"f({inner})[{inner}]") == []
    assert unmatched(inner + ")") == [")"]
