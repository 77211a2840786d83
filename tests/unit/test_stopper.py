"""Stops, applied while decoding: the same end however the text arrives, and nothing sent is ever taken back."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.stops import Stopper
from inference.wire import Stops


def run(text: str, stops: Stops, size: int = 1) -> tuple[str, str]:
    stopper, out = Stopper(stops), ""
    for start in range(0, len(text), size):
        out += stopper.feed(text[start : start + size])
        if stopper.reason:
            return out, stopper.reason
    out += stopper.finish("eos")
    return out, stopper.reason or ""


BLOCK = Stops(dedent_below=1, closers=("}",))
RUBY = Stops(dedent_below=3, closers=("end",))
LUA = Stops(dedent_below=1, closers=("end",), middles=("else",), opens=r"(?:then|else)$")
LINE = Stops(end_of_line=True, opens=r":$", closers=(")", "]", "}"), max_lines=5)

CASES = [
    ("one line ends before its line break", "foo(x)\nbar", Stops(end_of_line=True), "foo(x)", "line"),
    ("a line break at once is an empty answer", "\nbar", Stops(end_of_line=True), "", "line"),
    (
        "a block ends before a line indented less",
        "\n    a\n\n    b\nc",
        Stops(dedent_below=1),
        "\n    a\n\n    b",
        "dedent",
    ),
    ("a block in brackets keeps its closer", "\n    a;\n}\n\nint x", BLOCK, "\n    a;\n}", "dedent"),
    ("with the punctuation that belongs to it", "\n    a;\n});\nx", BLOCK, "\n    a;\n});", "dedent"),
    ("but not what follows the closer", "\n    a;\n} else {\n", BLOCK, "\n    a;\n}", "dedent"),
    (
        "an inner closer does not end it",
        "\n  if {\n    a;\n  }\n  b;\n}\n",
        BLOCK,
        "\n  if {\n    a;\n  }\n  b;\n}",
        "dedent",
    ),
    ("a closer that is a word ends where the word does", "\n    a\n  end\nx", RUBY, "\n    a\n  end", "dedent"),
    ("a longer word is no closer", "\n    a\n  ending\nx", RUBY, "\n    a", "dedent"),
    ("an outer block's closer is not ours", "\n    a\nend\n", RUBY, "\n    a", "dedent"),
    ("the next line of the suffix is not repeated", "\n  a\n  b\n", Stops(suffix_head="\n  b"), "\n  a", "suffix"),
    ("nor at the end of the text", "\n  a\n  b", Stops(suffix_head="\n\n  b"), "\n  a", "eos"),
    ("a line that only begins like it stays", "\n  a\n  bc\n", Stops(suffix_head="\n  b"), "\n  a\n  bc", "eos"),
    ("deeper indentation is another line", "\n    }\n}\nx", Stops(suffix_head="\n}"), "\n    }", "suffix"),
    (
        "the rest of the line is not repeated",
        "a, b) + c",
        Stops(suffix_head=", b) + c", end_of_line=True),
        "a",
        "suffix",
    ),
    ("a lone bracket is too common to stop at", "f(x)", Stops(suffix_head=")", end_of_line=True), "f(x)", "eos"),
    (
        "inside brackets of the answer's own it is something else",
        "max(a) + g(a)",
        Stops(suffix_head="(a)"),
        "max",
        "suffix",
    ),
    ("until they are closed", "f(g(a), 1)(a)", Stops(suffix_head="(a)"), "f(g(a), 1)", "suffix"),
    ("a closer keeps the rest of its line", "\n  a\n} while (x);\ny", BLOCK, "\n  a\n} while (x);", "dedent"),
    (
        "the end of a head over lines is no end",
        "\n  a\n) {\n  b\n)\nc",
        Stops(dedent_below=1, closers=(")",)),
        "\n  a\n) {\n  b\n)",
        "dedent",
    ),
    ("an else goes on with its block", "\n  a\nelse\n  b\nend\nc", LUA, "\n  a\nelse\n  b\nend", "dedent"),
    ("a longer word does not", "\n  a\nelsewhere\n", LUA, "\n  a", "dedent"),
    ("a line that opens nothing is all", "f(a)\nb", LINE, "f(a)", "line"),
    ("one that leaves a bracket open goes on", "f(\n  a,\n)\nb", LINE, "f(\n  a,\n)", "dedent"),
    ("so does one that opens a block", "if a:\n  b\n  c\nd", LINE, "if a:\n  b\n  c", "dedent"),
    ("as deep as the cursor's line", "if a:\n    b\n  c", attrs.evolve(LINE, head="  "), "if a:\n    b", "dedent"),
    ("with what stands before the cursor", ":\n  b\nc", attrs.evolve(LINE, head="if a"), ":\n  b", "dedent"),
    ("lines are counted from the cursor's", "a\nb\nc\nd", Stops(max_lines=3), "a\nb\nc", "lines"),
    ("blank lines at the end are dropped", "a\n\n\n", Stops(), "a", "eos"),
    ("white space at the end of the open line too", "a\n    ", Stops(), "a", "eos"),
]


@pytest.mark.parametrize(
    ("text", "stops", "expected", "reason"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_stop(text: str, stops: Stops, expected: str, reason: str, size: int) -> None:
    assert run(text, stops, size) == (expected, reason)


LINES = st.sampled_from(
    ["\n", "\n\n", "\n  ", "\n    ", "  ", "a", "b()", "}", "end", "ending", ")", ");", " else", "x, y)", ""]
)
STOPS = st.builds(
    Stops,
    end_of_line=st.booleans(),
    max_lines=st.integers(0, 4),
    dedent_below=st.integers(0, 5),
    closers=st.sampled_from([(), ("}",), ("end",), ("}", ")")]),
    opens=st.sampled_from(["", "", r"a$", r"\bend$"]),
    middles=st.sampled_from([(), (), ("a",), ("end",)]),
    suffix_head=st.sampled_from(["", "\n}", "\n\n  a", "x, y)", ")", "\n  b()", " else b()"]),
)


@given(text=st.lists(LINES, max_size=16).map("".join), stops=STOPS, cuts=st.lists(st.integers(1, 6), max_size=30))
def test_the_end_does_not_depend_on_how_the_text_arrives(text: str, stops: Stops, cuts: list[int]) -> None:
    whole = run(text, stops, len(text) or 1)
    stopper, out, at = Stopper(stops), "", 0
    for size in [*cuts, len(text)]:
        out += stopper.feed(text[at : at + size])
        at += size
        assert text.startswith(out), "sent text is never taken back or changed"
        if stopper.reason:
            break
    else:
        out += stopper.finish("eos")
    assert (out, stopper.reason) == whole


@given(text=st.lists(LINES, max_size=16).map("".join), stops=STOPS)
def test_an_answer_keeps_to_its_stops(text: str, stops: Stops) -> None:
    out, _ = run(text, stops)
    lines = out.split("\n")
    assert text.startswith(out)
    assert not (stops.end_of_line and not stops.opens and len(lines) > 1)
    assert not (stops.max_lines and len(lines) > stops.max_lines)
    for line in lines[1:-1]:
        indent = len(line) - len(line.lstrip(" \t"))
        of_the_head = line.lstrip().startswith((*stops.middles, ")", "]"))
        assert not line.strip() or indent >= stops.dedent_below or of_the_head, "only the last line may close the block"
    if stops.suffix_head.startswith("\n"):
        assert stops.suffix_head.rsplit("\n", 1)[1] not in [line.rstrip() for line in lines[1:]]
