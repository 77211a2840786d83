"""Completions while the editor's own menu is open: they go on behind the selected entry.

The model is asked as if the entry had been accepted. The edit then uses the entry's range and begins with its text, or
an editor such as VS Code shows nothing.
"""

from __future__ import annotations

import attrs

from lsp_server.session import Session
from lsp_server.suggestions import is_subsequence
from lsp_server.text import Position


@attrs.frozen
class Selected:
    """The entry of a menu that accepting would put in place of `start` to `end`, on one line."""

    start: Position
    end: Position
    text: str

    def fits(self, cursor: Position) -> bool:
        """Whether a completion at `cursor` can go on behind it."""
        one_line = self.start.line == cursor.line == self.end.line and "\n" not in self.text
        return one_line and self.start <= cursor <= self.end


def with_selected(session: Session, selected: Selected) -> tuple[Session, Position]:
    """The document as it would be with the entry accepted, and the place behind it."""
    fork = session.fork()
    edits = fork.document.apply(*selected.start, *selected.end, selected.text, "utf-32")
    fork.follow(edits)
    line, column = selected.start
    return fork, Position(line, column + len(selected.text))


def for_menu(
    session: Session, cursor: Position, selected: Selected, text: str, covers: int
) -> tuple[str, Position, Position] | None:
    """What `text` in place of `covers` characters behind the entry is in the document without it: text, start, end.

    None if it can't be shown: the entry replaces text after the cursor that the edit lacks.
    """
    start, end = selected.start, selected.end
    text, end = selected.text + text, Position(end.line, end.column + covers)
    if not is_subsequence(session.document.text(cursor, end), text):
        return None
    return text, start, end
