"""docs/models.md says of each family what the table of families and its tests say."""

from __future__ import annotations

from pathlib import Path

from inference.families import FAMILIES, Family
from inference.models.rope import Unsupported
from inference.models.shapes import shape_of
from tests.gpu import test_llama
from tests.unit import test_family_models
from tests.unit.family_tokenizers import SPLITS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families: checked by tests/unit/test_models_page.py -->\n", "<!-- end of families -->\n"
HEAD = ("family", "models", "FIM", "healing", "anchored", "native", "tested how")


def is_native(architecture: str) -> bool:
    """Whether the engine of this project runs it; asked of the smallest such `config.json`."""
    if architecture == "deepseek_v2":
        return True
    try:
        shape_of(test_llama.BASE | {"model_type": architecture, "sliding_window": None})
    except Unsupported:
        return False
    return True


def cells(row: Family) -> tuple[str, ...]:
    """A family's line."""
    order = ["prefix", "suffix"] if row.order == "psm" else ["suffix", "prefix"]
    marks = {"prefix": row.prefix, "suffix": row.suffix}
    shown = " ".join([f"`{marks[part]}` {part}" for part in order] + ([f"`{row.middle}`"] if row.middle else []))
    native = [kind for kind in row.architectures if is_native(kind)]
    others = [kind for kind in row.architectures if not is_native(kind)]
    engines = "; ".join(
        [f"yes ({', '.join(native)})"] * bool(native) + [f"through transformers ({', '.join(others)})"] * bool(others)
    )
    kind = "byte-level BPE" if row.name in SPLITS else "SentencePiece BPE"
    runs = ", ".join(
        f"{architecture} {dtype}" for name, architecture, dtype in test_family_models.CASES if name == row.name
    )
    starter = "the starter; " if row.name == "deepseek" else ""
    tested = f"{starter}a {kind} tokenizer made for it; tiny random models ({runs})"
    return row.name, row.models, shown, "yes", row.anchor, engines, tested


def table() -> str:
    """As it must stand on the page."""
    lines = [HEAD, tuple("-" for _ in HEAD), *map(cells, FAMILIES)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def test_the_page_has_the_table_of_families_as_it_is() -> None:
    text = PAGE.read_text("utf-8")
    found = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert found.strip() == table().strip(), f"put this table between the two comments of {PAGE}:\n{table()}"
