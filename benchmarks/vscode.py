"""From a key to ghost text on the screen of a real VS Code: `python -m benchmarks.vscode --json OUT`.

The browser notes when a key came and when the first frame with its ghost text was painted; the server's trace says how
much of that it took itself, and the worker how much it computed. The rest is the editor's: its delay, the extension,
drawing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import header, spread
from editors import vscode_tools
from editors.code_server import CodeServer
from tests.conftest import stop_workers
from tests.editors.documents import SAVE
from tests.editors.vscode_editor import Editor

WATCH = """
window.keys = [];
addEventListener("keydown", (event) => window.keys.push(performance.now()), true);
"""
SINCE = """
(() => {
  const key = window.keys.at(-1);
  const frame = window.recorded.find((frame) => frame.time >= key && frame.ghost && frame.lines[15].startsWith(%s));
  return frame ? frame.time - key : null;
})()
"""


def measure(code: Editor, text: str, rounds: int) -> list[dict[str, float]]:
    """Types the text in new files; milliseconds of each key that brought ghost text."""
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        code.edit("save.py", SAVE)
        typed = "        "
        for key in text:
            code.record()
            code.type(key)
            code.answered()
            typed += key
            took = code.window.evaluate(SINCE % json.dumps(typed))
            told: dict[str, Any] = code.window.run("return globalThis.costs.at(-1)")
            if took is not None and told["outcome"] == "shown":
                worker = told["end"]["timing"]["total"] if told["source"] == "model" and told["end"] else 0.0
                server = max(0.0, told["total_ms"] - worker)
                editor = max(0.0, took - told["total_ms"])
                found.append({"screen": took, "editor": editor, "server": server, "worker": worker})
        code.reset()
    return found


def main() -> None:
    """The command; prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "workspace").mkdir()
        settings = {"fimble.command": str(Path(sys.executable).with_name("fimble")), "fimble.trace": True}
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        packages = vscode_tools.build_extension(folder), vscode_tools.build_driver(folder)
        with (
            CodeServer(folder, env, *packages, settings=settings) as server,
            server.window(folder / "workspace") as window,
        ):
            code = Editor(window)
            code.warm_up()
            window.evaluate(WATCH)
            measure(code, "json", 1)
            found = measure(code, "json.dump", options.rounds)
        stop_workers(env)
    report: dict[str, dict[str, float]] = {}
    print(f"{len(found)} keys with ghost text\n\n| ms | p50 | p95 |\n|-|-|-|")
    for part in ("screen", "editor", "server", "worker"):
        report[part] = spread([one[part] for one in found])
        print(f"| {part} | {report[part]['p50']} | {report[part]['p95']} |")
    if options.json:
        options.json.write_text(
            json.dumps({**header("benchmarks.vscode"), "keys": len(found), "ms": report}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
