"""A language is found by any editor's name for it, and its lines say where strings, comments and blocks begin."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from lsp_server.languages import LANGUAGES, PLAIN, Language, grammar_of, grammars, language_of

BY_NAME = {language.name: language for language in LANGUAGES}


@pytest.mark.parametrize(
    ("identifiers", "name"),
    [
        ("python python-ts python-ts-mode", "Python"),
        ("javascript javascriptreact js js2 js-mode rjsx javascript.jsx", "JavaScript"),
        ("typescript typescript-ts-mode", "TypeScript"),
        ("typescriptreact tsx tsx-ts typescript.tsx", "TSX"),
        ("java java-ts", "Java"),
        ("go go-ts", "Go"),
        ("rust rustic rust-ts", "Rust"),
        ("c c-ts c-mode", "C"),
        ("cpp c++ c++-ts c-or-c++", "C++"),
        ("csharp cs csharp-ts", "C#"),
        ("ruby enh-ruby ruby-ts", "Ruby"),
        ("php php-ts", "PHP"),
        ("shellscript sh bash zsh sh-mode bash-ts", "Bash"),
        ("lua lua-ts luau", "Lua"),
        ("json jsonc json-ts js-json", "JSON"),
        ("yaml yaml-ts yaml.ansible yaml.docker-compose", "YAML"),
        ("toml toml-ts conf-toml", "TOML"),
        ("html mhtml html-ts", "HTML"),
        ("css css-ts", "CSS"),
        ("scss less", "SCSS"),
        ("PYTHON Python-Mode", "Python"),
    ],
)
def test_every_editor_s_name_for_a_language_finds_it(identifiers: str, name: str) -> None:
    for identifier in identifiers.split():
        assert language_of(identifier, "untitled:Untitled-1").name == name, identifier


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///home/me/a.py", "Python"),
        ("file:///c%3A/me/A.PY", "Python"),
        ("file:///a%20b/%C3%A9.c%2B%2B", "C++"),
        ("file:///a.d.ts", "TypeScript"),
        ("file:///a.component.tsx?x=1#y", "TSX"),
        ("file:///src/Gemfile", "Ruby"),
        ("file:///home/me/.bashrc", "Bash"),
        ("file:///Cargo.lock", "TOML"),
        ("file:///notes.txt", "plain text"),
        ("file:///py", "plain text"),
        ("file:///a.py/notes", "plain text"),
        ("untitled:Untitled-1", "plain text"),
        ("", "plain text"),
    ],
)
def test_an_unknown_id_leaves_it_to_the_file_s_name(uri: str, name: str) -> None:
    for unknown in ("plaintext", "fundamental", ""):
        assert language_of(unknown, uri).name == name


def test_the_editor_s_id_counts_more_than_the_file_s_name() -> None:
    assert language_of("cpp", "file:///a.h").name == "C++"
    assert language_of("json", "file:///a.py").name == "JSON"


def test_a_tsx_file_is_tsx_even_where_the_editor_says_typescript() -> None:
    assert language_of("typescript", "file:///a.tsx").name == "TSX"
    assert language_of("typescript", "file:///a.ts").name == "TypeScript"


# --- grammars -----------------------------------------------------------------------------------------------


def test_every_grammar_loads() -> None:
    tried = grammars()
    assert [state for state in tried if not state.ok] == []
    assert {state.name for state in tried} == {
        *[
            "Python",
            "JavaScript",
            "TypeScript",
            "TSX",
            "Java",
            "Go",
            "Rust",
            "C",
            "C++",
            "C#",
            "Ruby",
            "PHP",
            "Bash",
            "Lua",
            "JSON",
            "YAML",
            "TOML",
            "HTML",
            "CSS",
        ]
    }
    assert all("ABI" in state.detail for state in tried)


def test_a_grammar_is_imported_only_when_its_language_is_used() -> None:
    program = """
import sys
import time
from lsp_server.languages import grammar_of, language_of
def imported():
    return {name for name in sys.modules if name.startswith("tree_sitter_")}
language = language_of("go", "")
assert not imported(), imported()
assert grammar_of(language)
assert {name.partition(".")[0] for name in imported()} == {"tree_sitter_go"}, imported()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("grammar", ["tree_sitter_nothing", "tree_sitter_go:nothing", "builtins:object"])
def test_a_grammar_that_does_not_load_is_reported_once_and_then_done_without(
    grammar: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Language("Broken", grammar, "//", PLAIN.scanner)
    with caplog.at_level(logging.WARNING):
        assert grammar_of(broken) is None
        assert grammar_of(broken) is None
    (record,) = caplog.records
    assert "Broken" in record.message
    assert "pip install" in record.message


def test_the_doctor_is_told_which_grammar_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_go", None)
    (broken,) = [state for state in grammars() if not state.ok]
    assert broken.name == "Go"
    assert "tree-sitter-go" in broken.detail
    assert "ModuleNotFoundError" in broken.detail


def test_a_language_without_a_grammar_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    assert grammar_of(PLAIN) is None
    assert grammar_of(BY_NAME["SCSS"]) is None
    assert not caplog.records


# --- one line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "code", "inside"),
    [
        ("Python", "x = 'it''s'  # é", 'x = """"', "comment"),
        ("Python", "x = 'it", 'x = "', "string"),
        ("Python", r"x = 'it\'s' + y", 'x = "" + y', "code"),
        ("Python", '"""a "b" c""" + x', '"" + x', "code"),
        ("Python", '"""a "b', '"', "string"),
        ("Python", "'#' + x", '"" + x', "code"),
        ("JavaScript", "f('//', `#{'`) // c", 'f("", "")', "comment"),
        ("JavaScript", "x /* c */ + /* d", "x   +", "comment"),
        ("JavaScript", "x = `a", 'x = "', "string"),
        ("Rust", "fn f<'a>(x: &'a str, c: char) { c == '\"'", "fn f<'a>(x: &'a str, c: char) { c == \"\"", "code"),
        ("C++", "int x = 1'000; // c", 'int x = 1""000;', "comment"),
        ("C#", r'x = @"c:\"; y', 'x = ""; y', "code"),
        ("Go", r"x := `\` + y", 'x := "" + y', "code"),
        ("PHP", "#[Pure] f() # c", "#[Pure] f()", "comment"),
        ("Bash", "echo $# ${x#y} '\\' \"a # b\" # c", 'echo $# ${x#y} "" ""', "comment"),
        ("Lua", "x = [[--]] --[[ c ]] y", 'x = ""   y', "code"),
        ("Lua", "x -- t[a[1]]", "x", "comment"),
        ("YAML", "a: don't # c", "a: don't", "comment"),
        ("YAML", "a#b: 'c", 'a#b: "', "string"),
        ("HTML", '<a href="x">it\'s <!-- c', '<a href"">it\'s', "comment"),
        ("SCSS", "a: url(http://b) // c", "a: url(http://b)", "comment"),
    ],
)
def test_a_line_is_told_apart_into_code_strings_and_comments(name: str, text: str, code: str, inside: str) -> None:
    assert BY_NAME[name].split(text) == (code, inside)


OPENING = {
    "Python": [
        *("def f(x): # c", "async def f():", "class A:", "if x == '#':", "elif x:", "else:", "try:", "except:"),
        *("except* E as e:", "finally:", "while True:", "with a as b, c as d:", "async for x in y:"),
        *("match x:", "case {'a': 1}:", ") -> int:", "]):", "for x in (lambda: 1)():"),
    ],
    "JavaScript": ["if (x) {", "} else {", "run(() => {", "x = {", "case 'a':", "default:", "a { /* c */"],
    "Go": ["func f() {", "case x := <-c:", "import (", "type T struct { // c"],
    "Rust": ["fn f<'a>(x: &'a str) {", "Some('{') => {"],
    "C#": [r'var x = @"c:\" + new A {'],
    "Ruby": [
        *("def f(x, y = 1)", "def a.b?", "private def x=(v)", "class A < B", "class << self", "module A", "if x"),
        *("x = if y", "x ||= begin", "case", "a.each do |b, c|", "f(a) { |x|", "else", "rescue E => e", "when 1, 2"),
    ],
    "PHP": ["function f() {", "if ($x):", "<?php foreach ($a as $b):", "else:"],
    "Bash": ["if x; then", "then", "for i in 1; do", "while read -r x; do # c", "f() {", 'case "$x" in', "else"],
    "Lua": ["if x then", "for i = 1, 2 do", "local function f(a, b)", "run(function(x)", "repeat", "t = {"],
    "JSON": ['{"a": {', '"a": ['],
    "YAML": ["a:", "- a:", "a: |", "a: >-  # c"],
    "CSS": ["a:hover {"],
    "SCSS": [".a { // c"],
}
NOT_OPENING = {
    "Python": [
        *("x: int = {", "x = {'a':", "x[1:", "lambda x:", "return lambda:", "x = [", "match:", "with_x:", "if x[a:"),
        *("def f(a,", "import a", "# if x:", "'if x:'", "for f in map(lambda x:", "self.x:"),
    ],
    "JavaScript": ["x = '{'", "// {", "`a ${", "x ? y :", "f(", "{ }", "{ a:"],
    "Go": ["f(", "x := map[string]int{}", "label:"],
    "Rust": ["x => y", "'{'"],
    "C++": ["public:", "case A::"],
    "Ruby": [
        *("return if x", "x if y", "def area = width * height", "if x then y end", "class A; end", "when 1 then 2"),
        *("if a &&", "def f(a,", "iffy", "done", "x = 1", "# if x"),
    ],
    "PHP": ["$x ? 1 :", "'{'"],
    "Bash": ["echo ${", "redo", "# then", "echo 'x {"],
    "Lua": ["return x end", "if x then return end", "f(x)", "-- then", "undo"],
    "JSON": ['"a":', "{}"],
    "YAML": ["a: b", "- c", "# a:", "http://x"],
    "TOML": ["[a]", "x = ["],
    "HTML": ["<p>", "<div {"],
    "plain text": ["a:", "a {"],
}


@pytest.mark.parametrize("name", OPENING)
def test_the_head_of_a_block_opens_it(name: str) -> None:
    for head in OPENING[name]:
        assert BY_NAME[name].block_after(BY_NAME[name].split(head)[0]), head


@pytest.mark.parametrize("name", NOT_OPENING)
def test_what_only_looks_like_a_head_opens_nothing(name: str) -> None:
    language = BY_NAME.get(name, PLAIN)
    for line in NOT_OPENING[name]:
        assert not language.block_after(language.split(line)[0]), line


@pytest.mark.parametrize("piece", ["f('a', \"b\"); /* x */ ", 'r#"', "if (x) ", "function(", "do |", "é`", "=  "])
def test_a_minified_line_of_a_megabyte_costs_little(piece: str) -> None:
    line = piece * (1_000_000 // len(piece))
    for language in (*LANGUAGES, PLAIN):
        began = time.perf_counter()
        language.block_after(language.split(line)[0])
        assert time.perf_counter() - began < 0.5, language.name


def test_nobody_writes_a_head_of_thousands_of_characters() -> None:
    python = BY_NAME["Python"]
    assert python.block_after(python.split(f"if {'a' * 1900}:")[0])
    assert not python.block_after(python.split(f"if {'a' * 2000}:")[0])
