"""The user's settings file: below what the editor says, never in the way of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsp_server import user_settings
from lsp_server.settings import resolve


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return user_settings.file()


def test_no_file_is_no_setting(file: Path) -> None:
    assert user_settings.read() == ({}, [])


def test_the_editor_s_word_stands_above_the_file_s(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('model = "/models/x"\ndtype = "int8"\n[worker]\nidleMinutes = 5\n')
    user, problems = user_settings.read()
    assert problems == []
    settings, problems = resolve({"dtype": "bfloat16"}, user)
    assert problems == []
    assert (settings.model, settings.dtype, settings.idle_minutes) == ("/models/x", "bfloat16", 5.0)


def test_a_bad_value_in_the_file_is_named_as_the_file_s(file: Path) -> None:
    _, problems = resolve(None, {"dtype": "int3", "colour": "red"})
    assert len(problems) == 2
    assert all("settings file" in problem for problem in problems)


@pytest.mark.parametrize("text", ["model = ", "\x00", "a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_said_left_out_and_left_alone(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    found, (problem,) = user_settings.read()
    assert found == {}
    assert str(file) in problem
    with pytest.raises(ValueError, match="mend or remove it"):
        user_settings.write({"model": "starter"})
    assert file.read_text() == text


def test_writing_keeps_what_else_stands_there(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('# mine\nconfidence = 0.2 # bold\ndtype = "int8"\n\n[worker]\nidleMinutes = 5\n')
    assert user_settings.write({"model": "/models/x", "dtype": ""}) == file
    text = file.read_text()
    assert "# mine" in text
    assert "# bold" in text
    settings, problems = resolve(None, user_settings.read()[0])
    assert problems == []
    assert (settings.model, settings.dtype, settings.confidence, settings.idle_minutes) == ("/models/x", "auto", 0.2, 5)
