"""What every question to the model needs: whom to ask, under which settings, and what was answered before."""

from __future__ import annotations

import attrs

from inference.wire import Priority
from lsp_server.cache import AnswerCache, key_of
from lsp_server.generation import Backend, Generation, budget
from lsp_server.hole import Hole
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping
from lsp_server.text import Position


@attrs.define
class Asking:
    """The backend, the settings and the answers of one server."""

    backend: Backend
    settings: Settings
    shaping: Shaping = ALL
    cache: AnswerCache = attrs.field(factory=AnswerCache)

    def hole(self, session: Session, cursor: Position, *, resting: bool = False) -> Hole:
        """The hole at a place, of the size that the engine has room for."""
        size = budget(session, self.backend, self.settings)
        return session.anchor.cut(session.document, cursor, size, resting=resting)

    def key(self, session: Session, hole: Hole) -> bytes:
        """The hole's name in the cache."""
        return key_of(session.document.uri, hole)

    def ask(
        self,
        live: Session,
        work: Session,
        hole: Hole,
        *,
        number: str,
        priority: Priority = "interactive",
        region: bool = True,
    ) -> Generation:
        """Puts a question to the model; the answer goes to the cache, and to `live` if it agrees with it then.

        `work`: the fork of `live`, or what may become of it, that the hole was cut from. Without a `region` it is a
        text that `live` has not come to.
        """
        generation = Generation(
            live, work, hole, self.backend, self.settings, self.shaping, number=number, priority=priority
        )
        if not region:
            generation.region = None
        key = self.key(work, hole)

        def done(_: Generation) -> None:
            if not generation.complete:
                return
            self.cache.put(key, generation.answer)
            if suggestion := generation.suggestion():
                live.suggestions.add(suggestion)

        generation.key = key
        generation.start(done)
        return generation
