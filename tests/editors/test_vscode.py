"""The real VS Code with the packaged extension, the real server and worker; what counts is what the browser paints."""

from __future__ import annotations

import ast

import pytest

from tests.editors.documents import DUMP, MARK, SAVE, STACK_UNCLOSED
from tests.editors.vscode_editor import Editor


@pytest.mark.behaviour("show", "accept")
def test_ghost_text_appears_while_typing_and_tab_inserts_what_was_seen(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    lines = code.see("n.dump(data, f)")
    assert DUMP in lines
    text = code.accept()
    assert text.split("\n") == lines
    ast.parse(text)
    assert code.cursor() == (15, len(DUMP))


@pytest.mark.behaviour("type through")
def test_text_that_agrees_with_what_is_typed_stays_without_a_flicker(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    code.record()
    for i, key in enumerate("n.dump"):
        code.type(key)
        code.see("n.dump(data, f)"[i + 1 :])
    assert {frame.lines[15] for frame in code.frames()} == {DUMP}


@pytest.mark.behaviour("diverge")
def test_typing_something_else_makes_it_vanish_in_the_same_frame(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    code.record()
    code.type("x")
    code.answered()
    frames = [frame for frame in code.frames() if "jsox" in frame.lines[15]]
    assert frames
    assert not [frame for frame in frames if "dump(data, f)" in frame.ghost]


@pytest.mark.behaviour("accept a word")
def test_a_key_inserts_the_next_word_and_the_rest_stays(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    lines = code.see("n.dump(data, f)")
    for word, rest in (("n", ".dump(data, f)"), (".", "dump(data, f)"), ("dump", "(data, f)")):
        before = code.text()
        assert word in code.changes("Control+ArrowRight")
        assert len(code.text()) == len(before) + len(word)
        assert code.see(rest) == lines


@pytest.mark.behaviour("accept a line", "several lines")
def test_a_block_is_shown_below_and_a_key_inserts_its_next_line(code: Editor) -> None:
    code.edit("stack.go", STACK_UNCLOSED)
    code.type("{\n")
    ghost = code.block()
    first, rest = ghost.split("\n", 1)
    line = code.changes("Control+ArrowDown").split("\n")[11]
    assert line == "\t" + first.strip()  # whether VS Code indented the new line or left that to the suggestion
    code.window.until(lambda screen: screen.ghost.strip() == rest.strip(), "the rest")


@pytest.mark.behaviour("several lines", "undo after accept")
def test_a_block_keeps_the_indentation_and_one_undo_takes_it_out(code: Editor) -> None:
    code.edit("stack.go", STACK_UNCLOSED)
    code.type("{\n")
    code.block()
    lines = code.window.screen().lines
    typed = code.text()
    accepted = code.accept()
    assert [line.expandtabs(4) for line in accepted.split("\n")] == lines
    body = accepted.split("\n")[11:-2]
    assert len(body) > 1
    assert all(line.startswith("\t") for line in body)
    assert accepted.split("\n")[-2] == "}"
    assert code.changes("Control+z") == typed
    assert code.changes("Control+Shift+Z") == accepted


@pytest.mark.behaviour("dismiss")
def test_escape_sends_it_away_and_it_does_not_come_back_there(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    code.press("Escape")
    code.see("")
    code.record()
    code.press("ArrowLeft", "ArrowRight")
    code.type("n")
    code.answered()
    assert not [frame for frame in code.frames() if frame.ghost]
    assert "        json\n" in code.text()


@pytest.mark.behaviour("middle of a line")
def test_before_text_that_stays_it_fits_in_between(code: Editor) -> None:
    code.edit("save.py", SAVE.replace(MARK, f"jso{MARK}(data, f)"))
    code.press("Backspace")
    code.type("o")
    lines = code.see("n.dump")
    assert DUMP in lines
    assert DUMP + "\n" in code.accept()


@pytest.mark.behaviour("auto-closed bracket")
def test_a_bracket_that_the_editor_closed_is_not_doubled(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("json.dump(")
    assert "        json.dump()\n" in code.text()
    code.window.until(lambda screen: "data, f" in screen.ghost, "the arguments")
    assert DUMP in code.window.screen().lines
    assert DUMP + "\n" in code.accept()


@pytest.mark.behaviour("crlf")
def test_a_file_with_crlf_keeps_its_line_breaks(code: Editor) -> None:
    code.edit("stack.go", STACK_UNCLOSED, line_break="\r\n")
    code.type("{\n")
    code.block()
    text = code.accept()
    assert "\r\n" in text
    assert code.save() == text.encode()
    assert "\n" not in text.replace("\r\n", "")


@pytest.mark.behaviour("alternatives")
def test_keys_ask_for_others_and_turn_to_the_next(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    first = code.ghost()
    code.press("Alt+]")
    second = code.window.until(lambda screen: screen.ghost not in ("", first), "another suggestion").ghost
    code.press("Alt+[")
    code.see(first)
    code.press("Alt+]")
    code.see(second)
    assert "        jso" + second.split("\n")[0] in code.accept()


def test_a_key_asks_where_nothing_is_shown(code: Editor) -> None:
    code.edit("save.py", SAVE.replace(MARK, "jso" + MARK))
    code.press("Alt+\\")
    code.see("n.dump(data, f)")
