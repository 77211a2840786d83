"""The syntax tree follows every edit, in slices, and tells code from strings and comments."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
from types import SimpleNamespace

import pytest
import tree_sitter
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server import syntax
from lsp_server.languages import grammar_of, language_of
from lsp_server.soundness import Soundness
from lsp_server.syntax import SyntaxTree
from lsp_server.text import Edit, Position
from lsp_server.window import Window

CURSOR = "‸"


class Text:
    """A document as the tree sees one; its edits are computed from scratch."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")

    @property
    def whole(self) -> str:
        return "\n".join(self.lines)

    def replace(self, start: int, old_end: int, inserted: str) -> Edit:
        """Replace a range of the whole text."""
        old = self.whole
        new = old[:start] + inserted + old[old_end:]
        self.lines = new.split("\n")
        places = (old[:start], old[:old_end], new[: start + len(inserted)])
        last_lines = [before.rpartition("\n")[2] for before in places]
        ends = [Position(b.count("\n"), len(last)) for b, last in zip(places, last_lines, strict=True)]
        return Edit(ends[0], ends[1], ends[2], inserted, *[len(utf8(text)) for text in (*places, *last_lines)])

    def become(self, text: str) -> Edit:
        """The smallest edit that makes this the whole text."""
        old = self.whole
        start = in_common(old, text)
        end = in_common(old[start:][::-1], text[start:][::-1])
        return self.replace(start, len(old) - end, text[start : len(text) - end])


def in_common(a: str, b: str) -> int:
    """How many first characters two texts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def opened(language_id: str, text: str) -> tuple[Text, SyntaxTree]:
    document = Text(text)
    return document, SyntaxTree(language_of(language_id, ""), document)


def parsed(language_id: str, text: str) -> tuple[Text, SyntaxTree]:
    document, tree = opened(language_id, text)
    assert tree.parse()
    return document, tree


def nodes(tree: tree_sitter.Tree | None) -> list[tuple[object, ...]]:
    """Every node in order, with all that can differ."""
    assert tree is not None
    walk = tree.walk()
    found: list[tuple[object, ...]] = []
    while True:
        node = walk.node
        assert node is not None
        found.append((walk.depth, node.type, node.range, node.is_named, node.is_missing))
        if walk.goto_first_child():
            continue
        while not walk.goto_next_sibling():
            if not walk.goto_parent():
                return found


def from_scratch(language_id: str, text: str) -> tree_sitter.Tree:
    grammar = grammar_of(language_of(language_id, ""))
    assert grammar is not None
    return tree_sitter.Parser(grammar).parse(utf8(text))


# --- the tree is the text's ---------------------------------------------------------------------------------

SAMPLES = {
    "python": 'import os\n\ndef f(a, b):\n    """Dö\n    c."""\n    x = [1, "é😀", f"{a}"]\n    if a > b:  # ü\n'
    "        return x\n    return None\n\n\nclass A:\n    y: int = 3\n",
    "javascript": "function f(a) {\n  const x = `é${a} d`;\n  // ünï\n  if (a) { return [x, '😀']; }\n"
    "  return () => { g(); };\n}\n",
    "typescript": "interface A { b: string; }\nconst f = (x: number): string => {\n  return `é😀${x}`;\n};\n",
    "tsx": 'const a = (x: A) => <p b="é">😀{x.y}<br/></p>; // ü\n',
    "java": 'class A {\n  /* ü */\n  String f(int x) {\n    String s = "é😀";\n    return s + x; // c\n  }\n}\n',
    "go": 'package a\n\nfunc F(x int) string {\n\ts := "é😀"\n\t// ü\n\tif x > 1 {\n\t\treturn s\n\t}\n\treturn s\n}\n',
    "rust": "fn f<'a>(x: &'a str) -> u8 {\n    let y = \"é😀\";\n    // ü\n    match x { y => { 1 } _ => 2 }\n}\n",
    "c": '#include <x.h>\nint f(int x) {\n  char *s = "é😀"; /* ü */\n  if (x) { return 1; }\n  return 0;\n}\n',
    "cpp": '#include <x>\nnamespace a { template <class T> int f(T x) {\n  auto s = "é😀"; // ü\n  return x; } }\n',
    "csharp": 'class A {\n  string F(int x) {\n    var s = $"é{x}😀"; // ü\n    return s;\n  }\n}\n',
    "ruby": 'class A\n  def f(x)\n    s = "é#{x}😀" # ü\n    if x\n      y.each do |z| p z end\n    end\n  end\nend\n',
    "php": '<p>é</p><?php\nfunction f($x) {\n  $s = "é {$x} 😀"; // ü\n  if ($x) { return 1; }\n  return $s;\n}\n',
    "sh": 'f() {\n  local x="é $1 😀" # ü\n  if [ -n "$x" ]; then\n    echo "${x}"\n  fi\n}\nfor i in 1; do f; done\n',
    "lua": 'local function f(x)\n  local s = "é😀" -- ü\n  if x then return s end\n  return { a = 1 }\nend\n',
    "json": '{"é": ["😀", 1, true], "b": {"c": null}}\n',
    "yaml": 'a: "é😀"\nb:\n  - c # ü\n  - d: |\n      text\n',
    "toml": '[a]\nb = "é😀" # ü\nc = [1, 2]\n',
    "html": '<html><!-- ü --><body class="é">😀<p>hi</p></body></html>\n',
    "css": 'a.b { color: red; /* ü */ }\n@media x { p { content: "é😀"; } }\n',
}
EDITS = st.lists(
    st.tuples(
        st.integers(0, 500),  # where
        st.sampled_from([0, 0, 0, 1, 1, 2, 9, 40]),  # how much goes
        st.text("(){}[]:;,.=\"'`#/*<>$ \n\tab1éü😀\ud800\\-", max_size=4) | st.sampled_from(["end", "if", '"""', "*/"]),
        st.sampled_from(["", "slice", "slices"]),  # what is parsed before the next edit
    ),
    max_size=8,
)


def check(language_id: str, document: Text, tree: SyntaxTree) -> bool:
    """Compare with a tree from scratch; False for broken text, where the grammar may recover in other ways."""
    assert not tree.stale
    fresh = from_scratch(language_id, document.whole)
    assert tree.tree is not None
    assert tree.tree.root_node.end_byte == fresh.root_node.end_byte
    if fresh.root_node.has_error:
        return False
    assert nodes(tree.tree) == nodes(fresh)
    return True


@pytest.mark.parametrize("language_id", SAMPLES)
@settings(max_examples=max(1, settings().max_examples // 10))
@given(edits=EDITS)
def test_after_any_edits_the_tree_is_the_one_parsed_from_scratch(
    language_id: str, edits: list[tuple[int, int, str, str]]
) -> None:
    sample = SAMPLES[language_id]
    with pytest.MonkeyPatch.context() as patch:
        # Pieces that end inside characters, and slices as short as the parser can make them.
        patch.setattr(syntax, "_LINES_READ", 2)
        patch.setattr(syntax, "_BYTES_READ", 5)
        document, tree = parsed(language_id, sample)
        for where, length, inserted, then in edits:
            start = where % (len(document.whole) + 1)
            tree.edit(document.replace(start, min(start + length, len(document.whole)), inserted))
            assert tree.stale
            if then == "slice":
                tree.parse(0)
            elif then == "slices":
                while not tree.parse(0):
                    pass
                check(language_id, document, tree)
        tree.edit(document.become(sample))
        while not tree.parse(0):
            pass
        assert check(language_id, document, tree), "the sample itself is well formed"


def test_an_edit_parses_and_reads_nothing() -> None:
    document, tree = parsed("python", "x = 1\n" * 100)
    before = tree.tree
    edit = document.replace(0, 0, "y")
    del document.lines
    tree.edit(edit)
    assert tree.tree is before
    assert tree.stale


def test_a_tree_that_is_up_to_date_is_not_parsed_again() -> None:
    document, tree = parsed("python", "x = 1\n")
    before = tree.tree
    del document.lines
    assert tree.parse()
    assert tree.tree is before


LONG = "".join(f"def f{i}(a):\n    return g(a, 'é{i}')\n" for i in range(500))


class Watching(syntax.Reader):
    """Keeps what the parser was given to read."""

    pieces: list[bytes]

    def __call__(self, _byte: int, point: tree_sitter.Point) -> bytes:
        piece = super().__call__(_byte, point)
        self.pieces.append(bytes(piece))  # a copy: the next one takes its place
        return piece


class Watched(SyntaxTree):
    def read(self) -> list[bytes]:
        assert isinstance(self._reader, Watching)
        self._reader.pieces = []
        assert self.parse()
        return self._reader.pieces


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "Reader", Watching)


@pytest.mark.usefixtures("watched")
def test_the_document_is_read_in_small_pieces() -> None:
    document = Text("[" + ",\n".join(["1"] * 5000) + "]")
    tree = Watched(language_of("json", ""), document)
    assert max(piece.count(b"\n") for piece in tree.read()) == 16
    tree.edit(document.replace(1, 1, '"' + "é" * 50_000 + '", '))
    assert max(map(len, tree.read())) == 4096
    assert nodes(tree.tree) == nodes(from_scratch("json", document.whole))


@pytest.mark.usefixtures("watched")
def test_after_an_edit_only_a_part_is_read_again() -> None:
    document = Text(LONG)
    tree = Watched(language_of("python", ""), document)
    whole = len(tree.read())
    middle = LONG.index("f250(")
    tree.edit(document.replace(middle, middle + 1, "é"))
    assert 0 < len(tree.read()) < whole / 2


def test_a_parse_that_failed_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(20))
    document, tree = opened("python", LONG)
    with monkeypatch.context() as patch:
        patch.setattr(syntax, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        with pytest.raises(StopIteration):
            tree.parse(1000)
    tree.edit(document.replace(0, 0, "class A:\n    x = 1\n\n"))
    assert tree.parse()
    assert nodes(tree.tree) == nodes(from_scratch("python", document.whole))


# --- slices -------------------------------------------------------------------------------------------------


def test_what_was_parsed_is_freed_with_its_document() -> None:
    document, tree = parsed("python", "x = 1\n" * 300)
    other = tree.fork(document)
    tree.edit(document.replace(6, 7, "why"))
    assert tree.parse()
    assert other.parse()
    left = [weakref.ref(one) for one in (document, tree, other)]
    del document, tree, other
    gc.collect()
    assert [ref() for ref in left] == [None] * 3


def test_what_the_parser_has_read_is_not_kept() -> None:
    document, tree = parsed("python", "x = 1\n" * 2000)
    around = Window(["y = 2"] * 100, "", [], from_start=True, to_end=True, first=0)

    def work() -> int:
        """Bytes that are in use after some work."""
        for i in range(200):
            tree.edit(document.replace(6 * i, 6 * i + 1, "y"))
            assert tree.parse()
            assert Soundness(language_of("python", ""), around, 0).errors() == 0
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = work()
        assert work() - before < 20_000
    finally:
        tracemalloc.stop()


def test_documents_that_are_parsed_in_turns_do_not_read_each_other() -> None:
    texts = {"python": LONG, "javascript": "function f(a) { return [a, `b ${a}`]; }\n" * 800}
    trees = {language: opened(language, text)[1] for language, text in texts.items()}
    left, turns = list(trees.values()), 0
    while left:
        left = [tree for tree in left if not tree.parse(0)]
        turns += len(left) == 2
    assert turns > 20
    for language, text in texts.items():
        assert nodes(trees[language].tree) == nodes(from_scratch(language, text))


def slices(tree: SyntaxTree, budget_s: float = 0) -> int:
    return next(i for i in itertools.count(1) if tree.parse(budget_s))


def test_a_parse_in_slices_ends_in_the_same_tree() -> None:
    _, tree = opened("python", LONG)
    assert slices(tree) > 20
    assert nodes(tree.tree) == nodes(from_scratch("python", LONG))


def test_a_slice_ends_when_its_budget_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(syntax, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    _, tree = opened("python", LONG)
    at = next(clock)
    assert not tree.parse(10)
    assert 10 <= next(clock) - at <= 13
    few, many = slices(opened("python", LONG)[1], 40), slices(opened("python", LONG)[1], 10)
    assert 2 < few < many


def test_an_edit_between_two_slices_counts() -> None:
    document, tree = opened("python", LONG)
    for _ in range(10):
        assert not tree.parse(0)
    tree.edit(document.replace(0, 0, "class A:\n    def é(self): pass\n\n"))  # the parser had long passed this
    slices(tree)
    assert nodes(tree.tree) == nodes(from_scratch("python", document.whole))
    tree.edit(document.replace(0, 1, ""))
    assert not tree.parse(0)
    tree.edit(document.replace(0, 0, "c"))
    slices(tree)
    assert nodes(tree.tree) == nodes(from_scratch("python", document.whole))


def test_until_the_last_slice_the_old_tree_answers() -> None:
    document, tree = parsed("python", LONG + 'x = "text"\n')
    last = Position(len(document.lines) - 1, 6)
    tree.edit(document.replace(0, 0, "(\n"))
    assert not tree.parse(0)
    assert tree.stale
    assert tree.inside(last) == "string"


# --- documents without a tree -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "by_the_line"),
    [("MAX_BYTES", "string"), ("MAX_LINE", "code")],  # a line that long is not even looked at
)
def test_a_document_above_the_limit_has_no_tree_and_gets_one_when_it_shrinks(
    limit: str, by_the_line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syntax, limit, 100)
    document, tree = parsed("python", 'x = "é"')
    assert tree.tree is not None
    tree.edit(document.replace(0, 0, "a" * 90))
    assert tree.parse()
    assert tree.tree is not None
    tree.edit(document.replace(0, 0, "(" * 20))
    assert tree.parse()
    assert tree.tree is None
    assert not tree.stale
    assert tree.inside(Position(0, len('x = "') + 110)) == by_the_line
    tree.edit(document.replace(0, 110, ""))
    assert tree.stale
    assert tree.parse()
    assert nodes(tree.tree) == nodes(from_scratch("python", 'x = "é"'))


def test_the_size_is_counted_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "MAX_BYTES", 100)
    assert parsed("python", "é" * 49)[1].tree is not None
    assert parsed("python", "é" * 51)[1].tree is None


def test_a_language_without_a_grammar_is_never_stale() -> None:
    document, tree = opened("scss", "a { // b")
    assert not tree.stale
    assert tree.parse()
    tree.edit(document.replace(8, 8, "c"))
    assert not tree.stale
    assert tree.tree is None
    assert tree.inside(Position(0, 9)) == "comment"


# --- what the cursor stands in ------------------------------------------------------------------------------


def inside(tree: SyntaxTree, marked: str) -> str:
    before = marked[: marked.index(CURSOR)]
    return tree.inside(Position(before.count("\n"), len(before.rpartition("\n")[2])))


INSIDE = [
    ("python", 'x = "é‸b"\n', "string"),
    ("python", 'x = "éb"‸\n', "code"),
    ("python", 'x = ‸"éb"\n', "code"),
    ("python", "x = 'a' ‸'b'\n", "code"),
    ("python", "# é c‸\nx\n", "comment"),
    ("python", "x  # é c‸", "comment"),
    ("python", "x  ‸# é c\n", "code"),
    ("python", "# c\n‸x\n", "code"),
    ("python", "# c\n‸\n", "code"),
    ("python", 'f"é {x‸} b"', "code"),
    ("python", 'f"é {x} ‸b"', "string"),
    ("python", 'f"é {x}‸"', "string"),
    ("python", "f\"é {d['k‸']} b\"", "string"),
    ("python", 'def f():\n    """a\n    ‸b\n    """\n', "string"),
    ("python", 'def f():\n    """a\n‸\n    """\n', "string"),
    ("python", "😀 = '😀‸'", "string"),
    ("python", 'x = [f("""a\n it\'s""", y‸\nz = 1\n', "code"),
    ("javascript", "x = `a ${b‸} c`", "code"),
    ("javascript", "x = `a ${b} ‸c`", "string"),
    ("javascript", "x = `a ${b} \n‸c`", "string"),
    ("javascript", "/* a‸ */ b", "comment"),
    ("javascript", "/* a */‸ b", "code"),
    ("javascript", "// a‸\nb", "comment"),
    ("javascript", "x = /a‸b/", "string"),
    ("typescript", "let s: str‸ing = 1", "code"),
    ("tsx", "let s = <p a='‸b'>x</p>", "string"),
    ("tsx", "let s = <p a='b'>‸x</p>", "code"),
    ("java", 'class A { String s = """\n  a‸\n  """; }', "string"),
    ("java", "class A { char c = '‸a'; }", "string"),
    ("go", "package a\nvar x = `a\n‸b`\n", "string"),
    ("go", "package a\nvar x = 'a‸'\n", "string"),
    ("rust", "/// doc‸\nfn f() {}\n", "comment"),
    ("rust", "/// doc\n‸fn f() {}\n", "code"),
    ("rust", "fn f<'a>(x: &'a str) { ‸ }", "code"),
    ("rust", 'fn f() { let x = r#"a‸"#; }', "string"),
    ("c", "#include <std‸io.h>\n", "string"),
    ("c", "int x; /* a\n‸ b */", "comment"),
    ("c", "int x; // a‸", "comment"),
    ("cpp", 'auto x = R"(a\n‸)";', "string"),
    ("cpp", "template <class ‸T> int f();", "code"),
    ("csharp", 'var x = $"a{b‸}c";', "code"),
    ("csharp", 'var x = $"a{b}‸c";', "string"),
    ("csharp", 'var x = @"a‸b";', "string"),
    ("csharp", 'var x = """\n a‸\n """;', "string"),
    ("ruby", 'x = "a#{b‸}c"', "code"),
    ("ruby", 'x = "a#{b}c‸"', "string"),
    ("ruby", "x = <<~EOS\n  a‸\nEOS\n", "string"),
    ("ruby", "=begin\n a‸\n=end\nx\n", "comment"),
    ("php", '<?php\n$x = "a {$b‸->c} b";', "code"),
    ("php", "<?php\n$x = <<<EOT\n a‸\nEOT;\n", "string"),
    ("php", "<p>‸</p><?php $x = 1;", "code"),
    ("sh", 'echo "a $(ls ‸) b"', "code"),
    ("sh", 'echo "a ${x‸} b"', "code"),
    ("sh", "cat <<EOF\na‸\nEOF\n", "string"),
    ("sh", "(cd ‸x)", "code"),
    ("lua", "x = [[\n a‸\n]]", "string"),
    ("lua", "--[[ a‸ ]] x = 1", "comment"),
    ("lua", "--[[ a ]]‸ x = 1", "code"),
    ("lua", "-- t[a[1]]‸\n", "comment"),
    ("json", '{"a‸": 1}', "string"),
    ("json", '{"a": ‸1}', "code"),
    ("yaml", "a: |\n  b‸c\n", "string"),
    ("yaml", "a: don't‸\n", "code"),
    ("yaml", "a: b # c‸\n", "comment"),
    ("toml", 'a = """\nb‸\n"""\n', "string"),
    ("html", "<!-- a\n‸ -->", "comment"),
    ("html", '<a href="‸x">y</a>', "string"),
    ("html", '<a href="x">it\'s ‸y</a>', "code"),
    ("css", 'a { content: "x‸"; }', "string"),
    ("css", "/* a */‸", "code"),
]
UNFINISHED = [
    ("python", 'def f():\n    x = "abc‸\n    return 1\n', "string"),
    ("python", 'def f():\n    x = f("abc"‸\n    return 1\n', "code"),
    ("python", 'def f():\n    x = f("abc", \'‸\n    return 1\n', "string"),
    ("python", 'def f():\n    """doc‸\n\ndef g(): pass\n', "string"),
    ("python", "x = [  # abc‸\n", "comment"),
    ("javascript", 'function f() {\n  x = "abc‸\n  return 1;\n}\n', "string"),
    ("javascript", "/* abc‸", "comment"),
    ("java", 'class A { void f() {\n  s = "a‸;\n  x = 1;\n} }\n', "string"),
    ("java", 'class A { void f() {\n  s = "a;\n  x‸ = 1;\n} }\n', "code"),
    ("rust", "fn f<'a>(x: &'a str‸", "code"),
    ("json", '{"a": "b‸\n}', "string"),
    ("sh", 'echo "abc‸', "string"),
    ("css", 'a { content: "x‸\n}', "string"),
]


@pytest.mark.parametrize(("language_id", "marked", "expected"), INSIDE)
def test_the_tree_tells_code_from_strings_and_comments(language_id: str, marked: str, expected: str) -> None:
    _, tree = parsed(language_id, marked.replace(CURSOR, ""))
    assert inside(tree, marked) == expected


@pytest.mark.parametrize(("language_id", "marked", "expected"), UNFINISHED)
def test_a_string_nobody_has_closed_yet_is_one(language_id: str, marked: str, expected: str) -> None:
    _, tree = parsed(language_id, marked.replace(CURSOR, ""))
    assert inside(tree, marked) == expected


@pytest.mark.parametrize(
    ("language_id", "marked", "expected"),
    [
        *(row for row in INSIDE if row[0] == "json"),
        *(row for row in UNFINISHED if row[0] != "java"),
        INSIDE[0],
        INSIDE[5],
    ],
)
def test_without_a_tree_the_line_decides(language_id: str, marked: str, expected: str) -> None:
    _, tree = opened(language_id, marked.replace(CURSOR, ""))
    assert tree.tree is None
    assert inside(tree, marked) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("x = ‸\n", 'x = "é‸\n', "string"),
        ('x = "é‸"\n', 'x = "éa‸"\n', "string"),
        ('x = "é‸\n', 'x = "é"‸\n', "code"),
        ("x = 1‸\n", "x = 1  # é‸\n", "comment"),
        ("x = 1  # é‸\n", "x = 1  # é b‸\n", "comment"),
        ("x = 1  # é‸\ny\n", "x = 1  # é\n‸\ny\n", "code"),
        ('"""\na‸\n"""\n', '"""\na\n"b‸\n"""\n', "string"),
        ('f"{x‸}"\n', 'f"{x + y‸}"\n', "code"),
        ('é = f"{a‸}"\n', 'é = "éééé" + f"{a‸}"\n', "code"),
        ('é = "éééé" + f"{a‸}"\n', 'é = f"{a‸}"\n', "code"),
        ('‸x = "é"\n', "é\né\n‸x = 'é'\n", "code"),
    ],
)
def test_what_was_just_typed_counts_before_it_is_parsed(before: str, after: str, expected: str) -> None:
    document, tree = parsed("python", before.replace(CURSOR, ""))
    tree.edit(document.become(after.replace(CURSOR, "")))
    assert tree.stale
    assert inside(tree, after) == expected
