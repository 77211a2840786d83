"""What stands around a cursor, as far as an answer there must fit in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import attrs

from lsp_server.brackets import Scan, missing, quote_before, scan
from lsp_server.hole import Hole
from lsp_server.languages import Inside, Language
from lsp_server.window import Window

_LEADING = re.compile(r"[ \t]*")


def leading(line: str) -> str:
    """The blanks that a line begins with."""
    found = _LEADING.match(line)
    return found.group() if found else ""


@attrs.define(slots=False)
class Surroundings:
    """The text around a hole. Lines have no breaks."""

    language: Language
    inside: Inside
    """What the cursor stands in."""
    above: Sequence[str]
    """The lines above the cursor's, the nearest last."""
    before: str
    """The cursor's line up to the cursor."""
    closers: str
    """Auto-closed brackets after the cursor that the model was not shown."""
    rest: str
    """What follows them on the line."""
    below: Sequence[str]
    """The lines below the cursor's."""
    complete: bool = True
    """Whether nothing outside of these lines is still open in them, or closes what is open in them."""

    @classmethod
    def of(cls, hole: Hole, window: Window, language: Language, inside: Inside) -> Surroundings:
        """The surroundings of a hole."""
        before, complete = window.line[: hole.cursor.column], window.from_start and window.to_end
        return cls(language, inside, window.above, before, hole.closers, hole.rest, window.below, complete)

    @property
    def after(self) -> str:
        """What follows the cursor on its line."""
        return self.closers + self.rest

    @property
    def line_above(self) -> str:
        """The nearest line above that is not blank; "" if there is none."""
        return next((line for line in reversed(self.above) if line.strip()), "")

    @property
    def line_below(self) -> str:
        """The nearest line below that is not blank; "" if there is none."""
        return next((line for line in self.below if line.strip()), "")

    @cached_property
    def quote(self) -> str:
        """The quote that ends the string the cursor stands in; "" if unknown, or in no string."""
        return quote_before(self.before, self.language) if self.inside == "string" else ""

    @cached_property
    def missing(self) -> list[str] | None:
        """The closing brackets that the text before the cursor wants and the text after it lacks, in order.

        The auto-closed ones count as lacking. None: nobody knows.
        """
        after = "\n".join([self.rest, *self.below])
        if self.inside == "string" and self.quote:
            end = scan(after, self.language, "string", self.quote).first_quote
            after = after[end + 1 :] if end >= 0 else after
        before = self.before
        if self.inside == "string":  # the open string hides no bracket from the scan, it just ends it
            before = before[: before.rfind(self.quote)] if self.quote else ""
        return missing([*self.above, before], after, self.language, complete=self.complete)

    def scan(self, text: str) -> Scan:
        """Scans an answer at the cursor."""
        return scan(text, self.language, self.inside, self.quote)
