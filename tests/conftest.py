"""Hypothesis profiles, and one user's processes for the whole run.

`HYPOTHESIS_PROFILE=nightly python -m pytest` runs each property 20 times longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

settings.register_profile("ci", max_examples=1000, deadline=None)
settings.register_profile("nightly", max_examples=20000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # the GPU's kernels run interpreted, if that is said before Triton is imported

FIMBLE = str(Path(sys.executable).with_name("fimble"))


def user(folder: Path) -> dict[str, str]:
    """The environment of a user whose state and configuration lie in `folder`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return {**kept, "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}


def stop_workers(env: dict[str, str]) -> None:
    """Ends the starter's worker of that user, on either transport."""
    for transport in ("unix", "tcp"):
        subprocess.run([FIMBLE, "worker", "stop", "--transport", transport], env=env, check=True, capture_output=True)


def worker_of(env: dict[str, str]) -> psutil.Process:
    """That user's worker, the only one."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "inference.worker" in command and process.environ().get("XDG_STATE_HOME") == env["XDG_STATE_HOME"]:
            found.append(process)
    [worker] = found
    return worker


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One user for the whole run: whoever needs a worker shares this one's."""
    env = user(tmp_path_factory.mktemp("user"))
    yield env
    stop_workers(env)


@pytest.fixture
def fresh_state(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A user of this test's own, with no worker yet."""
    env = user(tmp_path)
    yield env
    stop_workers(env)
