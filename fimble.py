"""The command `fimble`. Its own module, because the packages behind it have common names.

A workspace may hold its own `inference/` or `lsp_server/`: nothing of `PYTHONPATH` or the current folder may come
before the installed ones, so both leave the module path before anything is imported.
"""

import os
import site
import sys


def main() -> None:
    """Runs the command line; without arguments the language server on stdio."""
    foreign = {os.path.abspath(p) for p in os.environ.pop("PYTHONPATH", "").split(os.pathsep)} | {os.getcwd()}
    own = {os.path.dirname(p) for p in map(os.path.abspath, (__file__, os.__file__))}
    own.update(site.getsitepackages(), [site.getusersitepackages()])  # somebody may stand in one of them
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) not in foreign - own]
    if len(sys.argv) == 1 or sys.argv[1] == "--stdio":
        # Without typer and rich: this start-up is what the editor waits for.
        from lsp_server.serving import serve_stdio

        serve_stdio()
    else:
        from lsp_server.cli import app

        app()


if __name__ == "__main__":
    main()
