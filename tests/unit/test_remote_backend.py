"""Engines of others behind the language server: who is asked, who is asked instead, and what never leaves."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from inference.wire import FimRequest, Piece, Stops
from lsp_server.backends import keys
from lsp_server.backends.exclude import DEFAULT, excluded
from lsp_server.backends.remote import RemoteBackend
from lsp_server.backends.remote_settings import RemoteSettings, kind_of
from lsp_server.backends.worker import Lost, Refused, State
from lsp_server.settings import Settings, resolve
from tests.engines import DONE, Engine, Error, Reply, card, chunks, serving

KEY = "sk-never-to-be-seen-5f2a"
REQUEST = FimRequest("def add(a, b):\n    ret", "\n", "", Stops(max_tokens=8), session="7 file:///home/me/add.py")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIMBLE_REMOTE_KEY", KEY)


def with_engines(
    engines: list[Engine], body: Callable[[RemoteBackend, list[State]], Awaitable[None]], **settings: Any
) -> list[State]:
    """Runs `body` with a backend over engines that run already; returns the states it went through."""
    states: list[State] = []

    async def run() -> None:
        urls = tuple(engine.address + "/v1" for engine in engines)
        backend = RemoteBackend(RemoteSettings("generic", urls, **settings), states.append)
        try:
            await backend.ensure()
            await body(backend, states)
        finally:
            await backend.close()

    asyncio.run(run())
    return states


def engine(answer: Reply | None = None) -> Engine:
    return Engine(card("m", "someone"), lambda _: answer or chunks("urn a"))


async def text_of(backend: RemoteBackend, request: FimRequest = REQUEST) -> str:
    return "".join([m.text async for m in backend.fim(request) if isinstance(m, Piece)])


async def until(what: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < 60, "waited in vain"
        await asyncio.sleep(0.02)


def test_a_document_that_matches_exclude_never_reaches_an_engine() -> None:
    names = [".env", "prod.env", ".env.local", "server.pem", "tls.key", "id_rsa", "aws/credentials", ".ssh/config"]

    async def body(backend: RemoteBackend, _: list[State]) -> None:
        for name in names:
            request = attrs.evolve(REQUEST, prefix=f"PASSWORD of {name}", session=f"7 file:///home/me/{name}")
            with pytest.raises(Refused, match=r"fimble\.exclude"):
                await text_of(backend, request)
            with pytest.raises(Refused):
                await text_of(backend, attrs.evolve(request, stops=Stops(max_tokens=0)))
        assert await text_of(backend) == "urn a"

    with serving(engine()) as one:
        with_engines([one], body)
        assert len(one.asked) == 1
        assert "PASSWORD" not in repr(one.requests)


@pytest.mark.parametrize(
    ("uri", "out"),
    [
        ("file:///p/.env", True),
        ("file:///p/.ENV", True),
        ("file:///p/a%20b/Server.PEM", True),
        ("file:///c%3A/Users/me/.aws/config", True),
        ("file:///p/environment.py", False),
        ("file:///p/keyboard.py", False),
        ("untitled:Untitled-1", False),
        ("file:///p/main.py", False),
    ],
)
def test_the_default_patterns(uri: str, out: bool) -> None:
    assert excluded(uri, DEFAULT) is out


def test_a_link_is_excluded_by_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    link = tmp_path / "notes.txt"
    link.symlink_to(tmp_path / ".env")
    assert excluded(link.as_uri(), DEFAULT)


def test_the_patterns_are_a_setting() -> None:
    settings, problems = resolve({"exclude": ["*.csv", "private/*"]})
    assert problems == []
    assert excluded("file:///p/private/a.py", settings.exclude)
    assert excluded("file:///p/a.csv", settings.exclude)
    assert not excluded("file:///p/.env", settings.exclude)


def test_the_key_goes_out_with_every_request_and_into_no_message_log_or_setting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def body(backend: RemoteBackend, states: list[State]) -> None:
        for _ in range(3):
            with pytest.raises(Refused) as error:
                await text_of(backend)
            said.append(str(error.value))
            await backend.restart()
        said.append(repr(states) + repr(vars(backend)))

    with serving(engine(Error(401, {"error": {"message": f"the key {KEY} is wrong"}}))) as one:
        states = with_engines([one], body)
        assert {request.headers["Authorization"] for request in one.requests} == {f"Bearer {KEY}"}
    told = " ".join([*said, caplog.text, repr(states)])
    assert "FIMBLE_REMOTE_KEY" in told, "it is said where the key comes from"
    assert KEY not in told


def test_a_key_may_lie_in_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority: Any = 1

        def get_password(self, service: str, username: str) -> str | None:
            return "from the keyring" if (service, username) == ("fimble", "api.deepseek.com") else None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    monkeypatch.delenv("FIMBLE_REMOTE_KEY")
    try:
        assert asyncio.run(keys.find("FIMBLE_REMOTE_KEY", "https://api.deepseek.com/beta")) == "from the keyring"
        assert asyncio.run(keys.find("FIMBLE_REMOTE_KEY", "https://elsewhere.org")) == ""
    finally:
        keyring.set_keyring(before)


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def body(backend: RemoteBackend, states: list[State]) -> None:
        assert backend.ready is None
        assert "certificate" in states[-1].message

    with serving(engine(), context) as one:
        with_engines([one], body)
        assert one.requests == []


def test_a_busy_engine_is_asked_again_only_while_nothing_has_come() -> None:
    replies: list[Reply] = [Error(503, {"error": "busy"}), Error(429, {"error": "slow down"}), chunks("urn a")]

    async def body(backend: RemoteBackend, _: list[State]) -> None:
        assert await text_of(backend) == "urn a"
        with pytest.raises(Lost):
            await text_of(backend)

    with serving(Engine(card("m", "x"), lambda _: replies.pop(0))) as one:
        replies.append(chunks("urn", " a")[:1])  # the fourth breaks off after its first piece
        with_engines([one], body)
        assert len(one.asked) == 4


def test_tries_are_bounded() -> None:
    async def body(backend: RemoteBackend, _: list[State]) -> None:
        with pytest.raises((Lost, Refused)):
            await text_of(backend)

    with serving(engine(Error(503, {"error": "busy"}))) as one:
        with_engines([one], body)
        assert len(one.asked) == 3


def test_a_document_stays_with_one_engine_and_moves_when_that_goes() -> None:
    documents = [
        attrs.evolve(REQUEST, session=f"7 file:///home/me/{i}.py", prefix=f"document {i}\n") for i in range(12)
    ]

    def owners(engines: list[Engine]) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for number, one in enumerate(engines):
            for request in one.asked:
                found.setdefault(request.body["prompt"], set()).add(number)
        return found

    with serving(engine()) as first, serving(engine()) as second:
        engines = [first, second]

        async def body(backend: RemoteBackend, states: list[State]) -> None:
            for _ in range(3):
                for request in documents:
                    assert await text_of(backend, request) == "urn a"
            assert all(len(numbers) == 1 for numbers in owners(engines).values())
            assert first.asked
            assert second.asked
            first.answer = lambda _: Error(503, {"error": "going down"})
            for request in documents:
                assert await text_of(backend, request) == "urn a", "the other one answers for it"

        with_engines(engines, body)


def test_an_engine_that_is_away_is_said_once_and_comes_back_by_itself() -> None:
    with serving(engine()) as gone:
        port = int(gone.address.rpartition(":")[2])

    async def body(backend: RemoteBackend, states: list[State]) -> None:
        assert backend.ready is None
        assert [state.name for state in states] == ["failed"]
        assert "start the engine there" in states[0].message
        await until(lambda: backend._sites[0].looks > 2)  # pyright: ignore[reportPrivateUsage]
        assert len(states) == 1
        with serving(engine(), port=port):
            await until(lambda: backend.ready is not None)
            assert await text_of(backend) == "urn a"

    with_engines([gone], body)


def test_closing_the_stream_closes_the_connection() -> None:
    async def body(backend: RemoteBackend, _: list[State]) -> None:
        stream = backend.fim(REQUEST)
        async for _message in stream:
            break
        await stream.aclose()
        await until(lambda: one.left == 1)

    with serving(engine([*chunks("a")[:1], 60.0, DONE])) as one:
        with_engines([one], body)


def test_layout_and_speculation_fit_the_engine_unless_the_user_says_otherwise() -> None:
    url = {"remote": {"url": "http://gpu:8000/v1"}}
    assert resolve({"backend": "llamacpp", **url})[0].layout == "anchored"
    hosted = resolve({"backend": "openai", **url})[0]
    assert (hosted.layout, hosted.speculation) == ("psm", False)
    assert resolve({"backend": "openai", "layout": "anchored", **url})[0].layout == "anchored"
    vllm = resolve({"backend": "openai", "remote": {"url": "http://gpu:8000/v1", "engine": "vllm"}})[0]
    assert (vllm.layout, vllm.speculation) == ("anchored", True)


def test_a_backend_without_an_address_is_the_worker_and_says_so() -> None:
    settings, problems = resolve({"backend": "openai"})
    assert settings.remote is None
    assert "fimble.remote.url" in problems[0]
    assert Settings().remote is None


def test_mistral_is_known_by_its_address() -> None:
    assert kind_of("openai", "auto", "https://api.mistral.ai/v1") == "mistral"
    assert kind_of("openai", "auto", "https://codestral.mistral.ai/v1") == "mistral"
    assert kind_of("openai", "auto", "https://mistral.ai.evil.org/v1") == "generic"
    assert kind_of("openai", "vllm", "http://gpu:8000/v1") == "vllm"
