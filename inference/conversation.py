"""A conversation as a model's template wants it, in which nothing that somebody wrote can act as a control token.

The template makes one text of it, in which control tokens are strings; whatever in a message would read as one is
given a seam, a character that occurs nowhere else, so that only the template's own strings become control ids. They
are then what the model's own tokenizer makes of the same text without such strings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, cast

from inference.requests import Conversation

SEAMS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Noncharacters of Unicode, which no text means anything by."""


class BadConversation(ValueError):
    """The template refuses these messages, or there is none; the message says why."""


def conversation(
    template: str, special: dict[str, str], messages: list[dict[str, Any]], control: Collection[str]
) -> Conversation:
    """Messages (`role`, `content`) rendered, up to where the assistant is to speak. Raises `BadConversation`.

    `special`: what the template may name; `control`: the strings of all control tokens.
    """
    from jinja2.exceptions import TemplateError
    from transformers.utils import chat_template_utils  # late: 0.5 s

    written = "".join(str(value) for message in messages for value in message.values())
    seam = next((seam for seam in SEAMS if seam not in written and seam not in template), None)
    if seam is None:
        raise BadConversation("the messages contain every noncharacter from U+FDD0 to U+FDEF; take one of them out")
    apart = [{name: _with_seams(value, seam, control) for name, value in message.items()} for message in messages]
    try:
        rendered = cast(Any, chat_template_utils).render_jinja_template(
            conversations=[apart], chat_template=template, add_generation_prompt=True, **special
        )
    except (TemplateError, TypeError) as error:
        raise BadConversation(f"the model's chat template refuses these messages: {error}") from error
    texts: Any = cast(Any, rendered)[0] if isinstance(rendered, tuple) else rendered
    return Conversation(str(texts[0]), seam)


def _with_seams(value: Any, seam: str, control: Collection[str]) -> Any:
    """`value` with a seam inside whatever is a control token's string, or may become one beside the template's."""
    if not isinstance(value, str):
        return value
    for text in control:
        while len(text) > 1 and text in value:
            value = value.replace(text, text[0] + seam + text[1:])
    core = value.strip()  # as templates do
    begun = {len(core) - n + 1 for text in control for n in range(1, len(text)) if core.endswith(text[:n])}
    ended = {n - 1 for text in control for n in range(1, len(text)) if core.startswith(text[-n:])}
    start = value.find(core)
    for at in sorted(begun | ended, reverse=True):
        value = value[: start + at] + seam + value[start + at :]
    return value


def pieces(text: str, seam: str, control: dict[str, int]) -> list[int | str]:
    """A rendered text as control ids and the text between them, without its seams."""
    if not control:
        return [text.replace(seam, "")]
    pattern = "|".join(map(re.escape, sorted(control, key=len, reverse=True)))
    found: list[int | str] = []
    at = 0
    for match in re.finditer(pattern, text):
        found += [text[at : match.start()].replace(seam, ""), control[match.group()]]
        at = match.end()
    found.append(text[at:].replace(seam, ""))
    return [piece for piece in found if piece != ""]
