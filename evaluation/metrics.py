"""How near an answer comes to the text that stood in the hole."""

from __future__ import annotations

from functools import lru_cache


def first_line(text: str) -> str:
    """Up to the end of the first line that is not blank, without white space at its end."""
    begin = len(text) - len(text.lstrip())
    end = text.find("\n", begin)
    return (text if end < 0 else text[:end]).rstrip()


@lru_cache(4096)
def edit_distance(a: str, b: str) -> int:
    """Levenshtein's: the fewest insertions, deletions and replacements of characters that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def edit_similarity(a: str, b: str) -> float:
    """1 for the same text, 0 for texts that share nothing: 1 - distance / length of the longer one."""
    longer = max(len(a), len(b))
    return 1.0 if longer == 0 else 1 - edit_distance(a, b) / longer
