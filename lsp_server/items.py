"""Completions as LSP's types: ghost text, or an entry of a menu, in the client's encoding."""

from __future__ import annotations

from lsprotocol import types

from lsp_server.completion import Completion
from lsp_server.documents import Document, Encoding
from lsp_server.text import Position

ACCEPTED = "fimble.accepted"
"""The command that an item runs once it is accepted: tells the server, which counts it."""


def span(document: Document, start: Position, end: Position, encoding: Encoding) -> types.Range:
    """A stretch of one line."""
    places = (document.character(start, encoding), document.character(end, encoding))
    return types.Range(*(types.Position(start.line, place) for place in places))


def ghost(document: Document, found: Completion, encoding: Encoding) -> types.InlineCompletionItem:
    """Ghost text."""
    where = span(document, found.start, found.end, encoding)
    return types.InlineCompletionItem(insert_text=found.text, range=where, command=_report(document.uri, found))


def entry(document: Document, found: Completion, encoding: Encoding) -> types.CompletionItem:
    """A menu's entry: it begins with the word before the cursor, which menus compare with what is typed."""
    before = document.lines[found.start.line][: found.start.column]
    word = _word_before(before)
    text = word + found.text
    start = Position(found.start.line, found.start.column - len(word))
    return types.CompletionItem(
        label=text.strip().split("\n", 1)[0].rstrip(),
        kind=types.CompletionItemKind.Text,
        detail="fimble",
        documentation=text if "\n" in text else None,
        filter_text=word or None,
        sort_text=" ",  # before every name; Emacs takes no NUL
        text_edit=types.TextEdit(span(document, start, found.end, encoding), text),
        command=_report(document.uri, found),
    )


def _report(uri: str, completion: Completion) -> types.Command:
    return types.Command("fimble: accepted", ACCEPTED, arguments=[{"uri": uri, "id": completion.number}])


def _word_before(line: str) -> str:
    end = len(line)
    while end and (line[end - 1].isalnum() or line[end - 1] == "_"):
        end -= 1
    return line[end:]
