"""What is known of each language: its grammar, and how one of its lines opens a block, a string or a comment.

A grammar is imported when its language is first used. A language whose grammar cannot be loaded, or that has
none here, still has its line patterns; a language nobody listed goes by indentation alone.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import re
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import unquote

import attrs
import tree_sitter

Inside = Literal["code", "string", "comment"]

logger = logging.getLogger(__name__)

# Characters; they bound what a minified line can cost.
_LONGEST_SCANNED = 20_000
_LONGEST_HEAD = 2_000

# Strings that end on the line; a backslash outside of one escapes a quote in shells and regular expressions.
_ESCAPE = r"\\."
_DOUBLE = r'"""(?:\\[\s\S]|[^\\])*?"""|"(?!"")(?:\\[\s\S]|[^"\\])*"'
_SINGLE = r"'(?:\\[\s\S]|[^'\\])*'"
_SINGLE_TRIPLE = r"'''(?:\\[\s\S]|[^\\])*?'''|'(?!'')(?:\\[\s\S]|[^'\\])*'"
_BACKTICK = r"`(?:\\[\s\S]|[^`\\])*`"
# A quote that none of the above closes: the string reaches past the end of the line.
_OPEN = r"(?P<string>[\"'].*)"
_OPEN_DOUBLE = r'(?P<string>".*)'
_OPEN_BACKTICK = r"(?P<string>[\"'`].*)"

_BLOCK = r"(?P<block>/\*.*?\*/)"
_SLASHES = _BLOCK + r"|(?P<comment>//.*|/\*.*)"
_HASH = r"(?P<comment>#.*)"
_HASH_WORD = r"(?P<comment>(?<![^\s;&|()])#.*)"  # `$#` and `${x#y}` are no comments


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


@attrs.frozen
class Opener:
    """A pattern at the end of a line's code after which an indented block follows."""

    pattern: re.Pattern[str] = attrs.field(converter=re.compile)
    closers: tuple[str, ...] = ()
    """A line that begins with one of these ends the block and belongs to it."""
    middles: tuple[str, ...] = ()
    """A line that begins with one of these goes on with the block, which has one end for all its parts."""
    in_brackets: bool = False
    """Whether it still opens a block behind an unclosed bracket, as in `run(() => {`."""


@attrs.frozen(slots=False)
class Language:
    """A language as completion sees it: one line at a time, with or without a grammar."""

    name: str
    grammar: str
    """Where its tree-sitter grammar is found, as `module` or `module:function`; empty: it has none."""
    line_comment: str
    scanner: re.Pattern[str]
    """Finds the strings and comments of a line. Group `string` or `comment`: reaches past the line's end;
    `block`: a comment that ends on the line; no group: a string that does."""
    openers: tuple[Opener, ...] = ()
    by_indentation: bool = False
    """No openers are known: what is indented more than the line above it is a block."""

    @cached_property
    def opens(self) -> str:
        """A regular expression for whole lines after which a block follows; it never matches if none are known."""
        return "|".join(f"(?:{opener.pattern.pattern})" for opener in self.openers) or r"(?!)"

    @cached_property
    def closers(self) -> tuple[str, ...]:
        """All that a line may begin with which ends a block or a bracket."""
        return tuple(dict.fromkeys([*")]}", *(closer for opener in self.openers for closer in opener.closers)]))

    @cached_property
    def middles(self) -> tuple[str, ...]:
        """All that a line may begin with which goes on with a block."""
        return tuple(dict.fromkeys(middle for opener in self.openers for middle in opener.middles))

    def split(self, text: str) -> tuple[str, Inside]:
        """The code of a line or of its beginning, and what its end is inside of.

        Strings come out empty, comments not at all. The line is taken to begin in code; of a very long one
        only the last part is looked at.
        """
        text = text[-_LONGEST_SCANNED:]
        code: list[str] = []
        inside: Inside = "code"
        at = 0
        for token in self.scanner.finditer(text):
            code.append(text[at : token.start()])
            at = token.end()
            if token.lastgroup == "comment":
                inside = "comment"
            elif token.lastgroup == "string":
                inside = "string"
                code.append('"')
            else:
                code.append(" " if token.lastgroup == "block" else '""')
        code.append(text[at:])
        return "".join(code).rstrip(), inside

    def block_after(self, code: str) -> Opener | None:
        """The opener that a line's code (from `split`) ends with."""
        if len(code) > _LONGEST_HEAD:
            return None
        within_brackets = sum(map(code.count, "([{")) > sum(map(code.count, ")]}"))
        for opener in self.openers:
            if (opener.in_brackets or not within_brackets) and opener.pattern.search(code):
                return opener
        return None


_C_LIKE = _any(_SLASHES, _ESCAPE, _DOUBLE, _SINGLE, _OPEN)
_SCRIPT = _any(_SLASHES, _ESCAPE, _DOUBLE, _SINGLE, _BACKTICK, _OPEN_BACKTICK)
_PYTHON = _any(_HASH, _ESCAPE, _DOUBLE, _SINGLE_TRIPLE, _OPEN)
_RUBY = _any(_HASH, _ESCAPE, _DOUBLE, _SINGLE, _BACKTICK, _OPEN_BACKTICK)
_RUST_CHAR = r"'(?:\\[^']+|[^'\\])'"  # a lifetime has no second quote
_RUST = _any(_SLASHES, r'\br#"[^"]*"#', _ESCAPE, _DOUBLE, _RUST_CHAR, _OPEN_DOUBLE)
_GO = _any(_SLASHES, _ESCAPE, _DOUBLE, _SINGLE, "`[^`]*`", _OPEN_BACKTICK)
_CPP = _any(_SLASHES, _ESCAPE, _DOUBLE, r"(?<=\d)'(?=\d)", _SINGLE, _OPEN)  # 1'000 is a number
_CSHARP = _any(_SLASHES, _ESCAPE, r'@"(?:""|[^"])*"(?!")', _DOUBLE, _SINGLE, _OPEN)
_PHP = _any(_BLOCK, r"(?P<comment>//.*|/\*.*|#(?!\[).*)", _ESCAPE, _DOUBLE, _SINGLE, _OPEN)
_SHELL = _any(_HASH_WORD, _ESCAPE, r'"(?:\\.|[^"\\])*"', "'[^']*'", _OPEN)
_LUA = _any(r"(?P<block>--\[\[.*?\]\])|(?P<comment>--.*)", r"\[\[.*?\]\]", _ESCAPE, _DOUBLE, _SINGLE, _OPEN)
_YAML = _any(r"(?<![^\s\[{,])(?:(?P<comment>#.*)|\"(?:\\.|[^\"\\])*\"|'[^']*'|(?P<string>[\"'].*))")
_HTML = _any(r"(?P<block><!--.*?-->)|(?P<comment><!--.*)", r"=\s*(?:\"[^\"]*\"|'[^']*')", r"(?P<string>=\s*[\"'].*)")
_CSS = _any(_BLOCK, r"(?P<comment>/\*.*)", _ESCAPE, _DOUBLE, _SINGLE, _OPEN)
_SCSS = _any(_BLOCK, r"(?P<comment>(?<!:)//.*|/\*.*)", _ESCAPE, _DOUBLE, _SINGLE, _OPEN)

_BRACE = Opener(r"\{$", ("}",), in_brackets=True)
_ARM = Opener(r"^\s*(?:case\s.*[^:\s]|default)\s*:$")
_BRACES = (_BRACE, _ARM)
_PYTHON_HEAD = Opener(
    r"^(?!.*\blambda\b[^:]*:$)\s*(?:"
    r"(?:(?:async\s+)?(?:def|class|for|with|while|if)|elif|except|match|case)\b.+"
    r"|(?:else|try|finally|except)\s*"
    r"|[)\]}].*"  # the end of a head over several lines, `) -> int:`
    r"):$"
)
_RUBY_UNFINISHED = r"(?<![,&|=+*/.\\<-])$"
_RUBY_MIDDLES = ("else", "elsif", "when", "in", "rescue", "ensure")
_RUBY_OPENERS = (
    Opener(r"\bdo(?:\s*\|[^|]*\|)?$", ("end",), ("rescue", "ensure"), in_brackets=True),
    Opener(r"\{(?:\s*\|[^|]*\|)?$", ("}",), in_brackets=True),
    Opener(
        r"^(?!.*(?:(?<![.\w])end$|\bthen\s+\S))\s*(?:"
        r"(?:\w+\s+)?def\s+(?![^\s(]+\s*(?:\(.*\))?\s+=\s)\S.*"  # not `def area = width * height`
        r"|(?:class|module|elsif)\s+\S.*|rescue\b.*|(?:else|ensure)"
        r"|(?:[\w@$.]+\s*(?:\|\|)?=\s*)?(?:(?:if|unless|while|until|case|for)\s+\S.*|case|begin))" + _RUBY_UNFINISHED,
        ("end",),
        _RUBY_MIDDLES,
    ),
    Opener(r"^(?!.*\bthen\s+\S)\s*(?:when|in)\s+\S.*" + _RUBY_UNFINISHED),
)
_GO_OPENERS = (*_BRACES, Opener(r"^\s*(?:import|const|var|type)\s*\($", (")",), in_brackets=True))
_PHP_OPENERS = (
    *_BRACES,
    Opener(
        r"(?:^|\s)(?:(?:if|elseif|for|foreach|while|switch)\b.*\)|else)\s*:$",
        ("endif", "endforeach", "endfor", "endwhile", "endswitch"),
        ("else", "elseif"),
    ),
)
_SHELL_OPENERS = (
    Opener(r"(?:^|[\s;])(?:then|else)$", ("fi",), ("else", "elif")),
    Opener(r"(?:^|[\s;])do$", ("done",)),
    Opener(r"^\s*case\s.*\sin$", ("esac",)),
    Opener(r"(?<!\$)\{$", ("}",), in_brackets=True),
)
_LUA_OPENERS = (
    Opener(r"\b(?:then|do|else)$", ("end",), ("else", "elseif")),
    Opener(r"\bfunction\b[^()]*\([^()]*\)$", ("end",), in_brackets=True),
    Opener(r"\brepeat$", ("until",)),
    Opener(r"\{$", ("}",), in_brackets=True),
)
_JSON_OPENERS = (Opener(r"[{\[]$", ("}", "]"), in_brackets=True),)
_YAML_OPENERS = (Opener(r":(?:\s+[|>][-+\d]*)?$", ()),)

PLAIN = Language("plain text", "", "", _any(_DOUBLE, _OPEN_DOUBLE), by_indentation=True)
_TSX = Language("TSX", "tree_sitter_typescript:language_tsx", "//", _SCRIPT, _BRACES)

# A language · its ids in VS Code, Neovim (filetypes) and Emacs (major modes) · its extensions and /file names.
# fmt: off
_TABLE: tuple[tuple[Language, str, str], ...] = (
    (Language("Python", "tree_sitter_python", "#", _PYTHON, (_PYTHON_HEAD,)),
     "python python3", "py pyi pyw"),
    (Language("JavaScript", "tree_sitter_javascript", "//", _SCRIPT, _BRACES),
     "javascript javascriptreact js js2 js3 jsx js-jsx js2-jsx rjsx", "js jsx mjs cjs"),
    (Language("TypeScript", "tree_sitter_typescript:language_typescript", "//", _SCRIPT, _BRACES),
     "typescript ts", "ts mts cts"),
    (_TSX, "typescriptreact typescript.tsx tsx typescript-tsx", "tsx"),
    (Language("Java", "tree_sitter_java", "//", _C_LIKE, _BRACES), "java", "java"),
    (Language("Go", "tree_sitter_go", "//", _GO, _GO_OPENERS), "go golang", "go"),
    (Language("Rust", "tree_sitter_rust", "//", _RUST, (_BRACE,)), "rust rustic", "rs"),
    (Language("C", "tree_sitter_c", "//", _C_LIKE, _BRACES), "c", "c h"),
    (Language("C++", "tree_sitter_cpp", "//", _CPP, _BRACES),
     "cpp c++ cuda c-or-c++", "cpp cc cxx hpp hh hxx h++ c++ ipp tpp cu cuh"),
    (Language("C#", "tree_sitter_c_sharp", "//", _CSHARP, _BRACES), "csharp cs c#", "cs csx"),
    (Language("Ruby", "tree_sitter_ruby", "#", _RUBY, _RUBY_OPENERS),
     "ruby enh-ruby", "rb rake gemspec ru /gemfile /rakefile /podfile /vagrantfile"),
    (Language("PHP", "tree_sitter_php:language_php", "//", _PHP, _PHP_OPENERS), "php", "php phtml"),
    (Language("Bash", "tree_sitter_bash", "#", _SHELL, _SHELL_OPENERS),
     "shellscript sh bash zsh ksh shell shell-script",
     "sh bash zsh ksh bats ebuild bashrc bash_profile profile zshrc /pkgbuild"),
    (Language("Lua", "tree_sitter_lua", "--", _LUA, _LUA_OPENERS), "lua luau", "lua rockspec"),
    (Language("JSON", "tree_sitter_json", "", _C_LIKE, _JSON_OPENERS),
     "json jsonc json5 jsonl js-json snippets", "json jsonc json5 jsonl geojson babelrc eslintrc"),
    (Language("YAML", "tree_sitter_yaml", "#", _YAML, _YAML_OPENERS),
     "yaml yml dockercompose github-actions-workflow", "yaml yml clang-format clang-tidy"),
    (Language("TOML", "tree_sitter_toml", "#", _PYTHON),
     "toml conf-toml", "toml /cargo.lock /poetry.lock /uv.lock /pipfile"),
    (Language("HTML", "tree_sitter_html", "", _HTML), "html mhtml xhtml", "html htm xhtml"),
    (Language("CSS", "tree_sitter_css", "", _CSS, (_BRACE,)), "css", "css"),
    (Language("SCSS", "", "//", _SCSS, (_BRACE,)), "scss less", "scss less"),
    (Language("Kotlin", "", "//", _C_LIKE, (_BRACE,)), "kotlin", "kt kts"),
    (Language("Swift", "", "//", _C_LIKE, _BRACES), "swift", "swift"),
    (Language("Scala", "", "//", _C_LIKE, (_BRACE,)), "scala", "scala sc"),
    (Language("Dart", "", "//", _C_LIKE, _BRACES), "dart", "dart"),
    (Language("Groovy", "", "//", _C_LIKE, _BRACES), "groovy", "groovy gradle /jenkinsfile"),
    (Language("Objective-C", "", "//", _C_LIKE, _BRACES), "objective-c objc", "m mm"),
    (Language("Perl", "", "#", _RUBY, (_BRACE,)), "perl cperl", "pl pm"),
    (Language("R", "", "#", _RUBY, (_BRACE,)), "r ess-r", "r"),
)
# fmt: on
LANGUAGES = tuple(language for language, _, _ in _TABLE)
_BY_ID = {word: language for language, ids, _ in _TABLE for word in ids.split()}
_BY_FILE = {word: language for language, _, files in _TABLE for word in files.split()}


def language_of(language_id: str, uri: str) -> Language:
    """The language that an editor's id names, else the one of the file's name, else plain text.

    Vim's compound filetypes (`yaml.ansible`) count by their first part, Emacs modes without `-ts-mode`.
    """
    name = unquote(re.split(r"[?#]", uri, maxsplit=1)[0].rpartition("/")[2]).lower()
    by_file = _BY_FILE.get("/" + name) or (_BY_FILE.get(name.rpartition(".")[2]) if "." in name else None)
    identifier = language_id.strip().lower().removesuffix("-mode").removesuffix("-ts")
    language = _BY_ID.get(identifier) or _BY_ID.get(identifier.partition(".")[0]) or by_file or PLAIN
    # Some editors have one mode for both, and the grammar without JSX reads markup as comparisons.
    return _TSX if language.name == "TypeScript" and by_file is _TSX else language


class GrammarState(NamedTuple):
    """Whether a language's grammar loads; `detail` is its version, or what went wrong."""

    name: str
    ok: bool
    detail: str


def grammars() -> list[GrammarState]:
    """Try the grammar of every language that has one, for `fimble doctor`."""
    return [_try(language) for language in LANGUAGES if language.grammar]


@functools.cache
def grammar_of(language: Language) -> tree_sitter.Language | None:
    """The loaded grammar of a language, or None. One that does not load is logged the first time."""
    if not language.grammar:
        return None
    try:
        return _load(language.grammar)
    except Exception as error:  # noqa: BLE001 - a broken wheel can raise anything; completion goes on without
        package = _package(language.grammar)
        logger.warning(
            "%s files are completed without a syntax tree because the grammar %s does not load (%s: %s): "
            "reinstall it with `pip install --force-reinstall %s`.",
            *(language.name, package, type(error).__name__, error, package),
        )
        return None


def _try(language: Language) -> GrammarState:
    package = _package(language.grammar)
    try:
        abi = _load(language.grammar).abi_version
        return GrammarState(language.name, True, f"{package} {importlib.metadata.version(package)}, ABI {abi}")
    except Exception as error:  # noqa: BLE001 - as above; the doctor shows it
        return GrammarState(language.name, False, f"{package}: {type(error).__name__}: {error}")


def _package(grammar: str) -> str:
    return grammar.partition(":")[0].replace("_", "-")


def _load(grammar: str) -> tree_sitter.Language:
    module, _, function = grammar.partition(":")
    pointer: object = getattr(importlib.import_module(module), function or "language")()
    return tree_sitter.Language(pointer)
