"""One answer as it streams in: where it is complete, where it ends, and the edit that it becomes.

The text alone is looked at for brackets, strings and indentation; the grammar is asked at line ends only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from inference.wire import EndReason, Stops
from lsp_server.brackets import CLOSER_OF
from lsp_server.hole import Hole
from lsp_server.indentation import from_the_cursor, reindented
from lsp_server.languages import Inside, Language
from lsp_server.shaping import (
    Shaped,
    Shaping,
    balanced,
    covered,
    echoes,
    without_following,
    without_loops,
    without_rest,
)
from lsp_server.soundness import Soundness
from lsp_server.surroundings import Surroundings, leading
from lsp_server.window import window

TRIED = 8
"""Ends of an answer that are tried until one is sound."""
CUT_SHORT: tuple[EndReason, ...] = ("tokens", "window")
"""Ends of a stream at which the model was in the middle of something."""
_WORD = re.compile(r"[^\s)\]};,:.]")
_PAUSE = re.compile(r"(?<=[\w)\]}\"'`])(?=[\s,;])")


class Closing:
    """Follows the answer to one hole. `feed` it the stream, and `finish` it for the edit."""

    def __init__(
        self,
        hole: Hole,
        stops: Stops,
        lines: Sequence[str],
        language: Language,
        inside: Inside,
        in_code: Callable[[int], bool],
        shaping: Shaping,
    ):
        """`lines` are the document's, as the hole was cut from them; `in_code` as for `window`."""
        self._stops, self._shaping = stops, shaping
        near = window(lines, hole.cursor.line, in_code)
        self._around = Surroundings.of(hole, near, language, inside)
        self._soundness = Soundness(language, near, hole.cursor.column)
        self._looked = 0  # the text up to the last line end looked at
        self._loops = False
        self.text = ""
        """What the model has said so far."""
        self.complete = False
        """Whether the answer is known to be complete."""

    def feed(self, text: str) -> bool:
        """Adds streamed text; True once the answer is complete, so that the rest of the stream is not needed."""
        if self.complete:
            return True
        self.text += text
        while (end := self.text.find("\n", self._looked)) >= 0:
            self._looked = end + 1
            said = self.text[:end]
            self._loops = self._shaping.repetition and without_loops(said) != said
            if self._loops or (said.strip() and self._shaping.closing and self._is_complete(said)):
                self.text, self.complete = said, True
                return True
        return False

    def finish(self, reason: EndReason | None) -> Shaped | None:
        """The edit that the answer becomes, if any. `reason`: the worker's for ending it, None if it was ended here."""
        shaping, around, text = self._shaping, self._around, self.text
        if shaping.repetition:
            text = without_loops(text)
            self._loops |= text != self.text
        text = self._trimmed(text)
        if shaping.indentation:
            text = reindented(from_the_cursor(text, around), around)
        cut_short = self._loops or reason in CUT_SHORT
        if shaping.suffix and (shorter := without_following(text, around)) != text:
            text, cut_short = shorter, False
        if shaping.suffix and (shorter := without_rest(text, around)) != text:
            text, cut_short = self._trimmed(shorter), False
        if not text.strip() or (shaping.echo and echoes(text, around)):
            return None
        if not shaping.rollback:
            return self._fit(text)
        return self._sound(text, cut_short, by_itself=reason == "eos")

    def _fit(self, text: str) -> Shaped | None:
        text = self._trimmed(text)
        if not self._shaping.brackets:
            return Shaped(text, 0) if text.strip() else None
        shaped = balanced(text, self._around)
        if len(shaped.text) < len(text) and not self._around.rest:
            # Nothing is closed twice on this line; what is closed below, the grammar knows better.
            written = Shaped(text, covered(text, self._around))
            now, then = self._soundness.errors(shaped.text, shaped.covers), self._soundness.errors(text, written.covers)
            if now is not None and then is not None and then < now:
                return written
        return shaped if shaped.text.strip() else None

    def _trimmed(self, text: str) -> str:
        """Without blanks at the end, but for one that keeps the answer apart from the word after it."""
        bare = text.rstrip()
        rest = self._around.rest
        apart = bare != text and "\n" not in text[len(bare) :] and not self._around.closers
        return bare + " " if apart and _WORD.match(rest) else bare

    def _sound(self, text: str, cut_short: bool, by_itself: bool) -> Shaped | None:
        """The longest beginning of the answer with which the text around it is sound."""
        second: tuple[int, Shaped] | None = None  # what leaves something open and yet is better than nothing
        found: Shaped | None = None  # several lines that end what they begin, unless fewer of them leave no error
        before = self._soundness.errors()
        for tried, candidate in enumerate(self._candidates(text, cut_short, by_itself)):
            if tried == TRIED:
                break
            shaped = self._fit(candidate)
            if shaped is None:
                continue
            now, whole = self._soundness.errors(shaped.text, shaped.covers), self._around.scan(shaped.text).whole
            if now == 0:
                return shaped
            if found:
                continue
            if before is None or now is None:
                if whole or self._closed_below(shaped.text):
                    return shaped
            elif whole and (now <= before if "\n" in candidate or not cut_short else now < before):
                found = shaped if second is None or now <= second[0] else second[1]
                if "\n" not in candidate:
                    break
            elif not whole and now < before and second is None:
                second = now, shaped
        return found or (second[1] if second else None)

    def _candidates(self, text: str, cut_short: bool, by_itself: bool) -> Iterator[str]:
        """What an answer may be cut down to, or ended with, the best first; `by_itself`: the model ended it."""
        if not cut_short:
            yield from self._with_and_without_comma(text)
            if by_itself and (ended := self._ended(text)):
                yield ended
        elif ended := self._ended_text(text):
            yield ended
        for end in self._ends(text):
            yield from self._with_and_without_comma(text[:end])

    def _with_and_without_comma(self, text: str) -> Iterator[str]:
        # After the last member some languages take no comma; which ones, and where, the grammar knows.
        if text.endswith(",") and self._soundness.errors(text[:-1]) == 0 != self._soundness.errors(text):
            yield text[:-1]
        yield text

    def _ended(self, text: str) -> str:
        """The answer with the blocks ended that it leaves open at the ends of its lines; empty if it does not."""
        opened = self._around.scan(text).open
        if not opened or self._around.scan(text).string >= 0 or "\n" not in text:
            return ""
        for place, bracket in reversed(opened):
            if text[place + 1 : place + 2] != "\n":
                return ""
            line = (self._around.before + text[:place]).rpartition("\n")[2]
            text += "\n" + leading(line) + CLOSER_OF[bracket]
        return text

    def _ended_text(self, text: str) -> str:
        """An answer that was cut in a string over several lines, a docstring, ended after its first paragraph."""
        string = self._around.scan(text).string
        quote = text[string : string + 3] if string >= 0 else ""
        if quote not in ('"""', "'''"):
            return ""
        start = string + 3 + len(text[string + 3 :]) - len(text[string + 3 :].lstrip())
        paragraph = text[: text.find("\n\n", start)] if "\n\n" in text[start:] else text[: text.rfind("\n")]
        line = (self._around.before + text[:string]).rpartition("\n")[2]
        on_its_own_line = "\n" in paragraph[string:]
        return paragraph.rstrip() + ("\n" + leading(line)) * on_its_own_line + quote if len(paragraph) > start else ""

    def _ends(self, text: str) -> Iterator[int]:
        """Places where an answer may end early, the last one first: line ends, then pauses in its first line."""
        lines = text.split("\n")
        end = len(text)
        for line in reversed(lines[1:]):
            end -= len(line) + 1
            if text[:end].strip() and not self._opens(text[:end]) and text[end - 1 : end] != "\n":
                yield end
        first = lines[0]
        pauses = {found.start() for found in _PAUSE.finditer(first)}
        pauses |= {place for place, _ in self._around.scan(first).open}
        yield from (p for p in sorted(pauses, reverse=True) if self._around.scan(first[:p]).whole and first[:p].strip())

    def _closed_below(self, text: str) -> bool:
        """Whether all that the answer opens is closed by what follows it."""
        around = self._around
        wanted = [bracket for _, bracket in around.scan(text).open]
        below = around.language.split(around.line_below)[0].strip()
        return len(wanted) == 1 and around.scan(text).string < 0 and below[:1] in (")", "]", "}") and not around.missing

    def _is_complete(self, said: str) -> bool:
        """Whether the statement, or the block that was begun before the cursor, is complete at this line end."""
        around = self._around
        if around.inside == "comment" or around.rest.strip():
            return True
        scanned = around.scan(said)
        if not self._stops.end_of_line:  # a block: the bracket that opened it is closed, or the worker sees it end
            return bool(scanned.loose) and scanned.whole
        if not scanned.whole:
            return False
        lines = (around.before + said).split("\n")
        if self._opens(said):
            return self._has_body(lines[-1], said)
        if len(lines) > 1 and _indentation(lines[-1]) > _indentation(lines[0]):
            return False  # in the body of what the first line began
        return self._grammar_agrees(said)

    def _opens(self, said: str) -> bool:
        """Whether the last line is the head of a block."""
        line = (self._around.before + said).rpartition("\n")[2]
        return bool(self._around.language.block_after(self._around.language.split(line)[0]))

    def _has_body(self, head: str, said: str) -> bool:
        """Whether the block that this line opens stands below the cursor already."""
        below = self._around.line_below
        if _indentation(below) <= _indentation(head):
            return False
        return self._grammar_agrees(said)

    def _grammar_agrees(self, said: str) -> bool:
        shaped = self._fit(said)
        if shaped is None:
            return True
        before, now = self._soundness.errors(), self._soundness.errors(shaped.text, shaped.covers)
        return before is None or now is None or now <= before


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
