"""The one place of the version number that both processes compare when they meet."""

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("fimble")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"


VERSION = _installed()
