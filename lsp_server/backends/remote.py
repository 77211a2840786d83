"""Engines on other machines as the server sees them: looked for, watched while they are away, asked, kept to.

A document stays with one engine while that is there, since its prompts are in that one's cache. What may not leave the
machine is decided here, where everything passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import attrs

from inference.version import VERSION
from inference.wire import End, Failure, FimRequest, Health, Piece
from lsp_server.backends import keys
from lsp_server.backends.exclude import excluded
from lsp_server.backends.remote_settings import RemoteSettings
from lsp_server.backends.worker import Excluded, Lost, Refused, State, WorkerBackend

if TYPE_CHECKING:
    from inference.endpoint import WorkerSettings
    from inference.remote.client import Client
    from lsp_server.settings import Settings

log = logging.getLogger(__name__)

RETRIES = 2
"""Further tries of one request, on any engine, while nothing of an answer has come."""
PAUSE = 0.1
"""Seconds before the same engine is asked again; then twice that."""
WATCH = (1.0, 2.0, 5.0, 10.0)
"""Seconds between looks at engines that are away, the last one from then on."""


@attrs.define(eq=False)
class Site:
    """One engine: its address and where it stands."""

    url: str
    client: Client | None = None
    state: Literal["unknown", "loading", "ready", "down"] = "unknown"
    problem: str = ""
    gone: bool = False
    """It is down since it can't be reached; why is told once, however that changes."""
    model: str = ""
    window: int = 0
    looks: int = 0

    @property
    def name(self) -> str:
        """For messages."""
        return urlsplit(self.url).netloc


class RemoteBackend:
    """All engines of one server. Everything runs on the server's event loop; nothing here blocks it."""

    def __init__(
        self,
        settings: RemoteSettings,
        on_state: Callable[[State], None] = lambda _: None,
        local: WorkerSettings | None = None,
    ):
        """`local`: of the worker that answers what no engine can or may, if one is to."""
        self._settings, self._on_state = settings, on_state
        self._local = WorkerBackend(local, self._local_state) if local else None
        self._sites = [Site(url.rstrip("/")) for url in settings.urls]
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._excluded: set[str] = set()
        self.state = State("absent")

    @property
    def ready(self) -> Health | None:
        """The figures of the engines that are there, of the smallest window; else the local worker's."""
        there = [site for site in self._sites if site.state == "ready" and site.client]
        if not there:
            return self._local.ready if self._local else None
        least = min(there, key=lambda site: site.window)
        assert least.client
        return Health(
            status="ready",
            version=VERSION,
            model=least.model,
            fingerprint="",
            pid=0,
            device=least.name,
            window=least.window,
            chars_per_token=least.client.chars_per_token,
        )

    def ensure(self) -> asyncio.Task[None]:
        """Looks for the engines in the background; the task ends when each has answered or has not.

        While one is away it is watched, so that it comes back by itself.
        """
        unknown = any(site.state == "unknown" for site in self._sites)
        if self._looking is None or (self._looking.done() and unknown):
            self._looking = asyncio.create_task(self._look())
        return self._looking

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams the answer; closing the iterator cancels it. Raises `Refused`, `Lost`."""
        document = request.session.partition(" ")[2]
        may_leave = not excluded(document, self._settings.exclude)
        there = may_leave and any(site.state == "ready" for site in self._sites)
        if not there and self._local and self._local.ready:
            source = self._local.fim(request)
        elif not may_leave:
            if self._local:
                self._local.ensure()
            raise self._kept_here(document)
        else:
            source = self._from_engines(request)
        async with contextlib.aclosing(source) as messages:
            async for message in messages:
                yield message

    def _kept_here(self, document: str) -> Excluded:
        """Says it, in the log the first time only: at each keystroke it would bury everything else."""
        said = f"{document.rpartition('/')[2]} is not sent anywhere: it matches `fimble.exclude`"
        if document not in self._excluded:
            self._excluded.add(document)
            log.warning("%s", said)
        return Excluded(Failure("failed", said))

    async def look(self) -> list[Site]:
        """Looks at every engine once, and says how each was found."""
        await asyncio.gather(*map(self._look_at, self._sites))
        return self._sites

    async def restart(self) -> None:
        """Looks for all engines anew; a local worker that stands in is replaced. The engines themselves are others'."""
        for site in self._sites:
            site.state = "unknown"
        if self._local and self._local.ready:
            await self._local.restart()
        await self.ensure()

    async def close(self) -> None:
        """Lets go of all engines."""
        for task in (self._looking, self._watching):
            if task:
                task.cancel()
        for site in self._sites:
            if site.client:
                await site.client.close()
        if self._local:
            await self._local.close()

    async def _from_engines(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        from inference.remote.dialect import TooLong
        from inference.remote.http import Rejected, Unreachable

        order, begun, tried = self._order(request.session), False, list[Site]()
        problem = "no engine is there"
        while order and len(tried) <= RETRIES:
            site = order[len(tried) % len(order)]
            if site in tried:
                await asyncio.sleep(PAUSE * tried.count(site))
            tried.append(site)
            assert site.client
            try:
                async with contextlib.aclosing(site.client.fim(request)) as messages:
                    async for message in messages:
                        begun = True
                        yield message
                return
            except TooLong as error:
                raise Refused(Failure("too_long", str(error), error.tokens, error.window)) from error
            except (Unreachable, Rejected) as error:
                problem = f"{site.name}: {error}"
                lost = isinstance(error, Unreachable)
                last = begun or len(tried) > RETRIES
                if lost and (last or len(order) > 1):
                    site.gone = True
                    self._away(site, _unreachable(site, str(error)))
                if begun:
                    raise Lost(problem) from error
                if isinstance(error, Rejected) and not error.passing:
                    if error.status in (401, 403):
                        self._away(site, _no_key(site, self._settings, str(error)))
                    raise Refused(Failure("failed", problem)) from error
        raise Lost(problem)

    def _order(self, session: str) -> list[Site]:
        """The engines that are there, first the one that this document belongs to, whoever else comes and goes."""

        def weight(site: Site) -> bytes:
            return hashlib.blake2b(f"{site.url}\0{session}".encode("utf-8", "surrogatepass")).digest()

        return sorted((site for site in self._sites if site.state == "ready"), key=weight)

    async def _look(self) -> None:
        await self.look()
        self._show()
        self._watch()

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._until_all_are_there())

    async def _until_all_are_there(self) -> None:
        looks = 0
        while away := [site for site in self._sites if site.state != "ready"]:
            await asyncio.sleep(WATCH[min(looks, len(WATCH) - 1)])
            await asyncio.gather(*map(self._look_at, away))
            looks += 1
            self._show()

    async def _look_at(self, site: Site) -> None:
        from inference.remote.dialect import Loading, Unfit
        from inference.remote.http import Rejected, Unreachable

        site.looks += 1
        try:
            if site.client is None:
                key = await keys.find(self._settings.key_variable, site.url)
                site.client = _client(self._settings, site.url, key)
            found = await site.client.look()
            site.state, site.problem, site.model, site.window = "ready", "", found.model, found.window
        except Loading as error:
            site.state, site.problem = "loading", f"{site.name}: {error}"
        except Unreachable as error:
            if not site.gone:
                site.problem = _unreachable(site, str(error))
            site.state, site.gone = "down", True
            return
        except Unfit as error:
            site.state, site.problem = "down", f"{site.url} can't be used: {error}"
        except Rejected as error:
            refused = error.status in (401, 403)
            said = f"{site.url} answers with an error ({error.status}): {error}"
            site.state, site.problem = "down", _no_key(site, self._settings, str(error)) if refused else said
            if refused and site.client:  # the keyring may have another one the next time
                await site.client.close()
                site.client = None
        site.gone = False

    def _away(self, site: Site, problem: str) -> None:
        site.state, site.problem = "down", problem
        self._show()
        self._watch()

    def _show(self) -> None:
        """Tells where the engines stand, as one."""
        ready = [site for site in self._sites if site.state == "ready"]
        away = [site for site in self._sites if site.state == "down"]
        loading = [site for site in self._sites if site.state == "loading"]
        if ready:
            names = ", ".join(f"{site.model} at {site.name}" for site in ready)
            state = State("ready", names + "".join(f"; {site.problem}" for site in away), 1.0, self.ready)
        elif loading:
            state = State("loading", loading[0].problem)
        elif away:
            instead = "; the local worker answers meanwhile" if self._local else ""
            state = State("failed", away[0].problem + instead)
        else:
            return
        if (state.name, state.message) != (self.state.name, self.state.message):
            self.state = state
            if state.name == "failed":
                log.warning("%s", state.message)
            self._on_state(state)
        if not ready and self._local:
            self._local.ensure()

    def _local_state(self, state: State) -> None:
        """The local worker's, which is the server's while no engine is there."""
        if not any(site.state == "ready" for site in self._sites):
            self._on_state(attrs.evolve(state, message=f"{state.message} (no engine is there)"))


def _client(settings: RemoteSettings, url: str, key: str) -> Client:
    from inference.remote.client import Client
    from inference.remote.http import Http
    from inference.remote.llamacpp import LlamaCpp
    from inference.remote.openai import OpenAI

    http = Http(url, key)
    if settings.kind == "llamacpp":
        return Client(http, LlamaCpp(http, settings.tokenizer))
    return Client(http, OpenAI(http, settings.kind, settings.model, settings.tokenizer))


def _unreachable(site: Site, why: str) -> str:
    return (
        f"{site.url} can't be reached ({why}): start the engine there, or correct `fimble.remote.url`; "
        "completions come back by themselves"
    )


def _no_key(site: Site, settings: RemoteSettings, said: str) -> str:
    host = urlsplit(site.url).hostname
    return (
        f"{site.url} refuses the key ({said}): put the right one into the environment variable "
        f"{settings.key_variable}, or into the keyring with `keyring set {keys.SERVICE} {host}`, "
        "then restart the editor"
    )


def backend_of(settings: Settings, on_state: Callable[[State], None]) -> WorkerBackend | RemoteBackend:
    """Who answers under these settings."""
    remote = settings.remote
    if remote is None:
        return WorkerBackend(settings.worker, on_state)
    return RemoteBackend(remote, on_state, settings.worker if remote.fallback else None)
