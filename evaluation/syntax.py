"""What the grammars say of a text: its errors, and the balance of its brackets outside strings and comments."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from tree_sitter import Node, Parser, Tree

from lsp_server.languages import Language, grammar_of

OPENING = {"(": ")", "[": "]", "{": "}", "${": "}", "#{": "}"}
CLOSING = frozenset(")]}")


@lru_cache(64)
def _tree(text: str, language: Language) -> Tree | None:
    grammar = grammar_of(language)
    return Parser(grammar).parse(text.encode()) if grammar else None


@lru_cache(256)
def problems(text: str, language: Language) -> int:
    """How many places of `text` the grammar can't take; 0 for a language without a grammar."""
    tree = _tree(text, language)
    if tree is None or not tree.root_node.has_error:
        return 0
    count = 0
    waiting: list[Node] = [tree.root_node]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            count += 1
        if node.has_error:
            waiting.extend(node.children)
    return count


@lru_cache(256)
def imbalance(text: str, language: Language) -> tuple[tuple[str, int], ...]:
    """By closing bracket, how many more are opened than closed (negative: closed than opened), zeros left out."""
    tree = _tree(text, language)
    depth: Counter[str] = Counter()
    if tree is None:
        for c in text:
            depth[OPENING.get(c, c)] += (c in OPENING) - (c in CLOSING)
    else:
        walk = tree.walk()
        while True:
            node = walk.node
            assert node
            if not node.child_count and not node.is_missing:
                if closer := OPENING.get(node.type):
                    depth[closer] += 1
                elif node.type in CLOSING:
                    depth[node.type] -= 1
            if walk.goto_first_child():
                continue
            while not walk.goto_next_sibling():
                if not walk.goto_parent():
                    return tuple(sorted((c, n) for c, n in depth.items() if n))
    return tuple(sorted((c, n) for c, n in depth.items() if n))
