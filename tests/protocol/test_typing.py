"""Ghost text while somebody types, over the real server and worker."""

from __future__ import annotations

from evaluation.lsp_client import LspClient
from tests.protocol.test_server import CODE, PLACE, URI, drive


def test_what_is_shown_stays_while_it_is_typed_to_its_end(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        (line, column), kept, answered = PLACE, "", 0
        keys = 'en(path, encoding="utf-8") as opened:'
        for version, key in enumerate(keys, 2):
            item = await client.inline(URI, line, column)
            shown = item["insertText"] if item else ""
            assert shown.startswith(kept)
            answered += bool(shown)
            kept = shown[1:].rstrip() if shown.startswith(key) else ""
            client.change(URI, version, ((line, column), (line, column), key))
            column += 1
        assert answered > len(keys) / 2

    drive(body, state)
