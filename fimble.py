"""The command `fimble`. Its own module, because the packages behind it have common names.

A workspace may hold its own `inference/` or `lsp_server/`: nothing of `PYTHONPATH` or the current folder may come
before the installed ones, so both leave the module path before anything is imported.
"""

import os
import sys


def main() -> None:
    """Runs the command line; without arguments the language server on stdio."""
    here = os.path.dirname(os.path.abspath(__file__))
    foreign = {os.path.abspath(p) for p in os.environ.pop("PYTHONPATH", "").split(os.pathsep)} | {os.getcwd()}
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) not in foreign - {here}]
    if len(sys.argv) == 1 or sys.argv[1] == "--stdio":
        from lsp_server.server import (
            serve_stdio,
        )  # without typer and rich: this start-up is what the editor waits for

        serve_stdio()
    else:
        from lsp_server.cli import app

        app()


if __name__ == "__main__":
    main()
