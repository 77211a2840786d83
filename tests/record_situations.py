"""Asks the starter what it says in each situation of tests/situations, and writes that down there.

    python -m tests.record_situations [NAME ...] [--all]

Rows that have a recording keep it, unless `--all` is given. What is expected of a new row is what is made of the
recording today: look at each one and write down what a user would want.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import attrs
import typer

from benchmarks.own_worker import own_state, worker
from inference.wire import End, Piece, Stops
from lsp_server.menu import with_selected
from lsp_server.request import budget, fim_request
from lsp_server.settings import Settings
from tests.situations import FOLDER, RECORDED, Situation, complete, load, save


async def record(rows: list[Situation]) -> None:
    """Fills in what the model says, and what is made of it."""
    settings = Settings()
    async with worker() as backend:
        for row in rows:
            session, cursor = row.session(), row.cursor
            if row.selected:
                session, cursor = with_selected(session, row.selected)
            hole = session.anchor.cut(session.document, cursor, budget(session, backend, settings))
            request = fim_request(session, hole, Stops(max_tokens=RECORDED), settings, "interactive")
            row.said = ""
            async for piece in backend.fim(attrs.evolve(request, session="")):
                if isinstance(piece, Piece):
                    row.said += piece.text
                elif isinstance(piece, End):
                    row.cut = piece.reason == "tokens"


def main(
    names: Annotated[list[str] | None, typer.Argument(help="languages; none: all")] = None,
    everything: Annotated[bool, typer.Option("--all", help="rows that have a recording too")] = False,
) -> None:
    """Records what the starter says."""
    files = {path: load(path) for path in sorted(FOLDER.glob("*.txt")) if not names or path.stem in names}
    new = [row for rows in files.values() for row in rows if everything or row.said is None]
    with own_state():
        asyncio.run(record(new))
    for path, rows in files.items():
        save(path, rows)
    for row in new:
        found = complete(row)
        row.wanted, row.covers = (found.text, found.end.column - found.start.column) if found else (None, 0)
    for path, rows in files.items():
        save(path, rows)
    typer.echo(f"{len(new)} recorded")


if __name__ == "__main__":
    typer.run(main)
