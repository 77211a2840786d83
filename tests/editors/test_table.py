"""Every editor shows every row of the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.editors.behaviours import BEHAVIOURS

HERE = Path(__file__).parent
SHOWN = re.compile(r"""mark\.behaviour\(([^)]*)\)""")


@pytest.mark.parametrize("editor", ["emacs", "neovim", "vscode"])
def test_every_behaviour_has_a_test_in_the_real_editor(editor: str) -> None:
    shown = {
        name
        for file in [HERE / "test_every_editor.py", *HERE.glob(f"test_{editor}*.py")]
        for marks in SHOWN.findall(file.read_text("utf-8"))
        for name in re.findall(r'"([^"]+)"', marks)
    }
    assert sorted(set(BEHAVIOURS) - shown) == []
    assert sorted(shown - set(BEHAVIOURS)) == []
