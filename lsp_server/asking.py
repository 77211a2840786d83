"""What every question to the model needs: whom to ask, under which settings, and what was answered before."""

from __future__ import annotations

import attrs

from inference.wire import Priority
from lsp_server.cache import AnswerCache, key_of
from lsp_server.generation import Generation
from lsp_server.hole import Hole
from lsp_server.request import Backend, budget
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping
from lsp_server.suggestions import Rest
from lsp_server.text import Position

OTHERS = 2
"""Other answers looked for once there is one, in case the next key disagrees with it."""


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
        hole: Hole,
        *,
        number: str,
        work: Session | None = None,
        alternatives: int = 0,
        explicit: bool = False,
        beyond_line: bool = False,
    ) -> Generation:
        """Puts a question to the model; the answers go to the cache, and to `live` if it agrees with them then.

        `work`: what may become of `live`, from which the hole was cut; asked in the background. None: as it is now.
        """
        priority: Priority = "background" if work else "interactive"
        generation = Generation(
            live, work or live, hole, self.backend, self.settings, self.shaping, number=number, priority=priority
        )
        generation.alternatives, generation.explicit, generation.beyond_line = alternatives, explicit, beyond_line
        generation.key = key = self.key(live, hole)
        if work:
            generation.region = None

        def on_answer(_: Generation, answer: Rest | None) -> None:
            main = answer is generation.answer
            if main and not explicit:
                self.cache.put(key, answer)
            elif answer and not explicit:
                self.cache.add(key, answer)
            if answer and (suggestion := generation.suggestion(answer)):
                (live.suggestions.add if main else live.suggestions.add_other)(suggestion)

        generation.start(on_answer)
        return generation
