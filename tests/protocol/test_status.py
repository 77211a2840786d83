"""What a client's status line is told: `fimble/status`, from the real server with the real worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from evaluation.lsp_client import CAPABILITIES, LspClient

URI = "file:///w/a.py"
CODE = "".join(f"value_{i} = compute({i}) * factor\n" for i in range(150)) + "with op\n"
PLACE = (150, 7)
WANTED = {**CAPABILITIES, "experimental": {"fimble": {"status": True}}}


def told(client: LspClient) -> list[dict[str, Any]]:
    """Each status so far."""
    return [params for method, params in client.notifications if method == "fimble/status"]


async def until(client: LspClient, state: str) -> dict[str, Any]:
    return await client.until("fimble/status", lambda status: status["state"] == state)


def test_the_status_follows_the_worker_the_requests_and_the_switch(fresh_state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start(env=fresh_state)
        await client.initialize(WANTED)
        client.open(URI, "python", CODE)
        await client.until("fimble/refresh")
        shares = [status["progress"] for status in told(client) if status["state"] == "loading"]
        assert len(set(shares)) >= 3
        assert shares == sorted(shares)
        assert all(status["message"] for status in told(client) if status["state"] == "loading")
        assert told(client)[-1]["state"] == "idle"
        before = len(told(client))
        await client.inline(URI, *PLACE)  # a new prompt of 1,400 tokens takes long enough to be told
        assert [status["state"] for status in told(client)[before:]] == ["working", "idle"]
        client.settings = {"enabled": False}
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        await until(client, "off")
        assert "$/progress" not in {method for method, _ in client.notifications}
        assert await client.close() == 0

    asyncio.run(run())


def test_the_status_says_why_there_is_no_model(fresh_state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start({"model": "/no/such/model"}, env=fresh_state)
        await client.initialize(WANTED)
        status = await until(client, "error")
        assert "/no/such/model" in status["message"]
        client.settings = {}
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        await client.until("fimble/refresh")
        assert told(client)[-1]["state"] == "idle"
        assert await client.close() == 0

    asyncio.run(run())


@pytest.mark.parametrize("experimental", [{"fimble": {}}, {"fimble": True}])
def test_a_client_that_has_not_asked_hears_nothing_of_it(state: dict[str, str], experimental: Any) -> None:
    async def run() -> None:
        client = await LspClient.start(env=state)
        await client.initialize({**CAPABILITIES, "experimental": experimental})
        await client.ready()
        assert told(client) == []
        assert await client.close() == 0

    asyncio.run(run())
