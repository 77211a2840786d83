"""What users see, in every editor: the rows that each editor's tests cover in the real program.

A test says which row it shows with `@pytest.mark.behaviour("accept a word")`; `test_table.py` fails for an editor
that leaves one out.
"""

from __future__ import annotations

BEHAVIOURS = {
    "show": "ghost text appears at the cursor by itself while one types",
    "type through": "typing what it says keeps it in place, shortened, without a flicker",
    "diverge": "another key takes it away at once; no stale text stays",
    "accept": "one key inserts all of it and leaves the cursor behind it",
    "accept a word": "one key inserts its next word; the rest stays",
    "accept a line": "one key inserts its next line; the rest stays",
    "dismiss": "one key sends it away, and it does not come back at the same place by itself",
    "undo after accept": "one undo takes an accepted suggestion out of the text again",
    "several lines": "a block is shown below the line and inserted with the file's indentation",
    "middle of a line": "before text that stays, the suggestion fits in between",
    "auto-closed bracket": "a bracket that the editor closed is not doubled",
    "emoji": "columns are right behind characters outside the basic plane",
    "crlf": "a file with CR LF line breaks keeps them",
    "server killed": "the user is told, and it comes back",
    "worker killed": "it is started again, with progress, and ghost text comes without another key",
    "worker loading": "progress is shown, and ghost text comes without another key when it ends",
    "switched off": "no ghost text while it is off, for a language or altogether, and again when it is on",
    "alternatives": "one key asks for others, one turns to the next",
}
