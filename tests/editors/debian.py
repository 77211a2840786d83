"""Debian's packages for the editors' tests: installed where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

APT = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
MINUTES_10 = 600


def need(missing: list[str], packages: list[str]) -> None:
    """Installs packages if something is missing; where it can't, the test is skipped, in CI it fails."""
    if not missing:
        return
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--no-install-recommends", *packages]):
            subprocess.run([*APT, *command], env=quiet, check=True, stdout=subprocess.DEVNULL, timeout=MINUTES_10)
        return
    reason = f"needs {', '.join(missing)}: apt-get install {' '.join(packages)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
