"""What users do with suggestions, as LSP commands that any editor can bind to a key.

All but the worker's restart take one object:
`{"textDocument": {"uri"}, "position"}`, and where they insert, `"apply"` (default true): true
has the server edit the document (`workspace/applyEdit`), false leaves that to the client. ARCHITECTURE.md lists them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from lsprotocol import types

from lsp_server import items
from lsp_server.accept import Part, part_of
from lsp_server.documents import units
from lsp_server.items import ACCEPTED
from lsp_server.protocol import malformed
from lsp_server.session import Session
from lsp_server.text import Position, advance

if TYPE_CHECKING:
    from lsp_server.server import Server

ACCEPT, LINE, WORD = "fimble.accept", "fimble.acceptLine", "fimble.acceptWord"
DISMISS, CYCLE, RESTART = "fimble.dismiss", "fimble.cycle", "fimble.restartWorker"
APPLY_S = 5.0
"""Longest time that a client may take to make an edit."""


def register(server: Server) -> None:
    """Has a server run these commands."""
    # Not `ls: Server`: pygls resolves annotations, and that name is for the type checker only.

    @server.command(RESTART)
    async def _(ls: Any) -> None:
        await ls.restart_worker()

    @server.command(ACCEPTED)
    def _(ls: Any, told: Any = None) -> None:
        accepted(ls, told)

    @server.command(ACCEPT)
    async def _(ls: Any, where: Any = None) -> Any:
        return await accept(ls, where, "all")

    @server.command(LINE)
    async def _(ls: Any, where: Any = None) -> Any:
        return await accept(ls, where, "line")

    @server.command(WORD)
    async def _(ls: Any, where: Any = None) -> Any:
        return await accept(ls, where, "word")

    @server.command(DISMISS)
    def _(ls: Any, where: Any = None) -> None:
        dismiss(ls, where)

    @server.command(CYCLE)
    async def _(ls: Any, where: Any = None) -> Any:
        return await cycle(ls, where)


def accepted(ls: Server, told: Any) -> None:
    """`{"uri", "id"}` of an item that the client has inserted as a whole."""
    session = ls.sessions.get(str(_field(told, "uri")))
    if session and session.watch:
        session.watch.told(str(_field(told, "id")))


async def accept(ls: Server, where: Any, part: Part) -> dict[str, Any] | None:
    """The next part of the suggestion shown at a place, inserted there or to be inserted by the client."""
    place = _place(ls, where)
    found = place and place[0].suggestions.at(place[0].document, place[1])
    if place is None or found is None or not found[1].text:
        return None
    session, cursor = place
    suggestion, rest = found
    document = session.document
    after = document.lines[cursor.line][cursor.column : cursor.column + rest.covers]
    shown = rest.beginning(suggestion.visible_of(rest), after)  # what is not shown is not accepted
    if not shown.text:
        return None
    taken = part_of(shown, after[: shown.covers], part)
    end = Position(cursor.line, cursor.column + taken.covers)
    text = taken.text.replace("\n", document.line_break)
    span = items.span(document, cursor, end, ls.encoding)
    if session.watch:
        session.watch.taking(suggestion, len(taken.text))
    applied = _field(where, "apply", True) is not False and await _apply(ls, session, span, text)
    reached = advance(cursor, taken.text)
    column = units(taken.text[taken.text.rfind("\n") + 1 :], ls.encoding)
    start = 0 if reached.line > cursor.line else span.start.character
    return {
        "insertText": text,
        "range": span,
        "position": types.Position(reached.line, start + column),
        "applied": applied,
    }


async def _apply(ls: Server, session: Session, span: types.Range, text: str) -> bool:
    document = session.document
    named = types.OptionalVersionedTextDocumentIdentifier(uri=document.uri, version=document.version)
    edit = types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(named, [types.TextEdit(span, text)])])
    asked = ls.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit, "fimble: accept"))
    try:
        return (await asyncio.wait_for(asked, APPLY_S)).applied
    except TimeoutError:  # it answered with something that is no result
        return False


def dismiss(ls: Server, where: Any) -> None:
    """Sends the suggestion at a place away: it is not shown again there until the text disagrees with it."""
    place = _place(ls, where)
    found = place and place[0].suggestions.at(place[0].document, place[1])
    if place and found:
        found[0].dismissed = True
        if place[0].watch:
            place[0].watch.dismiss()


async def cycle(ls: Server, where: Any) -> dict[str, Any] | None:
    """Shows another suggestion at a place, asking for some where there is only one; `"back"`: the other way round."""
    place = _place(ls, where)
    if place is None:
        return None
    session, cursor = place
    found = session.suggestions.all_at(session.document, cursor)
    if len(found) < 2:
        shown = [rest.text for _, rest in found]
        await ls.completer.invoke(session, cursor)
        found = session.suggestions.all_at(session.document, cursor)
        found.sort(key=lambda one: one[1].text not in shown)  # from the one on the screen, not the newest
    if len(found) > 1:
        session.suggestions.rotate([suggestion for suggestion, _ in found], back=bool(_field(where, "back", False)))
    known = ls.completer.known(session, cursor)
    return {"items": [items.ghost(session.document, one, ls.encoding) for one in known]} if known else None


def _place(ls: Server, where: Any) -> tuple[Session, Position] | None:
    position = _field(where, "position")
    try:
        line, character = int(_field(position, "line")), int(_field(position, "character"))
    except (TypeError, ValueError):
        raise malformed(f"{position!r} is no position") from None
    return ls.session_at(str(_field(_field(where, "textDocument"), "uri")), types.Position(line, character))


def _field(of: Any, name: str, otherwise: Any = ...) -> Any:
    """A field of a command's argument. Raises -32602 for one that is missing."""
    value = cast(dict[str, Any], of).get(name, otherwise) if isinstance(of, dict) else otherwise
    if value is ...:
        raise malformed(f"the command's argument has no `{name}`: {of!r}")
    return value
