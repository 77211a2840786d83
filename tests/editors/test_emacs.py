"""The real Emacs in a terminal, the real server and the real worker; what counts is what is on the screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from lsp_server.snippets import SNIPPETS, Snippet
from tests.editors.documents import MARK, SAVE, STACK
from tests.editors.emacs_editor import Editor, seen, window


@pytest.fixture
def editor(emacs: Editor) -> Iterator[Editor]:
    yield emacs
    emacs.reset()


@pytest.mark.behaviour("show", "accept")
def test_ghost_text_appears_after_typing_and_tab_makes_the_buffer_what_was_seen(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    screen = editor.see("n.dump(data, f)")
    line = editor.screen().lines()[screen.cursor[0]]
    assert (line, screen.cursor[1]) == ("        json.dump(data, f)", len("        jso"))
    assert "        jso\n" in editor.text()
    text = editor.accept()
    assert "        json.dump(data, f)\n" in text
    assert seen(text)[: len(window(screen))] == window(screen)[: len(seen(text))]
    assert editor.lisp("(current-column)") == len("        json.dump(data, f)")
    ast.parse(text)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.language_id)
@pytest.mark.behaviour("middle of a line")
def test_in_each_language_the_buffer_becomes_what_was_seen(editor: Editor, snippet: Snippet) -> None:
    before, after = snippet.text.split(snippet.cursor)
    editor.edit(f"snippet.{snippet.language_id}", before[:-1] + MARK + after)
    editor.type(before[-1])
    screen = editor.ghost()
    ghost, row = screen.ghost(), screen.cursor[0]
    text = editor.accept()
    assert text == before + ghost + after
    line = before.count("\n")
    assert seen(text)[line : line + ghost.count("\n") + 1] == screen.lines()[row : row + ghost.count("\n") + 1]


@pytest.mark.behaviour("diverge")
def test_typing_on_makes_stale_text_vanish_in_the_same_frame(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.type("x")
    editor.until(lambda screen: "jsox" in screen.text() and "dump(data, f)" not in screen.text(), "the key alone")
    frames = editor.frames()
    assert [frame for frame in frames if frame.before.endswith("jso") and frame.ghost == "n.dump(data, f)"]
    assert not [frame for frame in frames if "jsox" in frame.before and "dump(data, f)" in frame.ghost]


@pytest.mark.behaviour("type through")
def test_text_that_agrees_with_what_is_typed_stays_without_a_flicker(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.frames()
    for i, key in enumerate("n.dump("):
        editor.type(key)
        editor.see("n.dump(data, f)"[i + 1 :])
    drawn = {frame.before + frame.ghost for frame in editor.frames()}
    assert drawn == {"        json.dump(data, f)"}


@pytest.mark.behaviour("accept a word")
def test_a_key_accepts_the_next_word_and_the_rest_stays(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.frames()
    for rest in (".dump(data, f)", "dump(data, f)", "(data, f)"):
        editor.keys("M-f")
        editor.see(rest)
    assert "        json.dump\n" in editor.text()
    assert {frame.before + frame.ghost for frame in editor.frames()} == {"        json.dump(data, f)"}


@pytest.mark.behaviour("several lines", "accept a line")
def test_a_block_is_shown_below_the_line_and_its_lines_are_accepted_one_by_one(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.type("{")
    editor.keys("Enter")
    screen = editor.ghost(lambda ghost: "\n" in ghost)
    lines = editor.lisp('(split-string (fimble--ghost-text fimble--ghost) "\\n")')
    typed = editor.text().removesuffix("}\n").rstrip("\n")
    text = editor.change("M-e")
    assert text.startswith(typed + "\n" + lines[0] + "\n")
    editor.ghost(lambda ghost: ghost != screen.ghost())
    text = editor.accept()
    assert text == typed + "\n" + "\n".join(lines) + "\n}\n"
    assert seen(text)[:-1] == window(screen)[: len(seen(text)) - 1]
    assert all(line.startswith("\t") for line in lines)


@pytest.mark.behaviour("dismiss")
def test_a_key_dismisses_and_it_comes_back_only_when_asked_for(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.keys("C-g")
    editor.see("")
    editor.type("n")
    editor.wait('(looking-back "json" 0)')
    editor.settle()
    assert editor.screen().ghost() == ""
    editor.keys("BSpace")
    editor.wait('(not (looking-back "json" 0))')
    editor.settle()
    assert editor.screen().ghost() == ""
    editor.keys("C-c", "+")
    editor.see("n.dump(data, f)")


def test_moving_away_hides(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.keys("C-p")
    editor.see("")
    assert "        jso\n" in editor.text()


@pytest.mark.behaviour("auto-closed bracket")
def test_an_auto_closed_bracket_is_covered_and_not_doubled(editor: Editor) -> None:
    editor.lisp("(electric-pair-mode 1)")
    try:
        editor.edit("save.py", SAVE)
        editor.type("json.dump(")
        screen = editor.see("data, f")  # the bracket itself is there already
        assert "        json.dump(data, f)" in screen.lines()
        text = editor.accept()
        assert "        json.dump(data, f)\n" in text
        assert editor.lisp("(current-column)") == len("        json.dump(data, f)")
    finally:
        editor.lisp("(electric-pair-mode -1)")


def test_text_after_the_cursor_moves_below_a_block(editor: Editor) -> None:
    """The server has answered so for an auto-closed bracket; here its answer is set, to have it each time."""
    editor.edit("forEach.js", "users.forEach(‸) // all\nnext()\n")
    editor.lisp("""(progn (fimble--show '(:items [(:insertText "user => {\\n  greet(user)\\n})"
      :range (:start (:line 0 :character 14) :end (:line 0 :character 15)))])) t)""")
    screen = editor.see("user => {\n  greet(user)\n})")
    assert window(screen)[:4] == ["users.forEach(user => {", "  greet(user)", "}) // all", "next()"]
    assert screen.cursor[1] == len("users.forEach(")
    assert editor.accept().split("\n")[:4] == window(screen)[:4]


@pytest.mark.behaviour("crlf")
def test_a_file_with_crlf_keeps_its_line_breaks(editor: Editor) -> None:
    editor.edit("stack.go", STACK, line_break="\r\n")
    editor.type("{")
    editor.keys("Enter")
    editor.ghost(lambda ghost: "\n" in ghost)
    text = editor.accept()
    editor.keys("C-x", "C-s")
    editor.wait("(not (buffer-modified-p))")
    assert (editor.folder / "stack.go").read_bytes() == text.replace("\n", "\r\n").encode()


def test_bytes_that_are_no_text_do_not_disturb(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.lisp("""(save-excursion (goto-char (point-max)) (insert (string-to-multibyte "# \\351\\377 \\200\\n")))""")
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.lisp("""(save-excursion (goto-char (point-max)) (insert (string-to-multibyte "# \\351\\377 \\200\\n")))""")
    editor.type("n")
    editor.see(".dump(data, f)")
    assert "        json.dump(data, f)\n" in editor.accept()


@pytest.mark.behaviour("undo after accept")
def test_undo_takes_back_the_accepted_text_alone(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.type("{")
    editor.keys("Enter")
    editor.ghost(lambda ghost: "\n" in ghost)
    typed = editor.text()
    accepted = editor.accept()
    editor.type(" // kept")
    editor.wait('(looking-back "// kept" 0)')
    states = []
    while not states or states[-1] != typed:
        assert len(states) < 10, states
        states.append(editor.change("C-_"))
    assert states[-2:] == [accepted, typed]


@pytest.mark.behaviour("switched off")
def test_no_ghost_text_while_it_is_off_for_the_language_or_altogether(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    for off, on, state in (
        ("fimble-toggle-language", "fimble-toggle-language", "fimble:off"),
        ("global-fimble-mode", "global-fimble-mode", ""),
    ):
        editor.type("js")
        editor.see("on.dump(data, f)")
        editor.run(off)
        editor.see("")
        if state:
            editor.until(lambda screen, state=state: state in screen.text(), state)
        editor.type("o")
        editor.wait('(looking-back "jso" 0)')
        editor.wait("(and (not fimble--asked) (sit-for 0.3))")  # an answer would be here by now
        assert editor.screen().ghost() == ""
        editor.run(on)
        editor.type("n")
        editor.see(".dump(data, f)")
        editor.keys("BSpace", "BSpace", "BSpace", "BSpace")


@pytest.mark.behaviour("alternatives")
def test_keys_turn_to_other_suggestions_and_back(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    shown = ["n.dump(data, f)"]
    while len(shown) < 3 or shown[-1] != shown[0]:
        editor.keys("M-n")
        shown.append(editor.ghost(lambda ghost: ghost not in ("", shown[-1])).ghost())
        assert len(shown) < 10, shown
    editor.keys("M-p")
    editor.see(shown[-2])
    assert f"        jso{shown[-2]}\n" in editor.accept()


def test_a_file_that_is_reverted_or_saved_under_another_name_stays_in_step(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    editor.lisp('(progn (revert-buffer t t) (goto-char (point-min)) (search-forward "data):\\n") t)')
    editor.keys("C-e", "Enter")
    editor.type("js")
    editor.see("on.dump(data, f)")
    editor.lisp(f'(progn (write-file "{editor.folder}/other.py") t)')
    editor.type("o")
    editor.see("n.dump(data, f)")


def test_tab_does_what_it_did_before_when_nothing_is_shown(editor: Editor) -> None:
    editor.edit("notes.py", "if True:\n" + MARK + "\n")
    editor.keys("Tab")
    editor.wait("(= (current-column) 4)")
